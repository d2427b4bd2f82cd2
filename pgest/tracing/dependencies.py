"""What tensors of a traced graph depend on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf


class Dependencies:
    """The operations that tensors are computed from, and what they read.

    Args:
      *tensors: of one traced graph.
      control: follow what an operation waits for, too.
    """

    def __init__(self, *tensors: tf.Tensor, control: bool = False):
        self._tensors, self._graph = tensors, tensors[0].graph
        self._operations: dict[str, Any] = {}
        waiting = [tensor.op for tensor in tensors]
        while waiting:
            operation = waiting.pop()
            if operation.name not in self._operations:
                self._operations[operation.name] = operation
                waiting.extend(source.op for source in operation.inputs)
                waiting.extend(operation.control_inputs if control else ())

    @property
    def operations(self) -> list[Any]:
        """All of them."""
        return list(self._operations.values())

    def contains(self, tensor: tf.Tensor) -> bool:
        """Whether any of the tensors is computed from this one."""
        return tensor.op.name in self._operations

    def function(self, inputs: Sequence[tf.Tensor]) -> Any:
        """The function of `inputs` that returns the tensors, a list, and does nothing else.

        Args:
          inputs: tensors of the graph that take what is given. What an operation waits for without
            reading it is left out.
        """
        given = {tensor.op.name for tensor in inputs}
        held = [pair for pair in self._graph.captures if self.contains(pair[1])]
        left_out = given | {inside.op.name for _, inside in held}
        definition = self._graph.as_graph_def()
        nodes = [n for n in definition.node if n.name in self._operations.keys() - left_out]
        del definition.node[:]
        for node in nodes:
            node.input[:] = [name for name in node.input if not name.startswith("^")]
            definition.node.add().CopyFrom(node)

        def compute(*arguments: tf.Tensor) -> list[tf.Tensor]:
            sources = [*zip(arguments, inputs, strict=True), *held]
            replaced = {inside.name: tf.identity(tensor) for tensor, inside in sources}
            names = [tensor.name for tensor in self._tensors]
            return tf.graph_util.import_graph_def(definition, replaced, names, name="")

        specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs]
        return tf.function(compute, autograph=False).get_concrete_function(*specs)

    def variables(self, variables: Mapping[str, tf.Variable]) -> set[str]:
        """Names of those of `variables` that the tensors depend on."""
        handles = {id(external): inside for external, inside in self._graph.captures}
        return {
            name
            for name, variable in variables.items()
            if id(variable.handle) in handles
            and handles[id(variable.handle)].op.name in self._operations
        }

    def nodes(self) -> Iterator[tuple[str, str]]:
        """Yields (type, name) of each operation, of functions that are called too."""
        definition = self._graph.as_graph_def()
        bodies = {f.signature.name: f.node_def for f in definition.library.function}
        waiting = [operation.node_def for operation in self._operations.values()]
        while waiting:
            node = waiting.pop()
            yield node.op, node.name
            for called in _called_functions(node):
                waiting.extend(bodies.pop(called, ()))


def side_effects(graph: Any) -> set[str]:
    """The types of the operations that a traced graph executes whatever is asked of it.

    Of those in functions that it calls too, in place of the calls.
    """
    bodies = {f.signature.name: f for f in graph.as_graph_def().library.function}
    types: set[str] = set()
    waiting = [operation.node_def for operation in graph.control_outputs]
    while waiting:
        node = waiting.pop()
        called = list(_called_functions(node))
        if not called:
            types.add(node.op)
        for body in filter(None, (bodies.pop(name, None) for name in called)):
            nodes = {inside.name: inside for inside in body.node_def}
            waiting.extend(nodes[name] for name in body.control_ret.values())
    return types


def _called_functions(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        for function in value.list.func:
            yield function.name
