"""A progress bar for the terminal and the notebook."""

from __future__ import annotations

import collections
import math
import warnings
from typing import Any, TextIO

import tqdm

from pgest.hooks import intervals, monitor

with warnings.catch_warnings():
    # A notebook without ipywidgets gets its bar as text: no reason to warn where none is drawn.
    warnings.simplefilter("ignore", tqdm.TqdmWarning)
    from tqdm import auto

_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}{postfix}]"
_FORMAT_OF_UNIT = {
    "%": "{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]",
    "timesteps without a limit": "{desc}: {n_fmt} timesteps [{elapsed}{postfix}]",
}
# Acting and updates alternate, so a speed over less than a few of them would only flicker.
_SECONDS_A_SAMPLE = 0.5
_SAMPLES = 20


class ProgressBarHook(monitor.BaseMonitor):
    """Shows how far a run is, the episode return, timesteps a second and the time left.

    The bar counts what the run is limited by: timesteps, steps or episodes. With limits of
    several kinds it shows the percentage of the one that is nearest to its end. Without any
    limit there is no bar, only the timesteps and the figures. A run that goes on from a
    checkpoint starts its bar there, and reckons the time left from its own speed.

    Args:
      window: the return shown is the mean over this many of the latest episodes.
      leave: whether the bar stays on the screen at the end.
      file: where a terminal's bar is written; stderr unless given.

    Raises:
      TypeError: `window` is no integer.
      ValueError: `window` is not positive.

    Example:
      >>> hook = ProgressBarHook(window=50)
    """

    def __init__(self, window: int = 20, *, leave: bool = True, file: TextIO | None = None) -> None:
        self._window = intervals.positive_count("ProgressBarHook(window=…)", window)
        self._leave = leave
        self._file = file
        self._bar: Any = None

    def begin(self, context: monitor.RunContext) -> None:
        """Draws the bar where the run begins."""
        self._returns: collections.deque[float] = collections.deque(maxlen=self._window)
        self._start = {name: getattr(context, name) for name in ("step", "timestep", "episode")}
        self._samples = collections.deque([(context.clock(), context.timestep)], maxlen=_SAMPLES)
        self._sample_timer = monitor.Every(seconds=_SECONDS_A_SAMPLE).timer(context)
        self._began = self._samples[0]
        self._limits = context.limits
        self._bar = self._open(context)

    def after_run(self, context: monitor.RunContext) -> None:
        """Moves the bar."""
        self._show(context)

    def after_episode(self, context: monitor.RunContext) -> None:
        """Takes in the return and moves the bar."""
        self._returns.extend(episode.total for episode in context.episodes if episode.complete)
        self._show(context)

    def end(self, context: monitor.RunContext) -> None:
        """Brings the bar to where the run ended and leaves it."""
        # What stays on the screen is the speed of the whole run.
        self._samples = collections.deque([self._began, (context.clock(), context.timestep)])
        self._show(context, now=True)
        self._bar.close()

    def _show(self, context: monitor.RunContext, *, now: bool = False) -> None:
        if context.limits != self._limits:
            # A stop hook that began after this one has set a limit.
            self._bar.leave = False
            self._bar.close()
            self._limits = context.limits
            self._bar = self._open(context)
        if self._sample_timer.due(context) and not now:
            self._samples.append((context.clock(), context.timestep))
        self._bar.set_postfix_str(self._figures(), refresh=False)
        self._bar.update(self._progress(context)[0] - self._bar.n)
        if now:
            self._bar.refresh()

    def _open(self, context: monitor.RunContext) -> Any:
        start, total, unit = self._progress(context, of=self._start)
        return auto.tqdm(
            desc="train",
            initial=start,
            total=total,
            unit=unit,
            leave=self._leave,
            file=self._file,
            dynamic_ncols=True,
            # The mean speed so far: that since the last moment would make the time left jump
            # with each update and evaluation.
            smoothing=0,
            bar_format=_FORMAT_OF_UNIT.get(unit, _FORMAT),
        )

    def _progress(
        self, context: monitor.RunContext, of: dict[str, int] | None = None
    ) -> tuple[float, float | None, str]:
        """(done, total, unit) at the present counters, or at those `of` another moment."""
        limits = context.limits
        kinds = [
            ("timestep", limits.max_timesteps, "timesteps"),
            ("step", limits.max_steps, "steps"),
            ("episode", limits.max_episodes, "episodes"),
        ]
        limited = [(name, limit, unit) for name, limit, unit in kinds if limit is not None]
        counters = of if of is not None else {name: getattr(context, name) for name, _, _ in kinds}
        if not limited:
            return counters["timestep"], None, "timesteps without a limit"
        if len(limited) == 1:
            ((name, limit, unit),) = limited
            return min(counters[name], limit), limit, unit
        nearest = max(
            (counters[name] - self._start[name]) / max(1, limit - self._start[name])
            for name, limit, _ in limited
        )
        return round(100 * min(1.0, nearest), 1), 100, "%"

    def _figures(self) -> str:
        figures = []
        if self._returns:
            figures.append(f"return {math.fsum(self._returns) / len(self._returns):.1f}")
        (since, before), (until, now) = self._samples[0], self._samples[-1]
        if until > since:
            figures.append(f"{(now - before) / (until - since):,.0f} timesteps/s")
        return ", ".join(figures)
