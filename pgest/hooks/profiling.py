"""Traces of where the time goes, for TensorBoard's profiler page."""

from __future__ import annotations

import os

import tensorflow as tf

from pgest.hooks import intervals, monitor


class ProfilerHook(monitor.BaseMonitor):
    """Profiles some updates, and the acting between them, with `tf.profiler.experimental`.

    The trace is written under `plugins/profile` in `log_dir`; TensorBoard shows it where
    `tensorboard-plugin-profile` is installed.

    Args:
      start: the first update to profile, counted from 0 at the beginning of each run. The first
        ones compile; leave them out.
      end: the first update not to profile any more.
      every: profiles as many updates again each time that this fires afterwards.
      log_dir: where to; the run's `model_dir` unless given.

    Raises:
      ValueError: not 0 <= start < end; or, when the run begins, there is neither a `log_dir` nor
        a `model_dir`.
      TypeError: `every` is no `Every`.

    Example:
      >>> hook = ProfilerHook(start=10, end=12, every=monitor.Every(seconds=3600))
    """

    def __init__(
        self,
        start: int = 10,
        end: int = 20,
        *,
        every: monitor.Every | None = None,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        if not 0 <= start < end:
            raise ValueError(
                f"ProfilerHook takes 0 <= start < end; got start={start!r}, end={end!r}."
            )
        self._start, self._updates = start, end - start
        self._every = None if every is None else intervals.require_every("ProfilerHook", every)
        self._log_dir = None if log_dir is None else os.fspath(log_dir)
        self._running = False

    def begin(self, context: monitor.RunContext) -> None:
        """Finds the directory and starts counting updates."""
        directory = self._log_dir or context.model_dir
        if directory is None:
            raise ValueError("ProfilerHook needs a log_dir where the run has no model_dir.")
        self._directory = directory
        self._timer = None if self._every is None else self._every.timer(context)
        self._done = 0
        self._from, self._to = self._start, self._start + self._updates

    def before_run(self, context: monitor.RunContext) -> None:
        """Starts the profiler where it is time."""
        if self._done == self._from and not self._running:
            tf.profiler.experimental.start(self._directory)
            self._running = True

    def after_run(self, context: monitor.RunContext) -> None:
        """Counts the update, and stops the profiler after the last one."""
        self._done += 1
        if self._done >= self._to:
            self._stop()
        if self._timer is not None and self._timer.due(context) and self._done >= self._to:
            self._from, self._to = self._done, self._done + self._updates

    def end(self, context: monitor.RunContext) -> None:
        """Stops the profiler where it still runs."""
        self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            tf.profiler.experimental.stop()
