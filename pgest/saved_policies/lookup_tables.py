"""Lookup tables that a policy reads, such as those of words: they go along with an export."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

_Resource = tf.saved_model.experimental.TrackableResource


def tables_of(concretes: Sequence[Any], name: str) -> list[Any]:
    """The static lookup tables that traced functions read, in the order of the traces.

    Args:
      concretes: concrete functions.
      name: of the policy, for the message.

    Raises:
      TypeError: a trace reads a table that changes, or one that nobody holds any more, or another
        resource that a SavedModel cannot hold.
    """
    handles: dict[int, Any] = {}
    for concrete in concretes:
        variables = {id(variable.handle) for variable in concrete.variables}
        for captured in concrete.captured_inputs:
            if captured.dtype == tf.resource and id(captured) not in variables:
                handles[id(captured)] = captured
    if not handles:
        return []
    owners = _owners(handles)
    for handle in handles:
        if not isinstance(owners.get(handle), tf.lookup.StaticHashTable):
            found = type(owners[handle]).__name__ if handle in owners else "a resource without one"
            raise TypeError(
                f"{name} reads from {found}, whose contents are not part of an export; use "
                "tf.lookup.StaticHashTable or StaticVocabularyTable, and keep it in an attribute "
                "of the policy or in a global."
            )
    return [owners[handle] for handle in handles]


def digest(table: Any) -> str:
    """A fingerprint of the contents of a static table."""
    keys, values = (tensor.numpy().ravel().tolist() for tensor in table.export())
    pairs = sorted(zip(keys, values, strict=True), key=repr)
    return hashlib.sha256(repr(pairs).encode()).hexdigest()


def _owners(handles: dict[int, Any]) -> dict[int, Any]:
    """The objects of the handles: a trace knows handles only, a SavedModel needs the objects."""
    owners = {}
    for candidate in gc.get_objects():
        # type(), since isinstance() asks proxies for what they stand for.
        if issubclass(type(candidate), _Resource):
            try:
                handle = candidate.resource_handle
            except (AttributeError, NotImplementedError):
                continue  # not made to the end
            if id(handle) in handles:
                owners[id(handle)] = candidate
    return owners
