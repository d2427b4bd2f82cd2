"""Whole iterations of an in-graph environment in one program: collect, advantages, updates."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.tracing import collecting, programs, updating
from pgest.tracing import model as model_lib
from pgest.tracing import steps as steps_lib

_NO_LIMIT = collecting.NO_LIMIT


@dataclasses.dataclass
class Iterated:
    """What one call of the program did; K iterations of T timesteps of B environments.

    Attributes:
      metrics: of the updates, by name, their mean; {} where no update took place.
      totals: float32 `[K, T, B]`, returns of the episodes as far as each timestep.
      lengths: int32 `[K, T, B]`, their timesteps.
      terminated: bool `[K, T, B]`.
      truncated: bool `[K, T, B]`.
    """

    metrics: dict[str, float]
    totals: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class GraphIterations:
    """Compiles and runs iterations.

    Args:
      model: the model.
      collector: of the environments.
      update: the update's graph.
      signature: specs of a batch, `[T, B, ...]` by name.
      iterations: K, iterations in one call.
    """

    def __init__(
        self,
        model: model_lib.Model,
        collector: collecting.GraphCollector,
        update: updating.UpdateGraph,
        signature: dict[str, Any],
        iterations: int,
    ):
        self._model = model
        self._collector = collector
        self._update_graph = update
        self._horizon, self._num_envs = signature["reward"].shape
        self._iterations = iterations
        run = tf.function(update.run, autograph=False)
        self._update = run.get_concrete_function(
            signature, update.permutation_spec, tf.TensorSpec([], tf.int64)
        )
        permutations = update.permutation_spec
        self._program = programs.Program(
            self._run,
            [
                tf.TensorSpec([iterations, *permutations.shape], permutations.dtype),
                tf.TensorSpec([3], tf.int64),
            ],
            "the in-graph iteration",
            update.jit_compile(model.config.jit_compile, in_loop=True),
        )

    @property
    def jit_compiled(self) -> bool:
        """Whether XLA compiles the program."""
        return self._program.jit_compiled

    def __call__(
        self, max_step: int | None, max_timestep: int | None, max_episode: int | None
    ) -> Iterated:
        """Runs up to K iterations, never past a limit; the counters' variables move."""
        limits = [max_step, max_timestep, max_episode]
        limits = [_NO_LIMIT if limit is None else limit for limit in limits]
        counters = self._model.counters
        rows = self._update_graph.rows(self._horizon, self._num_envs)
        # An iteration's order is that of its first step, however many iterations a call holds,
        # unless target_kl stops one early: then the step that the next begins at is not foreseen.
        starts = range(counters.step, 2**62, self._update_graph.max_steps(rows))
        permutations = np.stack(
            [
                self._update_graph.permutations(rows, start)
                for start in itertools.islice(starts, self._iterations)
            ]
        )
        outputs = self._program(permutations, np.asarray(limits, np.int64))
        metrics, updates, moved, episodes = outputs
        steps_lib.check_moved(int(moved))
        counters.refresh()
        named = {}
        if int(updates):
            named = steps_lib.named_metrics(self._update_graph.names, metrics)
        return Iterated(named, *[part.numpy() for part in episodes])

    def _run(self, permutations: tf.Tensor, limits: tf.Tensor) -> Any:
        counters = self._model.counters.variables
        state = self._collector.read()
        clock = (
            counters["global_timestep"].read_value(),
            counters["global_episode"].read_value(),
        )
        metrics = tf.zeros([len(self._update_graph.names)], tf.float32)
        zero = tf.zeros([], tf.int64)
        episodes = [
            tf.TensorArray(dtype, self._iterations, element_shape=[self._horizon, self._num_envs])
            for dtype in (tf.float32, tf.int32, tf.bool, tf.bool)
        ]

        def unfinished(index: tf.Tensor, *_: Any) -> tf.Tensor:
            timestep, episode = _[1]
            done = tf.stack([counters["global_step"].read_value(), timestep, episode]) >= limits
            return tf.logical_and(index < self._iterations, ~tf.reduce_any(done))

        def body(index: Any, state: Any, clock: Any, sums: Any, moved: Any, arrays: Any) -> Any:
            self._tell(clock, limits)
            state, clock, taken, batch, finished = self._collector.collect(state, clock, limits)
            self._tell(clock, limits)
            left = limits[0] - counters["global_step"].read_value()
            full = tf.equal(taken, self._horizon)
            values, updated, furthest = tf.cond(
                full,
                lambda: self._updated(batch, permutations[index], left),
                lambda: (tf.zeros_like(metrics), zero, zero),
            )
            sums = (sums[0] + values, sums[1] + updated)
            arrays = [
                array.write(index, part) for array, part in zip(arrays, finished, strict=True)
            ]
            return index + 1, state, clock, sums, tf.maximum(moved, furthest), arrays

        _, state, clock, sums, moved, episodes = tf.while_loop(
            unfinished, body, (0, state, clock, (metrics, zero), zero, episodes)
        )
        self._collector.write(state)
        counters["global_timestep"].assign(clock[0])
        counters["global_episode"].assign(clock[1])
        mean = sums[0] / tf.cast(tf.maximum(sums[1], 1), tf.float32)
        return mean, sums[1], moved, [array.stack() for array in episodes]

    def _tell(self, clock: Any, limits: tf.Tensor) -> None:
        """Brings the variables that schedules follow up to date, as the host does."""
        counters = self._model.counters
        counters.variables["global_timestep"].assign(clock[0])
        counters.variables["global_episode"].assign(clock[1])
        counts = tf.stack([counters.variables["global_step"].read_value(), *clock])
        parts = tf.cast(counts, tf.float64) / tf.cast(limits, tf.float64)
        nearest = tf.reduce_max(tf.where(limits < _NO_LIMIT, parts, tf.zeros_like(parts)))
        counters.progress.assign(tf.cast(tf.minimum(nearest, 1.0), tf.float32))

    def _updated(self, batch: Any, permutations: tf.Tensor, left: tf.Tensor) -> Any:
        metrics, _, moved = self._update(batch, permutations, left)
        return metrics, tf.ones([], tf.int64), moved
