"""Weights & Biases and MLflow: settings, scalars against timesteps, and the policy at the end."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from pgest.hooks import extras, intervals, monitor, records, run_pages

_X_AXES = ("timestep", "step", "episode", "seconds")
_DEFAULT_STEPS = 10


class _TrackerHook(monitor.BaseMonitor):
    """What both have in common; a subclass talks to its library.

    The library's run is opened with the first point, since only then it is known whether a run that
    was killed goes on.
    """

    def __init__(self, every: monitor.Every | None, x_axis: str, export: bool) -> None:
        name = type(self).__name__
        self._every = None if every is None else intervals.require_every(name, every)
        if x_axis not in _X_AXES:
            raise ValueError(f"{name} takes x_axis in {', '.join(_X_AXES)}; got {x_axis!r}.")
        self._x_axis = x_axis
        self._export = export
        self._id: str | None = None
        self._is_open = False

    @property
    def run_id(self) -> str | None:
        """What the library calls the run; None before its first point."""
        return self._id

    def begin(self, context: monitor.RunContext) -> None:
        """Starts the clock."""
        steps = getattr(context.config, "save_summary_steps", None) or _DEFAULT_STEPS
        self._timer = (self._every or monitor.Every(steps=steps)).timer(context)
        self._maker = records.RecordMaker(context)
        self._id, self._is_open = None, False
        self._logged_step: int | None = None

    def state(self) -> dict[str, Any]:
        """Which run of the library it is, and what the next point is made of."""
        return {
            "id": self._id,
            "timer": self._timer.state(),
            "logged_step": self._logged_step,
            **self._maker.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on in the same run."""
        self._timer.restore(state["timer"])
        self._maker.restore(state)
        self._id, self._logged_step = state["id"], state["logged_step"]

    def after_run(self, context: monitor.RunContext) -> None:
        """Logs where it is time; the first update always."""
        if self._timer.due(context) or self._logged_step is None:
            self._log(context)

    def after_episode(self, context: monitor.RunContext) -> None:
        """Takes the episode in, and logs where it is time."""
        self._maker.add_episodes(context)
        if self._timer.due(context):
            self._log(context)

    def end(self, context: monitor.RunContext) -> None:
        """Logs what came since, and the policy; closes the library's run."""
        if self._maker.has_news(context) or self._is_open:
            self._ensure_open(context)
            try:
                if self._maker.has_news(context):
                    self._log(context)
                if self._export and context.error is None:
                    with tempfile.TemporaryDirectory() as directory:
                        self._log_directory(context.agent.export_saved_model(directory))
            finally:
                self._is_open = False
                self._close(failed=context.error is not None)

    def _ensure_open(self, context: monitor.RunContext) -> None:
        if not self._is_open:
            self._id = self._open(run_pages.flattened(context.hyperparameters), self._id)
            self._is_open = True

    def _log(self, context: monitor.RunContext) -> None:
        self._ensure_open(context)
        record = self._maker.take(context)
        x = record[self._x_axis]
        if self._logged_step == context.step:  # nothing is new of the update, as at the end
            told = {"step", "timestep", "episode", "seconds", *context.metrics} - {self._x_axis}
            record = {name: value for name, value in record.items() if name not in told}
        self._logged_step = context.step
        self._log_scalars(record, x)

    def _open(self, params: Mapping[str, Any], run_id: str | None) -> str:
        """Opens a run, or the one of `run_id` again; returns its id."""
        raise NotImplementedError

    def _log_scalars(self, scalars: Mapping[str, float], x: float) -> None:
        raise NotImplementedError

    def _log_directory(self, path: str) -> None:
        raise NotImplementedError

    def _close(self, failed: bool) -> None:
        raise NotImplementedError


