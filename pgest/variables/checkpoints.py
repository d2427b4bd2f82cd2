"""Checkpoints of named variables: written whole or not at all, read back with a fallback."""

from __future__ import annotations

import os
import re
import shutil
import time
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from pgest.variables import store, whole_files

ENVIRONMENT = "environment/"
_PREFIX = "model.ckpt"
_REMAINDER = "_remainder"  # of `normalization.RunningMoments`
_KEY_START = "variables/"
_RUN_START = "run/"
_KEY_END = "/.ATTRIBUTES/VARIABLE_VALUE"
_NAME = re.compile(rf"{re.escape(_PREFIX)}-(\d+)(?:-(\d+))?")
# What a process that was killed left behind: half a checkpoint, or half of another file.
_LEFT_OVER = re.compile(r"^\.writing-\d+-|\.writing-\d+$")


class CheckpointMismatchError(ValueError):
    """The checkpoint and the model do not hold the same variables."""


def save(
    directory: str | os.PathLike[str],
    variables: Mapping[str, tf.Variable | tf.Tensor],
    *,
    step: int,
    run: Mapping[str, np.ndarray] | None = None,
    keep_max: int | None = 5,
    keep_every_n_hours: float = 10000.0,
) -> str:
    """Writes a checkpoint and sweeps old ones.

    The files appear under their own names only when they are complete, the index last, so a
    reader, or a run that is killed meanwhile, never sees half a checkpoint. Their bytes are on the
    disk before, so that no power cut leaves an empty file of that name.

    Args:
      directory: where; made if it does not exist.
      variables: by name; or what they held, from `values_of`.
      step: the `global_step` that names the checkpoint.
      run: numbers by name that are no variables of the model; see `read_run`.
      keep_max: how many to keep; None or 0 keeps all.
      keep_every_n_hours: of those swept, one in so many hours stays.

    Returns:
      The checkpoint's path, as `tf.train.load_checkpoint` takes it.

    Raises:
      OSError: it cannot be written; earlier checkpoints are as they were.
    """
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, f"{_PREFIX}-{step}")
    number = 1
    while os.path.exists(f"{path}.index"):  # the step stood still while timesteps went on
        path = os.path.join(directory, f"{_PREFIX}-{step}-{number}")
        number += 1
    temporary = os.path.join(directory, f".writing-{os.getpid()}-{os.path.basename(path)}")
    try:
        # Through dicts, so that slashes in names survive.
        held = {"variables": _held(variables), **({"run": _held(run)} if run else {})}
        tf.train.Checkpoint(**held).write(temporary)
        files = sorted(_files(temporary))  # ".data-…" before ".index"
        whole_files.rename([(file, path + file[len(temporary) :]) for file in files])
    except (tf.errors.OpError, OSError) as error:
        raise OSError(
            f"The checkpoint {path!r} could not be written: {whole_files.reason(error)} Earlier "
            "checkpoints are as they were. Make room, or let the directory be written to, and "
            "start again."
        ) from error
    finally:
        for file in _files(temporary):
            os.remove(file)
        # Where TensorFlow failed in the middle, the directory that it writes to is still there.
        shutil.rmtree(f"{temporary}_temp", ignore_errors=True)
    _register(str(directory), path, keep_max, keep_every_n_hours)
    return path


def values_of(variables: Mapping[str, tf.Variable]) -> dict[str, tf.Tensor]:
    """What variables hold now, in host memory, for `save` at any time and in any thread.

    Nothing is copied that is in host memory already: an update of a variable writes elsewhere while
    somebody holds the tensor that was read from it.

    Args:
      variables: by name.
    """
    with tf.device("CPU"):
        return {name: tf.identity(variable.read_value()) for name, variable in variables.items()}


def latest(directory: str | os.PathLike[str] | None) -> str | None:
    """Path of the newest checkpoint whose files are there; None where there is none."""
    paths = [path for path in all_checkpoints(directory) if os.path.exists(f"{path}.index")]
    return paths[-1] if paths else None


def all_checkpoints(directory: str | os.PathLike[str] | None) -> list[str]:
    """Paths of the checkpoints in `directory`, oldest first.

    These are the registered ones and, where a writer was killed before it could register it, a
    complete one that is newer; without a state file that can be read, all that are there.
    """
    if directory is None or not os.path.isdir(directory):
        return []
    registered = _registered(str(directory), _state(str(directory)))
    found = [path for path in _complete(str(directory)) if path not in registered]
    if not registered:
        return found
    newest = registered[-1]
    if not os.path.exists(f"{newest}.index"):
        return registered
    age = (_number(newest), _written_at(newest))
    later = [path for path in found if _number(path) > age[0] and _written_at(path) >= age[1]]
    return registered + later


