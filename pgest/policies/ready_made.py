"""Policies made from a policy or from specs alone: `GreedyPolicy` and `RandomTFPolicy`.

`TFPolicy` is the base of all policies in TensorFlow.
"""

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from pgest import specs
from pgest.policies import contracts
from pgest.policies.tf_policies import TFPolicy
from pgest.policies.time_steps import PolicyStep, TimeStep
from pgest.specs import nests, sampling, seeds

__all__ = ["GreedyPolicy", "RandomTFPolicy", "TFPolicy"]

tfd = tfp.distributions


class GreedyPolicy(TFPolicy):
    """Acts by the mode of another policy's distribution; it has that policy's specs and variables.

    Args:
      policy: the policy to follow; its `distribution` must have a mode.
      name: the name of the policy; "greedy_policy" if None.

    Raises:
      TypeError: `policy` is no `TFPolicy`.
    """

    def __init__(self, policy: TFPolicy, name: str | None = None) -> None:
        if not isinstance(policy, TFPolicy):
            raise TypeError(f"policy: got a {type(policy).__name__}, expected a TFPolicy.")
        super().__init__(
            policy.time_step_spec,
            policy.action_spec,
            policy.policy_state_spec,
            policy.info_spec,
            clip=policy.clip,
            emit_log_probability=policy.emit_log_probability,
            # The wrapped policy resets the state itself.
            automatic_state_reset=False,
            observation_and_action_constraint_splitter=(
                policy.observation_and_action_constraint_splitter
            ),
            validate_args=policy.validate_args,
            name=name,
        )
        self._wrapped_policy = policy
        self._export_obstacle = policy.export_obstacle

    @property
    def wrapped_policy(self) -> TFPolicy:
        """The policy whose mode is taken."""
        return self._wrapped_policy

    def _distribution(self, time_step: TimeStep, policy_state: nests.Nest) -> PolicyStep:
        step = self._wrapped_policy.distribution(time_step, policy_state)
        return step._replace(action=tf.nest.map_structure(_point_at_mode, step.action))

    def _action(
        self, time_step: TimeStep, policy_state: nests.Nest, seed: tf.Tensor | None
    ) -> PolicyStep:
        # A point needs no seed; drawing one would leave a random op in every graph.
        return super()._action(time_step, policy_state, tf.zeros([2], tf.int32))

    def _get_initial_state(self, batch_size: Any) -> nests.Nest:
        return self._wrapped_policy.get_initial_state(batch_size)


def _point_at_mode(distribution: Any) -> Any:
    try:
        mode = distribution.mode()
    except NotImplementedError as error:
        raise ValueError(
            "Your network's distribution does not implement mode making it incompatible with a "
            f"greedy policy. It is a {type(distribution).__name__}; return one that has a mode."
        ) from error
    point = tfd.Deterministic(loc=mode)
    event_rank = distribution.event_shape.rank
    return tfd.Independent(point, event_rank) if event_rank else point


class RandomTFPolicy(TFPolicy):
    """Acts at random: uniform within finite bounds (see `specs.sampling`), whatever it sees.

    With an `observation_and_action_constraint_splitter` only actions that the mask allows are
    drawn; masks are bool [B, n], in a nest like the action's, and need scalar integer actions.

    Args:
      time_step_spec: `TimeStep` of specs.
      action_spec: nest of specs; integers need bounds.
      policy_state_spec: nest of specs; the state is handed on untouched.
      info_spec: nest of specs; the info is zeros.
      **options: `emit_log_probability` (needs finite bounds),
        `observation_and_action_constraint_splitter` and the other switches of `TFPolicy`.

    Raises:
      ValueError: for an integer action without bounds, or an infinite bound together with
        `emit_log_probability`.

    >>> from pgest.policies import time_steps
    >>> spec = time_steps.time_step_spec(tf.TensorSpec((4,), tf.float32))
    >>> policy = RandomTFPolicy(spec, specs.BoundedTensorSpec((), tf.int64, 2, 2))
    >>> policy.action(time_steps.restart(tf.zeros((3, 4)), batch_size=3)).action.numpy()
    array([2, 2, 2])
    """

    def __init__(
        self,
        time_step_spec: TimeStep,
        action_spec: nests.Nest,
        policy_state_spec: nests.Nest = (),
        info_spec: nests.Nest = (),
        **options: Any,
    ) -> None:
        super().__init__(time_step_spec, action_spec, policy_state_spec, info_spec, **options)
        for path, spec in nests.flatten_with_paths(self.action_spec):
            sampling.check_sampled(path, spec)
            if self.emit_log_probability:
                sampling.log_prob(spec)

    def _action(
        self, time_step: TimeStep, policy_state: nests.Nest, seed: tf.Tensor | None
    ) -> PolicyStep:
        mask = None
        splitter = self.observation_and_action_constraint_splitter
        if splitter is not None:
            _, mask = splitter(time_step.observation)
        outer_dims = tf.unstack(tf.shape(time_step.step_type))
        action = sampling.sample_tensors(self.action_spec, seeds.as_seed(seed), outer_dims, mask)
        info = specs.zero_spec_nest(self.info_spec, outer_dims)
        if self.emit_log_probability:
            masks = sampling.masks_of_leaves(self.action_spec, mask)
            log_probs = [
                tf.broadcast_to(sampling.log_prob(spec, leaf_mask), outer_dims)
                for spec, leaf_mask in zip(tf.nest.flatten(self.action_spec), masks, strict=True)
            ]
            info = contracts.with_log_probability(
                info, tf.nest.pack_sequence_as(self.action_spec, log_probs)
            )
        return PolicyStep(action, policy_state, info)
