"""Losses and diagnostics of policy gradients, as pure functions of flat tensors.

Every tensor is float `[N]`: one number a timestep, of any number of episodes; each function returns
a scalar. `log_prob` is of the policy being trained, `old_log_prob` of the policy that acted;
advantages, targets and old predictions are constants to the gradient (`tf.stop_gradient` is applied
here, so a caller cannot forget it). Losses are to be minimised: sum them with weights of your own.
"""

from __future__ import annotations

from typing import Literal

import tensorflow as tf


def policy_gradient_loss(log_prob: tf.Tensor, advantage: tf.Tensor) -> tf.Tensor:
    """`-mean(log_prob * advantage)`: its gradient is the policy gradient.

    REINFORCE (Williams 1992, https://doi.org/10.1007/BF00992696) where `advantage` is the return,
    with a baseline where it is the return minus a value; A2C's policy loss (Mnih et al. 2016,
    https://arxiv.org/abs/1602.01783, section 4).

    Args:
        log_prob: float `[N]`, log-probabilities of the actions taken.
        advantage: float `[N]`, constant to the gradient.

    Returns:
        A scalar.

    Raises:
        ValueError: the shapes differ.

    >>> float(policy_gradient_loss(tf.constant([-1., -2.]), tf.constant([3., 1.])))
    2.5
    """
    _check_shapes("log_prob", log_prob, advantage=advantage)
    return -tf.reduce_mean(log_prob * tf.stop_gradient(advantage))


def surrogate_loss(log_prob: tf.Tensor, old_log_prob: tf.Tensor, advantage: tf.Tensor) -> tf.Tensor:
    """`-mean(ratio * advantage)`, `ratio = exp(log_prob - old_log_prob)`.

    What TRPO minimises inside its trust region (Schulman et al. 2015,
    https://arxiv.org/abs/1502.05477, eq. 14). At ratio 1 its gradient is that of
    `policy_gradient_loss`.

    Args:
        log_prob: float `[N]`.
        old_log_prob: float `[N]`, constant to the gradient.
        advantage: float `[N]`, constant to the gradient.

    Returns:
        A scalar.

    Raises:
        ValueError: the shapes differ.

    >>> float(surrogate_loss(tf.constant([-1.]), tf.constant([-1.]), tf.constant([2.])))
    -2.0
    """
    _check_shapes("log_prob", log_prob, old_log_prob=old_log_prob, advantage=advantage)
    ratio = tf.exp(log_prob - tf.stop_gradient(old_log_prob))
    return -tf.reduce_mean(ratio * tf.stop_gradient(advantage))


def clipped_surrogate_loss(
    log_prob: tf.Tensor,
    old_log_prob: tf.Tensor,
    advantage: tf.Tensor,
    *,
    clip_ratio: float | tf.Tensor,
) -> tf.Tensor:
    """`-mean(min(ratio * A, clip(ratio, 1 - clip_ratio, 1 + clip_ratio) * A))`: PPO's policy loss.

    Schulman et al. 2017, https://arxiv.org/abs/1707.06347, eq. 7. The gradient of a timestep is
    zero once its ratio has left the interval in the direction that its advantage asks for.

    Args:
        log_prob: float `[N]`.
        old_log_prob: float `[N]`, constant to the gradient.
        advantage: float `[N]`, constant to the gradient.
        clip_ratio: positive scalar; the paper uses 0.2.

    Returns:
        A scalar.

    Raises:
        ValueError: the shapes differ.

    >>> log_prob = tf.math.log([1.5, 0.5])
    >>> loss = clipped_surrogate_loss(log_prob, tf.zeros(2), tf.constant([1., -1.]), clip_ratio=0.2)
    >>> round(float(loss), 4)
    -0.2
    """
    _check_shapes("log_prob", log_prob, old_log_prob=old_log_prob, advantage=advantage)
    ratio = tf.exp(log_prob - tf.stop_gradient(old_log_prob))
    advantage = tf.stop_gradient(advantage)
    clipped_ratio = tf.clip_by_value(ratio, 1.0 - clip_ratio, 1.0 + clip_ratio)
    return -tf.reduce_mean(tf.minimum(ratio * advantage, clipped_ratio * advantage))