def sweep(directory: str | os.PathLike[str]) -> list[str]:
    """Removes what writers left that were killed; to be called where no other process writes.

    Returns:
      The names that are gone.
    """
    left = [name for name in os.listdir(directory) if _LEFT_OVER.search(name)]
    complete = {os.path.basename(path) for path in _complete(str(directory))}
    for name in os.listdir(directory):  # the data of a checkpoint that has no index
        stem, dot, _ = name.partition(".data-")
        if dot and _NAME.fullmatch(stem) and stem not in complete:
            left.append(name)
    for name in left:
        path = os.path.join(directory, name)
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.remove(path)
    return sorted(left)


def read(path: str) -> dict[str, np.ndarray]:
    """Returns every variable of a checkpoint by name.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged.
    """
    if not os.path.exists(f"{path}.index"):
        raise FileNotFoundError(f"There is no checkpoint {path!r} (no file {path}.index).")
    try:
        reader = tf.train.load_checkpoint(path)
        # Every entry, also those that are no variables: a file that was cut is not trusted.
        entries = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
    # A cut file shows as any of these, depending on where it is cut.
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise ValueError(f"The checkpoint {path!r} is damaged: {error}") from error
    return {
        _name(key): value
        for key, value in entries.items()
        if key.startswith(_KEY_START) and key.endswith(_KEY_END)
    }


def read_run(path: str) -> dict[str, np.ndarray]:
    """What was given as `run` to `save`; empty where nothing was."""
    reader = tf.train.load_checkpoint(path)
    return {
        _name(key, _RUN_START): reader.get_tensor(key)
        for key in reader.get_variable_to_shape_map()
        if key.startswith(_RUN_START) and key.endswith(_KEY_END)
    }


def read_newest(
    directory: str | os.PathLike[str] | None,
) -> tuple[str, dict[str, np.ndarray]] | None:
    """Reads the newest checkpoint that can be read; None where there is none at all.

    A damaged or missing one is passed over with a warning that names it and the one used.

    Raises:
      ValueError: there are checkpoints, and none of them can be read.
    """
    faults: list[str] = []
    for path in reversed(all_checkpoints(directory)):
        try:
            values = read(path)
        except (FileNotFoundError, ValueError) as error:
            faults.append(str(error))
            continue
        if faults:
            warnings.warn(f"{' '.join(faults)} Going on from {path!r} instead.", stacklevel=3)
        return path, values
    if faults:
        raise ValueError(
            f"No checkpoint in {str(directory)!r} can be read: {' '.join(faults)} Move them away "
            "to start anew."
        )
    return None


def value_of(name: str, saved: Mapping[str, Any]) -> Any:
    """What a checkpoint holds of a variable, None where it holds nothing.

    The first checkpoints hold running means without remainders, which then are 0.

    Example:

    >>> value_of("seen_mean_remainder", {"seen_mean": np.array([5.0])}).tolist()
    [0.0]
    """
    if name not in saved and name.endswith(_REMAINDER):
        mean = saved.get(name.removesuffix(_REMAINDER))
        return None if mean is None else np.zeros_like(mean)
    return saved.get(name)


def check_fit(
    path: str,
    saved: Mapping[str, Any],
    variables: Mapping[str, tf.Variable],
    *,
    whole: bool,
) -> None:
    """Raises where a checkpoint is not one of this model.

    Args:
      path: of the checkpoint, for the message.
      saved: its values by name.
      variables: the model's.
      whole: variables that only the checkpoint holds count as well; False where only a part of
        the model has been built.

    Raises:
      CheckpointMismatchError: lists what differs.
    """
    saved = {name: value for name, value in saved.items() if is_of_model(name)}
    variables = {name: v for name, v in variables.items() if is_of_model(name)}
    lines = [f"  only in the model: {name} {tuple(v.shape)}" for name, v in variables.items()
             if value_of(name, saved) is None]  # fmt: skip
    lines += [f"  {name}: {np.shape(saved[name])} in the checkpoint, {tuple(v.shape)} in the model"
              for name, v in variables.items()
              if name in saved and np.shape(saved[name]) != tuple(v.shape)]  # fmt: skip
    if whole:
        lines += [f"  only in the checkpoint: {name} {np.shape(saved[name])}"
                  for name in saved if name not in variables]  # fmt: skip
    if lines:
        raise CheckpointMismatchError(
            f"The checkpoint {path!r} is not one of this model:\n" + "\n".join(sorted(lines)) +
            "\nNothing was overwritten. Use the model_fn that wrote it, another model_dir, or "
            "warm_start_from to take over what fits."
        )  # fmt: skip


