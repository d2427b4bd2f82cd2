"""Statistics, table and plot of `learning.py`'s rows, for docs/algorithms/learning.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from support import tables

LIBRARIES = ("pgest", "stable-baselines3")
_PAGE = tables.DOCS / "algorithms" / "learning.md"
_PLOT = tables.DOCS / "algorithms" / "learning.svg"

# Fewer say nothing about the spread between seeds.
_FEWEST_SEEDS = 3
_TRIALS = 200

Rows = Sequence[Mapping[str, str]]


def write(tasks: Mapping[str, Any], rows: Rows, curves: Rows) -> None:
    """Prints the table, and writes it and the plot into the docs."""
    lines = compared(tasks, rows)
    if not lines:
        print(f"No task has rows of {_FEWEST_SEEDS} seeds of both libraries yet.")
        return
    table = tables.markdown(lines)
    print(table)
    shown = [line["task"] for line in lines]
    missing = [name for name in tasks if name not in shown]
    text = table
    if missing:
        text += f"\n\nNot run yet with three seeds or more: {', '.join(missing)}."
    tables.put(_PAGE, "learning", text)
    plot(_PLOT, shown, curves)


def scores(rows: Rows, task: str, library: str) -> np.ndarray:
    """Mean greedy returns, a number a seed."""
    found = [row["return_mean"] for row in rows if (row["task"], row["library"]) == (task, library)]
    return np.array(found, np.float64)


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half, along the last axis; fractions of a score count as such."""
    ordered = np.sort(scores, axis=-1)
    count = ordered.shape[-1]
    places = np.arange(count)
    weights = np.clip(np.minimum(places + 1, 0.75 * count) - np.maximum(places, 0.25 * count), 0, 1)
    return (ordered * weights).sum(-1) / weights.sum()


def difference_interval(
    ours: np.ndarray, theirs: np.ndarray, samples: int = 20_000
) -> tuple[float, float]:
    """The 95 % bootstrap interval of the difference of the interquartile means."""
    generator = np.random.default_rng(0)
    drawn = [
        interquartile_mean(generator.choice(scores, (samples, len(scores))))
        for scores in (ours, theirs)
    ]
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    return float(low), float(high)


def shown_by_equals(ours: np.ndarray, theirs: np.ndarray, random: float) -> float:
    """How often two libraries would show the bound if each had the scores of both at random."""
    generator = np.random.default_rng(0)
    scores = np.concatenate([ours, theirs])
    shown = 0
    for _ in range(_TRIALS):
        first, second = (generator.choice(scores, len(part)) for part in (ours, theirs))
        low, _high = difference_interval(first, second, samples=2_000)
        shown += low >= _bound(float(interquartile_mean(second)), random)
    return shown / _TRIALS


def _bound(peer: float, random: float) -> float:
    return -0.1 * (peer - random)


def compared(tasks: Mapping[str, Any], rows: Rows) -> list[dict[str, str]]:
    """A line a task for which both libraries have rows of three seeds at least."""
    lines = []
    for name, task in tasks.items():
        ours, theirs, random = (scores(rows, name, who) for who in (*LIBRARIES, "random"))
        if min(len(ours), len(theirs)) < _FEWEST_SEEDS or not len(random):
            continue
        low, high = difference_interval(ours, theirs)
        middle, peer = float(interquartile_mean(ours)), float(interquartile_mean(theirs))
        bound = _bound(peer, float(random.mean()))
        equals = shown_by_equals(ours, theirs, float(random.mean()))
        lines.append(
            {
                "task": name,
                "pgest": f"{middle:.1f}",
                "Stable-Baselines3": f"{peer:.1f}",
                "difference (95 %)": f"{middle - peer:+.1f} ({low:+.1f} to {high:+.1f})",
                "bound": f"{bound:.1f}",
                "holds": "yes" if low >= bound else "**no**",
                "equals": f"{100 * equals:.0f} %",
                "random": f"{random.mean():.1f}",
                "seeds": f"{len(ours)}, {len(theirs)}",
                "timesteps": f"{task.timesteps:,}",
            }
        )
    return lines


def plot(path: Path, tasks: Sequence[str], rows: Rows) -> None:
    """Learning curves: the median of the seeds, and from the lowest to the highest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in rows:
        stretch = curves.setdefault((row["task"], row["library"]), {})
        stretch.setdefault(int(row["timestep"]), []).append(float(row["return"]))
    names = [name for name in tasks if any(task == name for task, _ in curves)]
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(4.2 * columns, 3.0 * lines), squeeze=False
    )
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for name, axis in zip(names, axes.flat, strict=False):
        for library, color in zip(LIBRARIES, ("#d1495b", "#30638e"), strict=True):
            stretch = sorted(curves.get((name, library), {}).items())
            if not stretch:
                continue
            timesteps = [timestep for timestep, _ in stretch]
            axis.plot(timesteps, [np.median(v) for _, v in stretch], color=color, label=library)
            spread = [[min(v) for _, v in stretch], [max(v) for _, v in stretch]]
            axis.fill_between(timesteps, *spread, color=color, alpha=0.2, linewidth=0)
        axis.set_title(name, fontsize=10)
        axis.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=8)
    figure.supxlabel("timesteps", fontsize=9)
    figure.supylabel("return of training episodes", fontsize=9)
    figure.tight_layout()
    figure.savefig(path)
