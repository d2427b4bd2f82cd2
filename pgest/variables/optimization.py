"""`minimize`: a loss and an optimizer become a `train_op`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from pgest.variables import sharing, store, workers

_LegacyOptimizer = tf_keras.optimizers.legacy.Optimizer


def minimize(
    loss: Any,
    optimizer: tf_keras.optimizers.Optimizer | None = None,
    var_list: Sequence[tf.Variable] | None = None,
    clip_norm: float | tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns the `train_op` that descends `loss`; call it inside a model_fn, in `Modes.TRAIN`.

    Executing it advances `global_step` by one, whatever the number of losses. The optimizer's
    `iterations` are the `global_step`, so its learning-rate schedule follows the checkpoint; a
    constant learning rate is what the caller passes now, not what a checkpoint remembers.

    Args:
      loss: float scalar; or a list of `(loss, optimizer, variables)`, for a step with several.
      optimizer: a `tf_keras.optimizers.Optimizer` made inside the model_fn; not with a list.
      var_list: variables to change; by default every trainable variable that this call of the
        model_fn used. Not with a list.
      clip_norm: the largest global norm of the gradients of each loss; None does not clip
        (Pascanu et al. 2013, https://arxiv.org/abs/1211.5063).

    Returns:
      The new `global_step`, an int64 scalar.

    Raises:
      TypeError: the optimizer is not of tf_keras.
      ValueError: a variable has no gradient, there is nothing to train, a loss is no scalar, the
        optimizer was made outside of this call of the model_fn, or is given for two losses.
      RuntimeError: no model_fn is being called.

    Example, inside a model_fn:

        train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(3e-4), clip_norm=0.5)
        train_op = pgest.minimize([
            (actor_loss, tf_keras.optimizers.Adam(3e-4), actor_variables),
            (critic_loss, tf_keras.optimizers.Adam(1e-3), critic_variables),
        ])
    """
    build = sharing.current()
    parts = _parts(loss, optimizer, var_list)
    global_step = sharing.get_global_step()
    step = global_step.read_value()
    # Every gradient is of the weights that this update started from.
    gradients = [_gradients(build, *part) for part in parts]
    if build.half is not None and build.half.given is None:
        return _left_to_second_half(build, build.half, parts, gradients, step)
    gradients = _clipped(build, gradients, clip_norm)
    # Every optimizer must see the step that this update started from, and global_step moves once:
    # the last one has it as its iterations, those before it set their own to it.
    applied: list[Any] = []
    for part, pairs in zip(parts, gradients, strict=True):
        with tf.control_dependencies(applied):
            iterations = global_step if part is parts[-1] else None
            applied += _apply(build, part[1], pairs, iterations, step)
    with tf.control_dependencies(applied):
        return tf.identity(step + 1)


def _parts(loss: Any, optimizer: Any, var_list: Any) -> list[tuple[Any, Any, Any]]:
    """The (loss, optimizer, variables) triples of a call of `minimize`."""
    if not isinstance(loss, (list, tuple)):
        return [(loss, optimizer, var_list)]
    if optimizer is not None or var_list is not None:
        raise ValueError(
            "minimize got a list of losses and also an optimizer or var_list; put them into "
            "the list: minimize([(loss, optimizer, variables), ...])."
        )
    if not loss or any(not isinstance(part, (list, tuple)) or len(part) != 3 for part in loss):
        raise ValueError(
            f"minimize got a list of {len(loss)} that are not all triples; expected "
            "minimize([(loss, optimizer, variables), ...])."
        )
    optimizers = [part[1] for part in loss]
    if len({id(optimizer) for optimizer in optimizers}) < len(optimizers):
        raise ValueError(
            "minimize got one optimizer object for several losses; make one optimizer for each, "
            "or add the losses up."
        )
    return [tuple(part) for part in loss]


def _gradients(
    build: sharing.Build,
    loss: tf.Tensor,
    optimizer: Any,
    variables: Sequence[tf.Variable] | None,
) -> list[tuple[tf.Tensor, tf.Variable]]:
    _check_optimizer(optimizer)
    loss = _checked_loss(loss)
    variables = build.trainable_variables if variables is None else list(variables)
    if not variables:
        raise ValueError(
            "minimize found no trainable variables: model_fn made none before it was called, or "
            "var_list is empty."
        )
    gradients = tf.gradients(loss, variables)
    missing = [
        variable.name.split(":")[0]
        for gradient, variable in zip(gradients, variables, strict=True)
        if gradient is None
    ]
    if missing:
        raise ValueError(
            f"The loss does not depend on {', '.join(missing)}: no gradient reaches them. Leave "
            "them out with var_list=..., or check for a tf.stop_gradient, a cast to integers or "
            "NumPy code between them and the loss."
        )
    return list(zip(gradients, variables, strict=True))


