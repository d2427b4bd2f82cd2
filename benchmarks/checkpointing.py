"""What a checkpoint keeps the training waiting for, beside a bare copy of the same variables.

    python benchmarks/checkpointing.py [--quick] [--rows "100,000,000"]

One run of PPO on CartPole whose model also has a layer of so many parameters, each of which every
update moves, with Adam's two slots. After each update a hook does one of these in turn: it saves as
`CheckpointSaverHook` does (a thread writes), copies all variables that a checkpoint holds into host
memory, saves and waits until the checkpoint is on the disk, or does nothing. What counts is how
long the hook and the update after it take, since the update pays for what was put off. Each
checkpoint is read back and compared with the variables of its moment, bit for bit. Goal: a save of
100 million parameters keeps the training waiting no longer than the copy.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from support import measuring

import pgest
from pgest import models
from pgest.variables import checkpoints

GOAL, LARGE = 1.0, 10**8


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class WidePPO(models.PPO):
    """PPO with parameters beside its network, which each update moves and nobody acts by."""

    parameters: int = 0

    def loss(self, distribution: Any, value: Any, labels: Any) -> Any:
        """The usual one, and a slope for each of the parameters."""
        wide = tf.Variable(lambda: tf.ones([self.parameters]), name="wide")
        loss, metrics = super().loss(distribution, value, labels)
        return loss + tf.reduce_mean(wide), metrics


class Waits(pgest.BaseMonitor):
    """Does one thing after each update, and takes its time and that of the update after it."""

    def __init__(self, agent: pgest.PGAgent, rounds: int) -> None:
        self._agent, self._rounds = agent, rounds
        self.times: dict[str, list[float]] = {}
        self.equal = self._round = 0
        self._under_way: tuple[str, float, float] | None = None

    def _copied(self) -> dict[str, np.ndarray]:
        return {n: v.numpy() for n, v in self._agent.model.saved_variables().items()}

    def after_run(self, context: pgest.RunContext) -> None:
        """Ends what was timed, and begins the next."""
        ways: dict[str, Callable[[], Any]] = {
            "save": lambda: context.save_checkpoint(wait=False),
            "copy": self._copied,
            "save and wait": context.save_checkpoint,
            "nothing": lambda: None,
        }
        if self._under_way is not None:
            name, waited, until_now = self._under_way[0], self._under_way[1], time.perf_counter()
            self._note(name, waited, until_now - self._under_way[2])
            if name == "save":
                self._compare(context)
            del self._kept
        name = list(ways)[self._round % len(ways)]
        self._round += 1
        if self._round > len(ways) * (self._rounds + 1):
            context.request_stop("all was measured")
        if name == "save":
            self._agent.counters.publish()  # to their variables
            self._wanted = self._copied()
        started = time.perf_counter()
        self._kept = ways[name]()
        self._under_way = (name, time.perf_counter() - started, started)

    def _note(self, name: str, waited: float, until_updated: float) -> None:
        if self._round > 4:  # the first round compiles, and meets fresh memory
            self.times.setdefault(name, []).append(waited * 1e3)
            self.times.setdefault(f"{name}, with the update", []).append(until_updated * 1e3)

    def _compare(self, context: pgest.RunContext) -> None:
        found = checkpoints.read(str(context.last_checkpoint))
        other = [
            name
            for name in found.keys() | self._wanted.keys()
            if found[name].dtype != self._wanted[name].dtype
            or found[name].tobytes() != self._wanted[name].tobytes()
        ]
        if other:
            raise RuntimeError(f"{context.last_checkpoint} does not hold {other} as they were.")
        self.equal += 1


def row(parameters: int, rounds: int, directory: str) -> dict[str, Any]:
    """One model."""
    config = pgest.RunConfig(
        tf_random_seed=0, log_step_count_steps=None, save_summary_steps=None,
        save_checkpoints_steps=10**9, keep_checkpoint_max=1,
    )  # fmt: skip
    agent = pgest.PGAgent(
        WidePPO(parameters=parameters, clip_norm=None), pgest.RolloutMemory(16),
        model_dir=directory, config=config,
        optimizer_params={"epochs": 1, "minibatch_size": 16},
    )  # fmt: skip
    waits = Waits(agent, rounds)
    agent.train("CartPole-v1", hooks=[waits])
    medians = {name: statistics.median(found) for name, found in waits.times.items()}
    pairs = zip(waits.times["save"], waits.times["copy"], strict=True)
    parts = sorted(save / copy for save, copy in pairs)
    update = medians["nothing, with the update"]
    held = sum(v.numpy().nbytes for v in agent.model.saved_variables().values())
    part = statistics.median(parts)
    return {
        "work": f"a checkpoint of {parameters:,} parameters and Adam's slots",
        "MB": round(held / 1e6, 1),
        **{f"{name} ms": round(value, 2) for name, value in medians.items()},
        "save / copy": round(part, 2),
        "lowest": round(parts[0], 2),
        "highest": round(parts[-1], 2),
        "save and what the update after it takes longer / copy": round(
            (medians["save, with the update"] - update) / medians["copy"], 2
        ),
        **({"goal": GOAL, "holds": part <= GOAL} if parameters == LARGE else {}),
        "read back": f"{waits.equal} bit-equal",
        "pieces": rounds,
    }


def main() -> None:
    """Measures the rows that were asked for."""
    options = measuring.arguments(__doc__)
    rows = []
    for parameters, rounds in ((10**4, 41), (10**6, 21), (LARGE, 5)):
        if options.rows in f"a checkpoint of {parameters:,} parameters and Adam's slots":
            with tempfile.TemporaryDirectory() as directory:
                rows.append(row(parameters, 3 if options.quick else rounds, directory))
    measuring.store("checkpointing", rows, {"run": "PPO, one CartPole"}, keep=not options.quick)


if __name__ == "__main__":
    main()
