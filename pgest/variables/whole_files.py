"""Files that appear whole or not at all, also where the power fails."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence

import tensorflow as tf

# The op that failed: of no use to who has to make room.
_OP = re.compile(r"^\{\{.*?\}\}\s*")


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until a file, or the names in a directory, are on the disk.

    Some file systems have no such thing for directories; they are left alone.

    Args:
      path: a file or a directory.

    Raises:
      OSError: the file cannot be read, or the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError) if os.path.isdir(path) else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(pairs: Sequence[tuple[str, str]]) -> None:
    """Renames files within one directory, in order, once all that is in them is on the disk.

    A rename alone may reach the disk before the bytes do: after a power cut, the file of the new
    name would be empty.

    Args:
      pairs: present and new paths.
    """
    for present, _ in pairs:
        sync(present)
    for present, new in pairs:
        os.replace(present, new)
    for directory in {os.path.dirname(new) or os.curdir for _, new in pairs}:
        sync(directory)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces a small UTF-8 file in one piece.

    Args:
      path: of the file; its directory exists.
      text: what it holds from then on.
    """
    temporary = f"{os.fspath(path)}.writing-{os.getpid()}"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        rename([(temporary, os.fspath(path))])
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def reason(error: Exception) -> str:
    """Why a file could not be written, as one sentence.

    Args:
      error: an `OSError`, or what TensorFlow raises in its place.

    Example:
      >>> reason(OSError(28, "No space left on device"))
      '[Errno 28] No space left on device.'
    """
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    return f"{_OP.sub('', str(text)).splitlines()[0].rstrip('.')}."
