"""What grows: environments, width of the network, horizon, hooks; beside the peers.

    python benchmarks/growth.py [--quick] [--rows "host, width"]
    python benchmarks/growth.py --draw         # docs/growth.svg, of what is stored

One quantity grows, the others stay. On the host the peer is Stable-Baselines3, in the graph the PPO
of `contestants/jax_ppo.py`; each side is a process of its own with one thread, and they take turns
in pieces of a second or less, or of one update where that takes longer. Goal: pgest ahead at every
point, and twenty hooks that look after each update cost a host loop less than 2 % of a timestep.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import dataclasses
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import training_speed
from support import interpreters, measuring, tables
from support.serving import Contestant, ContestantError, Work

import pgest

SECONDS = 0.7  # of a piece
MOST_HOOKS = 20
HOOKS_GOAL = 0.02


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a curve.

    Attributes:
      loop: "host" or "graph".
      quantity: what grows.
      value: how much of it there is.
      work: of both sides.
    """

    loop: str
    quantity: str
    value: int
    work: Work

    @property
    def label(self) -> str:
        """In the table."""
        return f"{self.loop}, {self.quantity}, {self.value}"

    @property
    def peer(self) -> training_speed.Side:
        """The other side."""
        return training_speed.STABLE_BASELINES if self.loop == "host" else training_speed.JAX

    @property
    def unit(self) -> int:
        """Timesteps of what cannot be cut: an update, or a whole call of an in-graph program."""
        return self.work.horizon * self.work.num_envs * self.work.iterations


def ppo(num_envs: int = 8, horizon: int = 128, **rest: Any) -> Work:
    """Four epochs of four minibatches, as everywhere here."""
    return Work(
        algorithm="PPO", num_envs=num_envs, horizon=horizon, epochs=4,
        minibatch_size=num_envs * horizon // 4, learning_rate=2.5e-4, **rest,
    )  # fmt: skip


def in_graph(num_envs: int = 64, horizon: int = 128, a_call: int = 65_536, **rest: Any) -> Work:
    """PureJaxRL's settings; a call of pgest's program takes about so many timesteps."""
    work = training_speed.in_graph(num_envs).work
    size = num_envs * horizon
    return dataclasses.replace(
        work, horizon=horizon, minibatch_size=size // 4, iterations=max(1, a_call // size), **rest
    )


def points() -> Iterator[Point]:
    """Those of all curves."""
    for value in (1, 8, 64, 512, 4096):
        yield Point("host", "environments", value, training_speed.a2c(value))
    for value in (64, 256, 1024):
        yield Point("host", "width", value, ppo(horizon=32, width=value))
    for value in (8, 32, 128, 512, 2048):
        yield Point("host", "horizon", value, ppo(horizon=value))
    for value in (0, 5, MOST_HOOKS):
        yield Point("host", "hooks", value, dataclasses.replace(training_speed.a2c(8), hooks=value))
    for value in (1, 8, 64, 512, 4096):
        yield Point("graph", "environments", value, in_graph(value))
    for value, a_call in ((64, 65_536), (256, 16_384), (1024, 1024)):
        yield Point("graph", "width", value, in_graph(8, a_call=a_call, width=value))
    for value in (8, 32, 128, 512, 2048):
        yield Point("graph", "horizon", value, in_graph(horizon=value))
    for value in (0, 5, MOST_HOOKS):
        yield Point("graph", "hooks", value, in_graph(hooks=value))


def started(stack: ExitStack, side: training_speed.Side, work: Work) -> Contestant:
    """A contestant with one thread that is ready to train."""
    contestant = side.start(work, next(iter(side.variants)))
    stack.callback(contestant.close)
    contestant.make()
    return contestant


def sized(contestant: Contestant, unit: int) -> int:
    """Timesteps of a piece: whole units, near to the seconds of one."""
    contestant.train(unit)  # compiles
    piece = contestant.train(unit)
    piece = contestant.train(unit * max(1, round(0.1 * SECONDS / piece.wall)))
    return unit * max(1, round(SECONDS * piece.timesteps / piece.wall / unit))


def beside_peer(point: Point, rounds: int) -> dict[str, Any]:
    """The line of a point."""
    with ExitStack() as stack:
        ours = started(stack, training_speed.PGEST, point.work)
        theirs = started(stack, point.peer, point.work)
        size = sized(ours, point.unit)
        # In JAX each size of a piece is a program of its own.
        other = sized(theirs, point.unit) if point.loop == "host" else size
        pieces = {"pgest": lambda: ours.train(size), point.peer.name: lambda: theirs.train(other)}
        timings = measuring.alternate(pieces, rounds, warm_up=1 if point.loop == "host" else 2)
    return measuring.compared(point.label, timings, "pgest", point.peer.name, goal=1.0)


