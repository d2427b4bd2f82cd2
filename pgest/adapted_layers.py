"""Adapted `Normalization` layers whose statistics stay variables while a model_fn is traced.

`tf_keras.layers.Normalization` computes with constants that `adapt` left behind. A trace would
bake them in: they would be missing from checkpoints, and a process that continues the run without
adapting the layer again would silently normalise with mean 0 and variance 1.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tf_keras

_lock = threading.Lock()
_tracing = threading.local()
_users = 0
_original_call = tf_keras.layers.Normalization.call


@contextlib.contextmanager
def kept_variable() -> Iterator[None]:
    """Inside, in this thread, an adapted `Normalization` reads its variables when it is called."""
    global _users
    with _lock:
        _users += 1
        tf_keras.layers.Normalization.call = _call
    depth = getattr(_tracing, "depth", 0)
    _tracing.depth = depth + 1
    try:
        yield
    finally:
        _tracing.depth = depth
        with _lock:
            _users -= 1
            if _users == 0:
                tf_keras.layers.Normalization.call = _original_call


def _call(layer: tf_keras.layers.Normalization, inputs: Any) -> tf.Tensor:
    constant = layer.input_mean is not None or not getattr(_tracing, "depth", 0)
    if constant or tf.executing_eagerly():
        return _original_call(layer, inputs)
    kept = layer.mean, layer.variance
    layer.finalize_state()  # in the graph: from the variables, not from their present values
    try:
        return _original_call(layer, inputs)
    finally:
        layer.mean, layer.variance = kept
