"""Directories that appear complete or not at all.

A directory is written under a hidden name beside its final one, brought to the disk, and renamed.
Whoever looks for the final name sees nothing, the earlier one, or the new one.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import shutil
import socket
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import tensorflow as tf

from pgest.contract import run_config

Contents = Mapping[str, Sequence[str]]

CHECKPOINTS = "checkpoints"
_CHECKPOINT_NAME = "policy_checkpoint_%010d"
_CHECKPOINT_PATTERN = re.compile(r"policy_checkpoint_(\d+)")
_STAGING_PATTERN = re.compile(r"\..+\.writing-([0-9a-f]{8})-(\d+)-\d+")

# What an export consists of; a directory with anything else in it is never replaced as a whole.
EXPORT_NAMES = frozenset(
    {
        "saved_model.pb",
        "fingerprint.pb",
        "assets",
        "assets.extra",
        "variables",
        "policy_specs.pbtxt",
        "policy.json",
    }
)

# What the files of a checkpoint are called, by directory, the innermost first.
CHECKPOINT_CONTENTS: Contents = {
    "variables": ("variables.index", "variables.data-00000-of-00001"),
    "": (),
}

_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_numbers = itertools.count()
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def local(path: str | os.PathLike[str]) -> str:
    """The path as a str; an address of a remote file system is refused.

    Raises:
      ValueError: it is one, such as "gs://…": nothing appears there complete or not at all.

    >>> local("runs/policy")
    'runs/policy'
    """
    found = os.fspath(path)
    if "://" in found:
        raise ValueError(
            f"{found!r} is an address of a remote file system, which cannot rename a directory in "
            "one operation; use a local or mounted directory, and copy what is complete."
        )
    return found


def checkpoint_name(step: int) -> str:
    """The name of the checkpoint of a step.

    >>> checkpoint_name(42)
    'policy_checkpoint_0000000042'
    """
    return _CHECKPOINT_NAME % step


def checkpoint_steps(directory: str | os.PathLike[str]) -> dict[int, str]:
    """The complete checkpoints in a directory, oldest step first: step to path."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = {}
    for name in names:
        match = _CHECKPOINT_PATTERN.fullmatch(name)
        path = os.path.join(directory, name)
        if match and os.path.exists(os.path.join(path, "variables", "variables.index")):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def step_in_name(path: str | os.PathLike[str]) -> int | None:
    """The step at the end of a checkpoint's path; None where there is none.

    >>> step_in_name("runs/checkpoint_00100/"), step_in_name("runs/checkpoint")
    (100, None)
    """
    last = os.path.basename(os.path.normpath(os.fspath(path))).rpartition("_")[2]
    return int(last) if last.isdecimal() else None


@contextlib.contextmanager
def appearing(directory: str | os.PathLike[str], contents: Contents | None = None) -> Iterator[str]:
    """Gives a hidden directory to write into; on a regular exit it takes the final name.

    An earlier export or checkpoint of that name is replaced in one operation of the file system
    where the system can exchange two names (Linux), else in two. Where anything fails, the final
    name is as it was and the hidden directory is gone.

    Args:
      directory: the final name.
      contents: what will have been written, where that is known: names of files by directory. A
        thread that looks for them takes Python from others once a file.

    Raises:
      tf.errors.FailedPreconditionError: the path is a file.
      ValueError: it is not of a local file system, or TensorFlow could not read there.
      OSError: the file system refuses; a full disk and missing permissions among it.
    """
    # A link stays one: what it leads to is replaced, also where that is on another disk.
    final = os.path.realpath(local(directory))
    run_config.check_readable("The directory", final)
    exists = os.path.exists(final)
    if exists and not os.path.isdir(final):
        raise tf.errors.FailedPreconditionError(
            None, None, f"export_dir {final!r} is a file; give a directory to write into."
        )
    staging = _hidden(final)
    try:
        os.mkdir(staging)
    except FileNotFoundError:
        os.makedirs(staging)
    moved = False
    try:
        yield staging
        bring_to_disk(staging, contents)
        moved = not exists and _renamed(staging, final)
        if not moved:
            _publish(staging, final)
        _sync(os.path.dirname(final))
    finally:
        # What failed, or an earlier export that the name was exchanged with.
        if not moved:
            shutil.rmtree(staging, ignore_errors=True)


