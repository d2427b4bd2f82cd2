"""The agent's model as a `TFPolicy` over its live variables: what acts, serves and is exported."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from pgest import distributions, specs
from pgest.contract import model_fn
from pgest.environments import actions
from pgest.policies import contracts, time_steps
from pgest.policies.ready_made import GreedyPolicy
from pgest.policies.tf_policies import TFPolicy
from pgest.policies.time_steps import PolicyStep, TimeStep
from pgest.specs import nests, seeds
from pgest.tracing import acting
from pgest.tracing import model as model_lib

Modes = model_fn.Modes
tfd, tfb = tfp.distributions, tfp.bijectors


class ModelPolicy(TFPolicy):
    """A model_fn as a policy; the variables are the model's own, so it learns as they do.

    Observations are the environment's. Where the environment offers an action mask, an
    observation is a dict of `observation` and `action_mask` instead.

    Args:
      model: the model.
      actor: a program of it that was traced, for the spaces and the policy state.
      observation_space: of one environment.
      action_space: of one environment.
      mode: `PREDICT`, or `COLLECT` for a model without a distribution.
      emit_log_probability: as in `TFPolicy`.
    """

    def __init__(
        self,
        model: model_lib.Model,
        actor: acting.Actor,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        mode: Modes = Modes.PREDICT,
        emit_log_probability: bool = False,
    ):
        observation_spec = specs.observation_spec(observation_space)
        splitter = None
        self._masked = actor.mask_spec is not None
        if self._masked:
            observation_spec = {
                "observation": observation_spec,
                "action_mask": tf.nest.map_structure(_unbatched, actor.mask_spec),
            }
            splitter = _split_mask
        super().__init__(
            time_steps.time_step_spec(observation_spec),
            specs.action_spec(action_space),
            tf.nest.map_structure(_unbatched, actor.state_spec),
            emit_log_probability=emit_log_probability,
            observation_and_action_constraint_splitter=splitter,
            name="collect_policy" if emit_log_probability else "policy",
        )
        self._model = model
        self._mode = mode
        self._action_space = action_space
        names = model.used[mode]
        self._model_variables = [model.store.variables[name] for name in names]
        self._compiled = tf.function(self._trace_action, autograph=False)

    def _action(
        self, time_step: TimeStep, policy_state: nests.Nest, seed: tf.Tensor | None
    ) -> PolicyStep:
        if not tf.executing_eagerly():
            return self._trace_action(time_step, policy_state, seeds.as_seed(seed))
        time_step = tf.nest.map_structure(tf.convert_to_tensor, time_step)
        return self._compiled(time_step, policy_state, seeds.as_seed(seed))

    def _trace_action(
        self, time_step: TimeStep, policy_state: nests.Nest, seed: tf.Tensor
    ) -> PolicyStep:
        spec = self._call(time_step, policy_state)
        info: Any = ()
        if spec.distribution is None:
            action = spec.predictions["results"]
        else:
            action = spec.distribution.sample(seed=seed)
        if self.emit_log_probability:
            info = contracts.with_log_probability((), self._log_probability(spec, action))
        return PolicyStep(self._environment_action(action), _state(spec), info)

    def _log_probability(self, spec: model_fn.EstimatorSpec, action: Any) -> Any:
        """Of each leaf of an action its own, in a nest like the action; their sum is the joint."""
        distribution = spec.distribution
        if hasattr(distribution, "log_prob_parts"):  # pgest's joint has it as TFP's have
            parts = tf.nest.flatten(distribution.log_prob_parts(action))
            return tf.nest.pack_sequence_as(self.action_spec, parts)
        # A single leaf; or what has one measure for a whole nest and knows no leaf's own.
        log_prob = distribution.log_prob(action)
        return tf.nest.map_structure(lambda _: log_prob, self.action_spec)

    def _distribution(self, time_step: TimeStep, policy_state: nests.Nest) -> PolicyStep:
        spec = self._call(time_step, policy_state)
        distribution = spec.distribution
        if distribution is None:
            raise NotImplementedError("The model_fn gives no distribution for Modes.PREDICT.")
        if isinstance(distribution, distributions.JointDistribution):
            distribution = distribution.distributions
        distribution = _offset(self._action_space, distribution)
        return PolicyStep(distribution, _state(spec), ())

    def mode(self, time_step: TimeStep, policy_state: nests.Nest) -> PolicyStep:
        """The mode of the model's own distribution, in the environment's terms.

        Raises:
          ValueError: it has none.
        """
        time_step, policy_state = self._accept(time_step, policy_state)
        spec = self._call(time_step, policy_state)
        try:
            mode = spec.distribution.mode()
        except NotImplementedError as error:
            raise ValueError(
                f"The model's distribution, a {type(spec.distribution).__name__}, does not "
                "implement mode, which a greedy policy takes; return one that does."
            ) from error
        return PolicyStep(self._environment_action(mode), _state(spec), ())

    def _environment_action(self, action: Any) -> Any:
        action = actions.environment_action(self._action_space, action)
        return tf.nest.map_structure(
            lambda leaf_spec, leaf: tf.cast(leaf, leaf_spec.dtype), self.action_spec, action
        )

    def export_outputs(self, time_step: TimeStep, policy_state: nests.Nest) -> dict[str, Any]:
        """The `export_outputs` of model_fn's spec, by name."""
        return dict(self._call(time_step, policy_state).export_outputs)

    def _call(self, time_step: TimeStep, policy_state: nests.Nest) -> model_fn.EstimatorSpec:
        features = {"state": time_step.observation}
        if self._masked:
            features["state"], features["action_mask"] = _split_mask(time_step.observation)
        if self.policy_state_spec != ():
            features["policy_state"] = policy_state
        known = set(self._model.store.variables)
        spec, _ = self._model.call(features, None, self._mode)
        new = sorted(set(self._model.store.variables) - known)
        if new:
            for name in new:
                del self._model.store.variables[name]
            raise RuntimeError(
                f"The policy's model_fn asked for variables that training does not have: "
                f"{', '.join(new)}. Acting with them would be acting at random."
            )
        return spec


