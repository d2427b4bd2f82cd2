"""Evaluation with the greedy policy: the training loop without the training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from pgest import returns
from pgest.agents import batch_specs, event_files, loops, prediction, shares
from pgest.contract import callers, episodes, model_fn, reports, update_config
from pgest.environments import making, side_by_side
from pgest.environments import view as environment_view
from pgest.hooks import monitor, summaries
from pgest.memory import memory as memory_lib
from pgest.tracing import acting, group_acting, preparation, probing
from pgest.tracing import model as model_lib
from pgest.variables import counters as counters_lib
from pgest.variables import whole_files

Modes = model_fn.Modes
# Evaluation plays other episodes than training, and the same ones each time.
_SEED_OFFSET = 1_000_003


class Evaluator:
    """Plays greedy episodes; holds the compiled programs for it.

    Args:
      model: the model.

    Attributes:
      predictor: acts on observations; it knows the spaces of the environments seen here.
    """

    def __init__(self, model: model_lib.Model):
        self._model = model
        self.predictor = prediction.Predictor(model)
        self._actors: dict[Any, acting.Actor] = {}
        self._group_actors: dict[Any, group_acting.GroupActor | None] = {}
        self._alone: set[str] = set()  # environments that have to be played without copies
        self._metrics: _EvaluationMetrics | None = None
        self._supports_eval = True

    def evaluate(
        self,
        env: Any,
        num_episodes: int,
        config: update_config.UpdateConfig,
        *,
        greedy: bool = True,
        hooks: Sequence[monitor.BaseMonitor] = (),
    ) -> dict[str, float]:
        """Plays `num_episodes` and returns statistics by name; see `PGAgent.evaluate`."""
        try:
            return self._evaluate(env, num_episodes, config, greedy, hooks)
        except _AloneError as found:
            self._alone.add(found.args[0])
        return self._evaluate(env, num_episodes, config, greedy, hooks)

    def _evaluate(
        self,
        env: Any,
        num_episodes: int,
        config: update_config.UpdateConfig,
        greedy: bool,
        hooks: Sequence[monitor.BaseMonitor],
    ) -> dict[str, float]:
        seed = (self._model.seed + _SEED_OFFSET) % 2**31
        view = making.view(prediction.on_host(env, num_episodes), seed=seed)
        try:
            view.reset(0)
            view.observe()
            actor = self._actor_of(view, greedy)
            memory = shares.Shares(num_episodes, view.num_envs)
            metrics = self._metrics_for(
                batch_specs.batch_signature(actor, memory, view), actor, config
            )
            hooks = (*hooks, *(() if metrics is None else metrics.hooks))
            with prediction.told(self._model, hooks, env) as context:
                # Hooks see one episode after the other, as they end.
                together = None if hooks else self._together(actor, view, num_episodes)
                if together is None:
                    loop = loops.HostLoop(actor, view, memory, self._counters())
                    finished = _play(loop, memory, context, hooks)
                else:
                    finished, memory = self._play_together(actor, together, num_episodes, context)
                results = statistics(finished)
                if metrics is not None and memory.can_sample():
                    results |= metrics(self._batch(actor, memory))
                context.metrics = results
        finally:
            if view is not env:
                view.close()
            else:  # one that the user made with pgest.make stays open, and begins anew
                for index in range(view.num_envs):
                    view.rest(index)
        return results

    def _together(
        self, actor: acting.Actor, view: environment_view.EnvironmentView, num_episodes: int
    ) -> side_by_side.SideBySide | None:
        """The view's environments with copies beside them; None where each plays alone."""
        alone = environment_view.describe(view.env) in self._alone
        if alone or not isinstance(actor, group_acting.GroupActor):
            return None
        return side_by_side.side_by_side(view, min(num_episodes, actor.most * actor.size))

    def _play_together(
        self,
        actor: acting.Actor,
        together: side_by_side.SideBySide,
        num_episodes: int,
        context: monitor.RunContext,
    ) -> tuple[list[episodes.EpisodeStatistics], shares.Shares]:
        """Plays in environments and in copies of them, and closes the copies.

        Raises:
          _AloneError: it failed, or the environments do not play in copies what they play alone.
        """
        with together:
            memory = shares.GroupShares(num_episodes, together.size, together.numbers)
            loop = loops.HostLoop(actor, together, memory, self._counters())
            try:
                finished = _play(loop, memory, context, ())
            except environment_view.EnvironmentFailure:
                # Alone it fails at the timestep that its user can find again; or it does not, as
                # what cannot stand beside another of its kind.
                raise _AloneError(environment_view.describe(together.env)) from None
            if not together.follow_from_seeds():
                raise _AloneError(environment_view.describe(together.env))
            return finished, memory

    def build(self, env: Any, config: update_config.UpdateConfig) -> None:
        """Traces what an evaluation on `env` needs, and plays nothing."""
        env = prediction.on_host(env, 1)
        view = making.view(env, seed=0)
        try:
            view.reset(0)
            view.observe()
            actor = self._actor_of(view)
            memory = shares.Shares(1, view.num_envs)
            self._metrics_for(batch_specs.batch_signature(actor, memory, view), actor, config)
        finally:
            if view is not env:
                view.close()

    def _actor_of(
        self, view: environment_view.EnvironmentView, greedy: bool = True
    ) -> acting.Actor:
        """What acts in the view, and in copies beside it where there may be some.

        It is one program for any number of episodes.
        """
        spaces = (view.observation_space, view.action_space)
        mask_spec = batch_specs.mask_spec(view.action_mask)
        key = (view.num_envs, str(spaces), str(mask_spec), greedy)
        actor: acting.Actor | None = None
        if greedy and self._may_be_grouped(view):
            if key not in self._group_actors:
                self._group_actors[key] = group_acting.group_actor(
                    self._model, spaces, mask_spec, view.observe(), view.action_mask
                )
            actor = self._group_actors[key]
        if actor is None:
            if key not in self._actors:
                self._actors[key] = acting.EvaluationActor(
                    self._model,
                    *spaces,
                    num_envs=view.num_envs,
                    mask_spec=mask_spec,
                    explore=not greedy,
                )
            actor = self._actors[key]
        self.predictor.remember(view, actor)
        return actor

    def _may_be_grouped(self, view: environment_view.EnvironmentView) -> bool:
        config = self._model.config
        return bool(
            config.jit_compile
            and 2 * view.num_envs <= group_acting.MOST
            and side_by_side.may_be_copied(view, config.evaluate_in_copies)
            # A GPU chooses how it multiplies program by program: groups might round otherwise.
            and not tf.config.list_logical_devices("GPU")
        )

    def _counters(self) -> counters_lib.Counters:
        """Counters of the evaluation's own, so that it advances nobody else's."""
        own = counters_lib.Counters()
        own.timestep = self._model.counters.timestep
        return own

    def _batch(self, actor: acting.Actor, memory: memory_lib.BatchMemory) -> dict[str, Any]:
        """The evaluation's episodes, end to end in one column."""
        batch = tf.nest.map_structure(lambda leaf: leaf[:, None], memory.sample())
        if actor.recurrent:
            batch["policy_state"] = tf.nest.map_structure(
                lambda leaf: tf.zeros([1, *leaf.shape[1:]], leaf.dtype), actor.state_spec
            )
        return batch

    def _metrics_for(
        self, signature: dict[str, Any], actor: acting.Actor, config: update_config.UpdateConfig
    ) -> _EvaluationMetrics | None:
        """The EVAL trace; None where model_fn says that it has none (NotImplementedError)."""
        if self._metrics is None and self._supports_eval:
            try:
                self._metrics = _EvaluationMetrics(self._model, signature, actor.recurrent, config)
            except NotImplementedError:
                self._supports_eval = False
        return self._metrics


