"""What `PGAgent.train` drives: acting on one environment and updating from one memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.agents import agreement, batch_specs, loops, runs, trainer
from pgest.contract import callers
from pgest.environments import checking
from pgest.environments import view as environment_view
from pgest.hooks import defaults, monitor
from pgest.memory import memory as memory_lib
from pgest.tracing import acting, background, feeding, probing, updating


class HostTrainer:
    """Compiled programs, a loop and a memory for one environment.

    Args:
      agent: the `PGAgent` whose model is trained.
      view: the environments.
      given: what the user gave.
    """

    def __init__(self, agent: Any, view: environment_view.EnvironmentView, given: Any):
        self._agent = agent
        self._model = agent.model
        self._given = given
        self.view = view
        self.memory = agent.memory
        self._workers = agent.model.workers
        if self._workers is not None:
            view.first_index = self._workers.rank * view.num_envs
            in_step = agreement.in_step(agent.memory, view)
            agent.counters.workers = self._workers.count if in_step else 1
        view.reset(agent.counters.episode)
        view.observe()
        self.actor = acting.Actor(
            agent.model,
            view.observation_space,
            view.action_space,
            view.num_envs,
            batch_specs.mask_spec(view.action_mask),
        )
        self._check_memory()
        # Another agent's episodes under way, say: this environment does not go on with them.
        self.memory.drop_unfinished()
        self.loop = self._make_loop()
        self.loop.warns_of_cuts = not self.actor.predicts_value
        self._signature = batch_specs.batch_signature(self.actor, self.memory, view)
        self._following_spec = None
        if self.loop.leaves_horizon_to_update:
            self._following_spec = batch_specs.following_spec(self.actor)
        self._updater = self._make_updater(None)
        self._summary_updater: tuple[Any, updating.Updater] | None = None  # and its writer
        self._is_checked = False
        self._writes_summaries = False
        self._no_writer = tf.summary.create_noop_writer()
        self._background: background.BackgroundUpdates | None = None
        self._updating: runs.Run | None = None  # whose update is under way
        self._arguments: tuple[Any, ...] = ()  # what it was given
        self._overlaps = False
        # Whether weights from before an update may have acted in the first batch.
        self._holds_older = False
        self.at_rest = True  # False where only the hooks' turn is a moment to go on from

    def uses(self, env: Any) -> bool:
        """Whether it steps this very object; an id or factory makes a new environment."""
        return env is self._given and not isinstance(env, str)

    def all_hooks(self, given: Sequence[monitor.BaseMonitor]) -> list[monitor.BaseMonitor]:
        """The user's hooks, the spec's and the defaults, in the order to call them."""
        hooks = defaults.default_hooks(self._agent.config, [*given, *self._updater.graph.hooks])
        return agreement.every_workers(self._workers, hooks)

    def collect(self, run: runs.Run) -> None:
        """Acts until the memory has a batch or the run has to pause; ends the update under way."""
        if self.loop.broken:
            self.forget_episode()  # an environment that failed starts anew
        self.at_rest = False
        self._collect(run)
        self._finish(run)
        self.at_rest = True
        if run.agreement is not None:
            run.agreement.exchange()

    def _collect(self, run: runs.Run) -> None:
        counters = self._agent.counters
        pause = lambda: self.memory.can_sample() or run.must_pause()  # noqa: E731
        if self.view.is_vector:
            self.loop.collect(pause, run.happened)
            return
        while not pause():
            statistics = self._agent.run_episode(
                self.view,
                self.loop,
                {"state": self.actor.observation_spec},
                self._signature,
                pause,
                counters.variables["global_step"],
                counters.count_episode,
                counters.count_timestep,
                self.actor.outputs,
            )
            if statistics.complete:
                run.happened([statistics])

    def ready(self, run: runs.Run) -> bool:
        """Whether an update comes next: a batch is there and nobody asked to stop."""
        left = run.steps_left
        there = self.memory.can_sample() if run.agreement is None else run.agreement.all_ready
        return there and not run.should_stop and (left is None or left > 0)

    def update(self, run: runs.Run) -> None:
        """Takes the batch out of the memory and trains on it."""
        self.at_rest = False
        if not self._is_checked:
            self._check_first_episodes()
        batch = self._batch()
        if not self._is_checked:
            self._check_first_batch(batch)
            self._is_checked = True
        run.before_update()
        updater = self._updater
        wanted = run.take_summary_request()
        if self._has_summaries() and agreement.any_wants(self._workers, wanted):
            updater = self._updater_with_summaries()
        counters = self._agent.counters
        counters.publish(run.progress, lambda v: updater.reads(v) or self.actor.program.reads(v))
        following = self.loop.following if self._following_spec else {}
        arguments = (batch, counters.step, run.steps_left, following)
        if updater is not self._updater or not self._overlaps:
            self._updated(run, self._run_update(updater, arguments))
        else:
            may_be_last = run.may_end_within(updater.max_steps(batch))
            self._start(run, arguments)
            if may_be_last:
                self._finish(run)
        if self._agent.config.overlap_updates and self._background is None:
            self._overlaps = True
            self._background = background.BackgroundUpdates(self._updater)
        self.at_rest = True
        if run.agreement is not None:
            run.agreement.updated()

    def _run_update(self, updater: updating.Updater, arguments: tuple[Any, ...]) -> Any:
        if self._workers is None:
            return updater(*arguments)
        with self._workers.watched():
            return updater(*arguments)

    def _start(self, run: runs.Run, arguments: tuple[Any, ...]) -> None:
        """Starts an update in the background."""
        if self._background is None:
            self._background = background.BackgroundUpdates.started(self._updater, *arguments)
        else:
            self._background.start(*arguments)
        counters = self._agent.counters
        self._updating, self._arguments = run, (*arguments, counters.timestep, counters.episode)

    def _finish(self, run: runs.Run) -> None:
        """Ends the update under way; that of a run which has failed is dropped."""
        if self._background is not None and self._updating is run:
            *_, timestep, _ = self._arguments
            self._updating, self._arguments = None, ()
            self._updated(run, self._background.finish(), timestep)

    def _updated(
        self, run: runs.Run, updated: updating.Updated, batch_timestep: int | None = None
    ) -> None:
        self._agent.counters.step += updated.steps
        self.loop.loss = updated.metrics["loss"]
        run.happened(metrics=updated.metrics, batch_timestep=batch_timestep)

    def state(self) -> dict[str, np.ndarray]:
        """Numbers by name, which bring a new trainer to where this one is."""
        # The first update of all does not overlap. A run that has gone on may have made none yet.
        made_one = self._overlaps or self._is_checked
        overlaps = self._agent.config.overlap_updates and made_one
        state = {"overlaps": np.array(overlaps)}
        parts: dict[str, Any] = {"memory": self.memory.state(), "loop": self.loop.state()}
        parts["environments"] = self.view.state() or {}
        if self._workers is not None:
            parts["own"] = {n: v.numpy() for n, v in trainer.own_variables(self._model)}
        if self._updating is not None:
            batch, _, _, following, timestep, episode = self._arguments
            leaves = enumerate(tf.nest.flatten((batch, following)))
            parts["update"] = {str(at): np.asarray(leaf) for at, leaf in leaves}
            state["counted"] = np.array([timestep, episode])
        for part, values in parts.items():
            state.update({f"{part}/{name}": value for name, value in values.items()})
        return state

    def restore(self, run: runs.Run, state: Mapping[str, np.ndarray]) -> str | None:
        """Goes on where the trainer stood that gave `state`.

        Returns:
          None, or a clause that says why the episodes under way start anew.
        """
        counters = self._agent.counters
        if "overlaps" not in state:
            return "the checkpoint is of environments in the graph"
        self._overlaps = bool(state["overlaps"]) and self._agent.config.overlap_updates
        update = _part(state, "update")
        if update and self._overlaps:
            like = (self._signature, self._following_spec or {})
            leaves = [update[str(at)] for at in range(len(update))]
            batch, following = tf.nest.pack_sequence_as(like, leaves)
            now = counters.timestep, counters.episode
            counters.timestep, counters.episode = state["counted"].tolist()
            counters.publish()  # the update that was under way saw these
            self._start(run, (batch, counters.step, run.steps_left, following))
            counters.timestep, counters.episode = now
        try:
            self.memory.restore(_part(state, "memory"), self._stored_spec())
            self._holds_older = len(self.memory) > 0
            why = self.view.restore(_part(state, "environments"))
            if why is None:
                observed = (self.actor.observation_spec, self.actor.mask_spec)
                self.loop.restore(_part(state, "loop"), observed)
                for name, variable in trainer.own_variables(self._model):
                    if f"own/{name}" in state:
                        variable.assign(state[f"own/{name}"])
                return None
        except (KeyError, ValueError) as error:
            self.memory.clear()
            why = f"what the checkpoint holds of them does not fit ({error})"
        self.forget_episode()
        return why

    def _stored_spec(self) -> dict[str, Any]:
        """Specs of a timestep in the memory, `[T, B, ...]` by name."""
        beside = (memory_lib.CUT, memory_lib.BOOTSTRAP_VALUE, memory_lib.ENV_INDEX, "policy_state")
        return {name: spec for name, spec in self._signature.items() if name not in beside}

    def describe_restored(self) -> str:
        """One clause on what the trainer holds now."""
        update = ", an update under way" if self._updating is not None else ""
        return f"weights, {len(self.memory)} timesteps of the next batch{update} restored"

    def start_anew(self) -> None:
        """Drops what was restored of episodes and the batch under way."""
        self.memory.clear()
        self.forget_episode()

    def forget_episode(self) -> None:
        """Drops the episode under way: its environment does not go on where it stood."""
        self.memory.drop_unfinished()
        self.view.reset(self._agent.counters.episode)
        warns_of_cuts = self.loop.warns_of_cuts
        self.loop = self._make_loop()
        self.loop.warns_of_cuts = warns_of_cuts

    def leave(self) -> None:
        """Drops what belongs to this environment, and closes it if pgest made it."""
        if self._background is not None:
            self._background.close()
        self.memory.drop_unfinished()
        if self.view is not self._given:  # one that the user made with pgest.make stays open
            self.view.close()

    def describe(self) -> str:
        """A report on modes, variables, traces and compilation."""
        compiled = {
            "acting": self.actor.program.jit_compiled,
            "update": self._updater.jit_compiled,
        }
        return trainer.describe(self._model, compiled)

    def _make_loop(self) -> loops.HostLoop:
        agent = self._agent
        overlapped = agent.config.overlap_updates
        return loops.HostLoop(self.actor, self.view, self.memory, agent.counters, overlapped)

    def _has_summaries(self) -> bool:
        return self._agent.config.save_histograms or self._writes_summaries

    def _updater_with_summaries(self) -> updating.Updater:
        writer = self._agent.summary_writer
        if self._workers is not None:
            writer = writer or self._no_writer  # which the chief alone has
        known = self._summary_updater
        # Workers trace alike, or their exchanges would not find each other.
        if known is None or agreement.any_wants(self._workers, known[0] is not writer):
            known = self._summary_updater = (writer, self._make_updater(writer))
        return known[1]

    def examine(self, timesteps: int) -> checking.Examination:
        """Steps the environment with random actions; training starts a new episode."""
        self.loop.broken = True
        return checking.examine(self.view, timesteps)

    def _make_updater(self, writer: Any) -> updating.Updater:
        graph = updating.UpdateGraph(
            self._model, self._agent.update_config, self._signature, self.actor.recurrent, writer
        )
        # XLA has no summaries.
        jit_compile = self._agent.config.jit_compile if writer is None else False
        following = (self.actor, self._following_spec) if self._following_spec else None
        return updating.Updater(graph, self._signature, jit_compile, following)

    def _batch(self) -> dict[str, Any]:
        if isinstance(self.memory, memory_lib.RolloutMemory):
            batch = self.memory.sample(end_to_end=self.view.resets_take_steps)
        else:
            batch = self.memory.sample()
        flat = batch["reward"].ndim == 1
        if flat:  # episodes end to end: one column
            batch = tf.nest.map_structure(lambda leaf: leaf[:, None], batch)
        if memory_lib.ENV_INDEX not in self._signature:
            batch.pop(memory_lib.ENV_INDEX, None)  # a rollout of one environment that overflowed
        if self.actor.recurrent:
            batch["policy_state"] = self.loop.batch_state
            if flat:
                batch["policy_state"] = tf.nest.map_structure(
                    lambda leaf: tf.zeros([1, *leaf.shape[1:]], leaf.dtype), self.actor.state_spec
                )
        for name, value in batch.items():
            if not isinstance(value, np.ndarray) or value.nbytes > feeding.LARGE:
                batch[name] = tf.nest.map_structure(feeding.held_once, value, self._signature[name])
        return batch

    def _check_first_batch(self, batch: dict[str, Any]) -> None:
        graph = self._updater.graph
        features, labels = probing.read_by_policy(graph.trained, graph.prepare, batch)
        graph.check(features, labels, compare=not self._holds_older)
        # Nothing is written without a writer, which the chief alone has.
        found = graph.summaries.asked and self._agent.summary_writer is not None
        self._writes_summaries = agreement.any_wants(self._workers, found)
        trainer.write_graph(self._agent, graph)

    def _check_first_episodes(self) -> None:
        """Warns where a batch is of few episodes of each environment."""
        ended, num_envs = self.memory.num_episodes, self.view.num_envs
        whole = not isinstance(self.memory, memory_lib.RolloutMemory)
        if not whole or num_envs == 1 or 2 * num_envs <= ended:
            return
        size = 2 * num_envs * self.memory.num_timesteps // ended
        callers.warn(
            f"The first batch of {self.memory!r} holds {ended} episodes of {num_envs} "
            "environments. Short episodes end first, so first batches lean to them, and later "
            "ones hold timesteps of weights from before the last update. Make batches of "
            f"{size} timesteps or more, take fewer environments, or a RolloutMemory."
        )

    def _check_memory(self) -> None:
        if not self.actor.recurrent:
            return
        if self.memory.max_episode_length is not None:
            raise ValueError(
                "The model is recurrent and the memory hands episodes over in pieces "
                f"(max_episode_length={self.memory.max_episode_length}), which would start in the "
                "middle of an episode without its policy state. Use a RolloutMemory."
            )
        if isinstance(self.memory, memory_lib.RolloutMemory) and self.view.resets_take_steps:
            raise ValueError(
                "The model is recurrent and the vector environment spends steps on resetting "
                "(autoreset mode NEXT_STEP), so a RolloutMemory's columns are not in step. Use "
                "pgest.make(..., num_envs=...), or a vector environment with SAME_STEP autoreset."
            )


def _part(state: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """What `state` holds under `name/`."""
    start = f"{name}/"
    return {key[len(start) :]: value for key, value in state.items() if key.startswith(start)}
