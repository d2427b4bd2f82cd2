"""Observations of any space as tensors that networks take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium import spaces

from pgest.networks import feedforward
from pgest.specs import checks

# A one-hot vector of more features than this is no input for a network: a dense layer of 64 on it
# alone has 67 million weights. (Beyond 2**31 TensorFlow wraps the number of features round.)
MAX_CHOICES = 2**20


def is_image(space: gymnasium.Space) -> bool:
    """Whether a space's observations are images: a uint8 Box of two to four axes from 0 to 255.

    >>> is_image(spaces.Box(0, 255, (84, 84, 3), np.uint8))
    True
    """
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and 2 <= len(space.shape) <= 4
        and bool((space.low == 0).all() and (space.high == 255).all())
    )


def preprocess_image(space: spaces.Box, image: tf.Tensor) -> tf.Tensor:
    """Images as floats in [0, 1], channels last.

    Args:
        space: see `is_image`; `(height, width)`, `(height, width, channels)`, `(channels, height,
            width)` (told by the smallest axis, which is where frame stacks of grey images put
            theirs), or `(stack, height, width, channels)`, whose stack goes to the channels.
        image: `[..., *space.shape]`.

    Returns:
        float32 `[..., height, width, channels]`.

    >>> space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    >>> preprocess_image(space, tf.zeros([2, 4, 84, 84])).shape
    TensorShape([2, 84, 84, 4])
    """
    scaled = tf.cast(image, tf.float32) / 255.0
    rank = scaled.shape.rank
    leading = list(range(rank - len(space.shape)))
    if len(space.shape) == 2:
        return scaled[..., tf.newaxis]
    if len(space.shape) == 3:
        if np.argmin(space.shape) != 0:
            return scaled
        return tf.transpose(scaled, [*leading, rank - 2, rank - 1, rank - 3])
    stack, height, width, channels = space.shape
    scaled = tf.transpose(scaled, [*leading, rank - 3, rank - 2, rank - 4, rank - 1])
    shape = tf.concat([tf.shape(scaled)[: len(leading)], [height, width, stack * channels]], axis=0)
    static = [*scaled.shape[: len(leading)], height, width, stack * channels]
    return checks.with_static_shape(tf.reshape(scaled, shape), static)


def flatten_observation(space: gymnasium.Space, observation: Any) -> tf.Tensor:
    """An observation of any space as one vector of floats.

    Discrete and MultiDiscrete become one-hot (their `start` taken off), MultiBinary 0 or 1, images
    are divided by 255, other Boxes cast, Dict and Tuple concatenated in the space's order.

    Args:
        space: the observation space.
        observation: a nest like the space of `[..., *shape]`; any leading axes, the same for all.

    Returns:
        float32 `[..., features]`.

    Raises:
        TypeError: a space without a fixed size (Text, Graph, Sequence, OneOf).
        ValueError: a Discrete or MultiDiscrete of more than 2**20 = 1,048,576 choices in all.

    >>> space = spaces.Dict(key=spaces.Discrete(3, start=1), at=spaces.Box(0, 1, (2,)))
    >>> observation = {"key": tf.constant([2]), "at": tf.constant([[.5, 1.]])}
    >>> flatten_observation(space, observation).numpy().tolist()
    [[0.0, 1.0, 0.0, 0.5, 1.0]]
    """
    if isinstance(space, spaces.Dict):
        parts = [flatten_observation(child, observation[key]) for key, child in space.items()]
        return tf.concat(parts, axis=-1)
    if isinstance(space, spaces.Tuple):
        pairs = zip(space.spaces, observation, strict=True)
        return tf.concat([flatten_observation(*pair) for pair in pairs], axis=-1)
    if isinstance(space, spaces.Discrete):
        index = tf.cast(observation, tf.int64) - int(space.start)
        return tf.one_hot(index, _number_of_choices(space, [space.n]))
    if isinstance(space, spaces.MultiDiscrete):
        index = _flat_event(tf.cast(observation, tf.int64) - space.start, space.shape)
        columns = tf.unstack(index, axis=-1)
        sizes = space.nvec.ravel().tolist()
        _number_of_choices(space, sizes)
        hot = [tf.one_hot(column, size) for column, size in zip(columns, sizes, strict=True)]
        return tf.concat(hot, axis=-1)
    if isinstance(space, spaces.MultiBinary | spaces.Box):
        scale = 255.0 if is_image(space) else 1.0
        return _flat_event(tf.cast(observation, tf.float32) / scale, space.shape)
    raise TypeError(
        "flatten_observation takes Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple; got "
        f"{space}, which has no fixed size. Encode it in the environment "
        "(gymnasium.wrappers.TransformObservation)."
    )


def encode_observation(
    space: gymnasium.Space, observation: Any, *, image_features: int = 512, name: str = "encoder"
) -> tf.Tensor:
    """An observation as one vector: images through a `cnn` each, the rest flattened.

    Args:
        space: the observation space.
        observation: see `flatten_observation`.
        image_features: the last layer's size of each `cnn`.
        name: prefix of the layers' names.

    Returns:
        float32 `[..., features]`.

    Raises:
        TypeError: see `flatten_observation`.

    >>> encode_observation(spaces.Box(-1, 1, (3,)), tf.zeros([2, 3])).shape
    TensorShape([2, 3])
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        children = space.spaces
        pairs = children.items() if isinstance(children, dict) else enumerate(children)
        parts = [
            encode_observation(
                child, observation[key], image_features=image_features, name=f"{name}_{key}"
            )
            for key, child in pairs
        ]
        return tf.concat(parts, axis=-1)
    if isinstance(space, spaces.Box) and is_image(space) and not _is_small(space):
        return feedforward.cnn(preprocess_image(space, observation), image_features, name=name)
    return flatten_observation(space, observation)


def _number_of_choices(space: gymnasium.Space, sizes: Sequence[Any]) -> int:
    """How many features a space that counts has as one-hot vectors.

    Raises:
        ValueError: More than `MAX_CHOICES`.
    """
    choices = sum(map(int, sizes))  # Python's: numpy's would wrap round
    if choices > MAX_CHOICES:
        raise ValueError(
            f"{space} has {choices:,} choices, each of which would be a feature (one-hot); at most "
            f"{MAX_CHOICES:,} are taken. Look the number up in a tf_keras.layers.Embedding, or "
            "give its digits or a Box in the environment "
            "(gymnasium.wrappers.TransformObservation)."
        )
    return choices


def _flat_event(tensor: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """`[..., *shape]` to `[..., size]`."""
    if len(shape) == 1:
        return tensor
    leading = tensor.shape.rank - len(shape)
    size = math.prod(shape)
    flat = tf.reshape(tensor, tf.concat([tf.shape(tensor)[:leading], [size]], axis=0))
    return checks.with_static_shape(flat, [*tensor.shape[:leading], size])


def _is_small(space: spaces.Box) -> bool:
    """Too small an image for the cnn's three convolutions."""
    return sorted(space.shape)[-2] < 36
