"""What `PGAgent.train` drives where several workers have environments in the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import tensorflow as tf

from pgest.agents import agreement, graph_training, runs, trainer
from pgest.hooks import monitor
from pgest.tracing import collecting, iterating, updating


class SharedGraphTrainer(graph_training.GraphTrainer):
    """A `GraphTrainer` of one of several workers.

    XLA has no exchanges between processes: collecting is a program that it compiles, the update one
    that it does not, and limits are kept between them.

    Args:
      agent: the `PGAgent` whose model is trained.
      env: the environments of this worker.
    """

    def __init__(self, agent: Any, env: Any):
        super().__init__(agent, env)
        self._horizon = agent.memory.horizon
        agent.counters.workers = agent.model.workers.count

    def _make_program(self, signature: dict[str, Any]) -> Any:
        jit_compile = self._agent.config.jit_compile
        self._updater = updating.Updater(self._update, signature, jit_compile)
        return collecting.GraphRollouts(self._collector, jit_compile)

    def all_hooks(self, given: Sequence[monitor.BaseMonitor]) -> list[monitor.BaseMonitor]:
        """Those of all hooks that this worker runs."""
        return agreement.every_workers(self._agent.model.workers, super().all_hooks(given))

    def update(self, run: runs.Run) -> None:
        """Runs `RunConfig.iterations_per_loop` iterations, or as many as the limits allow."""
        super().update(run)
        _agreement(run).updated()

    def _iterate(self, run: runs.Run) -> iterating.Iterated:
        means: list[dict[str, float]] = []
        ended: list[list[np.ndarray]] = []
        counters = self._agent.counters
        for _ in range(self._agent.config.iterations_per_loop):
            batch, pieces = self._collected(run)
            ended += pieces
            if batch is None:
                break
            counters.publish(run.progress)
            with self._agent.model.workers.watched():
                updated = self._updater(batch, counters.step, run.steps_left)
            counters.step += updated.steps
            means.append(updated.metrics)
            if run.is_over():
                break
        names = means[0] if means else ()
        metrics = {name: float(np.mean([each[name] for each in means])) for name in names}
        return iterating.Iterated(metrics, *map(np.stack, zip(*ended, strict=True)))

    def _collected(self, run: runs.Run) -> tuple[dict[str, Any] | None, list[list[np.ndarray]]]:
        """A batch, None where a limit cut it; and of each piece of it the episodes.

        Between two exchanges a worker knows its own episodes alone, so that a piece is no longer
        than all of those that are left at the least take. A wish to stop waits for the update.
        """
        counters, limits = self._agent.counters, run.limits
        everywhere = self.view.num_envs * counters.workers
        row, batch, pieces = 0, None, []
        while row < self._horizon:
            left = self._horizon - row
            if limits.max_episodes is not None:
                left = min(left, max((limits.max_episodes - counters.episode) // everywhere, 1))
            until = counters.timestep + left * everywhere
            if limits.max_timesteps is not None:
                until = min(until, limits.max_timesteps)
            counters.publish(run.progress)
            begin, (row, piece, parts) = row, self._program(row, counters.timestep, until)
            pieces.append([part.numpy() for part in parts])
            counters.timestep += (row - begin) * everywhere
            counters.episode += int(np.sum(pieces[-1][2] | pieces[-1][3]))
            batch = piece if batch is None else _joined(batch, piece, begin)
            _agreement(run).exchange()
            run.look()
            if limits.reached(run):
                break
        return (batch if row == self._horizon else None), pieces

    def state(self) -> dict[str, np.ndarray]:
        """The environments, which the chief's checkpoint has of the chief alone."""
        own = trainer.own_variables(self._agent.model)
        return {**super().state(), **{f"own/{name}": variable.numpy() for name, variable in own}}

    def restore(self, run: runs.Run, state: Mapping[str, np.ndarray]) -> str | None:
        """Goes on where the trainer stood that gave `state`."""
        own = [
            (f"own/{name}", variable) for name, variable in trainer.own_variables(self._agent.model)
        ]
        if any(name not in state or state[name].shape != each.shape for name, each in own):
            return "what the checkpoint holds of them does not fit"
        for name, variable in own:
            variable.assign(state[name])
        return None

    def describe(self) -> str:
        """A report on modes, variables, traces and compilation."""
        compiled = {"collecting": self._program.jit_compiled, "update": self._updater.jit_compiled}
        return trainer.describe(self._agent.model, compiled)


def _agreement(run: runs.Run) -> agreement.Agreement:
    """Of a run of several workers, which has one."""
    return cast("agreement.Agreement", run.agreement)


def _joined(batch: dict[str, Any], piece: dict[str, Any], begin: int) -> dict[str, Any]:
    """The batch with the rows of a piece from `begin` on; its policy state is that of row 0."""
    return {
        name: part
        if name == "policy_state"
        else tf.nest.map_structure(
            lambda old, new: tf.concat([old[:begin], new[begin:]], 0), part, piece[name]
        )
        for name, part in batch.items()
    }
