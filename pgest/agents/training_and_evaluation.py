"""`train_and_evaluate`: training and evaluation by turns, from two specs."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pgest.agents import agent as agent_lib
from pgest.agents import following, runs
from pgest.contract import foreign_names, run_config
from pgest.hooks import defaults, evaluation, intervals, monitor
from pgest.saved_policies import exporters as exporters_lib

_EXPORT = "export"


@foreign_names.told_fields
@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """What `train_and_evaluate` trains on, and how far.

    Attributes:
      env: as for `PGAgent.train`.
      max_steps: up to this `global_step` in all; None: no such limit.
      hooks: `BaseMonitor`s of the training.
      max_timesteps: up to this `global_timestep` in all; None: no such limit. Without any limit a
        hook has to end the run.

    Raises:
      ValueError: a limit is not positive.
      TypeError: a limit is no integer, or a hook no `BaseMonitor`.

    Example:
      >>> TrainSpec("CartPole-v1", max_timesteps=100_000).max_steps is None
      True
    """

    env: Any
    max_steps: int | None = None
    hooks: Sequence[monitor.BaseMonitor] = ()
    max_timesteps: int | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("max_steps", "max_timesteps"):
            limit = getattr(self, name)
            if limit is not None:
                intervals.positive_count(f"TrainSpec({name}=…)", limit)
        object.__setattr__(self, "hooks", _hooks(self.hooks))


@foreign_names.told_fields
@dataclasses.dataclass(frozen=True)
class EvalSpec:
    """What `train_and_evaluate` evaluates on, how often, and what it exports then.

    Attributes:
      env: as for `PGAgent.evaluate`; not the environment object that is trained on.
      episodes: how many an evaluation plays.
      hooks: `BaseMonitor`s of the evaluations; see `PGAgent.evaluate`.
      exporters: an `Exporter` or several, called after each evaluation, in order.
      throttle_secs: an evaluation starts at least so long after the one before started.
      start_delay_secs: the first one starts at least so long after training did.
      name: of the evaluation, as in `PGAgent.evaluate`: `eval_<name>/` instead of `eval/`.

    Raises:
      ValueError: a number is out of range, or two exporters have one name.
      TypeError: a type is wrong.

    Example:
      >>> EvalSpec("CartPole-v1", episodes=20, throttle_secs=0, start_delay_secs=0).name is None
      True
    """

    env: Any
    episodes: int = 10
    hooks: Sequence[monitor.BaseMonitor] = ()
    exporters: exporters_lib.Exporter | Sequence[exporters_lib.Exporter] = ()
    throttle_secs: float = 600
    start_delay_secs: float = 120
    name: str | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        intervals.positive_count("EvalSpec(episodes=…)", self.episodes)
        for name in ("throttle_secs", "start_delay_secs"):
            seconds = getattr(self, name)
            if isinstance(seconds, bool) or not isinstance(seconds, int | float):
                raise TypeError(f"EvalSpec got {name}={seconds!r}; expected seconds, 0 or more.")
            if not (math.isfinite(seconds) and seconds >= 0):
                raise ValueError(f"EvalSpec got {name}={seconds!r}; expected seconds, 0 or more.")
        object.__setattr__(self, "hooks", _hooks(self.hooks))
        object.__setattr__(self, "exporters", _exporters(self.exporters))


def train_and_evaluate(
    agent: agent_lib.PGAgent, train_spec: TrainSpec, eval_spec: EvalSpec
) -> tuple[dict[str, float], list[Any]]:
    """Trains, evaluates by turns, keeps the best checkpoint and exports.

    It all happens in this process, unless TF_CONFIG names a cluster (below). An evaluation is due
    at each checkpoint of the agent's `RunConfig` (`save_checkpoints_steps` and the like), as far as
    `throttle_secs` and `start_delay_secs` allow, and at the end; a checkpoint holds what was
    evaluated. The results are where an `EvaluationHook` puts them: `model_dir/eval/`,
    `model_dir/best/`, `RunContext.evaluations`, so hooks that stop a run on evaluations go in
    `train_spec.hooks`. Exports are in `model_dir/export/<exporter's name>/`.

    Where the limits are reached already nothing is trained; it is evaluated and exported as at the
    end. Started again after a kill, a run goes on as `PGAgent.train` does.

    In a cluster each process has its part, by `RunConfig.task_type`: a "chief" and the workers
    train (`RunConfig(train_distribute=…)`), and an "evaluator" follows their checkpoints in
    `model_dir`, which all of them see: it evaluates, keeps the best and exports, until training has
    ended. Hooks of the training that stop on evaluations see those of the evaluator.

    Args:
      agent: the agent.
      train_spec: see `TrainSpec`.
      eval_spec: see `EvalSpec`.

    Returns:
      The results of the last evaluation, and what the exporters returned for it when training had
      ended, without the None of those that exported nothing. Nothing on a chief or worker.

    Raises:
      TypeError: an argument is of another type.
      ValueError: there are exporters and no `model_dir`, or the process has no part in the
        cluster that it could take.

    Example:

        results, exports = pgest.train_and_evaluate(
            agent,
            pgest.TrainSpec("CartPole-v1", max_timesteps=100_000),
            pgest.EvalSpec("CartPole-v1", exporters=[pgest.BestExporter()], throttle_secs=60),
        )
    """
    given = (agent, agent_lib.PGAgent), (train_spec, TrainSpec), (eval_spec, EvalSpec)
    for value, kind in given:
        if not isinstance(value, kind):
            raise TypeError(
                f"train_and_evaluate got {type(value).__name__} for {kind.__name__}; expected "
                "train_and_evaluate(agent, TrainSpec(env, ...), EvalSpec(env, ...))."
            )
    if eval_spec.exporters and agent.model_dir is None:
        raise ValueError(
            "EvalSpec has exporters, and the agent has no model_dir to export to: "
            "PGAgent(..., model_dir='runs/name')."
        )
    # A worker that is alone evaluates by itself, as a process without a cluster does.
    if agent.config.task_type != "worker" or agent.config.num_worker_replicas > 1:
        return _take_part(agent, train_spec, eval_spec)
    evaluating = _EvaluatingHook(eval_spec, defaults.checkpoint_clock(agent.config))
    agent.train(
        train_spec.env,
        hooks=[*train_spec.hooks, evaluating],
        max_steps=train_spec.max_steps,
        max_timesteps=train_spec.max_timesteps,
    )
    if evaluating.results is None:
        return _evaluated(agent, eval_spec)
    return evaluating.results, evaluating.exports


def _take_part(
    agent: agent_lib.PGAgent, train_spec: TrainSpec, eval_spec: EvalSpec
) -> tuple[dict[str, float], list[Any]]:
    """This process's part in a cluster."""
    config, model_dir = agent.config, agent.model_dir
    _check_part(config, model_dir)
    limits = (train_spec.max_steps, train_spec.max_timesteps)
    book = following.Book(str(model_dir), limits)
    if config.task_type == run_config.EVALUATOR:
        time.sleep(eval_spec.start_delay_secs)
        follower = following.Follower(book, str(model_dir), eval_spec.name, eval_spec.throttle_secs)
        return follower.follow(
            lambda path: _evaluated_at(agent, eval_spec, path),
            lambda path, results, last: _exported(agent, eval_spec, path, results, is_final=last),
        )
    if config.is_chief:
        book.begin()
    agent.train(
        train_spec.env,
        hooks=[following.TakeEvaluationsHook(book), *train_spec.hooks],
        max_steps=train_spec.max_steps,
        max_timesteps=train_spec.max_timesteps,
    )
    if config.is_chief:
        book.end(agent.latest_checkpoint())
    return {}, []


