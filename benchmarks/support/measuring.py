"""Measures pieces of work against each other, and stores what came out with where it was measured.

A machine is never quiet. So the work is cut into short pieces, the pieces of all contestants take
turns (A B A B), and what counts is the median of the ratios of neighbours, not a rate alone.
Standard library only, as what is here also runs in the peers' interpreters.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent.parent / "results"
_PACKAGES = ("tensorflow", "tf-keras", "tensorflow-probability", "numpy", "gymnasium", "torch",
             "stable-baselines3", "jax", "jaxlib", "sbx-rl", "rlox")  # fmt: skip


class Piece(NamedTuple):
    """A piece of work that another process timed.

    Attributes:
      timesteps: that it took.
      wall: seconds by the clock on the wall.
      cpu: seconds of processor time, of all threads.
    """

    timesteps: int
    wall: float
    cpu: float


@dataclasses.dataclass
class Timing:
    """The pieces of one contestant.

    Attributes:
      rates: timesteps a second of each piece, by the clock on the wall.
      cpu: microseconds of processor time a timestep of each piece, of all threads.
    """

    rates: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)

    @property
    def rate(self) -> float:
        """The median rate."""
        return statistics.median(self.rates)

    @property
    def cpu_time(self) -> float:
        """The median processor time."""
        return statistics.median(self.cpu)


def alternate(
    contestants: Mapping[str, Callable[[], int | Piece]],
    rounds: int,
    warm_up: int = 1,
    seconds: float = float("inf"),
) -> dict[str, Timing]:
    """Lets contestants take turns.

    Args:
      contestants: by name, what does one piece of work and returns how many timesteps it took; or
        a `Piece` where it has timed itself.
      rounds: pieces of each.
      warm_up: pieces of each before anything is timed: compilation, caches.
      seconds: no round begins later than that after the warm-up, but three are timed anyway.
    """
    timings = {name: Timing() for name in contestants}
    until = float("inf")
    for round_ in range(-warm_up, rounds):
        if round_ == 0:
            until = time.perf_counter() + seconds
        if round_ >= 3 and time.perf_counter() > until:
            break
        for name, work in contestants.items():
            wall, processor = time.perf_counter(), time.process_time()
            done = work()
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            piece = done if isinstance(done, Piece) else Piece(done, wall, processor)
            if round_ >= 0:
                timings[name].rates.append(piece.timesteps / piece.wall)
                timings[name].cpu.append(piece.cpu / piece.timesteps * 1e6)
    return timings


def compared(
    label: str, timings: Mapping[str, Timing], ours: str, peer: str, goal: float | None = None
) -> dict[str, Any]:
    """One row of a table: both medians, and the median of the ratios of neighbouring pieces."""
    pairs = list(zip(timings[ours].rates, timings[peer].rates, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    processor = zip(timings[peer].cpu, timings[ours].cpu, strict=True)
    return {
        "work": label,
        f"{ours} timesteps/s": round(timings[ours].rate),
        f"{peer} timesteps/s": round(timings[peer].rate),
        "ratio": round(statistics.median(ratios), 2),
        **({} if goal is None else {"goal": goal}),
        "ratio lowest": round(ratios[0], 2),
        "ratio highest": round(ratios[-1], 2),
        f"{ours} CPU us/timestep": round(timings[ours].cpu_time, 1),
        f"{peer} CPU us/timestep": round(timings[peer].cpu_time, 1),
        "CPU ratio": round(statistics.median(a / b for a, b in processor), 2),
        "pieces": len(pairs),
    }


def machine() -> dict[str, Any]:
    """Where and with what something was measured."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "time": datetime.datetime.now().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load average (1, 5, 15 min)": [round(load, 2) for load in os.getloadavg()],
        **versions,
    }


def store(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    keep: bool = True,
) -> None:
    """Prints rows and writes them, with the machine, to `results/<name>.json` and `.csv`.

    Rows that were measured before stay, and of one of the same `work` what is not here again.

    Args:
      name: of the files.
      rows: dicts with a `work`.
      settings: what all rows have in common.
      keep: False only prints; quick figures are no results.
    """
    show(rows)
    where = machine()
    load = where["load average (1, 5, 15 min)"]
    print(f"{where['processor']}, {where['cores']} cores, load {load}")
    if not keep:
        return
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    merged = {row["work"]: row for row in _stored(path)}
    for row in rows:
        before = merged.get(row["work"], {})
        before.pop("not measured", None)
        merged[row["work"]] = {**before, **row, "measured": where["time"]}
    document = {"machine": where, "settings": dict(settings), "rows": list(merged.values())}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    columns = list(dict.fromkeys(column for row in merged.values() for column in row))
    with open(RESULTS / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(merged.values())
    print(f"in {path}")


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows, a line a value."""
    for row in rows:
        print("\n".join(f"  {column:<32} {value}" for column, value in row.items()), end="\n\n")


def _stored(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def arguments(description: str | None, **flags: str | int) -> argparse.Namespace:
    """The command line of a benchmark: `--quick`, and `--rows` to choose by substring.

    Args:
      description: of the program.
      **flags: further switches and their help; or numbers, which are what they are by default.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--rows", default="", help="only the rows whose name contains this")
    for flag, explained in flags.items():
        name = f"--{flag.replace('_', '-')}"
        if isinstance(explained, int):
            parser.add_argument(name, type=int, default=explained, help=f"{explained} by default")
        else:
            parser.add_argument(name, action="store_true", help=explained)
    return parser.parse_args()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
