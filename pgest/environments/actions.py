"""From what a distribution samples to what an environment takes.

Distributions over discrete actions count from 0 and Gaussians know no bounds; an action space may
start elsewhere and be bounded. Training sees the sample, the environment what is made of it here.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

_INTEGERS = "integers"


def environment_action(space: gymnasium.Space, action: Any, path: str = "action") -> Any:
    """Returns `action` in the terms of `space`: offset, clipped to bounds, nests alike.

    Args:
      space: the action space of one environment.
      action: tensor `[B, ...]`, or a nest of them where the space is one.
      path: name of the action in errors.

    Returns:
      A nest like `action`; the very same tensor where nothing has to change.

    Raises:
      ValueError: dtype, shape or structure do not fit the space, or the space is unsupported.

    Example:

    >>> environment_action(gymnasium.spaces.Discrete(3, start=5), tf.constant([0, 2])).numpy()
    array([5, 7], dtype=int32)
    """
    spaces = gymnasium.spaces
    if isinstance(space, spaces.Dict):
        if not isinstance(action, dict) or set(action) != set(space.spaces):
            raise ValueError(_mismatch(path, action, f"a dict with the keys {list(space.spaces)}"))
        return {
            key: environment_action(part, action[key], f"{path}/{key}")
            for key, part in space.spaces.items()
        }
    if isinstance(space, spaces.Tuple):
        if not isinstance(action, (tuple, list)) or len(action) != len(space.spaces):
            raise ValueError(_mismatch(path, action, f"a tuple of {len(space.spaces)}"))
        return tuple(
            environment_action(part, piece, f"{path}/{index}")
            for index, (part, piece) in enumerate(zip(space.spaces, action, strict=True))
        )
    if isinstance(space, spaces.Discrete):
        action = _checked(path, action, (), _INTEGERS)
        action = tf.cast(action, tf.int32) if action.dtype.is_bool else action
        return _counted_from_start(space, action)
    if isinstance(space, spaces.MultiDiscrete):
        return _counted_from_start(space, _checked(path, action, space.shape, _INTEGERS))
    if isinstance(space, spaces.MultiBinary):
        return tf.cast(_checked(path, action, space.shape, _INTEGERS), tf.int8)
    if isinstance(space, spaces.Box):
        kinds = "floats or integers" if np.issubdtype(space.dtype, np.integer) else "floats"
        return _box_action(space, _checked(path, action, space.shape, kinds))
    raise ValueError(
        f"{path}: action spaces of type {type(space).__name__} are not supported; expected "
        "Discrete, Box, MultiDiscrete, MultiBinary, or a Dict or Tuple of them."
    )


def _counted_from_start(space: Any, action: tf.Tensor) -> tf.Tensor:
    if np.any(space.start):
        action = action + tf.cast(space.start, action.dtype)
    usual = space.dtype in (np.int32, np.int64)
    return action if usual else tf.cast(action, space.dtype)


def _box_action(space: gymnasium.spaces.Box, action: tf.Tensor) -> tf.Tensor:
    if np.issubdtype(space.dtype, np.integer):
        return to_integers(action, space.dtype, space.low, space.high)
    action = action if action.dtype == space.dtype else tf.cast(action, space.dtype)
    if np.any(np.isfinite(space.low)) or np.any(np.isfinite(space.high)):
        # In the space's own dtype: the float32 next to a bound of float64 may lie beyond it.
        action = tf.clip_by_value(action, space.low, space.high)
    return action


def to_integers(action: tf.Tensor, dtype: Any, low: Any = None, high: Any = None) -> tf.Tensor:
    """Floats, clipped to bounds if there are any, to the nearest integers of a dtype."""
    if low is None:
        return tf.cast(tf.round(tf.cast(action, tf.float64)), dtype)
    if not _holds(action.dtype, low, high):
        # float64 holds every bound up to 2**53; a float32 of 2**31 - 1 would overflow an int32.
        action = tf.cast(action, tf.float64)
    kind = action.dtype.as_numpy_dtype
    return tf.cast(tf.round(tf.clip_by_value(action, kind(low), kind(high))), dtype)


def clip_to(action: tf.Tensor, dtype: tf.DType, low: Any, high: Any) -> tf.Tensor:
    """The action in a dtype, within bounds of that dtype.

    It is clipped as float32 or int32 where that gives the same, since LiteRT clips neither float64
    nor integers of eight bits.
    """
    if dtype == tf.float64 and action.dtype == tf.float32 and _holds(tf.float32, low, high):
        clipped_in = tf.float32  # from which float64 rounds nothing
    else:
        action = tf.cast(action, dtype)
        clipped_in = tf.int32 if dtype.is_integer and dtype.size < tf.int32.size else dtype
    kind = clipped_in.as_numpy_dtype
    return tf.cast(tf.clip_by_value(tf.cast(action, clipped_in), kind(low), kind(high)), dtype)


def _holds(dtype: tf.DType, low: Any, high: Any) -> bool:
    """Whether bounds are numbers of a dtype of floats, exactly."""
    bounds = np.asarray([low, high]).astype(np.float64)
    with np.errstate(over="ignore"):
        return bool(np.all(bounds.astype(dtype.as_numpy_dtype).astype(np.float64) == bounds))


def _checked(path: str, action: Any, shape: tuple[int, ...], kinds: str) -> tf.Tensor:
    """Returns the action as a tensor if it is of one of `kinds`: integers, floats or both."""
    wanted = f"{kinds} of shape {('B', *shape)}"
    if isinstance(action, (dict, tuple, list)):
        raise ValueError(_mismatch(path, action, wanted))
    action = tf.convert_to_tensor(action)
    fits = "integers" in kinds and (action.dtype.is_integer or action.dtype.is_bool)
    fits = fits or ("floats" in kinds and action.dtype.is_floating)
    rank = action.shape.rank
    if not fits or (rank is not None and rank != 1 + len(shape)):
        raise ValueError(_mismatch(path, action, wanted))
    if rank is not None and not action.shape[1:].is_compatible_with(shape):
        raise ValueError(_mismatch(path, action, wanted))
    return action


def _mismatch(path: str, action: Any, wanted: str) -> str:
    if tf.is_tensor(action):
        got = f"{action.dtype.name} of shape {action.shape}"
    elif isinstance(action, dict):
        got = f"a dict with the keys {list(action)}"
    else:
        got = f"{type(action).__name__} of {len(action)}"
    return (
        f"The model's {path} is {got}; the action space wants {wanted}. Give model_fn's "
        "distribution (or predictions['results']) that event shape and dtype."
    )