class _AloneError(Exception):
    """An environment, named by the argument, has to be played without copies."""


class _EvaluationMetrics:
    """Loss and `eval_metric_ops` of an EVAL trace, and its hooks."""

    def __init__(
        self,
        model: model_lib.Model,
        signature: dict[str, Any],
        recurrent: bool,
        config: update_config.UpdateConfig,
    ):
        self._model = model
        self._normalize_advantage = config.normalize_advantage
        self._prepare = preparation.traced(config, recurrent, model.counters, signature)
        features, labels, _ = self._prepare.structured_outputs
        features, labels = (tf.nest.map_structure(_spec_of, part) for part in (features, labels))
        self._pruned = probing.trace(model, features, labels, Modes.EVAL)
        spec = self._pruned.spec
        self.hooks = tuple(spec.evaluation_hooks)
        metrics = _checked_names(spec.eval_metric_ops)
        self._names = list(metrics)
        with self._pruned.wrapped.graph.as_default():
            updates = [op for value in metrics.values() for op in _updates(value)]
            with tf.control_dependencies(updates):
                loss = tf.identity(spec.loss)
            results = [_result(name, value) for name, value in metrics.items()]
        self._loss = self._pruned.program(loss)
        self._results = self._pruned.program(results) if results else None

    def __call__(self, batch: dict[str, Any]) -> dict[str, float]:
        for variable, initial in self._model.store.local.values():
            variable.assign(initial)
        tensors = tf.nest.map_structure(tf.convert_to_tensor, batch)
        features, labels, _ = self._prepare(tensors)
        if self._normalize_advantage:
            labels["advantage"] = returns.normalize(labels["advantage"])
        leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten((features, labels))]
        results = {"loss": float(self._loss(*leaves))}
        # Values are read when all updates are done, whichever the graph would take first.
        values = [] if self._results is None else self._results(*leaves)
        return results | {n: float(v) for n, v in zip(self._names, values, strict=True)}


