"""Seeds of stateless sampling: an int32 tensor of shape [2], the same draw for the same seed.

Sampling with a seed is a function of the seed; sampling without one draws a fresh seed from an op
inside the graph, so a traced or saved function never repeats itself by accident.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pgest.specs import nests

_INT32 = 2**32
_INT64 = 2**64

# An int of at most 64 bits, or two int32 numbers.
Seed: TypeAlias = int | Sequence[int] | npt.NDArray[np.integer] | tf.Tensor


def fresh_seed() -> tf.Tensor:
    """A seed nobody can foresee, new at every execution of a graph, whatever `tf.random.set_seed`.

    The raw op takes its two seed attributes as they are given: zeros mean "from the machine's
    entropy". `tf.random.uniform` would bake the global seed into the graph while tracing, and
    `tf.raw_ops.NonDeterministicInts` does not compile under XLA. Where op determinism is enabled,
    TensorFlow refuses the op: pass seeds.

    Returns:
      int32 tensor of shape [2].
    """
    limits = tf.int32
    return tf.raw_ops.RandomUniformInt(
        shape=[2],
        minval=tf.constant(limits.min, tf.int32),
        maxval=tf.constant(limits.max, tf.int32),
        seed=0,
        seed2=0,
    )


def as_seed(seed: Any) -> tf.Tensor:
    """The stateless seed that `seed` stands for.

    Args:
      seed: None for a fresh one; an int, whose low and high 32 bits become the two numbers; or
        two int32 numbers (tensor, array, list).

    Returns:
      int32 tensor of shape [2].

    Raises:
      TypeError: for anything else.

    >>> as_seed(7).numpy()
    array([7, 0], dtype=int32)
    """
    if seed is None:
        return fresh_seed()
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        if not -(_INT64 // 2) <= int(seed) < _INT64:
            raise TypeError(f"seed: got {seed}, expected an int of at most 64 bits.")
        low, high = int(seed) % _INT32, int(seed) % _INT64 // _INT32
        return tf.constant(np.array([low, high], np.uint32).view(np.int32))
    pair = seed if nests.is_tensor(seed) else np.asarray(seed)
    is_int32 = pair.dtype == tf.int32 if nests.is_tensor(pair) else pair.dtype.kind in "iu"
    if not is_int32 or tuple(pair.shape) != (2,):
        raise TypeError(
            f"seed: got {seed!r}, expected None, an int, or int32 numbers of shape (2,)."
        )
    return tf.convert_to_tensor(pair, tf.int32)


def as_int(seed: Seed) -> int:
    """The non-negative 64-bit int that stands for the same seed, for generators of numpy.

    Args:
      seed: an int, or two int32 numbers, as for `as_seed`.

    Raises:
      TypeError: for anything else.

    >>> as_int(np.array([7, 0], np.int32)), as_int(7)
    (7, 7)
    """
    if type(seed) is int and 0 <= seed < _INT64:
        return seed
    low, high = (int(number) % _INT32 for number in as_seed(seed).numpy())
    return low + high * _INT32


def split_seed(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """One seed for each of `count` draws; a single draw uses the seed itself.

    So one action leaf gives the same as `distribution.sample(seed=seed)`.
    """
    return [seed] if count == 1 else tf.unstack(tf.random.split(seed, count), num=count)
