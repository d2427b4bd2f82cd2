"""Tensors that share memory with numpy arrays, so that feeding a program copies into them.

Making a tensor of a small array costs about as much as running a small program on it. A program
that is called thousands of times a second with arrays of the same shapes therefore gets the same
tensors each time, whose memory is written before each call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

# XLA on the CPU reads its arguments in place, from addresses that are multiples of this.
_ALIGNMENT = 64
# Above it, copying costs more than making a tensor, and memory that stays is memory lost.
LARGE = 2**20

Feed = Callable[[Any], tf.Tensor]


def feeds(specs: list[tf.TensorSpec], *, share: bool) -> list[Feed]:
    """What turns the value of each argument into a tensor.

    Args:
      specs: of the arguments.
      share: write fixed shapes into memory that the tensor shares. The tensor of a feed then
        holds until its next call, so the program must keep nothing of its arguments: XLA's
        programs do not, while a TensorFlow op may hand its input on as its output or its value of
        a variable.

    Example:

    >>> (feed,) = feeds([tf.TensorSpec([2])], share=True)
    >>> feed(np.array([1.0, 2.0], np.float32)).numpy()
    array([1., 2.], dtype=float32)
    """
    return [(share and _shared(spec)) or _converting(spec) for spec in specs]


def held_once(value: Any, spec: tf.TensorSpec) -> Any:
    """A large array as a tensor, for a caller who drops the array before the program runs.

    Else both are held while it runs, and a batch of images counts twice.
    """
    large = isinstance(value, np.ndarray) and value.nbytes > LARGE
    return tf.constant(value) if large and value.dtype == spec.dtype.as_numpy_dtype else value


def _converting(spec: tf.TensorSpec) -> Feed:
    dtype = spec.dtype

    def feed(value: Any) -> tf.Tensor:
        if isinstance(value, np.ndarray) and value.dtype == dtype.as_numpy_dtype:
            tensor = tf.constant(value)  # quicker than tf.convert_to_tensor
        elif isinstance(value, tf.Tensor) and value.dtype == dtype:
            tensor = value
        else:
            tensor = tf.convert_to_tensor(value, dtype)
        if not spec.shape.is_compatible_with(tensor.shape):
            raise ValueError(
                f"A compiled program got a value of shape {tensor.shape} for {spec.name or 'an'} "
                f"argument of shape {spec.shape}; expected that shape."
            )
        return tensor

    return feed


def _shared(spec: tf.TensorSpec) -> Feed | None:
    """A feed that writes into shared memory; None where there cannot be one."""
    if not spec.shape.is_fully_defined():
        return None
    made = shared_tensor(tuple(spec.shape), spec.dtype)
    if made is None:
        return None
    array, tensor = made
    shape, dtype, convert = array.shape, array.dtype, _converting(spec)

    def feed(value: Any) -> tf.Tensor:
        if isinstance(value, np.ndarray) and value.shape == shape and value.dtype == dtype:
            array[...] = value
            return tensor
        return convert(value)

    def feed_number(value: Any) -> tf.Tensor:
        array[...] = value
        return tensor

    return feed if shape else feed_number


def shared_tensor(shape: tuple[int, ...], dtype: tf.DType) -> tuple[np.ndarray, tf.Tensor] | None:
    """A numpy array and a tensor in the same memory; None where TensorFlow would copy.

    Args:
      shape: of both.
      dtype: of both.
    """
    if not (dtype.is_floating or dtype.is_integer or dtype.is_bool) or dtype.is_quantized:
        return None
    size = int(np.prod(shape)) * dtype.size
    if not 0 < size <= LARGE:
        return None
    memory = np.zeros([size + _ALIGNMENT], np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    array = memory[start : start + size].view(dtype.as_numpy_dtype).reshape(shape)
    try:
        tensor = tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    except (AttributeError, BufferError, RuntimeError, TypeError, tf.errors.OpError):
        return None  # a dtype that numpy or TensorFlow does not exchange, bfloat16 among them
    memory[start : start + size] = 1  # a value of any dtype, bool too
    agrees = tensor.dtype == dtype and np.array_equal(tensor.numpy(), array)
    return (array, tensor) if agrees else None
