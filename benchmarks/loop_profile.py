"""Where the time of each loop goes: environment, acting, memory, update, hooks, the loop itself.

    python benchmarks/loop_profile.py [--quick] [--rows "8 environments"]

Nothing is wrapped: a second thread looks at the main thread's stack 1,000 times a second, and the
innermost file of pgest or gymnasium on it says whose look it was. It waits for Python's lock, which
a call into TensorFlow lets go of, so the shares of Python's own work come out a little low. A
timer's signals would be fairer, but they interrupt TensorFlow's machine code, which on some
machines does not survive it.

In the graph one call does everything. There the time of an iteration is measured with 2 and with 8
epochs instead: the difference is what six epochs cost, and what is left at no epochs is collecting
and advantages.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import collections
import dataclasses
import sys
import threading
import time
from typing import Any

import training_speed
from contestants import pgest_agent
from support import measuring
from support.serving import Work

INTERVAL = 0.001
# The part of a path that says whose time it is; the first that fits the innermost frame that any
# fits. What pgest's parts have in common (`programs.py`) and NumPy's Python belong to their caller.
PLACES = (
    ("/gymnasium/", "environment"),
    ("/envpool/", "environment"),
    ("/pgest/environment", "environment"),
    ("/pgest/vector_environments.py", "environment"),
    ("/pgest/in_process_environments.py", "environment"),
    ("/pgest/tracing/acting.py", "act"),
    ("/pgest/memory.py", "memory"),
    ("/pgest/timestep_columns.py", "memory"),
    ("/pgest/tracing/updating.py", "update"),
    ("/pgest/tracing/iterating.py", "the in-graph program"),
    ("/pgest/hooks/", "hooks"),
    ("/pgest/runs.py", "hooks"),
    ("/contestants/pgest_agent.py", "hooks"),
    ("/pgest/", "the loop itself"),
)
# What they have in common; its time is its caller's.
SHARED = ("/pgest/tracing/programs.py", "/pgest/tracing/feeding.py", "/pgest/nests.py")
PARTS = tuple(dict.fromkeys(part for _, part in PLACES))


class Sampler:
    """Counts looks at the main thread by the part of pgest that was at work.

    Example:

        with Sampler() as sampler:
            train()
        print(sampler.ticks)
    """

    def __init__(self) -> None:
        self.ticks: collections.Counter[str] = collections.Counter()
        self._parts: dict[str, str | None] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, args=[threading.get_ident()])

    def __enter__(self) -> Sampler:
        # Python's lock changes hands after 5 ms otherwise, which is several updates.
        self._before = sys.getswitchinterval()
        sys.setswitchinterval(INTERVAL / 10)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        sys.setswitchinterval(self._before)

    def _look(self, thread: int) -> None:
        while not self._done.wait(INTERVAL):
            frame = sys._current_frames().get(thread)
            while frame is not None:
                part = self._part(frame.f_code.co_filename)
                if part is not None:
                    self.ticks[part] += 1
                    break
                frame = frame.f_back

    def _part(self, path: str) -> str | None:
        if path not in self._parts:
            found = None
            if not path.endswith(SHARED):
                found = next((part for place, part in PLACES if place in path), None)
            self._parts[path] = found
        return self._parts[path]


def profile(label: str, work: Work, timesteps: int, rounds: int) -> dict[str, Any]:
    """Trains `rounds` pieces under the sampler."""
    trainer = pgest_agent.Trainer(work)
    trainer.train(timesteps)
    before, started = trainer.timesteps, time.perf_counter()
    with Sampler() as sampler:
        for _ in range(rounds):
            trainer.train(timesteps)
    seconds, taken = time.perf_counter() - started, trainer.timesteps - before
    line: dict[str, Any] = {"work": label, "timesteps/s": round(taken / seconds)}
    line["us/timestep"] = significant(1e6 * seconds / taken)
    everything = sum(sampler.ticks.values())
    for part in PARTS:
        share = sampler.ticks[part] / everything
        if share:
            each = significant(1e6 * seconds / taken * share)
            line[part] = f"{100 * share:.1f} % ({each} us)"
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


def main() -> None:
    """Profiles the rows that were asked for."""
    options = measuring.arguments(__doc__)
    rounds = 1 if options.quick else 5
    for row in training_speed.ROWS:
        if options.rows not in row.label:
            continue
        lines = [profile(row.label, row.work, row.piece, rounds)]
        if row.work.vectorization == "graph":
            lines.append(epochs_and_collecting(row.label, row.work, row.piece, rounds))
        settings = {"interval seconds": INTERVAL}
        measuring.store("loop_profile", lines, settings, keep=not options.quick)


if __name__ == "__main__":
    main()