def _check_part(config: run_config.RunConfig, model_dir: str | None) -> None:
    kind, count = config.task_type, config.num_worker_replicas
    if model_dir is None:
        raise ValueError(
            f"train_and_evaluate runs as {kind} of a cluster, and the agent has no model_dir: give "
            "RunConfig(model_dir=…) a directory that all processes see."
        )
    if kind == run_config.EVALUATOR:
        return
    if kind not in ("chief", "master", "worker"):
        raise ValueError(
            f"TF_CONFIG has the task {kind!r}; train_and_evaluate has parts for a chief, workers "
            "and an evaluator."
        )
    if count > 1 and config.train_distribute is None:
        raise ValueError(
            f"TF_CONFIG names {count} processes that train, and RunConfig has no train_distribute: "
            "RunConfig(train_distribute=tf.distribute.MultiWorkerMirroredStrategy())."
        )


def _evaluated_at(agent: agent_lib.PGAgent, spec: EvalSpec, path: str) -> dict[str, float]:
    results = agent.evaluate(spec.env, spec.episodes, path, spec.name, hooks=spec.hooks)
    if spec.exporters:
        agent._agent_policies(spec.env)  # exporters are not given the environment
    return results


def _evaluated(agent: agent_lib.PGAgent, spec: EvalSpec) -> tuple[dict[str, float], list[Any]]:
    """What is there, where nothing was left to train."""
    results = agent.evaluate(spec.env, spec.episodes, name=spec.name, hooks=spec.hooks)
    if spec.exporters:
        agent._agent_policies(spec.env)  # exporters are not given the environment
    return results, _exported(agent, spec, agent.latest_checkpoint(), results, is_final=True)