class WandbHook(_TrackerHook):
    """Logs a run to Weights & Biases.

    Settings become the run's config, the records of `HistoryHook` its scalars, all against
    `x_axis`; at a regular end the policy, as `export_saved_model` writes it, is an artifact of type
    "model". A run that is killed and goes on is one run there too; its points after the checkpoint
    are then there twice, with equal values.

    It needs `pip install 'pgest[wandb]'`.

    Args:
      every: how often; as often as TensorBoard's summaries unless given.
      x_axis: "timestep", "step", "episode" or "seconds".
      export: whether to log the policy.
      **init: for `wandb.init`, such as `project`, `name`, `group`, or `mode="offline"`.

    Raises:
      ImportError: wandb is not installed.
      TypeError: `every` is no `Every`.
      ValueError: an unknown `x_axis`.

    Example:

        agent.train("CartPole-v1", timesteps=100_000, hooks=[pgest.WandbHook(project="cartpole")])
    """

    def __init__(
        self,
        every: monitor.Every | None = None,
        *,
        x_axis: str = "timestep",
        export: bool = True,
        **init: Any,
    ) -> None:
        super().__init__(every, x_axis, export)
        self._wandb = extras.imported("wandb", "WandbHook", "wandb")
        self._init = init
        self._run: Any = None

    def _open(self, params: Mapping[str, Any], run_id: str | None) -> str:
        known: dict[str, Any] = {"config": {**params, **(self._init.get("config") or {})}}
        if run_id is not None:
            known |= {"id": run_id, "resume": "allow"}
        self._run = self._wandb.init(**{**self._init, **known})
        self._run.define_metric(self._x_axis)
        self._run.define_metric("*", step_metric=self._x_axis)
        return str(self._run.id)

    def _log_scalars(self, scalars: Mapping[str, float], x: float) -> None:
        self._run.log(dict(scalars))

    def _log_directory(self, path: str) -> None:
        artifact = self._wandb.Artifact(f"policy-{self._run.id}", type="model")
        artifact.add_dir(path)
        self._run.log_artifact(artifact)

    def _close(self, failed: bool) -> None:
        run, self._run = self._run, None
        run.finish(exit_code=int(failed))


class MlflowHook(_TrackerHook):
    """Logs a run to MLflow.

    Settings become the run's params, the records of `HistoryHook` its metrics, whose step is
    `x_axis`; at a regular end the policy, as `export_saved_model` writes it, is the artifact
    `policy`. A run that is killed and goes on is one run there too, with each point once.

    It needs `pip install 'pgest[mlflow]'`.

    Args:
      every: how often; as often as TensorBoard's summaries unless given.
      x_axis: "timestep", "step" or "episode"; or "seconds", whole ones.
      export: whether to log the policy.
      experiment: the name of the experiment; made where there is none.
      run_name: the name of the run; MLflow makes one up unless given.
      tracking_uri: where to, such as "sqlite:///mlflow.db"; MLflow's own setting unless given.

    Raises:
      ImportError: mlflow is not installed.
      TypeError: `every` is no `Every`.
      ValueError: an unknown `x_axis`.

    Example:

        hook = pgest.MlflowHook(experiment="cartpole", tracking_uri="sqlite:///mlflow.db")
        agent.train("CartPole-v1", timesteps=100_000, hooks=[hook])
    """

    def __init__(
        self,
        every: monitor.Every | None = None,
        *,
        x_axis: str = "timestep",
        export: bool = True,
        experiment: str = "Default",
        run_name: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        super().__init__(every, x_axis, export)
        self._mlflow = extras.imported("mlflow", "MlflowHook", "mlflow")
        self._experiment, self._run_name = experiment, run_name
        self._client: Any = None
        self._uri = tracking_uri
        self._last = -1

    def _open(self, params: Mapping[str, Any], run_id: str | None) -> str:
        self._client = self._mlflow.MlflowClient(tracking_uri=self._uri)
        if run_id is not None:
            logged = self._client.get_metric_history(run_id, "timestep")
            self._last = max((metric.step for metric in logged), default=-1)
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        self._last = -1
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = (
            self._client.create_experiment(self._experiment)
            if found is None
            else found.experiment_id
        )
        run_id = str(self._client.create_run(experiment, run_name=self._run_name).info.run_id)
        given = [self._mlflow.entities.Param(name, str(value)) for name, value in params.items()]
        self._client.log_batch(run_id, params=given)
        return run_id

    def _log_scalars(self, scalars: Mapping[str, float], x: float) -> None:
        if int(x) <= self._last:
            return  # told again where the run goes on
        now = int(1000 * time.time())
        metrics = [
            self._mlflow.entities.Metric(_mlflow_name(name), float(value), now, int(x))
            for name, value in scalars.items()
        ]
        self._client.log_batch(self._id, metrics=metrics)

    def _log_directory(self, path: str) -> None:
        self._client.log_artifacts(self._id, path, artifact_path="policy")

    def _close(self, failed: bool) -> None:
        self._client.set_terminated(self._id, status="FAILED" if failed else "FINISHED")


def _mlflow_name(name: str) -> str:
    """MLflow has a list of characters for names; an environment's info may have others."""
    return re.sub(r"[^\w\-. :/]", "_", name)