class Clock(pgest.BaseMonitor):
    """Reads the clock at each of its turns, of which there are two: before the hooks and after."""

    def __init__(self) -> None:
        self.seconds, self._since = 0.0, None

    def before_run(self, context: pgest.RunContext) -> None:
        """Hooks are about to be called, or have been."""
        now = time.perf_counter()
        self.seconds += 0.0 if self._since is None else now - self._since
        self._since = now if self._since is None else None

    after_run = after_episode = before_run


def hooks_alone(label: str, work: Work, rounds: int) -> dict[str, Any]:
    """The part of a timestep that twenty hooks take, by the clock before and after them."""
    from contestants import pgest_agent

    trainer, clock = pgest_agent.Trainer(work), Clock()
    looking = [pgest_agent.Looking() for _ in range(MOST_HOOKS)]
    trainer.hooks += [clock, *looking, clock]
    trainer.train(2 * work.horizon * work.num_envs)
    parts, costs = [], []
    for _ in range(rounds):
        clock.seconds, before, started = 0.0, trainer.timesteps, time.perf_counter()
        trainer.train(400 * work.horizon * work.num_envs)
        parts.append(clock.seconds / (time.perf_counter() - started))
        costs.append(clock.seconds / (trainer.timesteps - before) * 1e6)
    return {
        "work": f"{MOST_HOOKS} hooks, {label}",
        "us/timestep": round(statistics.median(costs), 3),
        "part": round(statistics.median(parts), 4),
        "part lowest": round(min(parts), 4),
        "part highest": round(max(parts), 4),
        "goal": HOOKS_GOAL,
        "pieces": rounds,
    }


def draw(path: Path) -> None:
    """Rates by what grows: above the host's loops, below those in the graph."""
    from matplotlib import pyplot, ticker

    rows = json.loads((measuring.RESULTS / "growth.json").read_text(encoding="utf-8"))["rows"]
    by_label = {row["work"]: row for row in rows if "ratio" in row}
    pyplot.rcParams["svg.hashsalt"] = "pgest"  # equal curves are equal files
    quantities = ("environments", "width", "horizon", "hooks")
    figure, grid = pyplot.subplots(2, 4, figsize=(11, 5))
    for line, loop in zip(grid, ("host", "graph"), strict=True):
        for axes, quantity in zip(line, quantities, strict=True):
            there = [p for p in points() if (p.loop, p.quantity) == (loop, quantity)]
            there = [point for point in there if point.label in by_label]
            for name in ("pgest", there[0].peer.name) if there else ():
                rates = [by_label[point.label][f"{name} timesteps/s"] for point in there]
                thousands = [rate / 1000 for rate in rates]
                axes.plot([point.value for point in there], thousands, marker="o", label=name)
            if quantity != "hooks":
                axes.set_xscale("log", base=2)
            axes.set(yscale="log", xlabel=quantity, visible=bool(there))
            axes.set_xticks([point.value for point in there], [str(p.value) for p in there])
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(ticker.NullFormatter())
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        where = "on the host" if loop == "host" else "in the graph"
        line[0].set_ylabel(f"thousand timesteps/s\n{where}")
        if line[0].lines:
            line[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    text = path.read_text(encoding="utf-8")
    path.write_text("\n".join(map(str.rstrip, text.splitlines())) + "\n", encoding="utf-8")


def main() -> None:
    """Measures the rows that were asked for."""
    options = measuring.arguments(__doc__, draw="only draw what is stored")
    settings = {"net": "two tanh layers, twice", "environment": "CartPole-v1", "threads": 1}
    keep = not options.quick
    for point in () if options.draw else points():
        if options.rows in point.label:
            try:
                row = beside_peer(point, 2 if options.quick else 3)
            except (ContestantError, interpreters.NotAvailableError) as error:
                row = {"work": point.label, "not measured": str(error)}
            measuring.store("growth", [row], settings, keep=keep)
    for label, work in {
        "A2C, 1 environment": training_speed.a2c(1),
        "A2C, 8 environments": training_speed.a2c(8),
        "PPO, 8 environments": training_speed.ZOO,
    }.items():
        if not options.draw and options.rows in f"{MOST_HOOKS} hooks, {label}":
            row = hooks_alone(label, work, 2 if options.quick else 9)
            measuring.store("growth", [row], settings, keep=keep)
    if keep:
        draw(tables.DOCS / "growth.svg")


if __name__ == "__main__":
    main()
