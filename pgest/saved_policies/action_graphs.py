"""The `action` of a loaded policy on arrays: what it takes, reading it from nests, calling it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pgest import specs
from pgest.policies.time_steps import PolicyStep, TimeStep
from pgest.saved_policies import called_graphs
from pgest.specs import checks, nests


class ActionSignature:
    """What the `action` of a loaded SavedModel takes."""

    def __init__(self, policy: Any) -> None:
        arguments = [
            concrete.structured_input_signature for concrete in policy.action.concrete_functions
        ]
        first = arguments[0][0][0]
        self.takes_example = type(first).__name__ != "TimeStep"
        self.example_spec = first if self.takes_example else None
        self.takes_seed = any(
            isinstance(leaf, tf.TensorSpec) and tuple(leaf.shape) == (2,) and leaf.dtype == tf.int32
            for positional, keywords in arguments
            for leaf in (*positional[1:], keywords.get("seed"))
        )
        leading = tf.nest.flatten(first)[0].shape
        self.batch_size = None if leading.rank in (None, 0) else leading[0]


class ActionGraph:
    """The `action` of a loaded policy as one op on flat arrays."""

    def __init__(
        self,
        policy: Any,
        signature: ActionSignature,
        *,
        time_step_spec: TimeStep,
        policy_step_spec: PolicyStep,
        squeeze: bool,
        seeded: bool,
        path: str,
    ) -> None:
        fixed = signature.batch_size
        self._squeeze = squeeze
        self._rows = 1 if squeeze and fixed is None else fixed
        self._squeeze_error = ""
        if squeeze and self._rows != 1:
            self._squeeze_error = (
                f"The policy was exported with batch_size={fixed} and takes {fixed} time steps at "
                "once: open it with batch_time_steps=False."
            )
        self._takes_example = signature.takes_example
        self._nest: tuple[nests.Nest, nests.Nest] = (time_step_spec, policy_step_spec.state)
        if self._takes_example:
            self._nest = (_without_batch(signature.example_spec), ())
        self._what = "example" if self._takes_example else "time_step"
        self._readers = [
            *_readers(self._nest[0], self._what, False),
            *_readers(self._nest[1], "policy_state", True),
        ]
        input_specs = [reader.tensor_spec(self._rows) for reader in self._readers]
        if seeded:
            input_specs.append(tf.TensorSpec([2], tf.int32, "seed"))

        def act(*leaves: tf.Tensor) -> list[tf.Tensor]:
            keywords = {"seed": leaves[-1]} if seeded else {}
            inputs = self.pack(leaves[:-1] if seeded else leaves)
            step = policy.action(*inputs, **keywords)
            return tf.nest.flatten((step.action, step.state, step.info))

        self._call = _checked_trace(act, input_specs, path)
        self._feeds_seed = seeded and self._call.used[-1]
        self._fed = self._call.used[: len(self._readers)]
        action_count = len(tf.nest.flatten(policy_step_spec.action))
        state_count = len(tf.nest.flatten(policy_step_spec.state))
        self._states = slice(action_count, action_count + state_count)
        self._pack_action = _packer(policy_step_spec.action)
        self._pack_state = _packer(policy_step_spec.state)
        self._pack_info = _packer(policy_step_spec.info)

    def __call__(self, time_step: Any, policy_state: nests.Nest, seed: Any) -> PolicyStep:
        """The next step: arrays, their batch axis taken off where it was put on."""
        arrays = self.read(time_step, policy_state)
        leaves: list[Any] = [array for array, fed in zip(arrays, self._fed, strict=True) if fed]
        if self._feeds_seed:
            leaves.append(_as_pair(seed))
        outputs = [tensor.numpy() for tensor in self._call(leaves)]
        action, info = outputs[: self._states.start], outputs[self._states.stop :]
        if self._squeeze:
            action = [array.reshape(array.shape[1:]) for array in action]
            info = [array.reshape(array.shape[1:]) for array in info]
        state = outputs[self._states]
        return PolicyStep(self._pack_action(action), self._pack_state(state), self._pack_info(info))

    def read(self, time_step: Any, policy_state: nests.Nest) -> list[np.ndarray]:
        """The leaves as batched arrays of the specs' dtypes, or an error of one line."""
        if self._squeeze_error:
            raise ValueError(self._squeeze_error)
        try:
            arrays = [
                reader.take(policy_state if reader.is_state else time_step)
                for reader in self._readers
            ]
        except (AttributeError, KeyError, IndexError, TypeError):
            self._explain(time_step, policy_state)
            raise
        rows = self._rows
        fitted = []
        for reader, array in zip(self._readers, arrays, strict=True):
            if self._squeeze and not reader.is_state:
                fitted.append(reader.fit(array, ())[None])
            else:
                array = reader.fit(array, (rows,))
                rows = array.shape[0]
                fitted.append(array)
        return fitted

    def _explain(self, time_step: Any, policy_state: nests.Nest) -> None:
        """Raises ValueError that names where a structure is wrong."""
        pruned = nests.prune_extra_keys(self._nest[0], time_step)
        nests.check_same_structure(self._nest[0], pruned, what=self._what)
        if tf.nest.flatten(self._nest[1]) and not tf.nest.flatten(policy_state):
            raise ValueError(
                f"policy_state: got {policy_state!r}, but the policy has a state; start from "
                "policy.get_initial_state(), go on with PolicyStep.state."
            )
        nests.check_same_structure(self._nest[1], policy_state, what="policy_state")

    def pack(self, leaves: Sequence[Any]) -> tuple:
        """The arguments of the loaded `action`, of flat leaves."""
        first, state = tf.nest.pack_sequence_as(self._nest, list(leaves))
        return (first,) if self._takes_example else (first, state)

    def warm_up(self) -> None:
        """Runs once on zeros, so that the first action costs no more than any other."""
        rows = self._rows or 1
        leaves: list[Any] = [
            np.full([rows, *reader.spec.shape], _zero(reader.spec.dtype), reader.spec.dtype)
            for reader, fed in zip(self._readers, self._fed, strict=True)
            if fed
        ]
        if self._feeds_seed:
            leaves.append(np.zeros(2, np.int32))
        self._call(leaves)