def remove(directory: str, contents: Contents | None = None) -> None:
    """Removes a directory so that no reader sees a part of it under its own name.

    Args:
      directory: which.
      contents: see `appearing`.
    """
    hidden = _hidden(os.path.abspath(directory))
    os.rename(directory, hidden)
    try:
        for path, files in _walk(hidden, contents):
            for file in files:
                os.unlink(file)
            os.rmdir(path)
    except OSError:  # there is something else in it
        shutil.rmtree(hidden, ignore_errors=True)


def remove_leftovers(directory: str | os.PathLike[str]) -> None:
    """Removes what writers of this machine left behind in a directory when they were killed."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        match = _STAGING_PATTERN.fullmatch(name)
        if match and match[1] == _HOST and not _is_running(int(match[2])):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)


def bring_to_disk(directory: str, contents: Contents | None = None) -> None:
    """Asks the system to write every file and directory below (and with) `directory` now.

    Args:
      directory: which.
      contents: see `appearing`.
    """
    for path, files in _walk(directory, contents):
        for file in files:
            _sync(file)
        _sync(path)


def write_file(path: str, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it."""
    temporary = f"{path}_temp"
    with open(temporary, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)


def _hidden(final: str) -> str:
    """A name beside `final` that nobody looks for, and that says who writes there."""
    parent, name = os.path.split(final)
    return os.path.join(parent, f".{name}.writing-{_HOST}-{os.getpid()}-{next(_numbers)}")


def _walk(directory: str, contents: Contents | None) -> Iterable[tuple[str, list[str]]]:
    """The directories below, and then `directory`, each with the paths of its files."""
    found: Iterable[tuple[str, Iterable[str]]]
    if contents is None:
        found = ((path, files) for path, _, files in os.walk(directory, topdown=False))
    else:
        found = ((os.path.join(directory, name), names) for name, names in contents.items())
    for path, files in found:
        yield path, [os.path.join(path, file) for file in files]


def _renamed(staging: str, final: str) -> bool:
    """Gives the final name; False where somebody else has taken it since."""
    try:
        os.rename(staging, final)
    except OSError:
        return False
    return True


def _publish(staging: str, final: str) -> None:
    if os.path.isdir(final) and os.path.samefile(final, os.curdir):
        # Replacing it would leave this process in a directory that is gone.
        _merge(staging, final)
    elif not os.path.isdir(final) or not os.listdir(final):
        os.rename(staging, final)
    elif set(os.listdir(final)) <= EXPORT_NAMES:
        _replace(staging, final)
    else:
        _merge(staging, final)


def _replace(staging: str, final: str) -> None:
    """Puts `staging` in the place of `final`; the earlier one is left under the hidden name."""
    if _exchange(staging, final):
        return
    earlier = f"{staging}-earlier"
    os.rename(final, earlier)
    try:
        os.rename(staging, final)
    except OSError:
        os.rename(earlier, final)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def _exchange(first: str, second: str) -> bool:
    """Exchanges two names in one operation; False where the system does not know how."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    arguments = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return rename(*arguments) == 0


def _merge(staging: str, final: str) -> None:
    """Puts an export among files that are not ours; the marker goes first and comes last."""
    marker = "policy_specs.pbtxt"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(final, marker))
    for path, _, files in os.walk(staging):
        target = os.path.join(final, os.path.relpath(path, staging))
        os.makedirs(target, exist_ok=True)
        for file in files:
            if file != marker:
                os.replace(os.path.join(path, file), os.path.join(target, file))
    if os.path.exists(os.path.join(staging, marker)):
        os.replace(os.path.join(staging, marker), os.path.join(final, marker))
    bring_to_disk(final)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove_files(path: str) -> None:
    """Removes a file or a directory, if it is there."""
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)
