"""Whole iterations of an in-graph environment in one program: collect, advantages, updates."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.graph_environments import graph_environment
from pgest.memory import memory
from pgest.tracing import acting, preparation, programs, updating
from pgest.tracing import model as model_lib
from pgest.tracing import steps as steps_lib

_NO_LIMIT = 2**62
# Keeps the environments' random numbers apart from those of the actions.
_ENVIRONMENT_STREAM = 0x2545F491


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

    The state of the environments is in variables, so it is in every checkpoint.

    Args:
      model: the model.
      env: the environments.
      actor: a program of the model for them, for its specs.
      update: the update's graph.
      signature: specs of a batch, `[T, B, ...]` by name.
      iterations: K, iterations in one call.
    """

    def __init__(
        self,
        model: model_lib.Model,
        env: graph_environment.GraphEnvironment,
        actor: acting.Actor,
        update: updating.UpdateGraph,
        signature: dict[str, Any],
        iterations: int,
    ):
        self._model = model
        self._env = env
        self._actor = actor
        self._update_graph = update
        self._horizon, self._num_envs = signature["reward"].shape
        self._iterations = iterations
        self._stored = {
            name: spec for name, spec in signature.items() if name not in ("policy_state",)
        }
        self._names = list(self._stored)
        self._state = self._make_state()
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

    def first_timestep(self) -> dict[str, Any]:
        """What the environments' next timestep is, as a batch `[1, B, ...]`; none is taken."""

        def look() -> dict[str, Any]:
            state = tf.nest.map_structure(lambda variable: variable.read_value(), self._state)
            clock = self._model.counters.variables["global_timestep"].read_value()
            _, _, values = self._step(state, clock)
            batch = tf.nest.map_structure(lambda leaf: leaf[None], values)
            batch[memory.CUT] = tf.ones([1, self._num_envs], tf.bool)
            if self._actor.recurrent:
                batch["policy_state"] = state["policy_state"]
            return batch

        return tf.function(look, autograph=False)()

    def _fresh_state(self) -> dict[str, Any]:
        seed = self._environment_seed(tf.constant(self._model.counters.timestep, tf.int64))
        return {
            "environment": self._env.initial(seed),
            "policy_state": self._actor.initial_state(),
            "reset": tf.ones([self._num_envs], tf.bool),
        }

    def _make_state(self) -> dict[str, Any]:
        """Variables that hold the environments, with the values of a checkpoint where it fits."""
        fresh = self._fresh_state()
        variables = []
        for index, value in enumerate(tf.nest.flatten(fresh)):
            name = f"environment/{index}"
            saved = self._model.store.saved_value(name, tuple(value.shape))
            fits = saved is not None and saved.shape == tuple(value.shape)
            variables.append(tf.Variable(saved if fits else value, trainable=False, name=name))
            self._model.environment[name] = variables[-1]
        return tf.nest.pack_sequence_as(fresh, variables)

    def _environment_seed(self, timestep: tf.Tensor) -> tf.Tensor:
        return acting.sampling_seed(self._model.seed ^ _ENVIRONMENT_STREAM, timestep)

    def _run(self, permutations: tf.Tensor, limits: tf.Tensor) -> Any:
        counters = self._model.counters.variables
        state = tf.nest.map_structure(lambda variable: variable.read_value(), self._state)
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
            state, clock, taken, batch, finished = self._collect(state, clock, limits)
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
        for variable, value in zip(
            tf.nest.flatten(self._state), tf.nest.flatten(state), strict=True
        ):
            variable.assign(value)
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

    def _collect(self, state: dict[str, Any], clock: Any, limits: tf.Tensor) -> Any:
        """T timesteps of B environments, or fewer where a limit comes first."""
        first_policy_state, first = state["policy_state"], clock
        arrays = [
            tf.TensorArray(leaf.dtype, self._horizon, element_shape=leaf.shape[1:])
            for leaf in self._leaves(self._stored)
        ]
        statistics = [
            tf.TensorArray(dtype, self._horizon, element_shape=[self._num_envs])
            for dtype in (tf.float32, tf.int32)
        ]

        def unfinished(row: tf.Tensor, state: Any, clock: Any, *_: Any) -> tf.Tensor:
            within = tf.stack(clock) < limits[1:]
            return tf.logical_and(row < self._horizon, tf.reduce_all(within))

        def body(row: Any, state: Any, clock: Any, arrays: Any, statistics: Any) -> Any:
            if self._actor.keeps_timestep:
                self._model.counters.variables["global_timestep"].assign(clock[0])
            state, transition, values = self._step(state, clock[0])
            leaves = self._leaves(values)
            arrays = [array.write(row, leaf) for array, leaf in zip(arrays, leaves, strict=True)]
            progress = (transition.progress.total, transition.progress.length)
            statistics = [
                array.write(row, part) for array, part in zip(statistics, progress, strict=True)
            ]
            ended = tf.reduce_sum(tf.cast(transition.ended, tf.int64))
            return row + 1, state, (clock[0] + self._num_envs, clock[1] + ended), arrays, statistics

        taken, state, clock, arrays, statistics = tf.while_loop(
            unfinished, body, (0, state, first, arrays, statistics)
        )
        batch = self._packed([array.stack() for array in arrays])
        batch = self._cut_at_horizon(batch, state, clock[0])
        if self._actor.recurrent:
            batch["policy_state"] = first_policy_state
        rows = tf.range(self._horizon)[:, None] < taken
        ends = [rows & batch["terminated"], rows & batch["truncated"]]
        return state, clock, taken, batch, [array.stack() for array in statistics] + ends

    def _step(self, state: dict[str, Any], timestep: tf.Tensor) -> Any:
        """One timestep of all environments: the next state, the transition, what is stored."""
        env, reset = self._env, state["reset"]
        observation = env.observation(state["environment"])
        mask = env.action_mask(state["environment"].simulation)
        acted = self._actor.graph(observation, mask, state["policy_state"], reset, timestep)
        environment, transition = env.step(
            state["environment"], acted["environment_action"], self._environment_seed(timestep)
        )
        values = {
            **acted["predictions"],
            "state": observation,
            "action": acted["action"],
            "reward": transition.reward,
            "terminated": transition.terminated,
            "truncated": transition.truncated,
            "action_mask": mask,
            "reset": reset,
            memory.CUT: tf.zeros([self._num_envs], tf.bool),
            memory.BOOTSTRAP_VALUE: self._truncated_value(
                transition, acted["policy_state"], timestep
            ),
        }
        following = {
            "environment": environment,
            "policy_state": acted["policy_state"],
            "reset": transition.ended,
        }
        return following, transition, {name: values[name] for name in self._names}

    def _truncated_value(
        self, transition: Any, policy_state: Any, timestep: tf.Tensor
    ) -> tf.Tensor:
        """The value of the true next observation where an episode was truncated, else 0."""
        nothing = tf.zeros([self._num_envs], tf.float32)
        if "value" not in self._names:
            return nothing
        truncated = transition.truncated & ~transition.terminated
        if tf.get_static_value(transition.truncated) is not None:
            return nothing  # an environment without a time limit
        return tf.cond(
            tf.reduce_any(truncated),
            lambda: tf.where(
                truncated,
                self._actor.values(
                    transition.next_observation, transition.next_mask, policy_state, timestep
                ),
                nothing,
            ),
            lambda: nothing,
        )

    def _cut_at_horizon(
        self, batch: dict[str, Any], state: dict[str, Any], timestep: tf.Tensor
    ) -> dict[str, Any]:
        last = tf.equal(tf.range(self._horizon), self._horizon - 1)[:, None]
        going_on = last & ~(batch["terminated"] | batch["truncated"])
        batch[memory.CUT] = going_on
        if "value" not in self._names:
            return batch
        mask = self._env.action_mask(state["environment"].simulation)
        observation = self._env.observation(state["environment"])
        values = self._actor.values(observation, mask, state["policy_state"], timestep)
        return preparation.bootstrapped_at_horizon(batch, values)

    def _leaves(self, values: dict[str, Any]) -> list[Any]:
        return [leaf for name in self._names for leaf in tf.nest.flatten(values[name])]

    def _packed(self, leaves: list[tf.Tensor]) -> dict[str, Any]:
        structure = [self._stored[name] for name in self._names]
        return dict(zip(self._names, tf.nest.pack_sequence_as(structure, leaves), strict=True))
