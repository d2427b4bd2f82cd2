"""A run's figures in memory, for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pgest.hooks import extras, intervals, monitor, plots, records

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas


_PLOTTED = ("episode/return", "eval/return_mean", "loss")


class HistoryHook(monitor.BaseMonitor):
    """Records counters, metrics, episodes and evaluations.

    A record is a dict of floats and ints: `step`, `timestep`, `episode`, `seconds` (since the run
    began), the metrics of the last update, the means over the episodes that ended since the
    previous record (`episode/return`, …) and the results of the evaluations made since
    (`eval/return_mean`, `eval_<name>/return_mean`). What there is not is left out of it.

    A hook that serves several runs goes on recording in the same list. A run that is killed and
    goes on has the records of before; each checkpoint holds them all.

    Args:
      every: how often; after each update unless given. What is left is recorded at the end.

    Attributes:
      records: the records, oldest first.

    Raises:
      TypeError: `every` is no `Every`.

    Example:
      >>> history = HistoryHook()
      >>> context = monitor.RunContext(clock=lambda: 0.0)
      >>> history.begin(context)
      >>> context.step, context.metrics = 1, {"loss": 0.5}
      >>> history.after_run(context)
      >>> history.records
      [{'step': 1, 'timestep': 0, 'episode': 0, 'seconds': 0.0, 'loss': 0.5}]
    """

    def __init__(self, every: monitor.Every | None = None) -> None:
        self._every = None if every is None else intervals.require_every("HistoryHook", every)
        self.records: list[dict[str, float]] = []

    def begin(self, context: monitor.RunContext) -> None:
        """Starts the clock; keeps the records of earlier runs."""
        self._timer = None if self._every is None else self._every.timer(context)
        self._maker = records.RecordMaker(context)

    def state(self) -> dict[str, Any]:
        """All that was recorded, and what the next record is made of."""
        timer = None if self._timer is None else self._timer.state()
        return {"records": self.records, "timer": timer, **self._maker.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on recording."""
        if not self.records:  # else the hook itself is still there
            self.records.extend(state["records"])
        if self._timer is not None:
            self._timer.restore(state["timer"] or {})
        self._maker.restore(state)

    def after_run(self, context: monitor.RunContext) -> None:
        """Records where it is time."""
        if self._timer is None or self._timer.due(context):
            self.records.append(self._maker.take(context))

    def after_episode(self, context: monitor.RunContext) -> None:
        """Takes the episode in, and records where it is time."""
        self._maker.add_episodes(context)
        if self._timer is not None and self._timer.due(context):
            self.records.append(self._maker.take(context))

    def end(self, context: monitor.RunContext) -> None:
        """Records what came since."""
        if self._maker.has_news(context):
            self.records.append(self._maker.take(context))

    def to_pandas(self) -> pandas.DataFrame:
        """The records as a `pandas.DataFrame`, one row each; NaN where a record lacks a value.

        Raises:
          ImportError: pandas is not installed.
        """
        pandas = extras.imported("pandas", "HistoryHook.to_pandas", "notebook")
        return pandas.DataFrame(self.records)

    def plot(self, *names: str, x: str = "timestep", smooth: int = 1) -> matplotlib.figure.Figure:
        """Draws one curve below the other.

        What was recorded after a run's last update is not drawn, but for evaluations: the episodes
        that ended in a batch that was not filled are its short ones, and would bend the curve.

        Args:
          *names: what to draw, such as "episode/return", "loss"; the returns of training and of
            evaluations and the loss, as far as there are any, unless given.
          x: what to draw it against: "timestep", "step", "episode" or "seconds".
          smooth: each point is the mean over this many, itself and those before it; the points
            themselves are pale behind it.

        Returns:
          The `matplotlib` figure; a notebook shows it where it is the last of a cell.

        Raises:
          ImportError: matplotlib is not installed.
          KeyError: no record has one of the names; the message lists those there are.
          ValueError: `smooth` is not positive.
        """
        intervals.positive_count("HistoryHook.plot(smooth=…)", smooth)
        pyplot = extras.imported("matplotlib.pyplot", "HistoryHook.plot", "notebook")
        known = sorted({name for record in self.records for name in record})
        names = names or tuple(name for name in _PLOTTED if name in known)
        unknown = [name for name in (*names, x) if name not in known]
        if unknown or not names:
            raise KeyError(
                f"HistoryHook has no record of {unknown or 'a return or a loss'}; there are: "
                f"{', '.join(known) or 'no records yet'}."
            )
        figure, grid = plots.charts(pyplot, len(names))
        for axes, name in zip(grid, names, strict=True):
            points = [(record[x], record[name]) for record in self._drawn(name) if name in record]
            plots.draw(axes, np.array(points, np.float64).reshape(-1, 2), smooth)
            axes.set_ylabel(name)
        grid[-1].set_xlabel(x)
        return plots.finished(pyplot, figure)

    def _drawn(self, name: str) -> list[dict[str, float]]:
        """The records of what is finished: of updates, or of evaluations."""
        after_updates = self._every is None or self._every.unit == "steps"
        if name.startswith("eval") or not after_updates:
            return self.records
        before: list[dict[str, float]] = [{}, *self.records[:-1]]
        return [
            record
            for record, previous in zip(self.records, before, strict=True)
            if record["step"] != previous.get("step")
        ]
