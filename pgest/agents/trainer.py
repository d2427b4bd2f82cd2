"""What `PGAgent.train` needs of whatever collects and updates, on the host or in the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from pgest.agents import runs
from pgest.contract import callers, reports
from pgest.environments import checking
from pgest.hooks import monitor
from pgest.tracing import acting, updating
from pgest.tracing import model as model_lib
from pgest.variables import checkpoints


class Trainer(Protocol):
    """Compiled programs and the environments that they were made for; it outlives a run.

    Attributes:
      view: the environments: spaces, and how many.
      actor: the program that acts.
      at_rest: whether a run can go on from this moment, also while no hook has its turn.
    """

    view: Any
    actor: acting.Actor
    at_rest: bool

    def uses(self, env: Any) -> bool:
        """Whether it steps this very object."""

    def all_hooks(self, given: Sequence[monitor.BaseMonitor]) -> list[monitor.BaseMonitor]:
        """The user's hooks, the spec's and the defaults, in the order to call them."""

    def collect(self, run: runs.Run) -> None:
        """Acts until there is a batch or the run has to pause."""

    def ready(self, run: runs.Run) -> bool:
        """Whether an update comes next."""

    def update(self, run: runs.Run) -> None:
        """Trains on the batch."""

    def state(self) -> dict[str, np.ndarray]:
        """Numbers by name, which bring a new trainer to where this one is."""

    def restore(self, run: runs.Run, state: Mapping[str, np.ndarray]) -> str | None:
        """Goes on where the trainer stood that gave `state`; why the episodes start anew, if so."""

    def describe_restored(self) -> str:
        """One clause on what the trainer holds now."""

    def forget_episode(self) -> None:
        """Drops the episode under way: its environment was taken away."""

    def start_anew(self) -> None:
        """Drops what was restored of episodes and the batch under way."""

    def leave(self) -> None:
        """Ends it, before another one is made."""

    def describe(self) -> str:
        """A report on modes, variables, traces and compilation."""

    def examine(self, timesteps: int) -> checking.Examination | None:
        """What the environments give to random actions; None where no step is in Python."""


def own_variables(model: model_lib.Model) -> list[tuple[str, tf.Variable]]:
    """Variables that are of a worker's own environments, by name."""
    variables = model.saved_variables().items()
    return [(n, v) for n, v in variables if n.startswith(checkpoints.ENVIRONMENT)]


def describe(model: model_lib.Model, compiled: Mapping[str, bool]) -> str:
    """A report on a model's modes and variables, and on which programs XLA compiles."""
    lines = [
        model.describe_modes(),
        "",
        "traces: " + ", ".join(f"{mode} {count}" for mode, count in model.traces.items()),
        "XLA: " + ", ".join(f"{name} {'yes' if on else 'no'}" for name, on in compiled.items()),
    ]
    if model.store.adopted:
        lines.append(f"made outside of model_fn: {', '.join(sorted(model.store.adopted))}")
    return "\n".join(lines)


def report(trainer: Trainer, timesteps: int) -> reports.CheckReport:
    """Shows and returns what was found; see `PGAgent.check`.

    Args:
      trainer: what trains the model in the environment.
      timesteps: how many timesteps of each environment to look at; 0: none.

    Raises:
      EnvironmentFailure: the environment gave what training stops at, after the report is printed.
    """
    is_count = isinstance(timesteps, (int, np.integer)) and not isinstance(timesteps, bool)
    if not is_count or timesteps < 0:
        raise ValueError(f"timesteps is {timesteps!r}; expected an integer of 0 or more.")
    seen = trainer.examine(timesteps) if timesteps else None
    found = reports.CheckReport(trainer.describe(), () if seen is None else seen.rows)
    found.show()
    if seen is not None and seen.failure is not None:
        raise seen.failure
    for fault in () if seen is None else seen.faults:
        callers.warn(f"The environment: {fault}.")
    return found


def write_graph(agent: Any, update: updating.UpdateGraph) -> None:
    """Writes the graph of a training step to TensorBoard, for a new model that asks for it."""
    writer = agent.summary_writer
    if writer is None or not agent.config.save_graph or agent.counters.step > 0:
        return
    with writer.as_default(step=0), tf.summary.record_if(True):
        tf.summary.graph(update.step.graph)
