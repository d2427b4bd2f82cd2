"""Families of action distributions: from a network's output to one TFP distribution.

Leading axes are the batch, of any rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from pgest.distributions import bounded
from pgest.specs import checks

# Low enough that exp(logit) is exactly 0, high enough that 0 * logit is no NaN.
MASKED_LOGIT = -1e9

# How fine a step of float32 has to be, as a part of a box's width: samples that round to a bound
# have another density than was drawn.
_FINEST = 2.0**-16


def mask_logits(logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Rules actions out: their probability is exactly 0, and no gradient reaches their logits.

    See Huang & Ontanon 2020, https://arxiv.org/abs/2006.14171. A row must allow one action at
    least: a row that allows none is a mistake of the environment, which a compiled graph cannot
    report; its actions become equally likely, all of them.

    Args:
        logits: float `[..., n]`.
        mask: bool, the same shape; True is allowed.

    Returns:
        `[..., n]`.

    Raises:
        ValueError: the shapes differ.

    >>> logits = mask_logits(tf.constant([[1., 5., 1.]]), [[True, False, True]])
    >>> tf.nn.softmax(logits).numpy().tolist()
    [[0.5, 0.0, 0.5]]
    """
    logits = tf.convert_to_tensor(logits)
    mask = tf.cast(mask, tf.bool)
    if not mask.shape.is_compatible_with(logits.shape):
        raise ValueError(
            f"The action mask has shape {mask.shape} and the logits have {logits.shape}: a mask "
            "needs one bool for every action (of a MultiDiscrete: sum(nvec) in a row, or a tuple "
            "of parts)."
        )
    return tf.where(mask, logits, tf.constant(MASKED_LOGIT, logits.dtype))


def categorical(
    logits: tf.Tensor, *, mask: tf.Tensor | None = None, dtype: tf.DType = tf.int64
) -> tfd.Distribution:
    """One of n actions, 0 to n - 1.

    Args:
        logits: float `[..., n]`.
        mask: bool `[..., n]` or None; see `mask_logits`.
        dtype: of the action.

    Returns:
        A distribution of batch `[...]` and scalar events.

    >>> categorical(tf.constant([[0., 2., 1.]])).mode().numpy().tolist()
    [1]
    """
    logits = tf.cast(logits, tf.float32)
    if mask is not None:
        logits = mask_logits(logits, mask)
    return tfd.Categorical(logits=logits, dtype=dtype)


def multi_categorical(
    logits: tf.Tensor,
    choices: np.ndarray | Sequence[int],
    *,
    mask: tf.Tensor | Sequence[tf.Tensor] | None = None,
    dtype: tf.DType = tf.int64,
) -> tfd.Distribution:
    """Several independent choices at once, for a `MultiDiscrete`.

    Args:
        logits: float `[..., sum(choices)]`, choice after choice.
        choices: how many actions each choice has (`MultiDiscrete.nvec`), of any shape.
        mask: bool `[..., sum(choices)]`, or a sequence with one `[..., n]` for each choice, or
            None.
        dtype: of the action.

    Returns:
        A distribution of batch `[...]` and events of the shape of `choices`.

    Raises:
        ValueError: the last axis of `logits` or of the mask is not `sum(choices)` long.

    >>> distribution = multi_categorical(tf.zeros([4, 5]), [2, 3])
    >>> distribution.batch_shape, distribution.event_shape
    (TensorShape([4]), TensorShape([2]))
    """
    choices = np.asarray(choices)
    sizes = choices.ravel().tolist()
    logits = tf.cast(logits, tf.float32)
    if logits.shape[-1] != sum(sizes):
        raise ValueError(
            f"The logits of choices {sizes} must be {sum(sizes)} numbers in the last axis, got "
            f"{logits.shape}."
        )
    if mask is not None:
        flat_mask = tf.concat(mask, axis=-1) if isinstance(mask, list | tuple) else mask
        logits = mask_logits(logits, flat_mask)
    # Every choice gets as many logits as the longest, the surplus masked: one distribution, one
    # kernel. Below what is masked, so that not even a choice that allows nothing takes it.
    leading = [[0, 0]] * (logits.shape.rank - 1)
    padded = [
        tf.pad(part, [*leading, [0, max(sizes) - size]], constant_values=2 * MASKED_LOGIT)
        for part, size in zip(tf.split(logits, sizes, axis=-1), sizes, strict=True)
    ]
    stacked = tf.stack(padded, axis=-2)
    if choices.ndim != 1:
        shape = tf.concat([tf.shape(logits)[:-1], [*choices.shape, max(sizes)]], axis=0)
        stacked = checks.with_static_shape(
            tf.reshape(stacked, shape), [*logits.shape[:-1], *choices.shape, max(sizes)]
        )
    return tfd.Independent(tfd.Categorical(logits=stacked, dtype=dtype), choices.ndim)


def bernoulli(
    logits: tf.Tensor, *, event_ndims: int = 1, dtype: tf.DType = tf.int8
) -> tfd.Distribution:
    """Independent switches, for a `MultiBinary`.

    Args:
        logits: float `[..., *event]`, of a 1.
        event_ndims: how many of the last axes are the event.
        dtype: of the action.

    Returns:
        A distribution of batch `[...]` and events `[*event]`.

    >>> bernoulli(tf.constant([[3., -3.]])).mode().numpy().tolist()
    [[1, 0]]
    """
    return tfd.Independent(
        tfd.Bernoulli(logits=tf.cast(logits, tf.float32), dtype=dtype), event_ndims
    )


