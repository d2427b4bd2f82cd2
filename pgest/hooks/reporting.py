"""Lines in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pgest.contract import foreign_names
from pgest.hooks import episode_means, intervals, monitor

_LOGGER = logging.getLogger(__name__)

# Names of metrics, or those by the word under which each is logged.
Tensors = Mapping[str, str] | Sequence[str]


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
      tensors: Estimator's word for `names`; a dict says under which word each is logged. It may
        also stand in the place of `every`, as it does there.
      every_n_iter: Estimator's word for `Every(steps=…)`.
      every_n_secs: Estimator's word for `Every(seconds=…)`.

    Raises:
      TypeError: `every` is no `Every`, `names` is one string instead of several, or one of
        `tensors` is a tensor.
      ValueError: a thing is said in both ways.

    Example:
      >>> hook = LoggingTensorHook(monitor.Every(seconds=10), names=["loss", "episode/return"])
      >>> hook = LoggingTensorHook({"loss": "loss", "H": "policy/entropy"}, every_n_iter=100)
    """

    @foreign_names.told
    def __init__(
        self,
        every: monitor.Every | Tensors | None = None,
        names: Sequence[str] | None = None,
        *,
        formatter: Callable[[Mapping[str, float]], str] | None = None,
        tensors: Tensors | None = None,
        every_n_iter: int | None = None,
        every_n_secs: float | None = None,
    ) -> None:
        if isinstance(every, (Mapping, Sequence)) and not isinstance(every, str):
            every, tensors = None, _one_way("tensors", every, "tensors", tensors)
        if every_n_iter is not None or every_n_secs is not None:
            clock = monitor.Every(steps=every_n_iter, seconds=every_n_secs)
            every = _one_way("every", every, "every_n_iter or every_n_secs", clock)
        wanted = _one_way("names", names, "tensors", tensors)
        if isinstance(wanted, str):
            raise TypeError(
                f"LoggingTensorHook takes a sequence of names; got {wanted!r}: write [{wanted!r}]."
            )
        self._every = intervals.require_every("LoggingTensorHook", every)
        self._names = None if wanted is None else _labels(wanted)
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
            values = {label: values[n] for label, n in self._names.items() if n in values}
        _LOGGER.info("%s", self._formatter({**self._logged_at, **values}))


def _one_way(first: str, value: Any, second: str, other: Any) -> Any:
    if value is not None and other is not None:
        raise ValueError(
            f"LoggingTensorHook got {first} and {second}, which say the same: give one."
        )
    return other if value is None else value


def _labels(tensors: Tensors) -> dict[str, str]:
    """Names by the word under which each is logged."""
    pairs = tensors if isinstance(tensors, Mapping) else {name: name for name in tensors}
    for label, name in pairs.items():
        if not isinstance(name, str):
            raise TypeError(
                f"LoggingTensorHook got {name!r} for {label!r}; expected the name of a metric: put "
                "the tensor into EstimatorSpec(metrics={'name': tensor}), and write 'name' here."
            )
    return dict(pairs)


def _counters(context: monitor.RunContext) -> dict[str, int]:
    return {"step": context.step, "timestep": context.timestep, "episode": context.episode}


def _line(values: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} = {value}" if isinstance(value, int) else f"{name} = {value:.6g}"
        for name, value in values.items()
    )
