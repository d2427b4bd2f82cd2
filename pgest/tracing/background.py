"""Updates in a thread of their own, while the loop collects the next batch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent import futures
from typing import Any

import tensorflow as tf

from pgest.tracing import programs, updating


class BackgroundUpdates:
    """Runs an updater in a thread, on copies of all its variables.

    The model's own variables change in `finish` alone, in the thread that calls it. So whoever
    acts, evaluates, saves or exports meanwhile sees the weights from before the update, whole, and
    a run of one seed is the same each time however fast the threads are. What others assign to
    them meanwhile is overwritten.

    Args:
      updater: has run once, so that nothing is traced or compiled in the thread. It works on the
        copies from here on, and only through this object.
    """

    def __init__(self, updater: updating.Updater):
        self._updater = updater
        variables = updater.variables
        copies = [
            tf.Variable(variable.read_value(), trainable=False, shape=variable.shape)
            for variable in variables
        ]
        updater.redirect(variables, copies)
        self._take = _assignments(variables, copies)
        self._give = _assignments(copies, variables)
        self._executor = futures.ThreadPoolExecutor(1, thread_name_prefix="pgest-update")
        self._under_way: futures.Future[updating.Updated] | None = None

    def start(self, *arguments: Any) -> None:
        """Starts an update; one that nobody has finished is dropped.

        Args:
          *arguments: of `Updater.__call__`; nobody may write into them before `finish`.
        """
        if self._under_way is not None:
            futures.wait([self._under_way])
        self._take.run_flat([])
        self._under_way = self._executor.submit(self._updater, *arguments)

    @classmethod
    def started(cls, updater: updating.Updater, *arguments: Any) -> BackgroundUpdates:
        """With an update under way, by an updater that has not run yet.

        It runs at once, since it is traced and compiled meanwhile; what it does to the model's
        variables is seen after `finish`.
        """
        variables = tuple(updater.variables)
        before = [tf.identity(variable.read_value()) for variable in variables]
        updated = updater(*arguments)
        updates = cls(updater)
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        updates._under_way = futures.Future()
        updates._under_way.set_result(updated)
        return updates

    def finish(self) -> updating.Updated:
        """Waits for the update, and gives the model's variables their new values.

        Raises:
          Exception: what the update raised; the variables are as they were.
        """
        if self._under_way is None:
            raise RuntimeError("finish() before start(): no update is under way.")
        updated = self._under_way.result()
        self._under_way = None
        self._give.run_flat([])
        return updated

    def close(self) -> None:
        """Drops the update under way and ends the thread."""
        self._executor.shutdown()


def _assignments(
    sources: Sequence[tf.Variable], targets: Sequence[tf.Variable]
) -> programs.Program:
    """A program that gives every target the value of its source.

    Without XLA, which would copy: TensorFlow lets both share the memory until one is written.
    """

    def assign() -> tuple[()]:
        for source, target in zip(sources, targets, strict=True):
            target.assign(source.read_value(), read_value=False)
        return ()

    return programs.Program(assign, [], "the exchange of weights", jit_compile=False)
