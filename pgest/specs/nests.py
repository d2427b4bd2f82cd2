"""Nests: dicts, lists, tuples and namedtuples of leaves, walked in the order of `tf.nest`.

`tf.nest` flattens and packs; what it does not offer is a *name* for each leaf. Here a leaf is named
by its path, joined by "/": dict keys, positions of lists and tuples, field names of namedtuples. A
bare leaf has the path "".
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

Nest = Any
"""A leaf, or a dict, list, tuple or namedtuple of nests."""


def join_path(*parts: object) -> str:
    """Joins parts of a path with "/"; empty parts are left out.

    >>> join_path("observation", "", 0)
    'observation/0'
    """
    return "/".join(str(part) for part in parts if str(part) != "")


def signature_name(*parts: object) -> str:
    """Joins parts of a path in the characters that TensorFlow takes in names; others become "_".

    >>> signature_name("observation", "left arm", 0)
    'observation/left_arm/0'
    """
    return re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", join_path(*parts))


def children(nest: Nest) -> list[tuple[str, Nest]] | None:
    """The named children of a nest in `tf.nest` order (dict keys sorted), or None for a leaf."""
    if isinstance(nest, Mapping):
        return [(str(key), nest[key]) for key in sorted(nest)]
    if isinstance(nest, tuple) and is_namedtuple(nest):
        return [(name, getattr(nest, name)) for name in nest._fields]  # type: ignore[attr-defined]
    if isinstance(nest, list | tuple):
        return [(str(position), child) for position, child in enumerate(nest)]
    return None


def is_tensor(value: object) -> bool:
    """Whether `value` is a dense tensor or a variable, eager or symbolic.

    `tf.is_tensor` looks at a protocol, which costs some 30 microseconds for every array.
    """
    return isinstance(value, tf.Tensor | tf.Variable)


def is_namedtuple(value: object) -> bool:
    """Whether `value` is an instance of a namedtuple class."""
    return isinstance(value, tuple) and getattr(value, "_fields", None) is not None


def flatten_with_paths(nest: Nest) -> list[tuple[str, Any]]:
    """The leaves of a nest with their "/"-joined paths, in the order of `tf.nest.flatten`.

    >>> flatten_with_paths({"b": 1, "a": (2, 3)})
    [('a/0', 2), ('a/1', 3), ('b', 1)]
    """
    return list(_walk(nest, ""))


def _walk(nest: Nest, path: str) -> Iterator[tuple[str, Any]]:
    named_children = children(nest)
    if named_children is None:
        yield path, nest
        return
    for name, child in named_children:
        yield from _walk(child, join_path(path, name))


def map_with_paths(function: Callable[[str, Any], Any], nest: Nest) -> Nest:
    """`tf.nest.map_structure` for a function of (path, leaf).

    >>> map_with_paths(lambda path, leaf: f"{path}={leaf}", {"a": (1,)})
    {'a': ('a/0=1',)}
    """
    return tf.nest.pack_sequence_as(nest, [function(*item) for item in flatten_with_paths(nest)])


def prune_extra_keys(wanted: Nest, nest: Nest) -> Nest:
    """Drops the dict keys that `wanted` does not have; the checks see all other differences.

    >>> prune_extra_keys({"a": 0}, {"a": 1, "b": 2})
    {'a': 1}
    """
    if isinstance(wanted, Mapping) and isinstance(nest, Mapping):
        return {key: prune_extra_keys(wanted[key], nest[key]) for key in wanted if key in nest}
    if (
        isinstance(wanted, list | tuple)
        and isinstance(nest, list | tuple)
        and len(wanted) == len(nest)
    ):
        pruned = [prune_extra_keys(*pair) for pair in zip(wanted, nest, strict=True)]
        if is_namedtuple(nest):
            return nest.__class__(*pruned)
        return list(pruned) if isinstance(nest, list) else tuple(pruned)
    return nest


def check_same_structure(expected: Nest, nest: Nest, *, what: str = "value") -> None:
    """Raises one line that names the first place where `nest` is built otherwise than `expected`.

    Lists and tuples differ; dicts must have the same keys; namedtuples are the same when their
    fields and the names of their classes are (so that a `TimeStep` of another library passes).

    Raises:
      ValueError: where the structures differ.

    >>> check_same_structure({"a": 0}, {"b": 1}, what="observation")
    Traceback (most recent call last):
    ValueError: observation: got a dict with keys ['b'], expected a dict with keys ['a'].
    """
    _check_structure(expected, nest, what, "")


def _check_structure(expected: Nest, nest: Nest, what: str, path: str) -> None:
    wanted, got = children(expected), children(nest)
    if wanted is None and got is None:
        return
    if _kind(expected) != _kind(nest) or [name for name, _ in wanted or ()] != [
        name for name, _ in got or ()
    ]:
        where = f"{what} at {path!r}" if path else what
        raise ValueError(f"{where}: got {_describe(nest)}, expected {_describe(expected)}.")
    for (name, wanted_child), (_, got_child) in zip(wanted or (), got or (), strict=True):
        _check_structure(wanted_child, got_child, what, join_path(path, name))


def _kind(nest: Nest) -> str:
    if isinstance(nest, Mapping):
        return "dict"
    if is_namedtuple(nest):
        return nest.__class__.__name__
    if isinstance(nest, list):
        return "list"
    return "tuple" if isinstance(nest, tuple) else "leaf"


def _describe(nest: Nest) -> str:
    named_children = children(nest)
    if named_children is None:
        return f"a leaf of type {type(nest).__name__}"
    kind, names = _kind(nest), [name for name, _ in named_children]
    if kind == "dict":
        return f"a dict with keys {names}"
    if kind in ("list", "tuple"):
        return f"a {kind} of length {len(names)}" if names else f"an empty {kind}"
    return f"a {kind} with fields {names}"


def batch_nest(nest: Nest) -> Nest:
    """Adds a leading axis of length 1 to every leaf; what is no tensor becomes a numpy array.

    >>> batch_nest({"a": np.zeros(3)})["a"].shape
    (1, 3)
    """
    return tf.nest.map_structure(
        lambda leaf: tf.expand_dims(leaf, 0) if is_tensor(leaf) else np.expand_dims(leaf, 0),
        nest,
    )


def unbatch_nest(nest: Nest) -> Nest:
    """Takes away the leading axis of every leaf, which must have the length 1.

    Raises:
      ValueError: naming the leaf whose leading axis is missing or longer.

    >>> unbatch_nest((np.zeros((1, 3)),))[0].shape
    (3,)
    """
    return map_with_paths(_unbatch_leaf, nest)


def _unbatch_leaf(path: str, leaf: Any) -> Any:
    shape = leaf.shape if is_tensor(leaf) else np.shape(leaf)
    if len(shape) == 0 or shape[0] not in (1, None):
        raise ValueError(
            f"{path or 'value'}: got shape {tuple(shape)}, "
            "expected a leading batch axis of length 1; "
            "pass one row at a time."
        )
    return tf.squeeze(leaf, 0) if is_tensor(leaf) else np.squeeze(leaf, 0)
