"""`TFPolicy`: time step in, action out, in TensorFlow.

A `TFPolicy` is a function of a `TimeStep` (and of a policy state, where it remembers) with specs
for everything that goes in and comes out. Subclasses write `_distribution` (or `_action`); the
public methods around them check, reset, sample and clip.
"""

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from pgest import specs
from pgest.policies import contracts, policy_variables, time_steps
from pgest.policies.contracts import Splitter
from pgest.policies.time_steps import PolicyStep, TimeStep, Trajectory
from pgest.specs import nests, seeds

tfd = tfp.distributions


class TFPolicy(tf.Module, metaclass=policy_variables.NamesVariables):
    """A policy in TensorFlow; the base of all of them.

    A subclass calls `super().__init__` and implements one of
      * `_distribution(time_step, policy_state)`, a `PolicyStep` whose action is a nest of
        tensorflow_probability distributions; actions are then sampled from it, or
      * `_action(time_step, policy_state, seed)`, a `PolicyStep` of tensors; called by keyword,
        with `seed` None or int32 [2]: sample with `seeds.as_seed(seed)` and stateless ops;
    and, where zeros do not do, `_get_initial_state(batch_size)`. Public methods are not for
    overriding. Observations, actions, states and infos carry a batch axis [B, ...], which specs
    leave out. Keep variables in attributes: `tf.Module` finds them there.

    Args:
      time_step_spec: `TimeStep` of specs; see `time_steps.time_step_spec`.
      action_spec: nest of specs; bounds of a `BoundedTensorSpec` are kept by clipping.
      policy_state_spec: nest of specs of the state of a recurrent policy; () for none.
      info_spec: nest of specs of what else comes with an action.
      clip: whether actions are clipped to their bounds.
      emit_log_probability: whether `info` holds the `log_probability` of the action (before it is
        clipped): as a `PolicyInfo` where `info_spec` is (), else as one more key of that dict or
        in the field of that name of a namedtuple.
      automatic_state_reset: whether rows whose time step is `FIRST` start from the initial state.
      observation_and_action_constraint_splitter: from an observation to (observation, mask): how
        an action mask travels inside of an observation.
      validate_args: whether structure, dtype and shape of inputs and outputs are checked against
        the specs. Then arrays are taken too, cast where no number is lost.
      name: in front of the names of all variables; the class's name in snake case if None.

    Raises:
      ValueError: `time_step_spec` is no `TimeStep`, or a subclass overrides a public member.

    >>> class Coin(TFPolicy):
    ...     def _distribution(self, time_step, policy_state):
    ...         logits = tf.zeros([tf.shape(time_step.step_type)[0], 2])
    ...         return PolicyStep(tfd.Categorical(logits=logits), policy_state)
    >>> spec = time_steps.time_step_spec(tf.TensorSpec((4,), tf.float32))
    >>> coin = Coin(spec, specs.BoundedTensorSpec((), tf.int64, 0, 1))
    >>> coin.action(time_steps.restart(tf.zeros((3, 4)), batch_size=3), seed=1).action.shape
    TensorShape([3])
    """

    _contract: contracts.Contract | None = None
    # A sentence, where the policy cannot be written to a file.
    _export_obstacle: str | None = None

    def __init__(  # noqa: PLR0913 - the signature is TF-Agents'
        self,
        time_step_spec: TimeStep,
        action_spec: nests.Nest,
        policy_state_spec: nests.Nest = (),
        info_spec: nests.Nest = (),
        clip: bool = True,
        emit_log_probability: bool = False,
        automatic_state_reset: bool = True,
        observation_and_action_constraint_splitter: Splitter | None = None,
        validate_args: bool = True,
        name: str | None = None,
    ) -> None:
        contracts.refuse_overrides(type(self), TFPolicy)
        super().__init__(name=name)
        if not isinstance(time_step_spec, TimeStep):
            raise ValueError(
                f"time_step_spec: got {time_step_spec!r} of type {type(time_step_spec).__name__}, "
                "expected a TimeStep of specs; make one with time_steps.time_step_spec(...)."
            )
        self._variable_prefix = self.name
        action_spec = specs.from_spec(action_spec)
        info_spec = specs.from_spec(info_spec)
        if emit_log_probability:
            log_prob_spec = tf.TensorSpec((), tf.float32, name="log_probability")
            info_spec = contracts.with_log_probability(
                info_spec, tf.nest.map_structure(lambda _: log_prob_spec, action_spec)
            )
        self._contract = contracts.Contract(
            name=self.name,
            time_step_spec=specs.from_spec(time_step_spec),
            action_spec=action_spec,
            policy_state_spec=specs.from_spec(policy_state_spec),
            info_spec=info_spec,
            clip=clip,
            emit_log_probability=emit_log_probability,
            automatic_state_reset=automatic_state_reset,
            validate_args=validate_args,
            splitter=observation_and_action_constraint_splitter,
        )

    def action(
        self, time_step: TimeStep, policy_state: nests.Nest = (), seed: Any = None
    ) -> PolicyStep:
        """The next action.

        Args:
          time_step: `TimeStep` of tensors or arrays [B, ...]; extra dict keys of the observation
            are dropped.
          policy_state: nest of tensors [B, ...] from `get_initial_state` or the last `PolicyStep`.
          seed: None, an int, or int32 [2]. The same seed draws the same action; None draws another
            at every call, also inside of a `tf.function`.

        Returns:
          `PolicyStep` of the action, the state for the next call, and info.

        Raises:
          RuntimeError: the subclass did not call `super().__init__`.
          ValueError: with `validate_args`, where a structure or shape does not match.
          TypeError: with `validate_args`, where a dtype does not match.
        """
        contract = self._promised
        time_step, policy_state = self._accept(time_step, policy_state)
        seed = None if seed is None else seeds.as_seed(seed)
        with policy_variables.named_after(self):
            step = self._action(time_step=time_step, policy_state=policy_state, seed=seed)
        contract.check_action(step, time_step)
        if contract.clip:
            action = tf.nest.map_structure(_clip, contract.action_spec, step.action)
            step = step._replace(action=action)
        return PolicyStep(*step)

    def distribution(self, time_step: TimeStep, policy_state: nests.Nest = ()) -> PolicyStep:
        """The distribution of the next action.

        Args:
          time_step: as for `action`.
          policy_state: as for `action`.

        Returns:
          `PolicyStep` whose action is a nest of distributions. Its info has no `log_probability`:
          that belongs to an action.

        Raises:
          NotImplementedError: the policy has none.
          RuntimeError, ValueError, TypeError: as `action`.
        """
        contract = self._promised
        time_step, policy_state = self._accept(time_step, policy_state)
        with policy_variables.named_after(self):
            step = self._distribution(time_step=time_step, policy_state=policy_state)
        contract.check_distribution(step, time_step)
        return PolicyStep(*step)

    def get_initial_state(self, batch_size: Any) -> nests.Nest:
        """The state to start from.

        Args:
          batch_size: int or scalar int tensor; None for a state without a batch axis.

        Returns:
          Nest like `policy_state_spec`, [batch_size, ...]; () for a policy without state.
        """
        batch_size = contracts.as_batch_size(batch_size)
        if not self._promised.is_stateful:
            return self.policy_state_spec
        with policy_variables.named_after(self):
            return self._get_initial_state(batch_size)

    def update(
        self,
        policy: "TFPolicy",
        tau: float = 1.0,
        tau_non_trainable: float | None = None,
        sort_variables_by_name: bool = False,
    ) -> Any:
        """Moves the variables towards those of another policy, pair by pair.

        Args:
          policy: the policy to copy from, with variables of the same shapes.
          tau: 1 copies; less mixes: (1 - tau) * own + tau * other. For trainable variables.
          tau_non_trainable: the same for the others; None means `tau`. Integers are copied whole.
          sort_variables_by_name: pair by sorted names instead of by order.

        Returns:
          The op that does it, inside a graph; in eager mode it is done, and None.

        Raises:
          TypeError: `policy` is no `TFPolicy`.
          ValueError: `tau` is outside of [0, 1], or the variables do not pair.
        """
        if not isinstance(policy, TFPolicy):
            raise TypeError(f"policy: got a {type(policy).__name__}, expected a TFPolicy.")
        return policy_variables.soft_update(
            policy.variables(),
            self.variables(),
            tau=tau,
            tau_non_trainable=tau if tau_non_trainable is None else tau_non_trainable,
            sort_variables_by_name=sort_variables_by_name,
        )

    def variables(self) -> tuple[tf.Variable, ...]:
        """The variables that the attributes of the policy hold; a method, as in TF-Agents."""
        return tuple(super().variables)

    @property
    def time_step_spec(self) -> TimeStep:
        """Specs of the time steps that the policy takes."""
        return self._promised.time_step_spec

    @property
    def action_spec(self) -> nests.Nest:
        """Specs of the actions."""
        return self._promised.action_spec

    @property
    def policy_state_spec(self) -> nests.Nest:
        """Specs of the policy state; () for none."""
        return self._promised.policy_state_spec

    @property
    def info_spec(self) -> nests.Nest:
        """Specs of the info of an action, log-probability included."""
        return self._promised.info_spec

    @property
    def policy_step_spec(self) -> PolicyStep:
        """Specs of what `action` returns."""
        return PolicyStep(self.action_spec, self.policy_state_spec, self.info_spec)

    @property
    def trajectory_spec(self) -> Trajectory:
        """Specs of what is recorded when the policy plays."""
        return time_steps.trajectory_spec(self.time_step_spec, self.action_spec, self.info_spec)

    @property
    def collect_data_spec(self) -> Trajectory:
        """The same as `trajectory_spec`."""
        return self.trajectory_spec

    @property
    def emit_log_probability(self) -> bool:
        """Whether info holds the log-probability of the action."""
        return self._promised.emit_log_probability

    @property
    def clip(self) -> bool:
        """Whether actions are clipped to the bounds of their specs."""
        return self._promised.clip

    @property
    def automatic_state_reset(self) -> bool:
        """Whether rows with a `FIRST` time step start from the initial state."""
        return self._promised.automatic_state_reset

    @property
    def validate_args(self) -> bool:
        """Whether inputs and outputs are checked against the specs."""
        return self._promised.validate_args

    @property
    def observation_and_action_constraint_splitter(self) -> Splitter | None:
        """The function from an observation to (observation, action mask), or None."""
        return self._promised.splitter

    @property
    def export_obstacle(self) -> str | None:
        """Why the policy cannot be saved to a file, in one sentence; None where it can."""
        return self._export_obstacle

    def _action(
        self, time_step: TimeStep, policy_state: nests.Nest, seed: tf.Tensor | None
    ) -> PolicyStep:
        """Samples from `_distribution`; for subclasses to replace."""
        step = self._distribution(time_step=time_step, policy_state=policy_state)
        distributions = tf.nest.flatten(step.action)
        sample_seeds = seeds.split_seed(seeds.as_seed(seed), len(distributions))
        samples = [
            distribution.sample(seed=sample_seed)
            for distribution, sample_seed in zip(distributions, sample_seeds, strict=True)
        ]
        info = step.info
        if self.emit_log_probability:
            log_probs = [
                distribution.log_prob(sample)
                for distribution, sample in zip(distributions, samples, strict=True)
            ]
            info = contracts.with_log_probability(
                info, tf.nest.pack_sequence_as(step.action, log_probs)
            )
        actions = tf.nest.pack_sequence_as(step.action, samples)
        # tfd.Categorical draws int32 unless told otherwise, and gymnasium's Discrete is int64.
        actions = tf.nest.map_structure(_cast_integer, self.action_spec, actions)
        return PolicyStep(actions, step.state, info)

    def _distribution(self, time_step: TimeStep, policy_state: nests.Nest) -> PolicyStep:
        """The distribution of the next action; for subclasses to write."""
        raise NotImplementedError(f"{type(self).__name__} has no distribution.")

    def _get_initial_state(self, batch_size: int | tf.Tensor | None) -> nests.Nest:
        """Zeros; for subclasses to replace."""
        outer_dims = () if batch_size is None else (batch_size,)
        return specs.zero_spec_nest(self.policy_state_spec, outer_dims)

    @property
    def _promised(self) -> contracts.Contract:
        if self._contract is None:
            raise RuntimeError(
                f"{type(self).__name__}.__init__ did not call super().__init__(time_step_spec, "
                "action_spec, ...); call it first."
            )
        return self._contract

    def _accept(self, time_step: TimeStep, policy_state: nests.Nest) -> tuple[TimeStep, nests.Nest]:
        """Checks what came in, and starts from the initial state where an episode begins."""
        contract = self._promised
        time_step, policy_state = contract.check_inputs(time_step, policy_state)
        if not (contract.automatic_state_reset and contract.is_stateful):
            return time_step, policy_state
        is_first = tf.equal(time_step.step_type, time_steps.StepType.FIRST)
        if is_first.shape.rank == 2:
            # TF-Agents' [B, T] input: one state a row, which belongs to its first time step.
            is_first = is_first[:, 0]
        batched = is_first.shape.rank != 0
        initial = self.get_initial_state(tf.shape(is_first)[0] if batched else None)
        return time_step, tf.nest.map_structure(
            lambda first, now: tf.where(_to_rank_of(is_first, now), first, now),
            initial,
            policy_state,
        )


def _to_rank_of(mask: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """The mask with trailing axes of length 1, so that it broadcasts over the value's."""
    return tf.reshape(
        mask, [*tf.unstack(tf.shape(mask)), *[1] * (value.shape.rank - mask.shape.rank)]
    )


def _clip(spec: tf.TypeSpec, action: tf.Tensor) -> tf.Tensor:
    if not specs.is_bounded(spec):
        return action
    return tf.clip_by_value(action, spec.minimum, spec.maximum)


def _cast_integer(spec: tf.TensorSpec, action: tf.Tensor) -> tf.Tensor:
    return (
        tf.cast(action, spec.dtype) if spec.dtype.is_integer and action.dtype.is_integer else action
    )
