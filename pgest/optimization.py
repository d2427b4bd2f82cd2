"""`minimize`: a loss and an optimizer become a `train_op`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from pgest import variables as variables_lib

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
      loss: scalar; or a list of `(loss, optimizer, variables)`, for a step with several.
      optimizer: a `tf_keras.optimizers.Optimizer` made inside the model_fn; not with a list.
      var_list: variables to change; by default every trainable variable that this call of the
        model_fn used. Not with a list.
      clip_norm: the largest global norm of the gradients of each loss; None does not clip
        (Pascanu et al. 2013, https://arxiv.org/abs/1211.5063).

    Returns:
      The new `global_step`, an int64 scalar.

    Raises:
      TypeError: the optimizer is not of tf_keras.
      ValueError: a variable has no gradient, there is nothing to train, or the optimizer was
        made outside of the model_fn.

    Example, inside a model_fn:

        train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(3e-4), clip_norm=0.5)
        train_op = pgest.minimize([
            (actor_loss, tf_keras.optimizers.Adam(3e-4), actor_variables),
            (critic_loss, tf_keras.optimizers.Adam(1e-3), critic_variables),
        ])
    """
    build = variables_lib.current()
    if isinstance(loss, (list, tuple)):
        if optimizer is not None or var_list is not None:
            raise ValueError(
                "minimize got a list of losses and also an optimizer or var_list; put them into "
                "the list: minimize([(loss, optimizer, variables), ...])."
            )
        parts = [tuple(part) for part in loss]
        if not parts or any(len(part) != 3 for part in parts):
            raise ValueError("minimize expects a list of (loss, optimizer, variables) triples.")
    else:
        parts = [(loss, optimizer, var_list)]
    global_step = variables_lib.get_global_step()
    step = global_step.read_value()
    gradients = [_gradients(build, *part, clip_norm=clip_norm) for part in parts]
    # Every optimizer must see the step that this update started from, and global_step moves once:
    # the last one has it as its iterations, those before it a copy.
    optimizers = [part[1] for part in parts]
    applied = []
    for other, pairs in zip(optimizers[:-1], gradients[:-1], strict=True):
        copy = tf.Variable(0, trainable=False, dtype=tf.int64, name=variables_lib.OPTIMIZER_STEP)
        build.release(copy)
        with tf.control_dependencies([copy.assign(step)]):
            applied.append(_apply(build, other, pairs, copy, step))
    with tf.control_dependencies([op for op in applied if op is not None]):
        last = _apply(build, optimizers[-1], gradients[-1], global_step, step)
    with tf.control_dependencies([last] if last is not None else []):
        return tf.identity(step + 1)


def _gradients(
    build: variables_lib.Build,
    loss: tf.Tensor,
    optimizer: Any,
    variables: Sequence[tf.Variable] | None,
    clip_norm: float | tf.Tensor | None,
) -> list[tuple[tf.Tensor, tf.Variable]]:
    if not isinstance(optimizer, (tf_keras.optimizers.Optimizer, _LegacyOptimizer)):
        raise TypeError(
            f"minimize got the optimizer {optimizer!r} of {type(optimizer).__module__}; expected "
            "one of tf_keras.optimizers, for example tf_keras.optimizers.Adam(1e-3) "
            "(`import tf_keras`; Keras 3's, from `keras` or `tf.keras`, do not fit)."
        )
    variables = build.trainable_variables if variables is None else list(variables)
    if not variables:
        raise ValueError(
            "minimize found no trainable variables: model_fn made none before it was called."
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
    norm = tf.linalg.global_norm(gradients)
    build.metrics.setdefault("gradient_norm", norm)
    if clip_norm is not None:
        gradients, _ = tf.clip_by_global_norm(gradients, clip_norm, use_norm=norm)
    return list(zip(gradients, variables, strict=True))


def _apply(
    build: variables_lib.Build,
    optimizer: Any,
    pairs: list[tuple[tf.Tensor, tf.Variable]],
    iterations: tf.Variable,
    step: tf.Tensor,
) -> Any:
    """Applies the gradients; `iterations`, which stands at `step`, moves by one."""
    legacy = isinstance(optimizer, _LegacyOptimizer)
    if not legacy:
        build.release(optimizer.iterations)
    optimizer.iterations = iterations
    name = "optimizer" if build.optimizers == 0 else f"optimizer_{build.optimizers}"
    build.optimizers += 1
    settings = optimizer.get_config() if legacy else ()
    with build.renamed(name), build.settings(settings):
        applied = optimizer.apply_gradients(pairs)
    if not legacy:
        build.metrics.setdefault("learning_rate", _learning_rate(optimizer, step))
    return applied


def _learning_rate(optimizer: Any, step: tf.Tensor) -> tf.Tensor:
    schedule = getattr(optimizer, "_learning_rate", None)
    if isinstance(schedule, tf_keras.optimizers.schedules.LearningRateSchedule):
        return tf.cast(schedule(step), tf.float32)
    return tf.cast(optimizer.learning_rate, tf.float32)
