"""Evaluation in a process of its own, which follows the checkpoints that the chief writes.

The two know of each other by files in `model_dir/evaluator` alone: what was evaluated, and where
training has ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from pgest.contract import callers
from pgest.hooks import best_checkpoint, monitor
from pgest.variables import checkpoints, whole_files

_DIRECTORY, _EVALUATIONS, _ENDED = "evaluator", "evaluations.json", "ended.json"
_POLL_SECS = 0.5


class Book:
    """What chief and evaluator tell each other.

    Args:
      model_dir: of both.
      limits: of the training; where it ended under others, it has not ended.
    """

    def __init__(self, model_dir: str, limits: tuple[int | None, ...]):
        self.directory = os.path.join(model_dir, _DIRECTORY)
        self._limits = list(limits)

    def evaluations(self) -> list[monitor.Evaluation]:
        """All that were made, oldest first."""
        made = self._read(_EVALUATIONS)
        try:
            return [monitor.Evaluation(**each) for each in made or []]
        except TypeError as error:
            self._warn(_EVALUATIONS, error)
            return []

    def written_at(self) -> int:
        """When an evaluation was last noted, in nanoseconds; 0: never."""
        try:
            return os.stat(os.path.join(self.directory, _EVALUATIONS)).st_mtime_ns
        except FileNotFoundError:
            return 0

    def add(self, made: monitor.Evaluation) -> None:
        """Notes an evaluation."""
        made_so_far = [dataclasses.asdict(each) for each in (*self.evaluations(), made)]
        self._write(_EVALUATIONS, made_so_far)

    def begin(self) -> None:
        """Says that training goes on."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(self.directory, _ENDED))

    def end(self, checkpoint: str | None) -> None:
        """Says that training has ended, with its last checkpoint."""
        name = None if checkpoint is None else os.path.basename(checkpoint)
        self._write(_ENDED, {"checkpoint": name, "limits": self._limits})

    def has_ended_at(self, checkpoint: str | None) -> bool:
        """Whether training has ended with this checkpoint; None: with none."""
        name = None if checkpoint is None else os.path.basename(checkpoint)
        return bool(self._read(_ENDED) == {"checkpoint": name, "limits": self._limits})

    def _read(self, name: str) -> Any:
        try:
            with open(os.path.join(self.directory, name), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return None
        except ValueError as error:  # bytes or JSON
            self._warn(name, error)
            return None

    def _warn(self, name: str, error: Exception) -> None:
        callers.warn(
            f"{os.path.join(self.directory, name)!r} is damaged ({type(error).__name__}: {error}): "
            "it counts as not written, and is replaced when it is due again."
        )

    def _write(self, name: str, content: Any) -> None:
        os.makedirs(self.directory, exist_ok=True)
        whole_files.write_text(os.path.join(self.directory, name), json.dumps(content))


class TakeEvaluationsHook(monitor.BaseMonitor):
    """Shows the hooks after it what the evaluator has found; writes the last checkpoint.

    Args:
      book: read after each update.
    """

    def __init__(self, book: Book):
        self._book = book
        self._seen = self._read_at = 0

    def begin(self, context: monitor.RunContext) -> None:
        """Leaves aside what was evaluated in earlier runs."""
        self._read_at = 0
        self._seen = len(self._book.evaluations())

    def state(self) -> dict[str, Any]:
        """How many evaluations the run has seen."""
        return {"seen": self._seen}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the next evaluation."""
        self._seen = state["seen"]

    def after_run(self, context: monitor.RunContext) -> None:
        """Takes over what is new."""
        written_at = self._book.written_at()
        if written_at == self._read_at:
            return
        self._read_at = written_at
        made = self._book.evaluations()
        context.evaluations.extend(made[self._seen :])
        self._seen = len(made)

    def end(self, context: monitor.RunContext) -> None:
        """The evaluator needs a checkpoint of the last weights."""
        if context.error is None:
            context.save_checkpoint()


class Follower:
    """Evaluates each new checkpoint until training has ended.

    Args:
      book: what training tells.
      model_dir: where the checkpoints come.
      name: of the evaluations.
      throttle_secs: between the beginnings of two of them, but for the last.
    """

    def __init__(self, book: Book, model_dir: str, name: str | None, throttle_secs: float):
        self._book = book
        self._model_dir = model_dir
        self._name = name
        self._throttle_secs = throttle_secs
        # A copy: the chief removes old checkpoints while they are evaluated and exported.
        self._copy = best_checkpoint.BestCheckpoint(os.path.join(book.directory, "checkpoint"))
        best = os.path.join(model_dir, "best", *filter(None, [name]))
        self._best = best_checkpoint.BestCheckpoint(best)

    def follow(
        self,
        evaluate: Callable[[str], dict[str, float]],
        export: Callable[[str, dict[str, float], bool], list[Any]],
    ) -> tuple[dict[str, float], list[Any]]:
        """Until training has ended.

        Args:
          evaluate: gives the results of a checkpoint.
          export: what to do then, with whether it was the last one; gives what it exported.

        Returns:
          The results of the last checkpoint, and what was exported of it.
        """
        evaluated: str | None = None
        results: dict[str, float] = {}
        path, earliest = "", 0.0
        while True:
            newest = checkpoints.latest(self._model_dir)
            is_last = self._book.has_ended_at(newest)
            if is_last and newest == evaluated:
                return results, [] if newest is None else export(path, results, True)
            is_due = newest != evaluated and (is_last or time.monotonic() >= earliest)
            copied = self._copied(newest) if is_due and newest is not None else None
            if copied is None:
                time.sleep(_POLL_SECS)
                continue
            earliest = time.monotonic() + self._throttle_secs
            evaluated, path, results = newest, copied, evaluate(copied)
            self._note(path, results)
            if not self._book.has_ended_at(newest):
                export(path, results, False)

    def _copied(self, checkpoint: str) -> str | None:
        """A copy that stays; None where the checkpoint is gone already."""
        try:
            return self._copy.keep(checkpoint, 0.0)
        except (FileNotFoundError, tf.errors.NotFoundError):
            return None

    def _note(self, path: str, results: dict[str, float]) -> None:
        """Tells the chief, and keeps the best."""
        names = ("step", "timestep", "episode")
        counts = {name: int(results[f"global_{name}"]) for name in names}
        made = monitor.Evaluation(self._name, **counts, results=results)
        self._book.add(made)
        if made.mean_return > self._best.mean_return:
            mean = made.mean_return
            self._best.keep(path, mean_return=mean, results=results, **counts)
