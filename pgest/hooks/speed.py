"""How fast a run goes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pgest.contract import foreign_names
from pgest.hooks import intervals, monitor, summaries

_LOGGER = logging.getLogger(__name__)


class Speedometer:
    """Steps, timesteps and episodes a second since it was last read.

    Example:
      >>> context = monitor.RunContext(clock=iter([0.0, 2.0]).__next__)
      >>> speedometer = Speedometer(context)
      >>> context.step, context.timestep = 10, 4000
      >>> speedometer.read(context)
      {'steps': 5.0, 'timesteps': 2000.0, 'episodes': 0.0}
    """

    def __init__(self, context: monitor.RunContext) -> None:
        self._last = self._now(context)

    def read(self, context: monitor.RunContext) -> dict[str, float]:
        """By unit, how many a second; empty where no time has passed."""
        before, self._last = self._last, self._now(context)
        seconds = self._last[0] - before[0]
        if seconds <= 0:
            self._last = before
            return {}
        units = ("steps", "timesteps", "episodes")
        return {
            unit: (new - old) / seconds
            for unit, new, old in zip(units, self._last[1:], before[1:], strict=True)
        }

    @staticmethod
    def _now(context: monitor.RunContext) -> tuple[float, int, int, int]:
        return context.clock(), context.step, context.timestep, context.episode


class StepCounterHook(monitor.BaseMonitor):
    """Measures steps, timesteps and episodes a second.

    Writes `speed/steps_per_second`, `speed/timesteps_per_second` and `speed/episodes_per_second`
    to TensorBoard and the log. The time between two measurements is all the time that passed:
    acting, updates, evaluations and the hooks themselves.

    Args:
      every: how often; what is left over is measured at the end.
      x_axis: see `SummarySaverHook`.

    Raises:
      TypeError: `every` is no `Every`.
      ValueError: an unknown `x_axis`.

    Example:
      >>> hook = StepCounterHook(monitor.Every(steps=100))
    """

    @foreign_names.told
    def __init__(self, every: monitor.Every, *, x_axis: str = "global_timestep") -> None:
        self._every = intervals.require_every("StepCounterHook", every)
        self._x_axis = summaries.require_x_axis("StepCounterHook", x_axis)

    def begin(self, context: monitor.RunContext) -> None:
        """Starts the clock."""
        self._timer = self._every.timer(context)
        self._speedometer = Speedometer(context)
        self._measured_at = (context.step, context.timestep)
        self._drawn_at: int | None = None

    def state(self) -> dict[str, Any]:
        """When the next measurement is due."""
        return {"timer": self._timer.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the clock."""
        self._timer.restore(state["timer"])

    def after_run(self, context: monitor.RunContext) -> None:
        """Measures where it is time."""
        if self._timer.due(context):
            self._measure(context)

    def after_episode(self, context: monitor.RunContext) -> None:
        """Measures where it is time: episodes end between updates as well."""
        self.after_run(context)

    def end(self, context: monitor.RunContext) -> None:
        """Measures what came since."""
        if self._measured_at != (context.step, context.timestep):
            self._measure(context)

    def _measure(self, context: monitor.RunContext) -> None:
        speeds = self._speedometer.read(context)
        if not speeds:
            return
        self._measured_at = (context.step, context.timestep)
        scalars = {f"speed/{unit}_per_second": value for unit, value in speeds.items()}
        x = context.step if self._x_axis == "global_step" else context.timestep
        if x != self._drawn_at:  # the clock may count what the curve is not drawn against
            self._drawn_at = x
            summaries.write_scalars(context, scalars, x_axis=self._x_axis)
        _LOGGER.info(
            "step %d, timestep %d, episode %d: %s",
            context.step, context.timestep, context.episode,
            ", ".join(f"{value:.5g} {unit}/s" for unit, value in speeds.items()),
        )  # fmt: skip