class GreedyModelPolicy(GreedyPolicy):
    """The mode of a `ModelPolicy`, compiled where it is called eagerly.

    Args:
      policy: the policy.
    """

    def __init__(self, policy: ModelPolicy):
        super().__init__(policy)
        self._compiled = tf.function(super()._action, autograph=False)

    def _distribution(self, time_step: TimeStep, policy_state: nests.Nest) -> PolicyStep:
        # Of the model's own distribution: the public one may have no mode (a MultiDiscrete that
        # does not start at 0), or be of float32 where the space is not.
        step = self._wrapped_policy.mode(time_step, policy_state)
        return step._replace(action=tf.nest.map_structure(_point, self.action_spec, step.action))

    def _action(
        self, time_step: TimeStep, policy_state: nests.Nest, seed: tf.Tensor | None
    ) -> PolicyStep:
        del seed  # a mode draws nothing
        if not tf.executing_eagerly():
            return super()._action(time_step, policy_state, None)
        time_step = tf.nest.map_structure(tf.convert_to_tensor, time_step)
        return self._compiled(time_step, policy_state, None)


def _split_mask(observation: Any) -> tuple[Any, Any]:
    return observation["observation"], observation["action_mask"]


def _state(spec: model_fn.EstimatorSpec) -> Any:
    return () if spec.policy_state is None else spec.policy_state


def _unbatched(spec: tf.TensorSpec) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape[1:], spec.dtype, name=spec.name)


def _offset(space: gymnasium.Space, distribution: Any) -> Any:
    """Distributions over the space's own actions, for discrete ones that do not start at 0."""
    if isinstance(space, gymnasium.spaces.Dict):
        return {key: _offset(part, distribution[key]) for key, part in space.spaces.items()}
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(_offset(*pair) for pair in zip(space.spaces, distribution, strict=True))
    if isinstance(space, gymnasium.spaces.Discrete) and space.start != 0:
        outcomes = tf.range(space.start, space.start + space.n, dtype=tf.int64)
        return tfd.FiniteDiscrete(outcomes, logits=distribution.logits_parameter())
    if isinstance(space, gymnasium.spaces.MultiDiscrete) and np.any(space.start):
        start = tf.constant(space.start, distribution.dtype)
        return tfd.TransformedDistribution(distribution, tfb.Shift(start))
    return distribution


def _point(spec: tf.TensorSpec, action: tf.Tensor) -> Any:
    point = tfd.Deterministic(loc=action)
    return tfd.Independent(point, spec.shape.rank) if spec.shape.rank else point
