"""Programs whose graphs are equal are compiled by XLA once in a process.

A second agent with the same model, shapes and settings traces the same graphs. XLA keeps what it
has compiled by the name of a function, and each trace has a name of its own; so a program runs the
function of an earlier one, on its own variables, where their graphs differ in names alone.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pgest.tracing import lru

# Draws from a state of its own, which nobody shall share; stateless draws have none.
_DRAWING = ("Random", "Multinomial", "TruncatedNormal", "Dropout")

_known = lru.LRUCache(16)


def key_of(concrete: Any) -> bytes | None:
    """What is equal for concrete functions that compute the same of their inputs and captures.

    Args:
      concrete: of `tf.function`.

    Returns:
      A digest; None where it draws random numbers from a state.
    """
    definition = concrete.graph.as_graph_def()
    functions = {function.signature.name: function for function in definition.library.function}
    # By the order in which they are called: TensorFlow numbers the functions of a process.
    called: dict[str, str] = {}
    nodes, seen = list(definition.node), 0
    while nodes:
        for node in nodes:
            if _draws(node.op):
                return None
            node.attr.pop("_gradient_op_type", None)  # numbered, and nobody differentiates it
            _rename_calls(node, functions, called)
        names = list(called)[seen:]
        seen += len(names)
        nodes = [node for name in names for node in functions[name].node_def]
    digest = hashlib.blake2b()
    graph = concrete.graph
    for name, new in called.items():
        functions[name].signature.name = new
        _rename_arguments(functions[name])
        _add(digest, functions[name].SerializeToString(deterministic=True))
    for node in definition.node:
        _add(digest, node.SerializeToString(deterministic=True))
    for name in sorted(operation.name for operation in graph.control_outputs):
        _add(digest, name.encode())
    for tensor in (*graph.inputs, None, *graph.outputs):
        found = "" if tensor is None else f"{tensor.name} {tensor.dtype.name} {tensor.shape}"
        _add(digest, found.encode())
    return digest.digest()


def known(key: bytes | None) -> Any:
    """The function of a program of the same key that has run; None where there is none."""
    return None if key is None else _known.get(key)


def keep(key: bytes | None, function: Any) -> None:
    """Lets later programs of the same key run `function`, which has run."""
    if key is not None:
        _known.put(key, function)


def _draws(kind: str) -> bool:
    return not kind.startswith("Stateless") and any(word in kind for word in _DRAWING)


def _rename_calls(node: Any, functions: dict[str, Any], called: dict[str, str]) -> None:
    """Names the functions that a node calls by the order in which they are met."""
    for name in sorted(node.attr):
        value = node.attr[name]
        for function in [value.func] if value.HasField("func") else value.list.func:
            if function.name in functions:
                function.name = called.setdefault(function.name, f"called_{len(called)}")


def _rename_arguments(function: Any) -> None:
    """Names what goes into a function and comes out by places: a loop's have numbers of tensors."""
    signature = function.signature
    inputs = {argument.name: f"in_{place}" for place, argument in enumerate(signature.input_arg)}
    for argument in signature.input_arg:
        argument.name = inputs[argument.name]
    for attributes in function.arg_attr.values():
        attributes.attr.pop("_user_specified_name", None)
    for node in function.node_def:
        node.input[:] = [inputs.get(name, name) for name in node.input]
    returned = dict(function.ret)
    function.ret.clear()
    for place, argument in enumerate(signature.output_arg):
        source = returned[argument.name]
        argument.name = f"out_{place}"
        function.ret[argument.name] = inputs.get(source, source)


def _add(digest: Any, part: bytes) -> None:
    digest.update(len(part).to_bytes(8, "little") + part)
