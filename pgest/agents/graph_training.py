"""What `PGAgent.train` drives where the environment is in the graph."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.agents import batch_specs, loops, runs, trainer
from pgest.contract import callers, episodes
from pgest.graph_environments import graph_environment
from pgest.hooks import defaults, monitor
from pgest.memory import memory
from pgest.tracing import acting, collecting, iterating, preparation, updating


class GraphTrainer:
    """A `Trainer` whose environment is in the graph: collecting and updating are one program.

    Args:
      agent: the `PGAgent` whose model is trained.
      env: the environments.
    """

    def __init__(self, agent: Any, env: graph_environment.GraphEnvironment):
        if not isinstance(agent.memory, memory.RolloutMemory):
            raise ValueError(
                f"An in-graph environment fills a RolloutMemory; the agent has {agent.memory!r}. "
                "Programs need fixed shapes: use pgest.RolloutMemory(horizon=...)."
            )
        self._agent = agent
        self.view = env
        self.actor = acting.Actor(
            agent.model,
            env.observation_space,
            env.action_space,
            env.num_envs,
            self._mask_spec(env),
        )
        if not self.actor.predicts_value:
            loops.warn_of_cuts(f"{agent.memory!r} cuts episodes")
        signature = batch_specs.fixed_signature(self.actor, agent.memory.horizon, env.num_envs)
        self._update = updating.UpdateGraph(
            agent.model, agent.update_config, signature, self.actor.recurrent
        )
        self._collector = collecting.GraphCollector(agent.model, env, self.actor, signature)
        self._program: Any = self._make_program(signature)
        self._checked = False
        self.at_rest = True  # what the run needs are variables, changed in one piece

    def _make_program(self, signature: dict[str, Any]) -> Any:
        config = self._agent.config
        return iterating.GraphIterations(
            self._agent.model,
            self._collector,
            self._update,
            signature,
            config.iterations_per_loop,
        )

    def uses(self, env: Any) -> bool:
        """Whether it trains on this very object."""
        return env is self.view

    def all_hooks(self, given: Sequence[monitor.BaseMonitor]) -> list[monitor.BaseMonitor]:
        """The user's hooks, the spec's and the defaults, in the order to call them."""
        return defaults.default_hooks(self._agent.config, [*given, *self._update.hooks])

    def collect(self, run: runs.Run) -> None:
        """Nothing: the program of `update` collects."""

    def ready(self, run: runs.Run) -> bool:
        """Until the run is over: `update` keeps the limits itself."""
        return not run.is_over()

    def update(self, run: runs.Run) -> None:
        """Runs `RunConfig.iterations_per_loop` iterations, or as many as the limits allow."""
        if not self._checked:
            self._check_first_timestep()
        run.before_update()
        run.take_summary_request()  # tf.summary calls of a model_fn cannot run in here
        done = self._iterate(run)
        run.happened(_episodes(done, run.metrics.get("loss")), done.metrics or None)
        if not done.metrics and not run.metrics:
            horizon, num_envs = self._agent.memory.horizon, self.view.num_envs
            callers.warn(
                f"This run ends at timestep {self._agent.global_timestep} without an update, and "
                "what it collected is dropped: a limit cut its first in-graph iteration, which is "
                f"{horizon} timesteps of {num_envs} environments. Train for "
                f"{horizon * num_envs * self._agent.counters.workers} timesteps or more at a time.",
            )

    def _iterate(self, run: runs.Run) -> iterating.Iterated:
        limits = run.limits
        self._agent.counters.publish()
        return self._program(limits.max_steps, limits.max_timesteps, limits.max_episodes)

    def state(self) -> dict[str, np.ndarray]:
        """Nothing besides the variables, which hold the environments too."""
        return {"environments_are_variables": np.array(True)}

    def restore(self, run: runs.Run, state: Mapping[str, np.ndarray]) -> str | None:
        """Nothing: the variables are there."""
        return None

    def describe_restored(self) -> str:
        """One clause on what the trainer holds now."""
        return "weights and environments restored"

    def forget_episode(self) -> None:
        """Nothing: an evaluation opens environments of its own."""

    def start_anew(self) -> None:
        """Lets all environments begin new episodes."""
        self._collector.write(self._collector.fresh())

    def leave(self) -> None:
        """Drops the environments' state."""
        self._agent.model.environment.clear()

    def describe(self) -> str:
        """A report on modes, variables, traces and compilation."""
        return trainer.describe(
            self._agent.model, {"the in-graph iteration": self._program.jit_compiled}
        )

    def examine(self, timesteps: int) -> None:
        """Nothing: an in-graph environment was traced as a whole, with the shapes it declares."""

    def _check_first_timestep(self) -> None:
        """Raises where TRAIN has another policy than the one that acts."""
        self._checked = True
        prepare = preparation.Preparation(
            self._agent.update_config, self.actor.recurrent, self._agent.counters
        )
        features, labels, _ = prepare(self._collector.first_timestep())
        if self.actor.recurrent:  # every timestep of the step's trace begins an episode
            horizon = self._agent.memory.horizon
            state = features.pop("policy_state")
            features, labels = tf.nest.map_structure(
                lambda leaf: tf.repeat(leaf, horizon, axis=0), (features, labels)
            )
            features["policy_state"] = state
        self._update.check(features, labels)
        if self._update.summaries.asked and self._agent.summary_writer is not None:
            warnings.warn(
                "tf.summary calls of model_fn write nothing while it trains in the graph: give "
                "scalars to EstimatorSpec(metrics=...).",
                stacklevel=3,
            )
        if self._agent.config.save_histograms:
            callers.warn(
                "RunConfig.save_histograms writes nothing while a model trains in the graph: train "
                'in environments on the host, such as pgest.make("CartPole-v1").',
            )
        trainer.write_graph(self._agent, self._update)

    def _mask_spec(self, env: graph_environment.GraphEnvironment) -> Any:
        state = env.initial(tf.constant([0, 0]))
        return batch_specs.mask_spec(env.action_mask(state.simulation))


def _episodes(done: iterating.Iterated, loss: float | None) -> list[episodes.EpisodeStatistics]:
    """Statistics of the episodes that ended, in the order in which they did."""
    ended = done.terminated | done.truncated
    places = np.nonzero(ended)
    rows = zip(
        done.totals[places].tolist(),
        done.lengths[places].tolist(),
        done.terminated[places].tolist(),
        done.truncated[places].tolist(),
        places[2].tolist(),
        strict=True,
    )
    return [
        episodes.EpisodeStatistics(
            total=total,
            length=length,
            max=float("nan"),
            min=float("nan"),
            avg=total / max(length, 1),
            loss=loss,
            terminated=terminated,
            truncated=truncated,
            env_index=index,
        )
        for total, length, terminated, truncated, index in rows
    ]
