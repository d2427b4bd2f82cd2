"""The Keras layers that a model_fn calls: which of them are frozen, and adapted ones kept variable.

`tf_keras.layers.Normalization` computes with constants that `adapt` left behind. A trace would
bake them in: they would be missing from checkpoints, and a process that continues the run without
adapting the layer again would silently normalise with mean 0 and variance 1.

A layer with `trainable = False` has variables that call themselves trainable all the same; only
the layer knows.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tf_keras

_Layer = tf_keras.layers.Layer
_Normalization = tf_keras.layers.Normalization
_original_call = _Layer.__call__
_lock = threading.Lock()
_thread = threading.local()
_users = 0


class CalledLayers:
    """The layers that were called while a model_fn was traced."""

    def __init__(self) -> None:
        self._layers: dict[int, tf_keras.layers.Layer] = {}

    def add(self, layer: tf_keras.layers.Layer) -> None:
        """Notes a layer."""
        self._layers[id(layer)] = layer

    @property
    def frozen(self) -> set[int]:
        """Ids of the variables of layers with `trainable = False`."""
        return {
            id(variable)
            for layer in self._layers.values()
            if not layer.trainable
            for variable in layer.weights
        }


@contextlib.contextmanager
def noted() -> Iterator[CalledLayers]:
    """Notes the layers that this thread calls inside; their statistics are read as variables."""
    global _users
    with _lock:
        _users += 1
        _Layer.__call__ = _call
    outer = getattr(_thread, "called", None)
    _thread.called = CalledLayers()
    try:
        yield _thread.called
    finally:
        _thread.called = outer
        with _lock:
            _users -= 1
            if _users == 0:
                _Layer.__call__ = _original_call


def _call(layer: tf_keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
    called = getattr(_thread, "called", None)
    if called is None:
        return _original_call(layer, *args, **kwargs)
    called.add(layer)
    adapted = isinstance(layer, _Normalization) and layer.built and layer.input_mean is None
    if not adapted or tf.executing_eagerly():
        return _original_call(layer, *args, **kwargs)
    constants = layer.mean, layer.variance
    layer.finalize_state()  # in the graph: from the variables, not from their present values
    try:
        return _original_call(layer, *args, **kwargs)
    finally:
        layer.mean, layer.variance = constants
