"""Networks: plain functions that stack `tf_keras` layers, to be called inside a model_fn.

Layers are made anew at every trace and named by the `name` prefix and their position, so a model_fn
that calls these functions alike in every mode shares its weights between modes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
import tf_keras

spaces = gymnasium.spaces

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
    return tf.ensure_shape(hidden, [*static_leading, features])


def is_image(space: gymnasium.Space) -> bool:
    """Whether a space's observations are images: a uint8 Box of two to four axes from 0 to 255.

    >>> is_image(gymnasium.spaces.Box(0, 255, (84, 84, 3), np.uint8))
    True
    """
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and 2 <= len(space.shape) <= 4
        and bool((space.low == 0).all() and (space.high == 255).all())
    )


def preprocess_image(space: gymnasium.spaces.Box, image: tf.Tensor) -> tf.Tensor:
    """Images as floats in [0, 1], channels last.

    Args:
        space: see `is_image`; `(height, width)`, `(height, width, channels)`, `(channels, height,
            width)` (told by the smallest axis, which is where frame stacks of grey images put
            theirs), or `(stack, height, width, channels)`, whose stack goes to the channels.
        image: `[..., *space.shape]`.

    Returns:
        float32 `[..., height, width, channels]`.

    >>> space = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
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
    return tf.ensure_shape(tf.reshape(scaled, shape), static)


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
        return tf.one_hot(index, int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        index = _flat_event(tf.cast(observation, tf.int64) - space.start, space.shape)
        columns = tf.unstack(index, axis=-1)
        sizes = space.nvec.ravel().tolist()
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

    >>> encode_observation(gymnasium.spaces.Box(-1, 1, (3,)), tf.zeros([2, 3])).shape
    TensorShape([2, 3])
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        is_dict = isinstance(space, spaces.Dict)
        children = space.items() if is_dict else enumerate(space.spaces)
        parts = [
            encode_observation(
                child, observation[key], image_features=image_features, name=f"{name}_{key}"
            )
            for key, child in children
        ]
        return tf.concat(parts, axis=-1)
    if is_image(space) and not _is_small(space):
        return cnn(preprocess_image(space, observation), image_features, name=name)
    return flatten_observation(space, observation)


def unroll(
    cell: tf_keras.layers.Layer,
    inputs: tf.Tensor,
    features: Mapping[str, Any],
    *,
    state_key: str | None = None,
) -> tuple[tf.Tensor, Any]:
    """Runs a recurrent cell: one step while acting, along time in training.

    The state is zeroed where episodes start.
    Gradients flow through the whole of `[T, B]` and stop at its first row and at resets (truncated
    back-propagation through time, Williams & Peng 1990).

    Args:
        cell: `tf_keras.layers.LSTMCell(units, name=...)`, `GRUCell`, or any Keras cell; made by the
            caller, so that its name is the model's.
        inputs: float `[B, features]` (acting) or `[T, B, features]` (training, time first).
        features: of the model_fn: `"policy_state"`, the state before the first step, as
            `next_state` had it (absent: zeros); `"reset"`, bool of the leading shape of inputs,
            True where the state is zeroed before the step (absent: never).
        state_key: where the policy state is a dict of several cells' states, this cell's.

    Returns:
        (outputs, next_state): outputs `[B, units]` or `[T, B, units]`; next_state, a tensor `[B,
        units]` (GRU) or a tuple of them (LSTM), for the spec's `policy_state`.

    Raises:
        ValueError: inputs of another rank, or a policy state of another number of tensors.

    >>> outputs, state = unroll(tf_keras.layers.GRUCell(4), tf.ones([5, 2, 3]), {})
    >>> outputs.shape, state.shape
    (TensorShape([5, 2, 4]), TensorShape([2, 4]))
    """
    if inputs.shape.rank not in (2, 3):
        raise ValueError(
            f"unroll takes inputs [B, features] or [T, B, features], got {inputs.shape}. "
            "Encode observations to vectors first: flatten_observation, mlp, cnn."
        )
    state = _initial_state(cell, inputs, features.get("policy_state"), state_key)
    reset = features.get("reset")
    if inputs.shape.rank == 2:
        outputs, state = _cell_step(cell, inputs, state, reset)
    else:
        outputs, state = _unroll_time(cell, inputs, state, reset)
    return outputs, state[0] if len(state) == 1 else tuple(state)


def _initial_state(
    cell: tf_keras.layers.Layer, inputs: tf.Tensor, given: Any, state_key: str | None
) -> list[tf.Tensor]:
    sizes = tf.nest.flatten(cell.state_size)
    if given is None:
        batch = tf.shape(inputs)[-2]
        zeros = [tf.zeros(tf.stack([batch, size]), inputs.dtype) for size in sizes]
        return [tf.ensure_shape(zero, [inputs.shape[-2], zero.shape[-1]]) for zero in zeros]
    if state_key is not None:
        given = given[state_key]
    state = tf.nest.flatten(given)
    if len(state) != len(sizes):
        raise ValueError(
            f"The policy state of {cell.name} must be {len(sizes)} tensors [B, units] of sizes "
            f"{sizes}, got {tf.nest.map_structure(lambda part: part.shape, given)}."
            " With several cells, keep a dict of states and pass state_key."
        )
    return state


def _cell_step(
    cell: tf_keras.layers.Layer,
    inputs: tf.Tensor,
    state: list[tf.Tensor],
    reset: tf.Tensor | None,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    if reset is not None:
        started = tf.cast(reset, tf.bool)[:, tf.newaxis]
        state = [tf.where(started, tf.zeros_like(part), part) for part in state]
    outputs, state = cell(inputs, state)
    return outputs, tf.nest.flatten(state)


def _unroll_time(
    cell: tf_keras.layers.Layer,
    inputs: tf.Tensor,
    state: list[tf.Tensor],
    reset: tf.Tensor | None,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    if not cell.built:
        # A call makes the weights under the cell's name, which inside the loop could not be; its
        # result is unused.
        cell(tf.zeros_like(inputs[0]), [tf.zeros_like(part) for part in state])
    steps = inputs.shape[0] if inputs.shape[0] is not None else tf.shape(inputs)[0]
    outputs = tf.TensorArray(inputs.dtype, steps, element_shape=[inputs.shape[1], cell.output_size])

    def step(time: tf.Tensor, outputs: tf.TensorArray, *state: tf.Tensor) -> tuple[Any, ...]:
        row_reset = None if reset is None else reset[time]
        output, next_state = _cell_step(cell, inputs[time], list(state), row_reset)
        return (time + 1, outputs.write(time, output), *next_state)

    # XLA needs the bound to size what the backward pass keeps.
    _, outputs, *state = tf.while_loop(
        lambda time, *_: time < steps,
        step,
        (tf.constant(0), outputs, *state),
        maximum_iterations=steps,
    )
    return tf.ensure_shape(outputs.stack(), [*inputs.shape[:2], cell.output_size]), list(state)


def _flat_event(tensor: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """`[..., *shape]` to `[..., size]`."""
    if len(shape) == 1:
        return tensor
    leading = tensor.shape.rank - len(shape)
    size = math.prod(shape)
    flat = tf.reshape(tensor, tf.concat([tf.shape(tensor)[:leading], [size]], axis=0))
    return tf.ensure_shape(flat, [*tensor.shape[:leading], size])


def _is_small(space: gymnasium.spaces.Box) -> bool:
    """Too small an image for the cnn's three convolutions."""
    return sorted(space.shape)[-2] < 36