def _zero(dtype: Any) -> Any:
    """What fills an array; strings are Python objects in numpy, of which zero is none."""
    return b"" if np.dtype(dtype).kind == "O" else 0


class _LeafReader:
    """Takes one leaf out of a nest and makes an array of its spec of it."""

    def __init__(
        self, path: str, take: Callable[[Any], Any], spec: specs.ArraySpec, is_state: bool
    ) -> None:
        self.take = take
        self.spec = spec
        self.is_state = is_state
        self._path = path
        self._shape = tuple(spec.shape)
        self._dtype = spec.dtype

    def fit(self, value: Any, outer_dims: tuple[int | None, ...]) -> np.ndarray:
        """The value as an array with these axes in front, None for any length."""
        if type(value) is np.ndarray and value.dtype == self._dtype:
            shape = value.shape
            if not outer_dims and shape == self._shape:
                return value
            if outer_dims and shape[1:] == self._shape and outer_dims[0] in (None, *shape[:1]):
                return value
        if tf.is_tensor(value):
            value = value.numpy()
        return checks.cast_to_spec(value, self.spec, what=self._path, outer_dims=outer_dims)

    def tensor_spec(self, rows: int | None) -> tf.TensorSpec:
        """The spec of the leaf with a batch axis."""
        return tf.TensorSpec([rows, *self._shape], self._dtype)


def _readers(spec: nests.Nest, what: str, is_state: bool) -> list[_LeafReader]:
    leaves = tf.nest.flatten(spec)
    return [
        _LeafReader(path, take, leaf, is_state)
        for (path, take), leaf in zip(called_graphs.reader(spec, what), leaves, strict=True)
    ]


def _without_batch(spec: nests.Nest) -> nests.Nest:
    return tf.nest.map_structure(
        lambda leaf: specs.ArraySpec(leaf.shape[1:], leaf.dtype.as_numpy_dtype, leaf.name), spec
    )


def _packer(spec: nests.Nest) -> Callable[[list[Any]], nests.Nest]:
    """A function that packs flat leaves like `spec`; the common cases cost nothing."""
    children = nests.children(spec)
    if children is None:
        return lambda leaves: leaves[0]
    if not children:
        return lambda leaves: spec
    return lambda leaves: tf.nest.pack_sequence_as(spec, leaves)


def _as_pair(seed: int) -> np.ndarray:
    """The seed as int32 [2]: what `seeds.as_seed` makes of a non-negative int, without a tensor."""
    return np.array([seed % 2**32, seed >> 32], np.uint32).view(np.int32)


def _checked_trace(
    function: Callable[..., Any], input_specs: Sequence[tf.TensorSpec], path: str
) -> called_graphs.CalledGraph:
    try:
        return called_graphs.CalledGraph(function, input_specs)
    except ValueError as error:
        if "matching concrete function" not in str(error):
            raise
        shown = ", ".join(f"{spec.dtype.name}{list(spec.shape)}" for spec in input_specs)
        raise ValueError(
            f"The SavedModel {path!r} does not take what the specs describe ({shown}); load the "
            "specs from the file with load_specs_from_pbtxt=True."
        ) from error
