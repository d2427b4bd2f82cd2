"""Hooks that end a run: at a count, at a return, or when nothing improves any more."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from typing import Any

from pgest.hooks import intervals, monitor

_SOURCES = ("training", "evaluation")
_EPISODES_WINDOW = 100
_EVALUATIONS_WINDOW = 1


class _StopAtHook(monitor.BaseMonitor):
    """Ends the run once a counter is so far.

    Args:
      counter: "step", "timestep" or "episode".
      more_or_last: so many more, then up to so many in all, by the names that a user gives.
    """

    def __init__(self, counter: str, **more_or_last: int | None) -> None:
        self._counter = counter
        self._more, self._last = _one_of(type(self).__name__, **more_or_last)
        self._limit = 0

    def begin(self, context: monitor.RunContext) -> None:
        """Turns "this many more" into a last one."""
        now = getattr(context, self._counter)
        self._limit = self._last if self._more is None else now + self._more
        context.limits = context.limits.tightened(**{f"max_{self._counter}s": self._limit})
        self.after_run(context)

    def after_run(self, context: monitor.RunContext) -> None:
        """Requests the stop once the limit is reached."""
        now = getattr(context, self._counter)
        if now >= self._limit:
            context.request_stop(f"{self._counter} {now} of {self._limit} reached")

    def after_episode(self, context: monitor.RunContext) -> None:
        """Requests the stop once the limit is reached."""
        self.after_run(context)


class StopAtStepHook(_StopAtHook):
    """Ends the run at a step.

    The limit enters `RunContext.limits` when the run begins, so that an update of many steps is
    cut at exactly this one, and a progress bar knows of it.

    Args:
      num_steps: this many steps more, counted from where each run begins.
      last_step: up to this `global_step` in all.

    Raises:
      ValueError: both or none given, or one that is not positive.
      TypeError: no integer.

    Example:
      >>> hook = StopAtStepHook(last_step=1000)
    """

    def __init__(self, num_steps: int | None = None, last_step: int | None = None) -> None:
        super().__init__("step", num_steps=num_steps, last_step=last_step)


class StopAtEpisodeHook(_StopAtHook):
    """Ends the run after an episode; see `StopAtStepHook`.

    Args:
      num_episodes: this many episodes more, counted from where each run begins.
      last_episode: up to this `global_episode` in all.

    Raises:
      ValueError: both or none given, or one that is not positive.
      TypeError: no integer.

    Example:
      >>> hook = StopAtEpisodeHook(num_episodes=50)
    """

    def __init__(self, num_episodes: int | None = None, last_episode: int | None = None) -> None:
        super().__init__("episode", num_episodes=num_episodes, last_episode=last_episode)


class StopAtTimestepHook(_StopAtHook):
    """Ends the run at a timestep; see `StopAtStepHook`.

    Args:
      num_timesteps: this many timesteps more, counted from where each run begins.
      last_timestep: up to this `global_timestep` in all.

    Raises:
      ValueError: both or none given, or one that is not positive.
      TypeError: no integer.

    Example:
      >>> hook = StopAtTimestepHook(last_timestep=200_000)
    """

    def __init__(self, num_timesteps: int | None = None, last_timestep: int | None = None) -> None:
        super().__init__("timestep", num_timesteps=num_timesteps, last_timestep=last_timestep)


class StopOnMeansHook(monitor.BaseMonitor):
    """Looks at moving means of the training or of the evaluation returns, at each new one once.

    What it does then, `_look` says.

    Args:
      on: "training" or "evaluation".
      window: over how many the mean goes; None: 100 episodes, or 1 evaluation.
      name: of the evaluations.
    """

    def __init__(self, on: str, *, window: int | None, name: str | None) -> None:
        hook = type(self).__name__
        if on not in _SOURCES:
            raise ValueError(f'{hook} takes on="training" or on="evaluation"; got {on!r}.')
        if on == "training" and name is not None:
            raise ValueError(
                f'{hook}(name={name!r}) names an evaluation; pass on="evaluation" with it.'
            )
        default = _EPISODES_WINDOW if on == "training" else _EVALUATIONS_WINDOW
        self._on = on
        self._name = name
        self._window = intervals.positive_count(
            f"{hook}(window=…)", default if window is None else window
        )
        self._values: collections.deque[float] = collections.deque(maxlen=self._window)
        self._seen = 0

    def begin(self, context: monitor.RunContext) -> None:
        """Forgets what an earlier run saw."""
        self._values.clear()
        self._seen = len(context.evaluations)

    def state(self) -> dict[str, Any]:
        """The window, and how many evaluations were looked at."""
        return {"values": list(self._values), "seen": self._seen}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the window."""
        self._values.extend(state["values"])
        self._seen = state["seen"]

    def after_run(self, context: monitor.RunContext) -> None:
        """Looks at the evaluations made since."""
        if self._on == "evaluation":
            new, self._seen = context.evaluations[self._seen :], len(context.evaluations)
            for evaluation in new:
                value = self._value(evaluation) if evaluation.name == self._name else None
                if value is not None:
                    self._add(context, value)

    def after_episode(self, context: monitor.RunContext) -> None:
        """Looks at the episode, and at the evaluations made since."""
        if self._on == "training":
            for episode in context.episodes:
                if episode.complete:
                    self._add(context, episode.total)
        self.after_run(context)

    def _value(self, evaluation: monitor.Evaluation) -> float | None:
        """What is looked at; None: this evaluation does not count."""
        return evaluation.mean_return

    def _add(self, context: monitor.RunContext, value: float) -> None:
        self._values.append(value)
        if len(self._values) == self._window:
            self._look(context, math.fsum(self._values) / self._window)

    def _look(self, context: monitor.RunContext, mean: float) -> None:
        """Requests the stop, or not, at a new mean."""
        raise NotImplementedError