def value_loss(
    value: tf.Tensor,
    target: tf.Tensor,
    *,
    old_value: tf.Tensor | None = None,
    clip_range: float | tf.Tensor | None = None,
    pessimistic: bool = True,
) -> tf.Tensor:
    """`mean((value - target)^2)`, where wanted with the value's change clipped as PPO's ratio is.

    There is no factor 1/2: the usual weight of this term, 0.5, is the caller's. With `clip_range`,
    the prediction is held within `old_value +- clip_range`: `clipped = old_value + clip(value -
    old_value, -clip_range, clip_range)`. OpenAI's PPO takes the larger of both errors,
    `mean(max((value - target)^2, (clipped - target)^2))` (Huang et al. 2022, "The 37 implementation
    details of PPO", detail 9); Stable-Baselines3 takes the clipped one alone.

    Args:
        value: float `[N]`.
        target: float `[N]`, constant to the gradient.
        old_value: float `[N]`, the prediction made while acting, constant to the gradient; needed
            to clip.
        clip_range: positive scalar in the unit of the returns, or None for no clipping.
        pessimistic: the larger of both errors (OpenAI), or the clipped one alone
            (Stable-Baselines3).

    Returns:
        A scalar.

    Raises:
        ValueError: the shapes differ, or `clip_range` comes without `old_value`.

    >>> float(value_loss(tf.constant([1., 2.]), tf.constant([0., 0.])))
    2.5
    """
    _check_shapes("value", value, target=target)
    target = tf.stop_gradient(target)
    error = tf.square(value - target)
    if clip_range is None:
        return tf.reduce_mean(error)
    if old_value is None:
        raise ValueError(
            f"value_loss got clip_range={clip_range!r} without old_value: clipping is relative to "
            "the value predicted while acting. Pass old_value=labels['value'], or leave clip_range "
            "out."
        )
    _check_shapes("value", value, old_value=old_value)
    old_value = tf.stop_gradient(old_value)
    clipped = old_value + tf.clip_by_value(value - old_value, -clip_range, clip_range)
    clipped_error = tf.square(clipped - target)
    return tf.reduce_mean(tf.maximum(error, clipped_error) if pessimistic else clipped_error)


def entropy_loss(entropy: tf.Tensor) -> tf.Tensor:
    """`-mean(entropy)`: minimising it keeps a policy exploring.

    Williams & Peng 1991; Mnih et al. 2016, section 4.

    Args:
        entropy: float `[N]`, from `distribution.entropy()`. Where a distribution has none,
            `-log_prob` of the sampled action is an unbiased estimate of its value (not of its
            gradient).

    Returns:
        A scalar.

    >>> float(entropy_loss(tf.constant([1., 2.])))
    -1.5
    """
    return -tf.reduce_mean(entropy)


def approx_kl(
    log_prob: tf.Tensor,
    old_log_prob: tf.Tensor,
    *,
    estimator: Literal["k1", "k3"] = "k3",
) -> tf.Tensor:
    """An estimate of `KL(old || new)` from actions that the old policy took.

    With `r = log_prob - old_log_prob`: `k1 = mean(-r)` is unbiased but may be negative and varies a
    lot; `k3 = mean(exp(r) - 1 - r)` is unbiased too, never negative and varies less (Schulman 2020,
    http://joschu.net/blog/kl-approx.html). For monitoring and early stopping: no loss.

    Args:
        log_prob: float `[N]`, of the policy now.
        old_log_prob: float `[N]`, of the policy that acted.
        estimator: `"k1"` or `"k3"`.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: the shapes differ, or an unknown estimator.

    >>> float(approx_kl(tf.constant([-1.5]), tf.constant([-1.]), estimator="k1"))
    0.5
    """
    _check_shapes("log_prob", log_prob, old_log_prob=old_log_prob)
    log_ratio = log_prob - old_log_prob
    if estimator == "k1":
        return -tf.reduce_mean(log_ratio)
    if estimator == "k3":
        return tf.reduce_mean(tf.math.expm1(log_ratio) - log_ratio)
    raise ValueError(f"approx_kl: estimator must be 'k1' or 'k3', got {estimator!r}.")


def clip_fraction(
    log_prob: tf.Tensor, old_log_prob: tf.Tensor, *, clip_ratio: float | tf.Tensor
) -> tf.Tensor:
    """The fraction of timesteps whose ratio lies outside `1 +- clip_ratio`.

    Args:
        log_prob: float `[N]`, of the policy now.
        old_log_prob: float `[N]`, of the policy that acted.
        clip_ratio: as in `clipped_surrogate_loss`.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: the shapes differ.

    >>> float(clip_fraction(tf.math.log([1.5, 1.1]), tf.zeros(2), clip_ratio=0.2))
    0.5
    """
    _check_shapes("log_prob", log_prob, old_log_prob=old_log_prob)
    ratio = tf.exp(log_prob - old_log_prob)
    return tf.reduce_mean(tf.cast(tf.abs(ratio - 1.0) > clip_ratio, ratio.dtype))


def _check_shapes(name: str, reference: tf.Tensor, **others: tf.Tensor) -> None:
    """Refuses shapes that would broadcast: of `[N, 1]` and `[N]` comes an `[N, N]` unnoticed."""
    shape = tf.convert_to_tensor(reference).shape
    for other_name, other in others.items():
        other_shape = tf.convert_to_tensor(other).shape
        if not shape.is_compatible_with(other_shape):
            raise ValueError(
                f"{name} and {other_name} must have one shape, got {shape} and {other_shape}. "
                "A value head of one unit gives [N, 1]: drop its last axis with "
                "tf.squeeze(value, axis=-1)."
            )
