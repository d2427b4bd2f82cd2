"""Where the time of each loop goes: environment, acting, memory, update, hooks, the loop itself.

    python benchmarks/loop_profile.py [--quick] [--rows "8 environments"]

The methods at which one part of pgest calls another are timed while a run is profiled, each without
what it calls of the others; that costs a microsecond a timestep or so. What no part took is the
loop's. Each row has a process of its own, with the threads of its contest in `training_speed.py`.

In the graph one call does everything. There the time of an iteration is measured with 2 and with 8
epochs instead: the difference is what six epochs cost, and what is left at no epochs is collecting
and advantages.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import collections
import concurrent.futures
import dataclasses
import functools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

import training_speed
from contestants import pgest_agent
from support import measuring
from support.serving import Work

from pgest.agents import runs
from pgest.environments import view as environment_view
from pgest.memory import memory
from pgest.tracing import acting, iterating, updating

LOOP = "the loop itself"


def timed_methods() -> Iterator[tuple[str, type, str]]:
    """The part, class and name of every method at which time is handed from part to part."""
    views = [environment_view.EnvironmentView]
    for view in views:  # grows with its subclasses
        views += view.__subclasses__()
    memory_methods = (
        "step_vector", "cut", "bootstrap", "columns_to_cut", "can_sample", "sample"
    )  # fmt: skip
    groups = (
        ("environment", views, ("observe", "step", "prepare", "settle")),
        ("act", [acting.Actor], ("__call__",)),
        ("memory", [memory.BatchMemory, memory.RolloutMemory], memory_methods),
        ("update", [updating.Updater], ("__call__",)),
        ("the in-graph program", [iterating.GraphIterations], ("__call__",)),
        ("hooks", [runs.Run], ("happened", "before_update")),
    )
    for part, classes, names in groups:
        for owner in classes:
            yield from ((part, owner, name) for name in names if name in vars(owner))


class Timers:
    """Times the methods of `timed_methods` while it is entered.

    Example:

        with Timers() as timers:
            train()
        print(timers.seconds)
    """

    def __init__(self) -> None:
        self.seconds: collections.Counter[str] = collections.Counter()
        self._inner = 0.0  # what the method under way has spent in others that are timed
        self._originals: list[tuple[type, str, Callable[..., Any]]] = []

    def __enter__(self) -> Timers:
        for part, owner, name in timed_methods():
            original = vars(owner)[name]
            self._originals.append((owner, name, original))
            setattr(owner, name, self._timed(part, original))
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        whole = time.perf_counter() - self._started
        self.seconds[LOOP] = whole - sum(self.seconds.values())
        for owner, name, original in self._originals:
            setattr(owner, name, original)

    def _timed(self, part: str, original: Callable[..., Any]) -> Callable[..., Any]:
        clock = time.perf_counter

        @functools.wraps(original)
        def timed(*arguments: Any, **named: Any) -> Any:
            outer, self._inner = self._inner, 0.0
            started = clock()
            try:
                return original(*arguments, **named)
            finally:
                passed = clock() - started
                self.seconds[part] += passed - self._inner
                self._inner = outer + passed

        return timed


def profile(label: str, work: Work, timesteps: int, rounds: int) -> dict[str, Any]:
    """Trains `rounds` pieces with timers."""
    trainer = pgest_agent.Trainer(work)
    trainer.train(timesteps)
    before = trainer.timesteps
    with Timers() as timers:
        for _ in range(rounds):
            trainer.train(timesteps)
    seconds, taken = sum(timers.seconds.values()), trainer.timesteps - before
    line: dict[str, Any] = {"work": label, "timesteps/s": round(taken / seconds)}
    line["us/timestep"] = significant(1e6 * seconds / taken)
    for part in dict.fromkeys([*(part for part, _, _ in timed_methods()), LOOP]):
        each = significant(1e6 * timers.seconds[part] / taken)
        if each:
            line[part] = f"{100 * timers.seconds[part] / seconds:.1f} % ({each} us)"
    return line


def epochs_and_collecting(label: str, work: Work, timesteps: int, rounds: int) -> dict[str, Any]:
    """Splits the in-graph program by the number of its epochs."""
    few, many = 2, 8
    trainers = {
        epochs: pgest_agent.Trainer(dataclasses.replace(work, epochs=epochs))
        for epochs in (few, many)
    }

    def piece(trainer: pgest_agent.Trainer):
        def train() -> int:
            trainer.train(timesteps)
            return timesteps

        return train

    pieces = {str(epochs): piece(trainer) for epochs, trainer in trainers.items()}
    timings = measuring.alternate(pieces, rounds)
    short, long = (1e6 / timings[str(epochs)].rate for epochs in (few, many))
    epoch = (long - short) / (many - few)
    collecting = short - few * epoch
    whole = collecting + work.epochs * epoch
    return {
        "work": f"{label}: inside of the program",
        "us/timestep": significant(whole),
        "collecting and advantages": f"{100 * collecting / whole:.1f} % "
        f"({significant(collecting)} us)",
        f"{work.epochs} epochs": f"{100 - 100 * collecting / whole:.1f} % "
        f"({significant(work.epochs * epoch)} us)",
    }


def significant(number: float) -> float:
    """Three significant digits."""
    return float(f"{number:.3g}")


def lines_of(row: training_speed.Row, rounds: int) -> list[dict[str, Any]]:
    """What the process of a row measures."""
    lines = [profile(row.label, row.work, row.piece, rounds)]
    if row.work.vectorization == "graph":
        lines.append(epochs_and_collecting(row.label, row.work, row.piece, rounds))
    return lines


def main() -> None:
    """Profiles the rows that were asked for."""
    options = measuring.arguments(__doc__)
    rounds = 1 if options.quick else 5
    spawning = multiprocessing.get_context("spawn")
    for row in training_speed.ROWS:
        if options.rows not in row.label:
            continue
        # TensorFlow reads it when it starts, so here it is too late.
        os.environ.pop("TF_NUM_INTRAOP_THREADS", None)
        os.environ.update(training_speed.PGEST.variants[row.threads])
        with concurrent.futures.ProcessPoolExecutor(1, spawning) as process:
            lines = process.submit(lines_of, row, rounds).result()
        measuring.store("loop_profile", lines, {}, keep=not options.quick)


if __name__ == "__main__":
    main()
