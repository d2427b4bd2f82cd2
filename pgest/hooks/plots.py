"""Figures of runs: one below the other, and several seeds as one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pgest.hooks import curves, extras, intervals

if TYPE_CHECKING:
    import matplotlib.figure

STATISTICS = ("median", "iqm")
_DEFAULT_NAMES = ("episode/return", "eval/episode/return")
_FEW = 50  # points, below which each is marked: a line through one of them shows nothing
_GRID = {"median": 200, "iqm": 50}  # points at which the seeds are compared
_REPETITIONS = 2000  # of the bootstrap


def plot_runs(
    directories: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[str, Any],
    *names: str,
    statistic: str = "median",
    x: str = "timestep",
    smooth: int = 1,
) -> matplotlib.figure.Figure:
    """Draws the curves of runs that have a `model_dir`, runs that differ by the seed as one.

    Of several seeds it draws the median and a band from the first to the third quartile; or, with
    "iqm", the interquartile mean and its 95 % interval by a stratified bootstrap (Agarwal et al.
    2021, https://arxiv.org/abs/2108.13264), as far as all seeds have come. It needs
    `pip install 'pgest[plot]'`.

    Args:
      directories: model_dirs, or directories above them; or lists of these by the name to show.
        Runs in `seed0`, `seed1`, … of one directory belong together.
      *names: tags of TensorBoard, such as "episode/return"; with `eval/` or `eval_<name>/` before
        them those of evaluations. The returns of training and evaluations unless given.
      statistic: "median" or "iqm".
      x: "timestep" or "seconds".
      smooth: each point is the mean over this many, itself and those before it.

    Returns:
      The figure, a chart a name; a notebook shows it where it is the last of a cell.

    Raises:
      ImportError: matplotlib, or for "iqm" rliable, is not installed or cannot be imported.
      ValueError: a directory holds no run, no run has one of the names, or an unknown `statistic`
        or `x`.

    Example:

        figure = pgest.plot_runs(["runs/ppo-CartPole-v1", "runs/a2c-CartPole-v1"], smooth=10)
        figure.savefig("curves.png")
    """
    for name, value, choice in (("statistic", statistic, STATISTICS), ("x", x, curves.X_AXES)):
        if value not in choice:
            raise ValueError(f"plot_runs got {name}={value!r}; expected {' or '.join(choice)}.")
    intervals.positive_count("plot_runs(smooth=…)", smooth)
    pyplot = extras.imported("matplotlib.pyplot", "plot_runs", "plot")
    found = {
        label: [curves.read(run, names or _DEFAULT_NAMES, x) for run in runs]
        for label, runs in curves.groups(directories).items()
    }
    known = {name for runs in found.values() for run in runs for name in run}
    missing = [name for name in names if name not in known]
    if missing or not known:
        raise ValueError(
            f"No run has points of {missing[0] if missing else 'a return'!r}: see the tags in "
            "TensorBoard, or train longer."
        )
    shown = [name for name in names or _DEFAULT_NAMES if name in known]
    figure, grid = charts(pyplot, len(shown))
    for axes, name in zip(grid, shown, strict=True):
        for label, runs in found.items():
            rows = [run[name] for run in runs if name in run]
            if rows:
                _draw_seeds(axes, label, rows, statistic, smooth)
        axes.set_ylabel(name)
        axes.legend(fontsize="small")
    grid[-1].set_xlabel(x)
    return finished(pyplot, figure)


def charts(pyplot: Any, count: int) -> tuple[Any, list[Any]]:
    """A figure and its charts, one below the other over one x axis."""
    figure, grid = pyplot.subplots(count, sharex=True, squeeze=False, figsize=(8, 2.5 * count + 1))
    for axes in grid[:, 0]:
        axes.grid(alpha=0.3)
    return figure, list(grid[:, 0])


def draw(axes: Any, rows: np.ndarray, smooth: int, label: str | None = None) -> None:
    """Draws one curve; where it is smoothed, the points themselves pale behind it.

    Args:
      axes: the chart.
      rows: floats `[N, 2]`, x and value.
      smooth: each point is the mean over this many, itself and those before it.
      label: for the legend.
    """
    marker = "." if len(rows) < _FEW else None
    (line,) = axes.plot(
        rows[:, 0], curves.mean_so_far(rows[:, 1], smooth), marker=marker, label=label
    )
    if smooth > 1:
        axes.plot(rows[:, 0], rows[:, 1], color=line.get_color(), alpha=0.25, linewidth=0.8)


def finished(pyplot: Any, figure: Any) -> Any:
    """The figure, laid out; a notebook would show an open one twice, as it is and as a result."""
    figure.tight_layout()
    if "inline" in pyplot.get_backend():
        pyplot.close(figure)
    return figure


def summary(rows: Sequence[np.ndarray], statistic: str, smooth: int = 1) -> tuple[np.ndarray, ...]:
    """Several seeds as one curve, over the x that all of them have.

    Args:
      rows: of each seed, floats `[N, 2]`.
      statistic: "median" or "iqm".
      smooth: as `plot_runs` has it.

    Returns:
      x, the statistic, and the low and the high end of its band, all `[G]`.
    """
    first, last = max(row[0, 0] for row in rows), min(row[-1, 0] for row in rows)
    grid = np.linspace(first, max(first, last), _GRID[statistic] if last > first else 1)
    values = np.stack(
        [np.interp(grid, row[:, 0], curves.mean_so_far(row[:, 1], smooth)) for row in rows]
    )
    if statistic == "median":
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    else:
        middle, (low, high) = interquartile(values)
    return grid, middle, low, high


def interquartile(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over the middle half of the seeds, and where it lies with 95 %.

    Args:
      values: floats `[seeds, G]`.

    Returns:
      Floats `[G]`, and `[2, G]`: from, to. Equal for equal values: the bootstrap is seeded.
    """
    library = extras.imported("rliable.library", "The interquartile mean", "plot")
    stats = extras.imported("scipy.stats", "The interquartile mean", "plot")

    def middle(scores: np.ndarray) -> np.ndarray:  # [seeds, tasks, G]
        return stats.trim_mean(scores.reshape(-1, scores.shape[-1]), 0.25, axis=0)

    means, ranges = library.get_interval_estimates(
        {"runs": values[:, None, :]},
        middle,
        reps=_REPETITIONS,
        random_state=np.random.RandomState(0),
    )
    return means["runs"], ranges["runs"]


def _draw_seeds(
    axes: Any, label: str, rows: Sequence[np.ndarray], statistic: str, smooth: int
) -> None:
    if len(rows) == 1:
        draw(axes, rows[0], smooth, label)
        return
    grid, middle, low, high = summary(rows, statistic, smooth)
    marker = "." if len(grid) == 1 else None
    (line,) = axes.plot(grid, middle, marker=marker, label=f"{label} ({len(rows)} seeds)")
    axes.fill_between(grid, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
