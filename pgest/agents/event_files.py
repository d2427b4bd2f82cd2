"""TensorBoard's files of a model_dir: who writes them, and how far they are part of a run."""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from pgest.variables import whole_files

# Ends the names of files that a run writes. What it wrote after the checkpoint that it goes on from
# it will write again; nobody but the one run in a model_dir writes such files.
_OF_RUN = ".training.v2"
_NOTE = ".event_files"
_LOGGER = logging.getLogger(__name__)


class EventWriters:
    """A writer a directory, opened at first use, which stays open.

    Args:
      model_dir: of the agent; None writes nothing.
    """

    def __init__(self, model_dir: str | None):
        self.model_dir = model_dir
        self._writers: dict[tuple[str, bool], Any] = {}
        self._ended_at: str | None = None  # the checkpoint that the last run ended with

    def writer(self, folder: str = "", *, of_run: bool = True) -> tf.summary.SummaryWriter | None:
        """The writer of a directory of `model_dir`; None without one.

        Args:
          folder: its name; "" is `model_dir` itself.
          of_run: whether a run under way writes, and writes again where it goes on.
        """
        if self.model_dir is None:
            return None
        # Readers leave a file for good once there is a newer one beside it.
        of_run = of_run or ((folder, True) in self._writers and self._is_last)
        if (folder, of_run) not in self._writers:
            suffix = _OF_RUN if of_run else ".v2"
            self._writers[folder, of_run] = tf.summary.create_file_writer(
                os.path.join(self.model_dir, folder), flush_millis=10_000, filename_suffix=suffix
            )
        return self._writers[folder, of_run]

    @property
    def is_open(self) -> bool:
        """Whether anything was written."""
        return bool(self._writers)

    def drop(self, folder: str = "") -> None:
        """Lets the next point in a directory open a new file, after a write that failed."""
        for of_run in (True, False):
            self._writers.pop((folder, of_run), None)

    def begin(self) -> None:
        """A run begins: what it has written counts with its checkpoints."""
        self._ended_at = None

    def note(self, checkpoint: str | None) -> None:
        """Notes how far the files are part of a run that has ended in order, with all its hooks.

        Args:
          checkpoint: the run's last; hooks may have written to the files after it.
        """
        self._ended_at = checkpoint
        self._write_note()

    def note_again(self) -> None:
        """Counts what was written after the run that ended last; nothing while one is under way."""
        if self._is_last:
            self._write_note()

    @property
    def _is_last(self) -> bool:
        """Whether the last run in `model_dir`, of whichever process, was of these and has ended."""
        return self._ended_at is not None and noted(self.model_dir, self._ended_at) is not None

    def _write_note(self) -> None:
        if self.model_dir is None or self._ended_at is None:
            return
        note = {"checkpoint": os.path.basename(self._ended_at), "sizes": self.sizes()}
        # Nothing is noted in a directory that cannot be written to.
        with contextlib.suppress(OSError):
            whole_files.write_text(os.path.join(self.model_dir, _NOTE), json.dumps(note))

    def sizes(self) -> dict[str, int]:
        """Bytes of each file of the run, by its name in `model_dir`, all that was written in it."""
        for (folder, of_run), writer in list(self._writers.items()):
            try:
                if of_run:
                    writer.flush()
            except tf.errors.OpError as error:  # a checkpoint is worth more than points
                self.drop(folder)
                _LOGGER.warning("Points are lost: %s", whole_files.reason(error))
        return _sizes(self.model_dir)


def cut_back(model_dir: str | None, sizes: Mapping[str, int]) -> None:
    """Takes the files of a run back to where they were when a checkpoint was written.

    Args:
      model_dir: whose files; nobody writes them now.
      sizes: as `EventWriters.sizes` gave them then; what is not in them was written since.
    """
    for name, size in _sizes(model_dir).items():
        path = os.path.join(str(model_dir), name)
        with contextlib.suppress(FileNotFoundError):
            if name not in sizes:
                os.remove(path)
            elif size > sizes[name]:
                os.truncate(path, sizes[name])


def noted(model_dir: str | None, checkpoint: str) -> dict[str, int] | None:
    """The sizes of the run that ended with a checkpoint; None where that is not known."""
    try:
        with open(os.path.join(str(model_dir), _NOTE), encoding="utf-8") as file:
            found = json.load(file)
        if found["checkpoint"] != os.path.basename(checkpoint):
            return None
        return {str(name): int(size) for name, size in found["sizes"].items()}
    # Whatever a power cut leaves of it: better a point twice than files that are gone.
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _sizes(model_dir: str | None) -> dict[str, int]:
    if model_dir is None:
        return {}
    root = glob.escape(model_dir)
    names = glob.glob(f"{root}/*tfevents*{_OF_RUN}") + glob.glob(f"{root}/*/*tfevents*{_OF_RUN}")
    return {os.path.relpath(name, model_dir): os.path.getsize(name) for name in names}
