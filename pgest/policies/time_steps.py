"""What an environment and a policy say to each other: `TimeStep`, `PolicyStep`, `Trajectory`.

A gymnasium environment maps to them so: `reset` gives `restart`; a step gives `transition`;
`terminated` gives `termination` (discount 0: nothing follows); `truncated` gives `truncation` (the
discount stays: the episode was cut). All makers follow the first leaf of the observation: tensors
make tensors, anything else makes numpy arrays.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pgest import specs
from pgest.specs import checks, nests


class StepType:
    """Where in its episode a time step stands: `FIRST` (0), `MID` (1) or `LAST` (2).

    The three are int32 arrays of rank 0.

    >>> int(StepType(2)) == int(StepType.LAST)
    True
    """

    FIRST: np.ndarray = np.asarray(0, dtype=np.int32)
    MID: np.ndarray = np.asarray(1, dtype=np.int32)
    LAST: np.ndarray = np.asarray(2, dtype=np.int32)

    def __new__(cls, value: int) -> Any:
        """The step type of that number; ValueError for another one."""
        for step_type in (cls.FIRST, cls.MID, cls.LAST):
            if value == step_type:
                return step_type
        raise ValueError(f"step type: got {value!r}, expected 0 (FIRST), 1 (MID) or 2 (LAST).")


def _equal(value: Any, step_type: np.ndarray) -> Any:
    return tf.equal(value, step_type) if nests.is_tensor(value) else np.equal(value, step_type)


class TimeStep(NamedTuple):
    """What an environment says: int32 step_type, float32 reward and discount, observations."""

    step_type: Any
    reward: Any
    discount: Any
    observation: Any

    def is_first(self) -> Any:
        """Bool of the shape of `step_type`: the episode begins here."""
        return _equal(self.step_type, StepType.FIRST)

    def is_mid(self) -> Any:
        """Bool of the shape of `step_type`: neither the first nor the last of the episode."""
        return _equal(self.step_type, StepType.MID)

    def is_last(self) -> Any:
        """Bool of the shape of `step_type`: the episode ends here."""
        return _equal(self.step_type, StepType.LAST)

    def __hash__(self) -> int:
        return hash(tuple(tf.nest.flatten(self)))


class PolicyStep(NamedTuple):
    """What a policy says: actions (or their distributions), its next state, side information."""

    action: Any
    state: Any = ()
    info: Any = ()

    def replace(self, **fields: Any) -> "PolicyStep":
        """The same step with other values in the fields that are named."""
        return self._replace(**fields)


class PolicyInfo(NamedTuple):
    """The info of a policy that emits log-probabilities only: a nest like the action, float32."""

    log_probability: Any = ()


class Trajectory(NamedTuple):
    """One transition as it is recorded: an action between two time steps. Mind the order."""

    step_type: Any
    observation: Any
    action: Any
    policy_info: Any
    next_step_type: Any
    reward: Any
    discount: Any

    def is_first(self) -> Any:
        """Bool: the action was the first of its episode."""
        return _equal(self.step_type, StepType.FIRST)

    def is_mid(self) -> Any:
        """Bool: the action had another before it and another after it."""
        first, second = (
            _equal(part, StepType.MID) for part in (self.step_type, self.next_step_type)
        )
        return first & second

    def is_last(self) -> Any:
        """Bool: the action ended its episode."""
        return _equal(self.next_step_type, StepType.LAST)

    def is_boundary(self) -> Any:
        """Bool: no action at all, but the step from a last observation to the reset."""
        return _equal(self.step_type, StepType.LAST)

    def replace(self, **fields: Any) -> "Trajectory":
        """The same trajectory with other values in the fields that are named."""
        return self._replace(**fields)


def restart(
    observation: nests.Nest, batch_size: Any = None, reward_spec: nests.Nest = None
) -> TimeStep:
    """The first time step of an episode: reward 0, discount 1.

    Args:
      observation: nest of arrays or tensors.
      batch_size: None for one environment; B where the observation has a leading batch axis.
      reward_spec: nest of specs where the reward is no float32 scalar.

    >>> restart(np.zeros((2, 4), np.float32), batch_size=2).discount
    array([1., 1.], dtype=float32)
    """
    outer_dims = () if batch_size is None else (batch_size,)
    tensors = _has_tensors(observation)
    if reward_spec is None:
        reward = _full(outer_dims, 0.0, np.float32, tensors)
    else:
        convert = specs.from_spec if tensors else specs.to_array_spec
        reward = specs.zero_spec_nest(convert(reward_spec), outer_dims)
    step_type = _full(outer_dims, StepType.FIRST, np.int32, tensors)
    return TimeStep(step_type, reward, _full(outer_dims, 1.0, np.float32, tensors), observation)


def transition(
    observation: nests.Nest,
    reward: nests.Nest,
    discount: Any = 1.0,
    outer_dims: Sequence[int] | None = None,
) -> TimeStep:
    """A time step in the middle of an episode.

    Args:
      observation: nest of arrays or tensors, after the action.
      reward: float or [B] (a list counts as an array); a dict or tuple for several rewards.
      discount: float or of the shape of the outer axes.
      outer_dims: axes in front; None takes the shape of the (first) reward, right where one reward
          is a scalar.

    Raises:
      ValueError: where a reward or discount is None or NaN (looked at in numpy only).
    """
    return _after_action(StepType.MID, observation, reward, discount, outer_dims)


def termination(
    observation: nests.Nest, reward: nests.Nest, outer_dims: Sequence[int] | None = None
) -> TimeStep:
    """The last time step of an episode that ended by itself: discount 0. See `transition`."""
    return _after_action(StepType.LAST, observation, reward, 0.0, outer_dims)


def truncation(
    observation: nests.Nest,
    reward: nests.Nest,
    discount: Any = 1.0,
    outer_dims: Sequence[int] | None = None,
) -> TimeStep:
    """The last time step of an episode that was cut: the discount stays. See `transition`."""
    return _after_action(StepType.LAST, observation, reward, discount, outer_dims)


def time_step_from_observation(
    observation: nests.Nest,
    time_step_spec: TimeStep,
    *,
    first: bool = True,
    reward: float | npt.ArrayLike = 0.0,
    discount: float | npt.ArrayLike = 1.0,
    batch: bool = False,
) -> TimeStep:
    """The time step of a bare numpy observation, for whoever plays a policy by hand.

    Args:
      observation: nest of arrays (or what numpy makes arrays of), one or a batch of them.
      time_step_spec: the `time_step_spec` of the policy; leaves are cast to its observation, extra
          dict keys dropped.
      first: whether an episode begins here; recurrent policies forget their state at a first step.
      reward: of the action before, broadcast to the batch.
      discount: of the action before, broadcast to the batch.
      batch: whether to put a batch axis of 1 in front of an observation that has none.

    Returns:
      A `TimeStep` of arrays, batched where the observation was or where `batch` asked for it.

    Raises:
      ValueError, TypeError: naming the leaf of the observation that does not fit.

    >>> spec = time_step_spec(specs.ArraySpec((2,), np.float32))
    >>> time_step_from_observation([0.5, 1.0], spec, batch=True).observation
    array([[0.5, 1. ]], dtype=float32)
    """
    wanted = specs.to_array_spec(time_step_spec)
    observation = nests.prune_extra_keys(wanted.observation, observation)
    observation = checks.cast_to_spec(observation, wanted.observation, what="observation")
    outer_dims = checks.outer_shape(observation, wanted.observation)
    if batch and not outer_dims:
        observation, outer_dims = nests.batch_nest(observation), (1,)
    return TimeStep(
        np.full(outer_dims, StepType.FIRST if first else StepType.MID, np.int32),
        tf.nest.map_structure(
            lambda spec: np.broadcast_to(
                np.asarray(reward, spec.dtype), (*outer_dims, *spec.shape)
            ),
            wanted.reward,
        ),
        np.broadcast_to(np.asarray(discount, np.float32), outer_dims),
        observation,
    )


def time_step_spec(observation_spec: nests.Nest = None, reward_spec: nests.Nest = None) -> TimeStep:
    """The spec of a `TimeStep`, of the kind (tensor or array) of the observation's; no batch axis.

    Args:
      observation_spec: nest of specs; None gives a `TimeStep` of four empty tuples.
      reward_spec: nest of specs; None is a float32 scalar.

    Raises:
      TypeError: where tensor and array specs are mixed.

    >>> time_step_spec(tf.TensorSpec((4,), tf.float32)).step_type
    TensorSpec(shape=(), dtype=tf.int32, name='step_type')
    """
    if observation_spec is None:
        return TimeStep((), (), (), ())
    leaves = tf.nest.flatten((observation_spec, () if reward_spec is None else reward_spec))
    kinds = {isinstance(leaf, specs.ArraySpec) for leaf in leaves}
    if len(kinds) > 1:
        raise TypeError(
            "time_step_spec: got tensor specs and array specs together, expected one kind; "
            "convert with specs.from_spec or specs.to_array_spec."
        )
    if reward_spec is None:
        reward_spec = specs.ArraySpec((), np.float32, "reward")
    arrays = TimeStep(
        specs.ArraySpec((), np.int32, "step_type"),
        specs.to_array_spec(reward_spec),
        specs.BoundedArraySpec((), np.float32, 0.0, 1.0, "discount"),
        (),
    )
    other = arrays if True in kinds else specs.from_spec(arrays)
    return other._replace(observation=observation_spec)


def trajectory_spec(
    time_step: TimeStep, action_spec: nests.Nest, info_spec: nests.Nest = ()
) -> Trajectory:
    """The spec of the `Trajectory` that a policy with these specs records."""
    return Trajectory(
        step_type=time_step.step_type,
        observation=time_step.observation,
        action=action_spec,
        policy_info=info_spec,
        next_step_type=time_step.step_type,
        reward=time_step.reward,
        discount=time_step.discount,
    )


def _has_tensors(observation: nests.Nest) -> bool:
    leaves = tf.nest.flatten(observation)
    return bool(leaves) and bool(nests.is_tensor(leaves[0]))


def _full(outer_dims: Any, value: Any, dtype: Any, tensors: bool) -> Any:
    if tensors:
        return tf.fill(outer_dims, tf.constant(value, dtype))
    return np.full(outer_dims, value, dtype)


def _after_action(
    step_type: np.ndarray,
    observation: nests.Nest,
    reward: nests.Nest,
    discount: Any,
    outer_dims: Any,
) -> TimeStep:
    tensors = _has_tensors(observation)
    if isinstance(reward, list):
        reward = np.asarray(reward, np.float32)
    reward = nests.map_with_paths(
        lambda path, leaf: _as_float(nests.join_path("reward", path), leaf, tensors), reward
    )
    discount = _as_float("discount", discount, tensors)
    if outer_dims is None:
        first_reward = tf.nest.flatten(reward)[0]
        outer_dims = tf.shape(first_reward) if tensors else first_reward.shape
    if tensors:
        discount = tf.broadcast_to(discount, outer_dims)
    else:
        discount = np.array(np.broadcast_to(discount, tuple(outer_dims)))
    return TimeStep(_full(outer_dims, step_type, np.int32, tensors), reward, discount, observation)


def _as_float(word: str, value: Any, tensors: bool) -> Any:
    if tensors:
        return tf.cast(value, tf.float32)
    if value is None or np.any(np.isnan(np.asarray(value, np.float32))):
        raise ValueError(
            f"{word}: got {value!r}, expected numbers; an environment must not emit None or NaN."
        )
    return np.asarray(value, np.float32)
