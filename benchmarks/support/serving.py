"""A contestant in a process of its own, which trains a piece whenever it is asked to.

Peers need interpreters of their own (TF-Agents runs on TensorFlow 2.15, JAX has its own numpy), so
every contestant, pgest too, is a program of `contestants/` that `serve`s; `Contestant` is the side
that asks. One line of JSON asks, one answers; while it waits a contestant uses no processor.
Standard library only: this file runs in every interpreter.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from support import measuring

_BENCHMARKS = Path(__file__).parent.parent
_PACKAGES = (
    "tensorflow", "tf-keras", "tensorflow-probability", "numpy", "gymnasium", "gym", "torch",
    "stable-baselines3", "sb3-contrib", "tf-agents", "jax", "jaxlib", "optax", "sbx-rl",
    "rlox", "envpool", "mujoco",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What both sides do: the same algorithm with the same settings on the same environments.

    Attributes:
      algorithm: "A2C", "PPO", "MaskablePPO", "TRPO", "REINFORCE", or "steps": environments alone.
      environment: gymnasium's id.
      num_envs: how many at once.
      vectorization: "sync", "native", "envpool" or "graph"; of pgest's side.
      horizon: timesteps of each environment an update; 0: whole episodes.
      episodes: of an update, where whole episodes make it up.
      epochs: over a batch; of TRPO's value alone, as `minibatch_size` is.
      iterations: updates in one call of an in-graph program.
      cell_size: units of two LSTM cells, one for the policy and one for the value; 0: none.
      width: units of each of the two hidden layers, of the policy and of the value.
      hooks: so many hooks look at each update and episode, callbacks at each step.
      images: observations are images: policy and value stand on the network of Mnih et al. 2015.
      variant: how a side is set up, where it has a choice; the better one takes part.
    """

    algorithm: str
    environment: str = "CartPole-v1"
    num_envs: int = 1
    vectorization: str = "sync"
    horizon: int = 0
    episodes: int = 0
    learning_rate: float = 7e-4
    discount: float = 0.99
    gae_lambda: float = 0.95
    epochs: int = 1
    minibatch_size: int | None = None
    entropy_weight: float = 0.0
    value_weight: float = 0.5
    value_clip_range: float | None = None
    iterations: int = 1
    cell_size: int = 0
    width: int = 64
    hooks: int = 0
    images: bool = False
    variant: str = ""


class Trainer(Protocol):
    """What a contestant's program makes of a `Work`.

    Attributes:
      timesteps: taken so far.
    """

    timesteps: int

    def train(self, timesteps: int) -> None:
        """Takes at least so many more, updates and all."""

    def recent_return(self) -> float | None:
        """The mean return of the latest training episodes, about a hundred; None before any."""


def serve(make: Callable[[Work], Trainer]) -> None:
    """Answers on standard output what is asked on standard input, until that ends.

    Args:
      make: builds the trainer of a work.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    answer(versions=_versions())
    trainer: Trainer | None = None
    for line in sys.stdin:
        request = json.loads(line)
        wall, processor = time.perf_counter(), time.process_time()
        timesteps = 0
        if "make" in request:
            trainer = make(Work(**request["make"]))
        else:
            assert trainer is not None, "asked to train before there was a trainer"
            before = trainer.timesteps
            trainer.train(request["train"])
            timesteps = trainer.timesteps - before
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        recent = trainer.recent_return()
        answer(timesteps=timesteps, wall=wall, cpu=processor, recent_return=recent)


class ContestantError(Exception):
    """A contestant could not start, or has ended; the message says what it printed last."""


class Contestant:
    """The asking side: starts a program of `contestants/` and asks it for pieces.

    Args:
      program: its module, such as "stable_baselines".
      work: what it is to do.
      python: the interpreter that has its libraries.
      environment: further environment variables.

    Raises:
      ContestantError: it did not start.
    """

    def __init__(
        self,
        program: str,
        work: Work,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ):
        self.work = work
        variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {})}
        variables["PYTHONUNBUFFERED"] = "1"  # what is said last is why it ended
        if python != sys.executable:
            variables.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [python, "-m", f"contestants.{program}"],
            cwd=_BENCHMARKS,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not os.environ.get("BENCHMARK_VERBOSE") else None,
            text=True,
        )
        self._name = program
        self.recent_return: float | None = None
        self.timesteps = 0
        self.versions: dict[str, str] = self._answer()["versions"]

    def make(self) -> measuring.Piece:
        """Builds the trainer; the piece has no timesteps."""
        return self._ask(make=dataclasses.asdict(self.work))

    def train(self, timesteps: int) -> measuring.Piece:
        """Trains at least so many timesteps more."""
        return self._ask(train=timesteps)

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, **request: Any) -> measuring.Piece:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        answer = self._answer()
        self.recent_return = answer["recent_return"]
        self.timesteps += answer["timesteps"]
        return measuring.Piece(answer["timesteps"], answer["wall"], answer["cpu"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._process.stderr.read() if self._process.stderr else ""
            last = (said.strip() or "nothing").splitlines()[-1]
            raise ContestantError(f"{self._name} ended; it said last: {last}")
        return json.loads(line)


def _versions() -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
