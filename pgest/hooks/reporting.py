"""Lines in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pgest.hooks import episode_means, intervals, monitor

_LOGGER = logging.getLogger(__name__)


class LoggingTensorHook(monitor.BaseMonitor):
    """Logs counters, metrics and episodes, in one line each time.

    The line goes to the logger of this module at level INFO; `logging.basicConfig(level="INFO")`
    shows it. It holds the metrics of the last update and the means over the episodes that ended
    since the last line. A last line follows at the end.

    Args:
      every: how often.
      names: which metrics (and tags such as "episode/return") to log, in this order; all unless
        given. One that a run does not have yet is left out.
      formatter: makes the line from the values by name, counters included; `None` uses pgest's.

    Raises:
      TypeError: `every` is no `Every`, or `names` is one string instead of several.

    Example:
      >>> hook = LoggingTensorHook(monitor.Every(seconds=10), names=["loss", "episode/return"])
    """

    def __init__(
        self,
        every: monitor.Every,
        names: Sequence[str] | None = None,
        *,
        formatter: Callable[[Mapping[str, float]], str] | None = None,
    ) -> None:
        if isinstance(names, str):
            raise TypeError(
                f"LoggingTensorHook takes a sequence of names; got {names!r}: write [{names!r}]."
            )
        self._every = intervals.require_every("LoggingTensorHook", every)
        self._names = None if names is None else tuple(names)
        self._formatter = formatter if formatter is not None else _line

    def begin(self, context: monitor.RunContext) -> None:
        """Starts the clock."""
        self._timer = self._every.timer(context)
        self._means = episode_means.EpisodeMeans()
        self._logged_at = _counters(context)

    def state(self) -> dict[str, Any]:
        """What the next line is made of, and when it is due."""
        return {"timer": self._timer.state(), "means": self._means.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the lines."""
        self._timer.restore(state["timer"])
        self._means.restore(state["means"])

    def after_run(self, context: monitor.RunContext) -> None:
        """Logs where it is time."""
        if self._timer.due(context):
            self._log(context)

    def after_episode(self, context: monitor.RunContext) -> None:
        """Takes the episode in, and logs where it is time."""
        for episode in context.episodes:
            self._means.add(episode)
        self.after_run(context)

    def end(self, context: monitor.RunContext) -> None:
        """Logs what came since."""
        if self._logged_at != _counters(context):
            self._log(context)

    def _log(self, context: monitor.RunContext) -> None:
        self._logged_at = _counters(context)
        values = {**context.metrics, **self._means.take()}
        if self._names is not None:
            values = {name: values[name] for name in self._names if name in values}
        _LOGGER.info("%s", self._formatter({**self._logged_at, **values}))


def _counters(context: monitor.RunContext) -> dict[str, int]:
    return {"step": context.step, "timestep": context.timestep, "episode": context.episode}


def _line(values: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} = {value}" if isinstance(value, int) else f"{name} = {value:.6g}"
        for name, value in values.items()
    )
