"""What a policy promises (its specs and switches), and the checks that hold it to that."""

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from pgest.policies.time_steps import PolicyInfo, PolicyStep, TimeStep
from pgest.specs import checks, nests

Splitter = Callable[[nests.Nest], tuple[nests.Nest, nests.Nest]]
"""From an environment's observation to (observation for the network, action mask)."""


@dataclasses.dataclass(frozen=True)
class Contract:
    """The specs and switches of a policy; see `tf_policies.TFPolicy` for each.

    Being no dict, list or tuple, it keeps the specs out of the hands of `tf.Module`, which wraps
    those that are its attributes.
    """

    name: str
    time_step_spec: TimeStep
    action_spec: nests.Nest
    policy_state_spec: nests.Nest
    info_spec: nests.Nest
    clip: bool
    emit_log_probability: bool
    automatic_state_reset: bool
    validate_args: bool
    splitter: Splitter | None

    @property
    def is_stateful(self) -> bool:
        """Whether there is a policy state."""
        return bool(tf.nest.flatten(self.policy_state_spec))

    def check_inputs(
        self, time_step: TimeStep, policy_state: nests.Nest
    ) -> tuple[TimeStep, nests.Nest]:
        """The inputs as tensors, without extra dict keys; as they came without `validate_args`.

        Raises:
          ValueError: where a structure or shape does not match the specs.
          TypeError: where a dtype does not match.
        """
        time_step = nests.prune_extra_keys(self.time_step_spec, time_step)
        if not self.validate_args:
            return time_step, policy_state
        time_step = checks.cast_to_spec(
            time_step, self.time_step_spec, what=f"{self.name} time_step"
        )
        if self.is_stateful and not tf.nest.flatten(policy_state):
            raise ValueError(
                f"{self.name} policy_state: got {policy_state!r}, but the policy has a state; "
                "start from policy.get_initial_state(batch_size), go on with PolicyStep.state."
            )
        policy_state = checks.cast_to_spec(
            policy_state,
            self.policy_state_spec,
            what=f"{self.name} policy_state",
            outer_dims=_outer_dims(time_step)[:1],
        )
        return time_step, policy_state

    def check_action(self, step: PolicyStep, time_step: TimeStep) -> None:
        """Checks what `_action` returned; nothing without `validate_args`."""
        if not self.validate_args:
            return
        self._check("action", step.action, self.action_spec, _outer_dims(time_step))
        self._check("state", step.state, self.policy_state_spec, _outer_dims(time_step)[:1])
        self._check("info", step.info, self.info_spec, _outer_dims(time_step))

    def check_distribution(self, step: PolicyStep, time_step: TimeStep) -> None:
        """Checks what `_distribution` returned; nothing without `validate_args`."""
        if not self.validate_args:
            return
        what = f"{self.name} distribution"
        nests.check_same_structure(self.action_spec, step.action, what=what)
        for path, leaf in nests.flatten_with_paths(step.action):
            if nests.is_tensor(leaf):
                raise TypeError(
                    f"{what}{f' at {path!r}' if path else ''}: got a tensor, expected a "
                    "tensorflow_probability distribution, as tfp.distributions.Deterministic."
                )
        self._check("state", step.state, self.policy_state_spec, _outer_dims(time_step)[:1])
        if not self.emit_log_probability:
            self._check("info", step.info, self.info_spec, _outer_dims(time_step))

    def _check(self, word: str, value: nests.Nest, spec: nests.Nest, outer_dims: Any) -> None:
        checks.check_spec(value, spec, what=f"{self.name} {word}", outer_dims=outer_dims)


def _outer_dims(time_step: TimeStep) -> tuple[int | None, ...]:
    return tuple(time_step.step_type.shape)


def refuse_overrides(policy_class: type, root: type) -> None:
    """Raises ValueError where a subclass overrides a public member of `root`."""
    public = {name for name in vars(root) if not name.startswith("_")}
    for ancestor in policy_class.__mro__[: policy_class.__mro__.index(root)]:
        overridden = sorted(public & set(vars(ancestor)))
        if overridden:
            raise ValueError(
                f"{ancestor.__name__} overrides {overridden}, which {root.__name__} keeps for "
                "itself; implement _action, _distribution or _get_initial_state instead."
            )


def with_log_probability(info: nests.Nest, log_probability: nests.Nest) -> nests.Nest:
    """Info (or its spec) with log-probabilities put in.

    Args:
      info: (), a dict, or a namedtuple with a field `log_probability`.
      log_probability: nest like the action.

    Raises:
      ValueError: where info has no place for them.

    >>> with_log_probability({"value": 1.0}, -0.5)
    {'value': 1.0, 'log_probability': -0.5}
    """
    if isinstance(info, tuple) and not info:
        return PolicyInfo(log_probability)
    if isinstance(info, Mapping):
        return {**info, "log_probability": log_probability}
    if nests.is_namedtuple(info) and "log_probability" in info._fields:
        return info._replace(log_probability=log_probability)
    raise ValueError(
        f"emit_log_probability: got an info of type {type(info).__name__}, expected (), a dict or "
        "a namedtuple with a field log_probability, to put log-probabilities in."
    )


def as_batch_size(batch_size: Any) -> int | tf.Tensor | None:
    """A batch size as a Python int where it is known, else the tensor, or None.

    Raises:
      TypeError: for anything that is no int (a float, True, a list).
      ValueError: for a negative one.
    """
    if nests.is_tensor(batch_size):
        static = tf.get_static_value(batch_size)
        if static is None:
            return batch_size
        batch_size = static
    if batch_size is None:
        return None
    try:
        if isinstance(batch_size, bool):
            raise TypeError("a bool is no size")
        size = operator.index(batch_size)
    except TypeError as error:
        raise TypeError(
            f"batch_size: got {batch_size!r} of type {type(batch_size).__name__}, expected an "
            "int, a scalar int tensor or None."
        ) from error
    if size < 0:
        raise ValueError(f"batch_size: got {size}, expected 0 or more.")
    return size