def _spec_of(leaf: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec(leaf.shape, leaf.dtype)


def _updates(value: Any) -> list[Any]:
    """The ops that bring a metric up to date: those that assign its variables."""
    if not isinstance(value, tf_keras.metrics.Metric):
        return [value[1]]
    graph = tf.compat.v1.get_default_graph()
    handles = {id(variable.handle) for variable in value.variables}
    inside = {id(internal) for external, internal in graph.captures if id(external) in handles}
    return [
        op
        for op in graph.get_operations()
        if op.type.startswith("Assign") and id(op.inputs[0]) in inside
    ]


def _result(name: str, value: Any) -> tf.Tensor:
    is_metric = isinstance(value, tf_keras.metrics.Metric)
    result = tf.convert_to_tensor(value.result() if is_metric else value[0])
    if result.shape.num_elements() not in (None, 1):
        raise ValueError(f"eval_metric_ops[{name!r}]: got shape {result.shape}, expected a number.")
    return tf.reshape(result, [])


def _checked_names(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metrics, none of which has the name of a statistic of the evaluation itself."""
    own = [f"{name}_{word}" for name in ("return", "length") for word in _SUMMARIES]
    taken = sorted({*own, "loss", "episodes", *counters_lib.NAMES} & set(metrics))
    if taken:
        raise ValueError(
            f"eval_metric_ops has {', '.join(taken)}, which evaluate() reports itself: give "
            "metrics other names."
        )
    return metrics


def _play(
    loop: loops.HostLoop,
    memory: shares.Shares,
    context: monitor.RunContext,
    hooks: Sequence[monitor.BaseMonitor],
) -> list[episodes.EpisodeStatistics]:
    """Plays the episodes that the memory wants."""
    finished: list[tuple[int, episodes.EpisodeStatistics]] = []

    def ended(together: list[episodes.EpisodeStatistics]) -> None:
        for statistics in together:
            index = statistics.env_index
            if memory.left[index] > 0:
                finished.append((memory.number(index), statistics))
                if not memory.ended(index):
                    loop.view.rest(index)
                context.episodes = (statistics,)
                for hook in hooks:
                    hook.after_episode(context)
                context.episodes = ()

    loop.collect(lambda: not np.count_nonzero(memory.left), ended)
    return memory.in_order(finished)


_SUMMARIES: dict[str, Any] = {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max}


def statistics(finished: list[episodes.EpisodeStatistics]) -> dict[str, float]:
    """Means and the like of the episodes, by name."""
    results = reports.EvaluationResults()
    columns: dict[str, list[float]] = {
        "return": [episode.total for episode in finished],
        "length": [float(episode.length) for episode in finished],
    }
    for name, values in columns.items():
        for word, function in _SUMMARIES.items():
            results[f"{name}_{word}"] = float(function(values))
    keys = sorted({key for episode in finished for key in episode.info})
    for key in keys:
        values = [episode.info[key] for episode in finished if key in episode.info]
        results[f"info/{key}_mean"] = float(np.mean(values))
    results["episodes"] = float(len(finished))
    return results


def write_summaries(
    events: event_files.EventWriters,
    name: str | None,
    results: Mapping[str, float],
    run: Any,
) -> None:
    """Writes an evaluation to TensorBoard, at its `global_timestep`, beside the training run.

    Args:
      events: the agent's.
      name: of the evaluation.
      results: what `PGAgent.evaluate` returns.
      run: the `Run` under way that has asked for it; None: there is none.
    """
    folder = "eval" if name is None else f"eval_{name}"
    step = None if run is None else run.turns.update_of
    if step is None:
        step = int(results[counters_lib.GLOBAL_TIMESTEP])
    try:
        writer = events.writer(folder, of_run=run is not None)
        if writer is None:
            return
        with writer.as_default(step=step):
            shown = summaries.evaluation_scalars(results)
            summaries.write_points(shown, summaries.EVALUATION_TAGS)
        writer.flush()
        events.note_again()
    except (tf.errors.OpError, OSError) as error:  # what was played is worth more than its curve
        events.drop(folder)
        path = os.path.join(str(events.model_dir), folder)
        callers.warn(
            f"TensorBoard's points of this evaluation could not be written to {path!r}: "
            f"{whole_files.reason(error)} The result is complete.",
        )
