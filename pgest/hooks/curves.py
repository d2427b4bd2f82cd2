"""The curves of runs, read back from TensorBoard's files."""

from __future__ import annotations

import collections
import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

X_AXES = ("timestep", "seconds")
_SEED = re.compile(r"seed[-_]?\d+")
_FILES = "*tfevents*"


def read(directory: str | os.PathLike[str], names: Iterable[str], x: str) -> dict[str, np.ndarray]:
    """Curves of one run.

    The return of training episodes ends with the last update: those that ended after it are the
    short ones of a batch that was not filled, and would bend the curve.

    Args:
      directory: a model_dir.
      names: tags, such as "episode/return", and "eval/episode/return" for that of evaluations.
      x: "timestep" or "seconds", since the first point of the run.

    Returns:
      Float64 `[N, 2]`, x and value in the order of x, by name; names without points are left out.
    """
    found: dict[str, np.ndarray] = {}
    folders = collections.defaultdict(set)
    for name in names:
        folder, _, tag = name.partition("/")
        is_evaluation = folder == "eval" or folder.startswith("eval_")
        folders[folder if is_evaluation else ""].add(tag if is_evaluation else name)
    start = None
    for folder, tags in folders.items():
        path = os.path.join(directory, folder)
        points = _points(path, tags if folder else tags | {"loss"})
        if start is None:
            start = min((row[0][1] for row in points.values()), default=0.0)
        end = max((step for step, *_ in points.get("loss", ())), default=np.inf)
        for tag in tags & points.keys():
            rows = np.array(points[tag], np.float64)
            if not folder and tag.startswith("episode/"):
                rows = rows[rows[:, 0] <= end]
            rows = rows[:, [0, 2]] if x == "timestep" else rows[:, [1, 2]] - [start, 0.0]
            if len(rows):
                name = f"{folder}/{tag}" if folder else tag
                found[name] = rows[np.argsort(rows[:, 0], kind="stable")]
    return found


def groups(
    directories: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[str, object],
) -> dict[str, list[str]]:
    """The runs in directories, those that differ by their seed together.

    Args:
      directories: model_dirs, or directories above them; or lists of these by the name to show.

    Returns:
      model_dirs by name. Runs in `seed0`, `seed1`, … have the name of the directory above.

    Raises:
      ValueError: a directory has no run in it.
    """
    if isinstance(directories, Mapping):
        named = {str(name): _all_runs(value) for name, value in directories.items()}
        return {name: runs for name, runs in named.items()}
    runs = _all_runs(directories)
    keys = {}
    for run in runs:
        folder, name = os.path.split(os.path.abspath(run))
        keys[run] = folder if _SEED.fullmatch(name) else os.path.join(folder, name)
    found = collections.defaultdict(list)
    shown = _shortest(sorted(set(keys.values())))
    for run in runs:
        found[shown[keys[run]]].append(run)
    return dict(found)


def _all_runs(directories: object) -> list[str]:
    given = [directories] if isinstance(directories, str | os.PathLike) else directories
    if not isinstance(given, Iterable):
        raise TypeError(f"Runs are given by their directories; got {directories!r}.")
    runs: list[str] = []
    for directory in given:
        inside = _runs_in(os.fspath(directory))
        if not inside:
            raise ValueError(
                f"{os.fspath(directory)!r} holds no run: there are no TensorBoard files in it, nor "
                "below it."
            )
        runs += [run for run in inside if run not in runs]
    return runs


def _runs_in(directory: str) -> list[str]:
    """The model_dirs at or below a directory, in order; evaluations are part of their run."""
    found = []
    for path, folders, _ in os.walk(directory):
        is_run = bool(glob.glob(os.path.join(glob.escape(path), _FILES)))
        if is_run:
            found.append(path)
            folders.clear()
        folders.sort()
    return found


def _shortest(paths: Sequence[str]) -> dict[str, str]:
    """Names as short as they can be and still tell the paths apart."""
    names = {}
    for path in paths:
        parts = path.split(os.sep)
        for count in range(1, len(parts) + 1):
            name = os.sep.join(parts[-count:])
            if sum(f"{os.sep}{other}".endswith(f"{os.sep}{name}") for other in paths) == 1:
                break
        names[path] = name
    return names


def _points(directory: str, tags: set[str]) -> dict[str, list[tuple[float, float, float]]]:
    """(step, wall time, value) by tag, in the order of writing."""
    # Importing TensorBoard's readers takes a while.
    from tensorboard.backend.event_processing import event_file_loader
    from tensorboard.util import tensor_util

    found = collections.defaultdict(list)
    for path in sorted(glob.glob(os.path.join(glob.escape(directory), _FILES))):
        for event in event_file_loader.EventFileLoader(path).Load():
            for value in event.summary.value:
                if value.tag in tags and value.HasField("tensor"):
                    number = float(tensor_util.make_ndarray(value.tensor))
                    found[value.tag].append((float(event.step), event.wall_time, number))
    return dict(found)


def mean_so_far(values: np.ndarray, window: int) -> np.ndarray:
    """The mean over each value and those before it, `window` in all.

    Args:
      values: floats `[N]`.
      window: how many; 1 gives the values.

    Example:

    >>> mean_so_far(np.array([1.0, 3.0, 5.0, 7.0]), 2)
    array([1., 2., 4., 6.])
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
