"""Random variables as functions of uniform noise, in operations that every TensorFlow runtime has.

A sampler that is a pure function of a tensor of uniform numbers can be exported, converted to
TFLite and replayed. Only `uniform` draws anything. Noise is float in [0, 1); 0 and 1 themselves are
harmless.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

# Uniform float32 numbers are multiples of 2^-24 at best; half a step keeps 0 away from the
# logarithms.
_HALF_STEP = 2.0**-25
_BELOW_ONE = 1.0 - 2.0**-24

# A proposal of Marsaglia and Tsang's is taken with probability >= 0.95, so six in a row are refused
# less often than once in 50 million draws; then the first proposal is used as it is.
_GAMMA_PROPOSALS = 6
GAMMA_NOISE = 3 * _GAMMA_PROPOSALS + 1
NORMAL_NOISE = 2
BETA_NOISE = 2 * GAMMA_NOISE


def uniform(shape: Any, seed: Any) -> tf.Tensor:
    """Uniform float32 numbers in [0, 1), a function of the seed alone.

    The same with and without XLA, which TensorFlow's own uniform floats are not: the default
    generator differs, and of one generator's bits XLA makes floats in another way. The bits
    themselves agree.

    Args:
        shape: of the result.
        seed: int `[2]`.

    Returns:
        float32 of that shape.
    """
    bits = tf.random.stateless_uniform(
        shape, seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def split_seed(seed: Any, count: int) -> tf.Tensor:
    """Seeds of `count` independent streams.

    The same with and without XLA, which those of TFP and `tf.random.split` are not.

    Args:
        seed: int `[2]`.
        count: how many.

    Returns:
        int32 `[count, 2]`.
    """
    return tf.random.stateless_uniform(
        [count, 2], seed, minval=None, maxval=None, dtype=tf.int32, alg="philox"
    )


def gumbel(noise: tf.Tensor) -> tf.Tensor:
    """Standard Gumbel numbers, `-log(-log(u))`.

    `argmax(logits + gumbel)` is a sample of the categorical with those logits (Gumbel 1954).

    Args:
        noise: float `[...]`.

    Returns:
        The shape of `noise`.
    """
    return -tf.math.log(-tf.math.log(_open(noise)))


def normal(noise: tf.Tensor) -> tf.Tensor:
    """Standard normal numbers, one from each pair of uniforms (Box & Muller 1958).

    Args:
        noise: float `[..., 2]` (`NORMAL_NOISE`).

    Returns:
        `[...]`.
    """
    noise = _open(noise)
    radius = tf.sqrt(-2.0 * tf.math.log(noise[..., 0]))
    return radius * tf.cos(2.0 * math.pi * noise[..., 1])


def gamma(concentration: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Gamma numbers of rate 1 by rejection among a fixed number of proposals.

    Marsaglia & Tsang 2000 (https://doi.org/10.1145/358407.358414), with their boost for
    concentrations below 1.

    Args:
        concentration: float `[...]`, positive.
        noise: float `[..., GAMMA_NOISE]`.

    Returns:
        `[...]`, positive.
    """
    noise = _open(noise)
    boost, uniform, pairs = tf.split(noise, [1, _GAMMA_PROPOSALS, 2 * _GAMMA_PROPOSALS], axis=-1)
    pairs = tf.reshape(
        pairs, tf.concat([tf.shape(pairs)[:-1], [_GAMMA_PROPOSALS, NORMAL_NOISE]], axis=0)
    )
    proposal = normal(pairs)

    small = concentration < 1.0
    shape = tf.where(small, concentration + 1.0, concentration)[..., tf.newaxis] - 1.0 / 3.0
    cube_root = 1.0 + proposal / tf.sqrt(9.0 * shape)
    volume = tf.maximum(cube_root, _HALF_STEP) ** 3
    bound = 0.5 * tf.square(proposal) + shape * (1.0 - volume + tf.math.log(volume))
    accepted = (cube_root > 0.0) & (tf.math.log(uniform) < bound)
    first = tf.one_hot(tf.argmax(tf.cast(accepted, tf.int32), axis=-1), _GAMMA_PROPOSALS)
    draw = tf.reduce_sum(tf.cast(first, volume.dtype) * shape * volume, axis=-1)
    return tf.where(small, draw * boost[..., 0] ** (1.0 / concentration), draw)


def beta(concentration1: tf.Tensor, concentration0: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Beta numbers, `g1 / (g1 + g0)` of two gamma numbers.

    Args:
        concentration1: float `[...]`, positive.
        concentration0: float `[...]`, positive.
        noise: float `[..., BETA_NOISE]`.

    Returns:
        `[...]` in [0, 1].
    """
    noise1, noise0 = tf.split(noise, 2, axis=-1)
    gamma1, gamma0 = gamma(concentration1, noise1), gamma(concentration0, noise0)
    return gamma1 / (gamma1 + gamma0)


def _open(noise: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(noise, _HALF_STEP, _BELOW_ONE)
