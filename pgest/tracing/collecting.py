"""Collecting in the graph: environments that are stepped by the program that acts."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from pgest.graph_environments import graph_environment
from pgest.memory import memory
from pgest.tracing import acting, preparation, programs
from pgest.tracing import model as model_lib

NO_LIMIT = 2**62
# Keeps the environments' random numbers apart from those of the actions.
_ENVIRONMENT_STREAM = 0x2545F491


class GraphCollector:
    """Steps in-graph environments, in the graph that is being traced.

    The state of the environments is in variables, so it is in every checkpoint.

    Args:
      model: the model.
      env: the environments, of this worker where there are several.
      actor: a program of the model for them, for its specs.
      signature: specs of a batch, `[T, B, ...]` by name.

    Attributes:
      state: a nest of variables.
    """

    def __init__(
        self,
        model: model_lib.Model,
        env: graph_environment.GraphEnvironment,
        actor: acting.Actor,
        signature: dict[str, Any],
    ):
        self._model = model
        self._env = env
        self._actor = actor
        self._horizon, self._num_envs = signature["reward"].shape
        self._counted = self._num_envs * (1 if model.workers is None else model.workers.count)
        self._stored = {
            name: spec for name, spec in signature.items() if name not in ("policy_state",)
        }
        self._names = list(self._stored)
        self.state = self._make_state()

    def read(self) -> dict[str, Any]:
        """What the variables of the environments hold."""
        return tf.nest.map_structure(lambda variable: variable.read_value(), self.state)

    def write(self, state: dict[str, Any]) -> None:
        """Lets the variables hold another state."""
        for variable, value in zip(
            tf.nest.flatten(self.state), tf.nest.flatten(state), strict=True
        ):
            variable.assign(value)

    def first_timestep(self) -> dict[str, Any]:
        """What the environments' next timestep is, as a batch `[1, B, ...]`; none is taken."""

        def look() -> dict[str, Any]:
            state = self.read()
            clock = self._model.counters.variables["global_timestep"].read_value()
            _, _, values = self._step(state, clock)
            batch = tf.nest.map_structure(lambda leaf: leaf[None], values)
            batch[memory.CUT] = tf.ones([1, self._num_envs], tf.bool)
            if self._actor.recurrent:
                batch["policy_state"] = state["policy_state"]
            return batch

        return tf.function(look, autograph=False)()

    def fresh(self) -> dict[str, Any]:
        """A state in which all environments begin an episode."""
        seed = self._environment_seed(tf.constant(self._model.counters.timestep, tf.int64))
        return {
            "environment": self._env.initial(seed),
            "policy_state": self._actor.initial_state(),
            "reset": tf.ones([self._num_envs], tf.bool),
        }

    def _make_state(self) -> dict[str, Any]:
        """Variables that hold the environments, with the values of a checkpoint where it fits."""
        fresh = self.fresh()
        variables = []
        for index, value in enumerate(tf.nest.flatten(fresh)):
            name = f"environment/{index}"
            saved = self._model.store.saved_value(name, tuple(value.shape))
            fits = saved is not None and saved.shape == tuple(value.shape)
            variables.append(tf.Variable(saved if fits else value, trainable=False, name=name))
            self._model.environment[name] = variables[-1]
        return tf.nest.pack_sequence_as(fresh, variables)

    def _environment_seed(self, timestep: tf.Tensor) -> tf.Tensor:
        seed = acting.sampling_seed(self._model.seed ^ _ENVIRONMENT_STREAM, timestep)
        workers = self._model.workers
        if workers is None:
            return seed
        return tf.random.experimental.stateless_fold_in(seed, workers.rank)

    def collect(
        self, state: dict[str, Any], clock: Any, limits: tf.Tensor, begin: int | tf.Tensor = 0
    ) -> Any:
        """T timesteps of B environments, or fewer where a limit comes first.

        Args:
          state: of the environments, what `state` holds.
          clock: timestep and episode, int64 scalars.
          limits: int64 `[3]`, of steps, timesteps and episodes.
          begin: the row to begin with; those before it are left empty.

        Returns:
          The state and the clock afterwards, the row to go on with, the batch, and of the episodes
          as far as each timestep their returns, lengths, and where they terminated and were
          truncated, `[T, B]` each.
        """
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
            clock_after = (clock[0] + self._counted, clock[1] + ended)
            return row + 1, state, clock_after, arrays, statistics

        taken, state, clock, arrays, statistics = tf.while_loop(
            unfinished, body, (begin, state, first, arrays, statistics)
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


class GraphRollouts:
    """Compiles and runs the collecting alone, for updates that are a program of their own.

    Args:
      collector: of the environments.
      jit_compile: as `Program` takes it.
    """

    def __init__(self, collector: GraphCollector, jit_compile: bool | str):
        self._collector = collector
        scalar = tf.TensorSpec([], tf.int64)
        signature = [tf.TensorSpec([], tf.int32), scalar, scalar]
        self._program = programs.Program(
            self._run, signature, "collecting in the graph", jit_compile
        )

    @property
    def jit_compiled(self) -> bool:
        """Whether XLA compiles the program."""
        return self._program.jit_compiled

    def __call__(self, begin: int, timestep: int, until: int) -> tuple[int, Any, list[Any]]:
        """Collects rows of a batch; the variables of the environments move, counters do not.

        Args:
          begin: the row to begin with.
          timestep: the global_timestep.
          until: the one to end at, before the batch is full.

        Returns:
          The row to go on with; the batch, whose rows before `begin` are empty; and of the
          episodes what `GraphCollector.collect` says.
        """
        taken, batch, finished = self._program(np.int32(begin), np.int64(timestep), np.int64(until))
        return int(taken), batch, finished

    def _run(self, begin: tf.Tensor, timestep: tf.Tensor, until: tf.Tensor) -> Any:
        clock = (timestep, tf.zeros([], tf.int64))
        limits = tf.stack([NO_LIMIT, until, NO_LIMIT])
        state = self._collector.read()
        state, _, taken, batch, finished = self._collector.collect(state, clock, limits, begin)
        self._collector.write(state)
        return taken, batch, finished