def is_of_model(name: str) -> bool:
    """Whether a variable makes a model what it is.

    The state of in-graph environments does not, since another number of them is no other model,
    nor does a run's seed.
    """
    return name != store.SEED and not name.startswith(ENVIRONMENT)


def copy(path: str, destination: str | os.PathLike[str]) -> str:
    """Copies a checkpoint into another directory, atomically; returns its new path."""
    os.makedirs(destination, exist_ok=True)
    target = os.path.join(destination, os.path.basename(path))
    for file in sorted(_files(path)):
        temporary = f"{target}{file[len(path) :]}.writing-{os.getpid()}"
        shutil.copyfile(file, temporary)
        whole_files.rename([(temporary, target + file[len(path) :])])
    return target


def remove(path: str) -> None:
    """Deletes a checkpoint's files, the index first."""
    for file in sorted(_files(path), reverse=True):
        os.remove(file)


def _register(directory: str, path: str, keep_max: int | None, keep_every_n_hours: float) -> None:
    state = _state(directory)
    times = dict(
        zip(_registered(directory, state), state.all_model_checkpoint_timestamps, strict=False)
        if state
        else ()
    )
    last_preserved = state.last_preserved_timestamp if state else 0.0
    known = [
        (p, times[p] if p in times else _written_at(p))
        for p in all_checkpoints(directory)
        if p != path
    ]
    known.append((path, time.time()))
    if not last_preserved:
        last_preserved = known[0][1]
    excess = len(known) - keep_max if keep_max else 0
    for old, written in known[: max(excess, 0)]:
        if written - last_preserved >= keep_every_n_hours * 3600:
            last_preserved = written
            continue
        remove(old)
    kept = known[max(excess, 0) :]
    proto = tf.compat.v1.train.generate_checkpoint_state_proto(
        os.curdir,  # relative names, so that the directory can be moved
        model_checkpoint_path=os.path.basename(path),
        all_model_checkpoint_paths=[os.path.basename(p) for p, _ in kept],
        all_model_checkpoint_timestamps=[t for _, t in kept],
        last_preserved_timestamp=last_preserved,
    )
    state_file = os.path.join(directory, "checkpoint")
    try:
        whole_files.write_text(state_file, text_format.MessageToString(proto))
    except OSError as error:
        raise OSError(
            f"The checkpoint {path!r} is complete, but {state_file!r}, the file that names it, "
            f"could not be written: {whole_files.reason(error)} Make room, or move what is in the "
            "way, and start again: the run goes on from this checkpoint."
        ) from error


def _state(directory: str) -> Any:
    """What the state file says; None where there is none, or where it cannot be read."""
    try:
        state = tf.train.get_checkpoint_state(directory)
    # Bytes that are no UTF-8 are a ValueError.
    except (tf.errors.OpError, ValueError, text_format.ParseError):
        return None
    return state if state is not None and state.all_model_checkpoint_paths else None


def _registered(directory: str, state: Any) -> list[str]:
    """The checkpoints that a state file names; the directory may have been copied since."""
    paths = state.all_model_checkpoint_paths if state else []
    return [os.path.join(directory, os.path.basename(path)) for path in paths]


def _complete(directory: str) -> list[str]:
    """Paths of the checkpoints whose index is there, registered or not, oldest first."""
    names = [name.removesuffix(".index") for name in os.listdir(directory) if ".index" in name]
    paths = [os.path.join(directory, name) for name in names if _NAME.fullmatch(name)]
    return sorted(paths, key=lambda path: (_written_at(path), _number(path)))


def _number(path: str) -> tuple[int, int]:
    """The step in a checkpoint's name, and how many of that step there were before it."""
    match = _NAME.fullmatch(os.path.basename(path))
    return (int(match[1]), int(match[2] or 0)) if match else (-1, 0)


def _written_at(path: str) -> float:
    try:
        return os.path.getmtime(f"{path}.index")
    except FileNotFoundError:  # swept meanwhile, or gone
        return 0.0


def _files(path: str) -> Iterable[str]:
    folder, name = os.path.split(path)
    if not os.path.isdir(folder or "."):
        return []
    return [
        os.path.join(folder, file)
        for file in os.listdir(folder or ".")
        if file == f"{name}.index" or file.startswith(f"{name}.data-")
    ]


def _held(values: Mapping[str, Any]) -> dict[str, tf.Variable]:
    """What a checkpoint is made of, also for what no variable holds."""
    with tf.device("CPU"):
        return {
            name: value if isinstance(value, tf.Variable) else tf.Variable(value, name="value")
            for name, value in values.items()
        }


def _name(key: str, start: str = _KEY_START) -> str:
    escaped = key[len(start) : -len(_KEY_END)]
    return escaped.replace(".S", "/").replace("..", ".")
