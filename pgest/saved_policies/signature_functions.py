"""The flat signatures of an exported policy: tensors by name, for TF Serving, TFLite and C++."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from pgest import specs
from pgest.policies.tf_policies import TFPolicy
from pgest.policies.time_steps import PolicyStep
from pgest.saved_policies import policy_functions
from pgest.specs import nests

# The name of a policy state that is a single tensor, in the output of `get_initial_state`.
_BARE_STATE = "policy_state"


@dataclasses.dataclass(frozen=True)
class NamedSpecs:
    """Specs without batch axis, with the names of the flat signatures.

    Attributes:
      inputs: of the arguments of `action`.
      step: of what it returns.
      state: of what `get_initial_state` returns.
    """

    inputs: tuple[nests.Nest, ...]
    step: PolicyStep
    state: nests.Nest


def check_names(nest: nests.Nest) -> None:
    """Raises ValueError where specs have no name or share one."""
    names = [spec.name for spec in tf.nest.flatten(nest)]
    if None in names or len(set(names)) < len(names):
        shown = [name or "<MISSING>" for name in names]
        raise ValueError(
            "Specs contain either a missing name or a name collision.\n  "
            f"Spec names: {shown}; name them, or use use_nest_path_signatures=True."
        )


def _check_distinct(nest: nests.Nest, seen: Callable[[str], str]) -> None:
    """Raises ValueError where the names of two specs are `seen` as one."""
    found: dict[str, str] = {}
    for path, spec in nests.flatten_with_paths(nest):
        other = found.setdefault(seen(spec.name or path), path)
        if other != path:
            raise ValueError(
                f"A SavedModel cannot tell {other!r} and {path!r} apart: in names, TensorFlow "
                "ignores case and takes '_' for what is no letter of a-z and no digit. Rename a "
                "key of the observations or actions, for example with a gymnasium wrapper."
            )


def _as_input(name: str) -> str:
    """What TensorFlow tells inputs apart by."""
    return re.sub("[^a-z0-9]", "_", name.lower())


def named_specs(
    policy: TFPolicy, by_path: bool, input_fn_and_spec: policy_functions.InputFn | None
) -> NamedSpecs:
    """The specs of a policy with the names that flat signatures use.

    Args:
      policy: the policy.
      by_path: whether names come from the structure; else the specs' own are used.
      input_fn_and_spec: see `PolicySaver`; its specs keep their own names.

    Raises:
      ValueError: without `by_path`, where a name is missing or two are the same; where TensorFlow
        cannot tell two names apart.
    """
    state = policy_functions.plain_state(policy.policy_state_spec)
    inputs: tuple[nests.Nest, ...] = (policy.time_step_spec, state)
    step = policy.policy_step_spec._replace(state=state)
    if by_path:
        inputs, step = specs.with_path_names(inputs), specs.with_path_names(step)
        state = specs.with_path_names(state, _BARE_STATE if nests.children(state) is None else "")
    else:
        for nest in (inputs, step, state):
            check_names(nest)
    if input_fn_and_spec is not None:
        inputs = (specs.from_spec(input_fn_and_spec[1]),)
    _check_distinct(inputs, _as_input)
    _check_distinct(step, str)
    return NamedSpecs(inputs, step, state)


def flat_signatures(
    functions: policy_functions.PolicyFunctions, named: NamedSpecs, batch_size: int | None
) -> dict[str, Any]:
    """The signatures `action` and `get_initial_state`, traced.

    Args:
      functions: the traced functions of the policy.
      named: its specs with their flat names.
      batch_size: int, or None for any.
    """
    inputs = policy_functions.plain(named.inputs, batch_size)
    input_list = _named(tf.nest.flatten(inputs))
    output_names = [spec.name for spec in tf.nest.flatten(named.step)]
    sizes = [tf.TensorSpec([], tf.int32, "batch_size")] if batch_size is None else []
    state_names = [spec.name for spec in tf.nest.flatten(named.state)]

    @tf.function(autograph=False, input_signature=input_list)
    def action(*leaves: tf.Tensor) -> dict[str, tf.Tensor]:
        step = functions.action(*tf.nest.pack_sequence_as(inputs, leaves))
        return dict(zip(output_names, tf.nest.flatten(step), strict=True))

    @tf.function(autograph=False, input_signature=sizes)
    def get_initial_state(*batch_size: tf.Tensor) -> dict[str, tf.Tensor]:
        values = functions.get_initial_state(*batch_size)
        return dict(zip(state_names, tf.nest.flatten(values), strict=True))

    action.get_concrete_function()
    get_initial_state.get_concrete_function()
    return {"action": action, "get_initial_state": get_initial_state}


def train_step_signature(train_step: tf.Variable) -> Any:
    """The signature `get_train_step`: "train_step", and TF-Agents' key, the name of the dtype."""

    @tf.function(autograph=False, input_signature=())
    def get_train_step() -> dict[str, tf.Tensor]:
        value = train_step.read_value()
        return {"train_step": value, train_step.dtype.name: tf.identity(value)}

    get_train_step.get_concrete_function()
    return get_train_step


def metadata_signature(metadata: Mapping[str, tf.Variable]) -> Any:
    """The signature `get_metadata`: the values by their names."""

    @tf.function(autograph=False, input_signature=())
    def get_metadata() -> dict[str, tf.Tensor]:
        return {name: variable.read_value() for name, variable in metadata.items()}

    get_metadata.get_concrete_function()
    return get_metadata


def _named(input_list: list[tf.TensorSpec]) -> list[tf.TensorSpec]:
    return [
        spec if spec.name else tf.TensorSpec(spec.shape, spec.dtype, f"input_list_{position}")
        for position, spec in enumerate(input_list)
    ]