class StopOnReturnHook(StopOnMeansHook):
    """Ends the run once the mean return is good enough.

    Args:
      threshold: the mean undiscounted return to reach.
      on: "training": of the training episodes, which explore; "evaluation": of the greedy episodes
        that an `EvaluationHook` (or a `RunContext.evaluate`) plays.
      window: over how many of the latest episodes (on training; 100 unless given) or evaluations
        (on evaluation; 1 unless given) the mean goes. It counts only once the window is full.
      name: of the evaluation to look at, as given to the `EvaluationHook`.

    Raises:
      ValueError: `on` is something else, the threshold is not finite, or a `name` is given
        on training.
      TypeError: the threshold is no number, or the window no integer.

    Example:
      >>> hook = StopOnReturnHook(475.0, on="evaluation")
    """

    def __init__(
        self,
        threshold: float,
        on: str = "training",
        *,
        window: int | None = None,
        name: str | None = None,
    ) -> None:
        self._threshold = intervals.finite_number(
            "StopOnReturnHook(threshold=…)",
            threshold,
            "To stop at a count instead, see StopAtStepHook, StopAtTimestepHook and "
            "StopAtEpisodeHook.",
        )
        super().__init__(on, window=window, name=name)

    def _look(self, context: monitor.RunContext, mean: float) -> None:
        if mean >= self._threshold:
            context.request_stop(f"mean {self._on} return {mean:.6g} >= {self._threshold:.6g}")


class StopOnNoImprovementHook(StopOnMeansHook):
    """Ends the run once the mean return has stopped rising.

    What it has seen is in the checkpoint, for a run that is killed and goes on; after a regular end
    the next run starts with its whole patience and without a best return.

    Args:
      patience: after this many looks in a row without a better mean the run ends; a look is an
        evaluation (on evaluation) or a finished episode (on training, once the window is full).
      min_delta: how much higher than the best so far a mean must be to count as better.
      on: "training" or "evaluation"; see `StopOnReturnHook`.
      window: see `StopOnReturnHook`.
      name: see `StopOnReturnHook`.

    Raises:
      ValueError: see `StopOnReturnHook`; a patience that is not positive, a negative `min_delta`.
      TypeError: patience or window is no integer, or `min_delta` no number.

    Example:
      >>> hook = StopOnNoImprovementHook(patience=5, min_delta=1.0)
    """

    def __init__(
        self,
        patience: int,
        min_delta: float = 0.0,
        *,
        on: str = "evaluation",
        window: int | None = None,
        name: str | None = None,
    ) -> None:
        self._patience = intervals.positive_count("StopOnNoImprovementHook(patience=…)", patience)
        what = "StopOnNoImprovementHook(min_delta=…)"
        self._min_delta = intervals.finite_number(what, min_delta)
        if min_delta < 0:
            raise ValueError(f"{what} takes 0 or more; got {min_delta!r}.")
        super().__init__(on, window=window, name=name)
        self._best = -math.inf
        self._without = 0

    def begin(self, context: monitor.RunContext) -> None:
        """Forgets what an earlier run saw."""
        super().begin(context)
        self._best, self._without = -math.inf, 0

    def state(self) -> dict[str, Any]:
        """The window, the best mean and how many looks have passed since."""
        return {**super().state(), "best": self._best, "without": self._without}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the patience that is left."""
        super().restore(state)
        self._best, self._without = state["best"], state["without"]

    def _look(self, context: monitor.RunContext, mean: float) -> None:
        if self._best == -math.inf or mean > self._best + self._min_delta:
            self._best, self._without = mean, 0
            return
        self._without += 1
        if self._without >= self._patience:
            context.request_stop(
                f"mean {self._on} return has not risen above {self._best:.6g} "
                f"by more than {self._min_delta:.6g} in {self._without} looks"
            )


def _one_of(hook: str, **counts: int | None) -> tuple[int | None, int]:
    """(this many more or None, up to this many or 0) of the two arguments of a stop hook."""
    (more_name, more), (last_name, last) = counts.items()
    if (more is None) == (last is None):
        raise ValueError(
            f"{hook} takes {more_name} (this many more) or {last_name} (up to this many in all), "
            f"exactly one of them; got {more_name}={more!r} and {last_name}={last!r}."
        )
    if more is not None:
        return intervals.positive_count(f"{hook}({more_name}=…)", more), 0
    return None, intervals.positive_count(f"{hook}({last_name}=…)", last)
