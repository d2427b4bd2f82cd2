"""Hooks that stop a run on a metric of its evaluations, by the names that Estimator gave them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from pgest.contract import foreign_names
from pgest.hooks import intervals, monitor, stopping


@foreign_names.told
def stop_if_higher_hook(
    agent: Any, metric_name: str, threshold: float, *, min_steps: int = 0, name: str | None = None
) -> monitor.BaseMonitor:
    """A hook that ends the run once a metric of an evaluation is higher than a threshold.

    It looks at each evaluation of the run once: those of `train_and_evaluate`, of an
    `EvaluationHook` or of `RunContext.evaluate`.

    Args:
      agent: the `PGAgent` whose training the hook is for.
      metric_name: a key of what `PGAgent.evaluate` returns: "return_mean", "loss", ….
      threshold: a finite number.
      min_steps: evaluations before this `global_step` do not count.
      name: of the evaluations to look at; None: the unnamed ones.

    Returns:
      The hook. An evaluation without such a metric makes it raise a `ValueError`.

    Raises:
      TypeError: `agent` is none, or a number has another type.
      ValueError: the threshold is not finite, or `min_steps` is negative.

    Example:

        hook = pgest.stop_if_higher_hook(agent, "return_mean", 475.0)
    """
    _check("stop_if_higher_hook", agent)
    return _StopAtThresholdHook(metric_name, threshold, operator.gt, min_steps, name)


@foreign_names.told
def stop_if_lower_hook(
    agent: Any, metric_name: str, threshold: float, *, min_steps: int = 0, name: str | None = None
) -> monitor.BaseMonitor:
    """A hook that ends the run once a metric of an evaluation is lower than a threshold.

    See `stop_if_higher_hook`.

    Example:

        hook = pgest.stop_if_lower_hook(agent, "loss", 0.1, min_steps=100)
    """
    _check("stop_if_lower_hook", agent)
    return _StopAtThresholdHook(metric_name, threshold, operator.lt, min_steps, name)


@foreign_names.told
def stop_if_no_increase_hook(
    agent: Any,
    metric_name: str,
    max_steps_without_increase: int,
    *,
    min_steps: int = 0,
    name: str | None = None,
) -> monitor.BaseMonitor:
    """A hook that ends the run once a metric of its evaluations has stopped rising.

    It counts steps; `StopOnNoImprovementHook` counts evaluations. Otherwise as
    `stop_if_higher_hook`.

    Args:
      agent: see there.
      metric_name: see there.
      max_steps_without_increase: the run ends at an evaluation this many steps or more after the
        highest one.
      min_steps: see there.
      name: see there.

    Example:

        hook = pgest.stop_if_no_increase_hook(agent, "return_mean", 1000)
    """
    _check("stop_if_no_increase_hook", agent)
    return _StopOnStandstillHook(
        metric_name, max_steps_without_increase, operator.gt, min_steps, name
    )


@foreign_names.told
def stop_if_no_decrease_hook(
    agent: Any,
    metric_name: str,
    max_steps_without_decrease: int,
    *,
    min_steps: int = 0,
    name: str | None = None,
) -> monitor.BaseMonitor:
    """A hook that ends the run once a metric of its evaluations has stopped falling.

    See `stop_if_no_increase_hook`.

    Example:

        hook = pgest.stop_if_no_decrease_hook(agent, "loss", 1000)
    """
    _check("stop_if_no_decrease_hook", agent)
    return _StopOnStandstillHook(
        metric_name, max_steps_without_decrease, operator.lt, min_steps, name
    )


class _StopOnMetricHook(stopping.StopOnMeansHook):
    """Looks at a metric of each evaluation from `min_steps` on."""

    def __init__(self, metric: str, min_steps: int, name: str | None):
        super().__init__("evaluation", window=1, name=name)
        if min_steps:
            intervals.positive_count("min_steps", min_steps)
        self._metric = metric
        self._min_steps = min_steps

    def _value(self, evaluation: monitor.Evaluation) -> float | None:
        if evaluation.step < self._min_steps:
            return None
        if self._metric not in evaluation.results:
            raise ValueError(
                f"The evaluations have no metric {self._metric!r}; they have "
                f"{', '.join(sorted(evaluation.results))}."
            )
        return float(evaluation.results[self._metric])


class _StopAtThresholdHook(_StopOnMetricHook):
    def __init__(
        self,
        metric: str,
        threshold: float,
        passes: Callable[[float, float], bool],
        min_steps: int,
        name: str | None,
    ):
        super().__init__(metric, min_steps, name)
        self._threshold = intervals.finite_number(f"The threshold of {metric!r}", threshold)
        self._passes = passes

    def _look(self, context: monitor.RunContext, mean: float) -> None:
        if self._passes(mean, self._threshold):
            sign = ">" if self._passes is operator.gt else "<"
            context.request_stop(f"{self._metric} {mean:.6g} {sign} {self._threshold:.6g}")


class _StopOnStandstillHook(_StopOnMetricHook):
    def __init__(
        self,
        metric: str,
        max_steps: int,
        improves: Callable[[float, float], bool],
        min_steps: int,
        name: str | None,
    ):
        super().__init__(metric, min_steps, name)
        self._max_steps = intervals.positive_count(f"steps without change of {metric!r}", max_steps)
        self._improves = improves
        self._best: tuple[float, int] | None = None

    def begin(self, context: monitor.RunContext) -> None:
        super().begin(context)
        self._best = None

    def state(self) -> dict[str, Any]:
        return {**super().state(), "best": self._best}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._best = None if state["best"] is None else (state["best"][0], state["best"][1])

    def _look(self, context: monitor.RunContext, mean: float) -> None:
        # An evaluation is looked at in the round in which it was made.
        if self._best is None or self._improves(mean, self._best[0]):
            self._best = mean, context.step
        value, step = self._best
        if context.step - step >= self._max_steps:
            word = "risen above" if self._improves is operator.gt else "fallen below"
            context.request_stop(
                f"{self._metric} has not {word} {value:.6g} in {context.step - step} steps"
            )


def _check(function: str, agent: Any) -> None:
    if not hasattr(agent, "evaluate"):
        raise TypeError(
            f"{function} takes the agent first, as in Estimator: {function}(agent, 'return_mean', "
            f"...); got {agent!r} of type {type(agent).__name__}."
        )
