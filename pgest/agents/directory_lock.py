"""One writer at a time in a model_dir."""

from __future__ import annotations

import contextlib
import os
import socket
from types import TracebackType

from pgest.variables import checkpoints

try:
    import fcntl
except ImportError:  # Windows has no such lock; two writers are then not noticed
    fcntl = None  # type: ignore[assignment]

NAME = ".training"
_held: set[int] = set()  # file descriptors of this process


class ModelDirInUseError(RuntimeError):
    """Another run writes to the same model_dir."""


class DirectoryLock:
    """A lock on a directory that the kernel frees, however its process ends; a context manager.

    Whoever reads the directory needs no lock. It may be entered again while it is held.

    Args:
      directory: made if it does not exist; None locks nothing.
    """

    def __init__(self, directory: str | None):
        self._directory = directory
        self._depth = 0
        self._descriptor: int | None = None

    def __enter__(self) -> DirectoryLock:
        if self._depth == 0 and self._directory is not None and fcntl is not None:
            self._descriptor = _acquire(self._directory)
            try:
                checkpoints.sweep(self._directory)
            except BaseException:
                self._release()
                raise
        self._depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._release()

    def _release(self) -> None:
        if self._descriptor in _held:  # a forked child has let go of it
            _held.discard(self._descriptor)
            # Unlocked as well: a child that was just forked may not have let go yet.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
        self._descriptor = None


def _acquire(directory: str) -> int | None:
    """The descriptor that holds the lock; None where the file system has no locks."""
    path = os.path.join(directory, NAME)
    try:
        os.makedirs(directory, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise type(error)(
            error.errno,
            f"model_dir {directory!r} cannot be written to ({error.strerror}): give another one, "
            "or None to write nothing",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 1000, 0).decode("utf-8", "replace").strip()
        os.close(descriptor)
        raise ModelDirInUseError(
            f"{holder or 'Another process'} trains in model_dir {directory!r}: two runs there "
            "would overwrite each other's checkpoints. Give this one another model_dir, or end "
            "the other; evaluate and predict may run beside it."
        ) from error
    except OSError:
        os.close(descriptor)
        return None
    _held.add(descriptor)
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"Process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    return descriptor


def _let_go() -> None:
    """A forked child shares the lock, and would hold it beyond the end of its parent."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
