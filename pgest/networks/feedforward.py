"""Feed-forward networks, orthogonally initialised."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf
import tf_keras

from pgest.specs import checks

Activation = str | Callable[[tf.Tensor], tf.Tensor] | None

# What keeps the variance of activations through a layer (Saxe et al. 2014; Huang et al. 2022,
# detail 2).
HIDDEN_GAIN = math.sqrt(2.0)


def dense(
    inputs: tf.Tensor,
    size: int,
    activation: Activation = None,
    *,
    gain: float = HIDDEN_GAIN,
    name: str = "dense",
) -> tf.Tensor:
    """A dense layer with an orthogonal kernel and zero bias.

    Args:
        inputs: float `[..., features]`.
        size: of the output.
        activation: name or function, or None.
        gain: of the orthogonal initialisation; 1 is usual for a value's last layer, 0.01 for a
            policy's.
        name: of the layer.

    Returns:
        `[..., size]`.

    >>> dense(tf.ones([2, 3]), 4).shape
    TensorShape([2, 4])
    """
    return tf_keras.layers.Dense(
        size,
        activation=activation,
        kernel_initializer=tf_keras.initializers.Orthogonal(gain),
        name=name,
    )(inputs)


def mlp(
    inputs: tf.Tensor,
    sizes: Sequence[int] = (64, 64),
    activation: Activation = "tanh",
    *,
    gain: float = HIDDEN_GAIN,
    name: str = "mlp",
) -> tf.Tensor:
    """Dense layers one after the other, orthogonally initialised.

    Args:
        inputs: float `[..., features]`.
        sizes: of the layers; none gives the inputs back.
        activation: after every layer.
        gain: of the orthogonal initialisation.
        name: prefix; layers are `{name}_0`, `{name}_1`, ...

    Returns:
        `[..., sizes[-1]]`.

    >>> mlp(tf.ones([2, 3]), (8, 4)).shape
    TensorShape([2, 4])
    """
    hidden = inputs
    for index, size in enumerate(sizes):
        hidden = dense(hidden, size, activation, gain=gain, name=f"{name}_{index}")
    return hidden


def cnn(
    images: tf.Tensor, features: int = 512, *, gain: float = HIDDEN_GAIN, name: str = "cnn"
) -> tf.Tensor:
    """The network of Mnih et al. 2015 (https://doi.org/10.1038/nature14236).

    Convolutions 32 of 8x8 stride 4, 64 of 4x4 stride 2, 64 of 3x3 stride 1, then `features`, ReLU
    after each.

    Args:
        images: float `[..., height, width, channels]`, scaled to [0, 1]; see `preprocess_image`.
            36x36 at least.
        features: size of the last layer.
        gain: of the orthogonal initialisation.
        name: prefix; layers are `{name}_0` to `{name}_2` and `{name}_dense`.

    Returns:
        `[..., features]`.

    Raises:
        ValueError: images smaller than 36x36, or of fewer than four axes.

    >>> cnn(tf.zeros([2, 84, 84, 4])).shape
    TensorShape([2, 512])
    """
    if images.shape.rank < 4 or min(images.shape[-3:-1]) < 36:
        raise ValueError(
            f"cnn needs images [..., height, width, channels] of 36x36 at least, got "
            f"{images.shape}. "
            "Smaller observations go through mlp(flatten_observation(space, observation))."
        )
    leading = tf.shape(images)[:-3]
    static_leading = images.shape[:-3]
    hidden = tf.reshape(images, [-1, *images.shape[-3:]])
    for index, (filters, size, stride) in enumerate(((32, 8, 4), (64, 4, 2), (64, 3, 1))):
        hidden = tf_keras.layers.Conv2D(
            filters,
            size,
            stride,
            activation="relu",
            kernel_initializer=tf_keras.initializers.Orthogonal(gain),
            name=f"{name}_{index}",
        )(hidden)
    hidden = tf.reshape(hidden, [-1, math.prod(hidden.shape[1:])])
    hidden = dense(hidden, features, "relu", gain=gain, name=f"{name}_dense")
    hidden = tf.reshape(hidden, tf.concat([leading, [features]], axis=0))
    return checks.with_static_shape(hidden, [*static_leading, features])
