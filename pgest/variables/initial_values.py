"""Initial values of variables as a function of a seed alone.

They depend neither on the order in which variables are born nor on the process's own random state,
which stays as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras.src import backend as keras_backend

_KERAS_INITIALIZERS = tf_keras.initializers.Zeros.__module__
_UNSET_SEED = 87654321  # what tf.compat.v1.get_seed says where no global seed was set


def derived_seed(seed: int, name: str) -> int:
    """Returns the seed, 0 to 2**31 - 1, of the variable `name` in a run of `seed`.

    Example:

    >>> derived_seed(0, "dense/kernel") == derived_seed(0, "dense/kernel")
    True
    >>> derived_seed(0, "dense/kernel") == derived_seed(0, "dense_1/kernel")
    False
    """
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds Python, NumPy, Keras and the graph being traced, and puts their states back.

    TensorFlow's eager generator is left alone: its state cannot be put back.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    keras_generator = getattr(keras_backend._SEED_GENERATOR, "generator", None)
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    graph_seed = None if graph is None else graph.seed
    random.seed(seed)
    np.random.seed(seed)
    keras_backend._SEED_GENERATOR.generator = random.Random(seed)
    if graph is not None:
        graph.seed = seed
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if graph is not None:
            graph.seed = graph_seed
        if keras_generator is None:
            del keras_backend._SEED_GENERATOR.generator
        else:
            keras_backend._SEED_GENERATOR.generator = keras_generator


def compute(name: str, value: Any, seed: int) -> Any:
    """Returns an initial value on the host; to be called where TensorFlow runs eagerly.

    Args:
      name: of the variable, for errors.
      value: what `tf.Variable` was given: an array, a tensor, or a callable that returns one.
      seed: of what a callable draws.

    Raises:
      ValueError: the value is a tensor of the graph being traced that depends on its inputs.
    """
    if callable(value):
        value = _called(value, seed)
    if tf.is_tensor(value) and not hasattr(value, "numpy"):
        return _static_value(name, value)
    return value


def _called(value: Callable[[], Any], seed: int) -> Any:
    # Keras' own initializers draw statelessly, from a seed that Keras' generator gives.
    initializer = getattr(value, "func", value)
    if type(initializer).__module__ == _KERAS_INITIALIZERS:
        with seeded(seed):
            return value()

    def traced() -> Any:
        with seeded(seed):
            return value()

    try:
        # A graph has a seed of its own, so that TensorFlow's eager one need not be touched.
        return tf.function(traced, autograph=False).get_concrete_function()()
    except (AttributeError, NotImplementedError, TypeError):
        # It looks at values (`.numpy()`, `float(...)`), which only works eagerly.
        return _called_eagerly(value, seed)


def _called_eagerly(value: Callable[[], Any], seed: int) -> Any:
    tf_seed = tf.compat.v1.get_seed(0)[0]
    tf.random.set_seed(seed)
    try:
        with seeded(seed):
            return value()
    finally:
        tf.random.set_seed(None if tf_seed == _UNSET_SEED else tf_seed)


def _static_value(name: str, value: tf.Tensor) -> tf.Tensor:
    """The value of a tensor of a graph, where it depends neither on inputs nor on chance."""
    static = tf.get_static_value(value)
    if static is None:
        static = _evaluated(value)
    if static is None:
        raise ValueError(
            f"The initial value of the variable {name!r} is computed inside the model_fn and is "
            "not known when the variable is made (it is random, or depends on data): pass a "
            "callable, as in tf.Variable(lambda: tf.random.normal([8]))."
        )
    return tf.constant(static, dtype=value.dtype)


def _evaluated(value: tf.Tensor) -> np.ndarray | None:
    """Runs what `value` needs in a graph of its own; None where it needs inputs or draws."""
    definition = value.graph.as_graph_def()
    try:
        needed = tf.compat.v1.graph_util.extract_sub_graph(definition, [value.op.name])
        with tf.Graph().as_default() as graph:
            (copied,) = tf.compat.v1.import_graph_def(needed, return_elements=[value.name], name="")
            operations = graph.get_operations()
            if any(op.type == "Placeholder" or op.op_def.is_stateful for op in operations):
                return None
            with tf.compat.v1.Session(graph=graph) as session:
                return np.asarray(session.run(copied))
    except (tf.errors.OpError, ValueError):
        return None
