"""What a step of the update looks at in the spec of a model_fn."""

from __future__ import annotations

import warnings
from typing import Any

import tensorflow as tf

from pgest import losses


def seen(
    spec: Any, build: Any, labels: Any, needs_divergence: bool
) -> tuple[dict[str, Any], tf.Tensor, tf.Tensor | None]:
    """What a step reports: metrics, and how far the policy is from the one that acted.

    The third is log-probabilities of the actions, None without a distribution.

    Args:
      spec: what model_fn returned.
      build: the call of model_fn.
      labels: what it got.
      needs_divergence: whether `target_kl` is given.

    Raises:
      ValueError: it is, and there is no distribution.
    """
    check_tensors(spec.distribution)
    metrics = {"loss": spec.loss, **build.metrics, **spec.metrics}
    divergence, log_prob = tf.zeros([], tf.float32), None
    if spec.distribution is not None and "log_prob" in labels:
        log_prob = spec.distribution.log_prob(labels["action"])
        divergence = losses.approx_kl(log_prob, labels["log_prob"])
        metrics.setdefault("policy/kl", divergence)
    elif needs_divergence:
        raise ValueError(
            "target_kl needs the policy's distribution in TRAIN, to compare it with the one "
            "that acted: return EstimatorSpec(..., distribution=...) in every mode, or leave "
            "target_kl out."
        )
    if spec.distribution is not None:
        mean_entropy = entropy(spec.distribution)
        if mean_entropy is not None:
            metrics.setdefault("policy/entropy", mean_entropy)
    return metrics, divergence, log_prob


def numbers(metrics: dict[str, Any]) -> list[tf.Tensor]:
    """Metrics as float32 scalars, read here."""
    return [
        tf.reshape(tf.cast(checked_metric(name, value), tf.float32), [])
        for name, value in metrics.items()
    ]


def executed(spec: Any, counter: tf.Variable, before: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Executes what a spec wants executed, and counts the step where its train_op does not.

    Args:
      spec: what model_fn returned.
      counter: the variable global_step.
      before: its value before model_fn was called.

    Returns:
      How far train_op has moved the counter, and what has run when all is done.
    """
    operations = [op for op in (spec.train_op, *spec.extra_ops) if op is not None]
    with tf.control_dependencies([operation(op) for op in operations]):
        moved = counter.read_value() - before
        return moved, counter.assign_add(tf.cast(tf.equal(moved, 0), tf.int64))


def check_tensors(distribution: Any) -> None:
    """Warns of a distribution that reads variables when it is asked: after the step, new values."""
    held = [part.name for part in getattr(distribution, "trainable_variables", ())]
    if held:
        warnings.warn(
            f"The distribution in TRAIN holds the variables {', '.join(held)} themselves, so that "
            "policy/kl, policy/entropy and target_kl would see them as train_op leaves them: give "
            "it tensors, for example tf.convert_to_tensor(variable), before minimize().",
            stacklevel=2,
        )


def checked_metric(name: str, value: Any) -> tf.Tensor:
    """A metric as a tensor, which has to be a scalar."""
    value = tf.convert_to_tensor(value)
    if value.shape.rank != 0 and value.shape.num_elements() != 1:
        raise ValueError(
            f"metrics[{name!r}] has shape {value.shape}; expected a scalar. Reduce it, for "
            "example with tf.reduce_mean."
        )
    return value


def entropy(distribution: Any) -> tf.Tensor | None:
    """The mean entropy; None of a distribution that has none in closed form."""
    try:
        return tf.reduce_mean(distribution.entropy())
    except NotImplementedError:
        return None


def operation(op: Any) -> Any:
    """What a control dependency takes, of a tensor or an operation."""
    return getattr(op, "op", op)


def check_moved(moved: int) -> None:
    """Raises where a step moved global_step by more than one."""
    if moved > 1:
        raise ValueError(
            f"The train_op moved global_step by {moved}; one step moves it by one. For several "
            "losses use pgest.minimize([(loss, optimizer, variables), ...]), or leave "
            "global_step alone and the agent counts."
        )


def named_metrics(names: tuple[str, ...], values: tf.Tensor) -> dict[str, float]:
    """Metrics by name, from the vector that `UpdateGraph.run` returns."""
    return dict(zip(names, values.numpy().tolist(), strict=True))