def gaussian(loc: tf.Tensor, log_std: tf.Tensor, *, event_ndims: int = 1) -> tfd.Distribution:
    """A Gaussian with a diagonal covariance.

    Args:
        loc: float `[..., *event]`.
        log_std: float, broadcastable to `loc`: a variable `[*event]` for a standard deviation that
            does not depend on the state, a network's output `[..., *event]` for one that does.
        event_ndims: how many of the last axes are the event.

    Returns:
        A distribution of batch `[...]` and events `[*event]`.

    >>> gaussian(tf.zeros([3, 2]), tf.zeros([2])).log_prob(tf.zeros([3, 2])).shape
    TensorShape([3])
    """
    loc = tf.cast(loc, tf.float32)
    scale = tf.broadcast_to(tf.exp(tf.cast(log_std, tf.float32)), tf.shape(loc))
    return tfd.Independent(tfd.Normal(loc, checks.with_static_shape(scale, loc.shape)), event_ndims)


def squashed_gaussian(
    loc: tf.Tensor, log_std: tf.Tensor, low: Any, high: Any, *, event_ndims: int = 1
) -> tfd.Distribution:
    """A diagonal Gaussian squashed by tanh into finite bounds; see `SquashedNormal`.

    Args:
        loc: float `[..., *event]`, before squashing.
        log_std: float, broadcastable to `loc`, before squashing.
        low: finite, `[*event]` or a scalar.
        high: finite, `[*event]` or a scalar.
        event_ndims: how many of the last axes are the event.

    Returns:
        A distribution of batch `[...]` and events `[*event]`.

    Raises:
        ValueError: a bound is not finite, `low` not below `high`, the width beyond float32, or
            a step of float32 more than 2^-16 of it.

    >>> distribution = squashed_gaussian(tf.zeros([1, 1]), tf.zeros([1]), low=2.0, high=4.0)
    >>> distribution.mode().numpy().tolist()
    [[3.0]]
    """
    check_bounds("squashed_gaussian", low, high)
    loc = tf.cast(loc, tf.float32)
    scale = tf.broadcast_to(tf.exp(tf.cast(log_std, tf.float32)), tf.shape(loc))
    scale = checks.with_static_shape(scale, loc.shape)
    return tfd.Independent(bounded.SquashedNormal(loc, scale, low, high), event_ndims)


def beta(
    raw1: tf.Tensor, raw0: tf.Tensor, low: Any, high: Any, *, event_ndims: int = 1
) -> tfd.Distribution:
    """Independent Beta distributions on finite bounds, each with one peak; see `BoundedBeta`.

    Concentrations are `1 + softplus(raw)` (Chou et al. 2017, section 3.2).

    Args:
        raw1: float `[..., *event]`, any real number; the larger, the nearer to `high`.
        raw0: float `[..., *event]`, any real number; the larger, the nearer to `low`.
        low: finite, `[*event]` or a scalar.
        high: finite, `[*event]` or a scalar.
        event_ndims: how many of the last axes are the event.

    Returns:
        A distribution of batch `[...]` and events `[*event]`.

    Raises:
        ValueError: a bound is not finite, `low` not below `high`, the width beyond float32, or
            a step of float32 more than 2^-16 of it.

    >>> beta(tf.zeros([1, 1]), tf.zeros([1, 1]), low=0.0, high=2.0).mode().numpy().tolist()
    [[1.0]]
    """
    check_bounds("beta", low, high)
    concentration1 = 1.0 + tf.math.softplus(tf.cast(raw1, tf.float32))
    concentration0 = 1.0 + tf.math.softplus(tf.cast(raw0, tf.float32))
    return tfd.Independent(
        bounded.BoundedBeta(concentration1, concentration0, low, high), event_ndims
    )


def check_bounds(family: str, low: Any, high: Any) -> None:
    """Raises `ValueError` unless bounds are finite, apart, and of enough float32 steps."""
    low, high = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
    with np.errstate(over="ignore", invalid="ignore"):
        width, largest = high - low, np.maximum(np.abs(low), np.abs(high))
    limit = float(np.finfo(np.float32).max)
    finite = np.isfinite(low).all() and np.isfinite(high).all()
    if not finite or not (low < high).all() or max(np.max(largest), np.max(width)) > limit:
        raise ValueError(
            f"{family} needs finite bounds with low < high, not further apart than {limit:.1e}, "
            f"got low={low}, high={high}. Use box='gaussian', or give the environment's actions "
            "such bounds, as in gymnasium.wrappers.TransformAction(env, lambda action: 10.0 * "
            "action, gymnasium.spaces.Box(-1.0, 1.0, env.action_space.shape))."
        )
    spacing = np.spacing(largest.astype(np.float32)).astype(np.float64)
    if (spacing > _FINEST * width).any():
        raise ValueError(
            f"{family} needs a box of {round(1 / _FINEST):,} steps of float32 or more between low "
            f"and high, got low={low}, high={high}, too narrow for its distance from 0: actions "
            "would be rounded to few values, often to the bounds. Rescale them: "
            "gymnasium.wrappers.RescaleAction(env, -1.0, 1.0)."
        )
