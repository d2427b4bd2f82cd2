"""The best checkpoint of a run, kept apart from those that come and go."""

from __future__ import annotations

import json
import logging
import math
import os
import posixpath
import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

_LOGGER = logging.getLogger(__name__)

_RECORD = "best.json"
_LEFT_OVER = re.compile(r"\.(index|data-\d+-of-\d+|tmp-\d+)$")


class BestCheckpoint:
    """A directory with one checkpoint and the return that it reached.

    `best.json` names the checkpoint; it is replaced in one piece once the new checkpoint is
    complete, and the old one is deleted only after that. So a reader who goes by it (or by
    `tf.train.latest_checkpoint(directory)`) never sees half a model, whenever the process dies.

    Args:
      directory: where it lives; made when the first checkpoint is kept.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     best = BestCheckpoint(os.path.join(directory, "best"))
      ...     best.mean_return, best.path
      (-inf, None)
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._record = self._read()

    @property
    def mean_return(self) -> float:
        """The return that the kept checkpoint reached; minus infinity where there is none."""
        return float(self._record.get("return", -math.inf))

    @property
    def path(self) -> str | None:
        """The kept checkpoint, for `checkpoint_path=`; None where there is none."""
        name = self._record.get("checkpoint")
        return None if name is None else posixpath.join(self.directory, name)

    @property
    def record(self) -> Mapping[str, Any]:
        """All that `best.json` holds; empty where there is none."""
        return dict(self._record)

    def keep(self, checkpoint: str, mean_return: float, **details: Any) -> str:
        """Copies a checkpoint here in place of the present one.

        Args:
          checkpoint: its path as `tf.train.Checkpoint` gives it: a prefix of several files.
          mean_return: what it reached.
          **details: anything else that JSON can hold, kept beside it.

        Returns:
          The path of the copy.

        Raises:
          FileNotFoundError: there is no such checkpoint.
        """
        suffixes = _suffixes(checkpoint)
        if not suffixes:
            raise FileNotFoundError(f"There are no files of a checkpoint {checkpoint!r} to keep.")
        tf.io.gfile.makedirs(self.directory)
        before = set(tf.io.gfile.listdir(self.directory))
        name = _free_name(posixpath.basename(checkpoint), before)
        for suffix in suffixes:
            target = posixpath.join(self.directory, name + suffix)
            tf.io.gfile.copy(checkpoint + suffix, target, overwrite=True)
        record = {"return": mean_return, "checkpoint": name, **details}
        self._write(_RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")
        # The state file that tf.train.latest_checkpoint reads.
        self._write("checkpoint", f'model_checkpoint_path: "{name}"\n')
        old, self._record = self._record.get("checkpoint"), record
        for file in before:
            # The present one, and what a process left that died while it copied.
            if _LEFT_OVER.search(file) or (old is not None and file.startswith(f"{old}.")):
                tf.io.gfile.remove(posixpath.join(self.directory, file))
        return posixpath.join(self.directory, name)

    def _read(self) -> dict[str, Any]:
        path = posixpath.join(self.directory, _RECORD)
        if not tf.io.gfile.exists(path):
            return {}
        with tf.io.gfile.GFile(path, "rb") as file:
            text = file.read()
        try:
            record = json.loads(text)
            if not math.isfinite(record["return"]):  # no return would ever be higher than a NaN
                raise ValueError(f"the return is {record['return']}")
            name = posixpath.basename(record["checkpoint"])
            complete = bool(_suffixes(posixpath.join(self.directory, name)))
        # Bytes that are no UTF-8 are a ValueError.
        except (ValueError, TypeError, KeyError) as error:
            _LOGGER.warning("%s cannot be read (%r); the next evaluation replaces it.", path, error)
            return {}
        if name != record["checkpoint"]:
            _LOGGER.warning(
                "%s names the checkpoint %r; only %r beside it is looked for.",
                path, record["checkpoint"], name,
            )  # fmt: skip
            record["checkpoint"] = name
        if not complete:
            _LOGGER.warning(
                "%s names the checkpoint %r, which is gone; the next evaluation replaces it.",
                path, record["checkpoint"],
            )  # fmt: skip
            return {}
        return dict(record)

    def _write(self, name: str, text: str) -> None:
        """Replaces a small file in one piece."""
        path = posixpath.join(self.directory, name)
        temporary = f"{path}.tmp-{os.getpid()}"
        with tf.io.gfile.GFile(temporary, "w") as file:
            file.write(text)
        tf.io.gfile.rename(temporary, path, overwrite=True)


def _suffixes(checkpoint: str) -> list[str]:
    """What follows the prefix in the names of a checkpoint's files: ".index", ".data-…"."""
    directory, name = posixpath.split(checkpoint)
    # Listed, not globbed: a directory may be called "runs[1]".
    if not tf.io.gfile.isdir(directory or "."):
        return []
    files = tf.io.gfile.listdir(directory or ".")
    return sorted(file[len(name) :] for file in files if file.startswith(f"{name}."))


def _free_name(name: str, taken: set[str]) -> str:
    """`name`, or with a number where a checkpoint of that name is there already."""

    def is_taken(candidate: str) -> bool:
        return any(file.startswith(f"{candidate}.") for file in taken)

    candidate, number = name, 1
    while is_taken(candidate):
        candidate, number = f"{name}-{number}", number + 1
    return candidate
