"""Records: what happened in a run since one last wrote it down, as one flat dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgest.hooks import episode_means, monitor


class RecordMaker:
    """Makes records: counters, metrics, means over episodes and results of evaluations.

    A record is a dict of floats and ints: `step`, `timestep`, `episode`, `seconds` (since the run
    began), the metrics of the last update, the means over the episodes that ended since the
    previous record (`episode/return`, …) and the results of the evaluations made since
    (`eval/return_mean`, `eval_<name>/return_mean`). What there is not is left out.

    Args:
      context: of the run that begins.

    Example:
      >>> context = monitor.RunContext(clock=lambda: 0.0)
      >>> maker = RecordMaker(context)
      >>> context.step, context.metrics = 1, {"loss": 0.5}
      >>> maker.has_news(context), maker.take(context)
      (True, {'step': 1, 'timestep': 0, 'episode': 0, 'seconds': 0.0, 'loss': 0.5})
    """

    def __init__(self, context: monitor.RunContext) -> None:
        self._means = episode_means.EpisodeMeans()
        self._clock = context.clock
        self._began = self._clock()
        self._evaluations_seen = len(context.evaluations)
        self._taken_at = self._place(context)

    def add_episodes(self, context: monitor.RunContext) -> None:
        """Takes the context's episodes in; for `after_episode`."""
        for episode in context.episodes:
            self._means.add(episode)

    def has_news(self, context: monitor.RunContext) -> bool:
        """Whether an update, an episode or an evaluation came since the last record."""
        return self._taken_at != self._place(context)

    def take(self, context: monitor.RunContext) -> dict[str, float]:
        """The record of what came since the last one."""
        record = {**self.counters(context), **context.metrics, **self._means.take()}
        for evaluation in context.evaluations[self._evaluations_seen :]:
            prefix = "eval" if evaluation.name is None else f"eval_{evaluation.name}"
            record.update({f"{prefix}/{key}": float(v) for key, v in evaluation.results.items()})
        self._evaluations_seen = len(context.evaluations)
        self._taken_at = self._place(context)
        return record

    def counters(self, context: monitor.RunContext) -> dict[str, float]:
        """What every record begins with."""
        return {
            "step": context.step,
            "timestep": context.timestep,
            "episode": context.episode,
            "seconds": self._clock() - self._began,
        }

    def state(self) -> dict[str, Any]:
        """What the next record is made of, as a hook's `state` gives it."""
        return {
            "means": self._means.state(),
            "seconds": self._clock() - self._began,
            "evaluations_seen": self._evaluations_seen,
            "taken_at": self._taken_at,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with what `state` gave."""
        self._means.restore(state["means"])
        self._began = self._clock() - state["seconds"]
        self._evaluations_seen = state["evaluations_seen"]
        self._taken_at = tuple(state["taken_at"])

    @staticmethod
    def _place(context: monitor.RunContext) -> tuple[int, ...]:
        return (context.step, context.episode, len(context.evaluations))