def _left_to_second_half(
    build: sharing.Build,
    half: sharing.Half,
    parts: Sequence[tuple[Any, Any, Any]],
    gradients: list[list[tuple[tf.Tensor, tf.Variable]]],
    step: tf.Tensor,
) -> tf.Tensor:
    """Where `minimize` ends in the first half of a step: it has gradients and applies none."""
    build.gradients += gradients
    for _, optimizer, _ in parts:
        if not isinstance(optimizer, _LegacyOptimizer):  # which makes its step count when applied
            build.release(optimizer.iterations)
    half.reached.append(tf.identity(step + 1))
    return half.reached[-1]


def _clipped(
    build: sharing.Build,
    parts: list[list[tuple[tf.Tensor, tf.Variable]]],
    clip_norm: float | tf.Tensor | None,
) -> list[list[tuple[tf.Tensor, tf.Variable]]]:
    """The gradients of each loss, of all workers together, clipped by their own global norm."""
    if build.exchange is not None:
        own = [gradient for part in parts for gradient, _ in part]
        given = None if build.half is None else build.half.given
        flat = iter(workers.means_over_workers(own) if given is None else given)
        parts = [[(next(flat), variable) for _, variable in part] for part in parts]
    clipped = []
    for number, part in enumerate(parts):
        build.gradients.append(part)
        gradients, variables = zip(*part, strict=True)
        norm = tf.linalg.global_norm(gradients)
        build.metrics[_metric_name("gradient_norm", number)] = norm
        if clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, clip_norm, use_norm=norm)
        clipped.append(list(zip(gradients, variables, strict=True)))
    return clipped


def _check_optimizer(optimizer: Any) -> None:
    if isinstance(optimizer, (tf_keras.optimizers.Optimizer, _LegacyOptimizer)):
        return
    if optimizer is None:
        raise TypeError(
            "minimize got no optimizer: minimize(loss, tf_keras.optimizers.Adam(1e-3))."
        )
    kind = optimizer if isinstance(optimizer, type) else type(optimizer)
    raise TypeError(
        f"minimize got the optimizer {kind.__module__}.{kind.__qualname__}; expected an instance "
        "of one of tf_keras.optimizers, for example tf_keras.optimizers.Adam(1e-3) (`import "
        "tf_keras`; those of Keras 3, from `keras` or `tf.keras`, and of tf.compat.v1.train do "
        "not fit)."
    )


def _checked_loss(loss: Any) -> tf.Tensor:
    loss = tf.convert_to_tensor(loss)
    if loss.shape.rank not in (0, None) and loss.shape.num_elements() != 1:
        raise ValueError(
            f"minimize got a loss of shape {loss.shape}; expected a scalar. Reduce it, for "
            "example with tf.reduce_mean."
        )
    return loss


def _apply(
    build: sharing.Build,
    optimizer: Any,
    pairs: list[tuple[tf.Tensor, tf.Variable]],
    iterations: tf.Variable | None,
    step: tf.Tensor,
) -> list[Any]:
    """Applies the gradients; the optimizer's step count, which starts at `step`, moves by one.

    Args:
      build: the call of model_fn.
      optimizer: made in this call.
      pairs: gradients and variables.
      iterations: to be its step count; None leaves it its own, which is not saved.
      step: what the step count starts at.

    Returns:
      What to wait for.
    """
    legacy = isinstance(optimizer, _LegacyOptimizer)
    outside = store.outside_optimizer(type(optimizer).__name__)
    if iterations is None or not legacy:
        # A legacy optimizer makes its step count only now, unless it was applied before.
        if not build.release(optimizer.iterations):
            raise ValueError(outside)
    waited: list[Any] = []
    if iterations is None:
        waited.append(optimizer.iterations.assign(step))
    else:
        try:
            optimizer.iterations = iterations
        except RuntimeError as error:  # Keras refuses once the optimizer has been applied
            raise ValueError(outside) from error
    number = build.optimizers
    build.optimizers += 1
    with build.applying(_metric_name("optimizer", number)), tf.control_dependencies(waited):
        applied = optimizer.apply_gradients(pairs)
    if not legacy:
        name = _metric_name("learning_rate", number)
        build.metrics[name] = _learning_rate(optimizer, step)
    return waited if applied is None else [*waited, applied]


def _metric_name(name: str, number: int) -> str:
    return name if number == 0 else f"{name}_{number}"


def _learning_rate(optimizer: Any, step: tf.Tensor) -> tf.Tensor:
    schedule = getattr(optimizer, "_learning_rate", None)
    if isinstance(schedule, tf_keras.optimizers.schedules.LearningRateSchedule):
        return tf.cast(schedule(step), tf.float32)
    return tf.cast(optimizer.learning_rate, tf.float32)
