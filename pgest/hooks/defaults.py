"""The hooks that every run has unless the user brings their own."""

from __future__ import annotations

from collections.abc import Sequence

from pgest.contract import run_config
from pgest.hooks import (
    checkpointing,
    evaluation,
    monitor,
    nan,
    progress,
    reporting,
    speed,
    summaries,
)

_DEFAULT_CHECKPOINT_SECONDS = 600.0
# The guard sees an update before anyone writes it down; an evaluation is there before the hooks
# that stop on it; a progress bar begins when all stop hooks have set their limits.
_FIRST = (nan.NanTensorHook, evaluation.EvaluationHook)
_LAST = (progress.ProgressBarHook,)


def default_hooks(
    config: run_config.RunConfig, given: Sequence[monitor.BaseMonitor] = ()
) -> list[monitor.BaseMonitor]:
    """All hooks of a training run: the user's and the defaults, in the order to call them.

    The defaults are a NaN guard, a checkpoint saver, summaries, a step counter and logging; each
    is left out where a hook of its class was given, and summaries, counter and logging where the
    configuration turns them off. The order: NaN guards, evaluations, the user's other hooks, the
    other defaults, progress bars.

    Args:
      config: says how often.
      given: hooks from `train(hooks=…)` and from the `EstimatorSpec`.

    Raises:
      TypeError: one of `given` is no `BaseMonitor`.

    Example:
      >>> hooks = default_hooks(run_config.RunConfig(), [nan.NanTensorHook(False)])
      >>> [type(hook).__name__ for hook in hooks]
      ['NanTensorHook', 'CheckpointSaverHook', 'SummarySaverHook', 'StepCounterHook',
       'LoggingTensorHook']
    """
    check_hooks(given)
    defaults: list[monitor.BaseMonitor] = [
        nan.NanTensorHook(),
        checkpointing.CheckpointSaverHook(checkpoint_clock(config)),
    ]
    if config.save_summary_steps:
        defaults.append(summaries.SummarySaverHook(monitor.Every(steps=config.save_summary_steps)))
    if config.log_step_count_steps:
        often = monitor.Every(steps=config.log_step_count_steps)
        defaults += [speed.StepCounterHook(often), reporting.LoggingTensorHook(often)]
    wanted = [
        default
        for default in defaults
        if not any(isinstance(hook, type(default)) for hook in given)
    ]
    return sorted([*given, *wanted], key=_place)


def check_hooks(given: Sequence[monitor.BaseMonitor]) -> None:
    """Raises `TypeError` unless `given` is several hooks."""
    if isinstance(given, monitor.BaseMonitor):
        name = type(given).__name__
        raise TypeError(f"hooks is a {name}; expected a list of hooks: hooks=[{name}(...)].")
    passed: Sequence[object] = given
    for hook in passed:
        if not isinstance(hook, monitor.BaseMonitor):
            hint = " Pass an instance, not the class." if isinstance(hook, type) else ""
            raise TypeError(
                f"hooks takes BaseMonitor instances; got {hook!r} of type "
                f"{type(hook).__name__}.{hint}"
            )


def _place(hook: monitor.BaseMonitor) -> int:
    for place, kind in enumerate(_FIRST):
        if isinstance(hook, kind):
            return place
    return len(_FIRST) + isinstance(hook, _LAST)


def checkpoint_clock(config: run_config.RunConfig) -> monitor.Every:
    """How often the default hook writes a checkpoint."""
    if config.save_checkpoints_steps is not None:
        return monitor.Every(steps=config.save_checkpoints_steps)
    if config.save_checkpoints_episodes is not None:
        return monitor.Every(episodes=config.save_checkpoints_episodes)
    return monitor.Every(seconds=config.save_checkpoints_secs or _DEFAULT_CHECKPOINT_SECONDS)
