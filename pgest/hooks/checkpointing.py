"""Checkpoints at regular times, and listeners to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pgest.contract import foreign_names
from pgest.hooks import intervals, monitor


class CheckpointSaverListener:
    """Something to be done around each checkpoint of a `CheckpointSaverHook`.

    Example:
      >>> class Tell(CheckpointSaverListener):
      ...     def after_save(self, context, path):
      ...         print("wrote", path, "at step", context.step)
      >>> hook = CheckpointSaverHook(monitor.Every(steps=100), listeners=[Tell()])
    """

    def begin(self, context: monitor.RunContext) -> None:
        """Called once when the run begins."""

    def before_save(self, context: monitor.RunContext) -> None:
        """Called before each checkpoint.

        `after_save` does not follow where the variables turn out not to be finite.
        """

    def after_save(self, context: monitor.RunContext, path: str) -> None:
        """Called when the checkpoint `path` is complete on the disk."""

    def end(self, context: monitor.RunContext) -> None:
        """Called once at the end, after the last checkpoint."""


class CheckpointSaverHook(monitor.BaseMonitor):
    """Writes a checkpoint every so often, and one at the end, also where the run failed.

    Training goes on while a thread writes; the end waits for it, and so does the next checkpoint.
    With listeners, which hear when it is on the disk, training waits. What cannot be written ends
    the run.

    Nothing is written where the run is not healthy (see `NanTensorHook`), nor twice for the same
    counters.

    Args:
      every: how often.
      listeners: told before and after each checkpoint, in this order.

    Raises:
      TypeError: `every` is no `Every`, or a listener is no `CheckpointSaverListener`.

    Example:
      >>> hook = CheckpointSaverHook(monitor.Every(seconds=600))
    """

    @foreign_names.told
    def __init__(
        self, every: monitor.Every, listeners: Sequence[CheckpointSaverListener] = ()
    ) -> None:
        self._every = intervals.require_every("CheckpointSaverHook", every)
        for listener in listeners:
            if not isinstance(listener, CheckpointSaverListener):
                raise TypeError(
                    "CheckpointSaverHook takes CheckpointSaverListeners; got "
                    f"{listener!r} of type {type(listener).__name__}."
                )
        self._listeners = tuple(listeners)

    def begin(self, context: monitor.RunContext) -> None:
        """Starts the clock and the listeners."""
        self._timer = self._every.timer(context)
        self._saved_at: tuple[int, int, int] | None = None
        for listener in self._listeners:
            listener.begin(context)

    def state(self) -> dict[str, Any]:
        """When the next one is due."""
        return {"timer": self._timer.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the clock."""
        self._timer.restore(state["timer"])

    def after_run(self, context: monitor.RunContext) -> None:
        """Saves where it is time."""
        context.finish_checkpoint(wait=False)
        if self._timer.due(context):
            self._save(context, wait=bool(self._listeners))

    def after_episode(self, context: monitor.RunContext) -> None:
        """Saves where it is time: episodes end between updates as well."""
        self.after_run(context)

    def end(self, context: monitor.RunContext) -> None:
        """Saves what was learnt since, and ends the listeners."""
        self._save(context, wait=True)
        for listener in self._listeners:
            listener.end(context)

    def _save(self, context: monitor.RunContext, *, wait: bool) -> None:
        counters = (context.step, context.timestep, context.episode)
        if context.model_dir is None or not context.healthy or counters == self._saved_at:
            return
        for listener in self._listeners:
            listener.before_save(context)
        path = context.save_checkpoint(wait=wait)
        if path is None:
            return
        self._saved_at = counters
        for listener in self._listeners:
            listener.after_save(context, path)
