"""Calls of a traced function at the price of one op.

A restored function spends several hundred microseconds on matching structures, signatures and
captures. Here all of that is done once: which inputs are used at all, in which order they come,
what is captured; a call then is one raw op on flat values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from pgest.specs import nests


class CalledGraph:
    """A concrete function of flat inputs, called with numpy arrays.

    Args:
      function: Python function of flat tensors that returns a nest of tensors.
      input_specs: specs of the tensors, batch axis included.

    Attributes:
      output_nest: the nest of what the function returns.
      used: for each input, whether the result depends on it; those that do not are not fed.
    """

    def __init__(self, function: Callable[..., Any], input_specs: Sequence[tf.TensorSpec]) -> None:
        probe = _trace(function, input_specs)
        self.used = used_inputs(probe)[: len(input_specs)]
        positions = [at for at, used in enumerate(self.used) if used]

        def call(*leaves: tf.Tensor) -> Any:
            values: list[Any] = [_zeros(spec) for spec in input_specs]
            for at, leaf in zip(positions, leaves, strict=True):
                values[at] = leaf
            return function(*values)

        self._concrete = _trace(call, [input_specs[at] for at in positions])
        self.output_nest = self._concrete.structured_outputs
        self._captures = list(self._concrete.captured_inputs)
        self._dtypes = [tensor.dtype for tensor in self._concrete.outputs]

    def __call__(self, leaves: list[Any]) -> list[tf.Tensor]:
        """The flat outputs for the values of the used inputs."""
        return tf.raw_ops.StatefulPartitionedCall(
            args=leaves + self._captures, Tout=self._dtypes, f=self._concrete
        )


def _trace(function: Callable[..., Any], input_specs: Sequence[tf.TensorSpec]) -> Any:
    traced = tf.function(function, autograph=False, input_signature=list(input_specs))
    return traced.get_concrete_function()


def _zeros(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros([1 if size is None else size for size in spec.shape], spec.dtype)


def used_inputs(concrete: Any) -> list[bool]:
    """For each flat input of a concrete function, whether any op depends on it."""
    graph = concrete.graph.as_graph_def()
    library = {function.signature.name: function for function in graph.library.function}
    names = [tensor.op.name for tensor in concrete.inputs]
    outputs = [tensor.op.name for tensor in concrete.outputs]
    return _used_names(names, graph.node, outputs, library)


def _used_names(names: list[str], nodes: Any, outputs: list[str], library: Any) -> list[bool]:
    used = set(outputs)
    for node in nodes:
        inner = _called_function(node, library)
        if inner is None:
            matters = [True] * len(node.input)
        else:
            arguments = [argument.name for argument in inner.signature.input_arg]
            results = [name.partition(":")[0] for name in inner.ret.values()]
            matters = _used_names(arguments, inner.node_def, results, library)
            matters += [True] * (len(node.input) - len(matters))
        for source, needed in zip(node.input, matters, strict=True):
            if needed and not source.startswith("^"):
                used.add(source.partition(":")[0])
    return [name in used for name in names]


def _called_function(node: Any, library: Any) -> Any:
    if node.op not in ("PartitionedCall", "StatefulPartitionedCall"):
        return None
    return library.get(node.attr["f"].func.name)


def reader(spec: nests.Nest, what: str) -> list[tuple[str, Callable[[Any], Any]]]:
    """For each leaf of a nest its path (after `what`), and a function that takes it from a nest."""

    def follow(steps: Sequence[tuple[bool, Any]]) -> Callable[[Any], Any]:
        if len(steps) == 1:
            by_name, key = steps[0]
            return operator.attrgetter(key) if by_name else operator.itemgetter(key)
        first, rest = follow(steps[:1]), follow(steps[1:])
        return lambda nest: rest(first(nest))

    found: list[tuple[str, Callable[[Any], Any]]] = []

    def walk(nest: nests.Nest, path: str, steps: list[Any]) -> None:
        children = nests.children(nest)
        if children is None:
            found.append((path, follow(steps) if steps else lambda nest: nest))
            return
        by_name = nests.is_namedtuple(nest)
        by_position = isinstance(nest, list | tuple) and not by_name
        for name, child in children:
            key = int(name) if by_position else name
            walk(child, nests.join_path(path, name), [*steps, (by_name, key)])

    walk(spec, what, [])
    return found