def _exported(
    agent: agent_lib.PGAgent,
    spec: EvalSpec,
    checkpoint_path: str | None,
    results: dict[str, float],
    *,
    is_final: bool,
) -> list[Any]:
    """What the exporters returned, without the None of those that exported nothing."""
    exported = []
    for exporter in _exporters(spec.exporters):
        path = os.path.join(str(agent.model_dir), _EXPORT, exporter.name)
        exported.append(exporter.export(agent, path, checkpoint_path, results, is_final))
    return [one for one in exported if one is not None]


class _EvaluatingHook(evaluation.EvaluationHook):
    """Evaluates what an `EvalSpec` says, and calls its exporters.

    Attributes:
      results: of the last evaluation; None before the first.
      exports: what the exporters returned when the run had ended.
    """

    def __init__(self, spec: EvalSpec, every: monitor.Every):
        super().__init__(spec.env, every, episodes=spec.episodes, name=spec.name)
        self._spec = spec
        self._to_export = self._ending = False
        self.results: dict[str, float] | None = None
        self.exports: list[Any] = []

    def begin(self, context: monitor.RunContext) -> None:
        super().begin(context)
        self._clock = context.clock
        self._earliest = context.clock() + self._spec.start_delay_secs

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "wait": self._earliest - self._clock(),
            "results": self.results,
            "to_export": self._to_export,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._earliest = self._clock() + state["wait"]
        self.results, self._to_export = state["results"], state["to_export"]

    def end(self, context: monitor.RunContext) -> None:
        self._ending = True
        super().end(context)
        broken_off = isinstance(context, runs.Run) and context.was_broken_off
        if self.results is not None and not broken_off:
            path = context.save_checkpoint()
            self.exports = _exported(context.agent, self._spec, path, self.results, is_final=True)

    def _is_due(self, context: monitor.RunContext) -> bool:
        return super()._is_due(context) and context.clock() >= self._earliest

    def _play(self, context: monitor.RunContext) -> None:
        self._earliest = context.clock() + self._spec.throttle_secs
        context.evaluate(
            self._spec.env, self._spec.episodes, self._spec.name, hooks=self._spec.hooks
        )

    def _note(self, made: monitor.Evaluation) -> bool:
        super()._note(made)
        self.results, self._to_export = dict(made.results), True
        return True

    def _has_left(self) -> bool:
        return super()._has_left() or self._to_export

    def _use(self, context: monitor.RunContext, path: str | None) -> None:
        super()._use(context, path)
        wanted, self._to_export = self._to_export, False
        if wanted and not self._ending and self.results is not None:
            _exported(context.agent, self._spec, path, self.results, is_final=False)


def _hooks(given: Sequence[monitor.BaseMonitor] | None) -> tuple[monitor.BaseMonitor, ...]:
    hooks = () if given is None else given
    defaults.check_hooks(hooks)
    return tuple(hooks)


def _exporters(given: Any) -> tuple[exporters_lib.Exporter, ...]:
    """Several exporters, whose directories differ."""
    exporters = (given,) if isinstance(given, exporters_lib.Exporter) else tuple(given or ())
    for exporter in exporters:
        if not isinstance(exporter, exporters_lib.Exporter):
            raise TypeError(
                f"EvalSpec(exporters=…) takes Exporters, such as pgest.BestExporter(); got "
                f"{exporter!r} of type {type(exporter).__name__}."
            )
    names = [exporter.name for exporter in exporters]
    if len(set(names)) < len(names):
        raise ValueError(
            f"EvalSpec has exporters called {', '.join(names)}: give each a name of its own, "
            "which is that of its directory."
        )
    return exporters
