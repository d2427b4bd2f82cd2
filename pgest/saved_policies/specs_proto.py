"""Nests of specs as text: the `policy_specs.pbtxt` that stands beside an exported policy.

The file is a `tensorflow.StructuredValue` in protobuf's text format, which TF-Agents reads and
writes too. Shapes have no batch axis, bounds and names are kept.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import struct_pb2

from pgest import specs
from pgest.policies import time_steps
from pgest.specs import nests

FILE_NAME = "policy_specs.pbtxt"

_KNOWN_TUPLES = {
    kind.__name__: kind
    for kind in (
        time_steps.TimeStep,
        time_steps.PolicyStep,
        time_steps.PolicyInfo,
        time_steps.Trajectory,
    )
}


def to_text(nest: nests.Nest) -> str:
    """The text of a nest of specs (tensor or array specs).

    Raises:
      TypeError: for a leaf that is no spec, or a dict key that is no string.

    >>> print(to_text((specs.ArraySpec((2,), np.float32, "a"),)))
    tuple_value {
      values {
        tensor_spec_value {
          name: "a"
          shape {
            dim {
              size: 2
            }
          }
          dtype: DT_FLOAT
        }
      }
    }
    <BLANKLINE>
    """
    message = struct_pb2.StructuredValue()
    _encode(nest, message, "")
    return text_format.MessageToString(message)


def from_text(text: str) -> nests.Nest:
    """The nest of tensor specs that `to_text` (or TF-Agents) wrote.

    Raises:
      ValueError: where the text is no such message.

    >>> from_text(to_text({"a": specs.BoundedArraySpec((), np.int64, 0, 3, "a")}))
    {'a': BoundedTensorSpec(shape=(), dtype=tf.int64, name='a', minimum=0, maximum=3)}
    """
    try:
        message = text_format.Parse(text, struct_pb2.StructuredValue())
    except text_format.ParseError as error:
        raise ValueError(f"{FILE_NAME}: not a StructuredValue in text format: {error}.") from error
    return _decode(message, "")


def _encode(nest: nests.Nest, message: Any, path: str) -> None:
    if isinstance(nest, tf.TensorSpec | specs.ArraySpec):
        _encode_spec(specs.from_spec(nest), message)
    elif isinstance(nest, Mapping):
        message.dict_value.SetInParent()
        for key in sorted(nest):
            if not isinstance(key, str):
                raise TypeError(f"specs at {path!r}: got the dict key {key!r}, expected strings.")
            child_path = nests.join_path(path, key)
            _encode(nest[key], message.dict_value.fields[key], child_path)
    elif nests.is_namedtuple(nest):
        message.named_tuple_value.name = type(nest).__name__
        for key, child in nests.children(nest) or ():
            pair = message.named_tuple_value.values.add(key=key)
            _encode(child, pair.value, nests.join_path(path, key))
    elif isinstance(nest, list | tuple):
        values = message.list_value if isinstance(nest, list) else message.tuple_value
        values.SetInParent()
        for position, child in enumerate(nest):
            _encode(child, values.values.add(), nests.join_path(path, position))
    else:
        raise TypeError(
            f"specs at {path!r}: got {nest!r} of type {type(nest).__name__}, expected a "
            "tf.TensorSpec, an ArraySpec, or a dict, list or tuple of them."
        )


def _encode_spec(spec: Any, message: Any) -> None:
    bounded = specs.is_bounded(spec)
    proto = message.bounded_tensor_spec_value if bounded else message.tensor_spec_value
    if spec.name:
        proto.name = spec.name
    proto.shape.CopyFrom(spec.shape.as_proto())
    proto.dtype = spec.dtype.as_datatype_enum
    if bounded:
        proto.minimum.CopyFrom(tf.make_tensor_proto(np.asarray(spec.minimum)))
        proto.maximum.CopyFrom(tf.make_tensor_proto(np.asarray(spec.maximum)))


def _decode(message: Any, path: str) -> nests.Nest:
    kind = message.WhichOneof("kind")
    if kind in ("tensor_spec_value", "bounded_tensor_spec_value"):
        return _decode_spec(getattr(message, kind))
    if kind == "dict_value":
        fields = message.dict_value.fields
        return {key: _decode(fields[key], nests.join_path(path, key)) for key in sorted(fields)}
    if kind == "list_value":
        return _decode_sequence(message.list_value.values, path)
    if kind == "tuple_value":
        return tuple(_decode_sequence(message.tuple_value.values, path))
    if kind == "named_tuple_value":
        pairs = message.named_tuple_value.values
        names = [pair.key for pair in pairs]
        children = [_decode(pair.value, nests.join_path(path, pair.key)) for pair in pairs]
        return _tuple_class(message.named_tuple_value.name, names)(*children)
    raise ValueError(f"{FILE_NAME} at {path!r}: got {kind}, expected a spec or a nest of specs.")


def _decode_sequence(messages: Any, path: str) -> list[nests.Nest]:
    return [
        _decode(message, nests.join_path(path, position))
        for position, message in enumerate(messages)
    ]


def _decode_spec(proto: Any) -> tf.TensorSpec:
    shape, dtype, name = tf.TensorShape(proto.shape), tf.as_dtype(proto.dtype), proto.name or None
    if not hasattr(proto, "minimum"):
        return tf.TensorSpec(shape, dtype, name)
    minimum, maximum = tf.make_ndarray(proto.minimum), tf.make_ndarray(proto.maximum)
    return specs.BoundedTensorSpec(shape, dtype, minimum, maximum, name)


def _tuple_class(name: str, fields: list[str]) -> Any:
    known = _KNOWN_TUPLES.get(name)
    if known is not None and list(known._fields) == fields:
        return known
    return collections.namedtuple(name, fields)
