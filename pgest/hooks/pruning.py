"""Trials of Optuna that end early where others were better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgest.hooks import evaluation, extras, monitor


class OptunaPruningHook(evaluation.EvaluationHook):
    """Evaluates, reports to an Optuna trial, and ends the run where the trial is to be pruned.

    Each evaluation is reported under its number, the counter of `every` divided by its period, so
    that trials with batches of other sizes are compared at one moment. Where Optuna wants to prune,
    the run ends in order, and `train` raises `optuna.TrialPruned`, which a study understands.

    It needs `pip install 'pgest[tune]'`.

    Args:
      trial: the `optuna.Trial`.
      env: as for `EvaluationHook`.
      every: how often; not in seconds, since trials run side by side and on other machines.
      episodes: how many episodes an evaluation plays.
      name: as for `EvaluationHook`.
      keep_best: whether to keep the best checkpoint.

    Attributes:
      value: the mean return of the latest evaluation, for the objective to return; None before.

    Raises:
      ImportError: Optuna is not installed.
      ValueError: `every` is in seconds; and as `EvaluationHook`.
      TypeError: as `EvaluationHook`.

    Example:

        def objective(trial):
            rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
            agent = pgest.PGAgent(pgest.models.PPO(learning_rate=rate))
            hook = pgest.OptunaPruningHook(trial, "CartPole-v1", pgest.Every(timesteps=5_000))
            agent.train("CartPole-v1", timesteps=50_000, hooks=[hook])
            return hook.value
    """

    def __init__(
        self,
        trial: Any,
        env: Any,
        every: monitor.Every,
        *,
        episodes: int = 10,
        name: str | None = None,
        keep_best: bool = False,
    ) -> None:
        super().__init__(env, every, episodes=episodes, name=name, keep_best=keep_best)
        if every.unit == "seconds":
            raise ValueError(
                "OptunaPruningHook takes Every(timesteps=…), Every(steps=…) or Every(episodes=…); "
                f"got {every}: trials could not be compared at one moment."
            )
        self._trial = trial
        self._unit, self._period = every.unit, int(every.period)
        self._optuna = extras.imported("optuna", "OptunaPruningHook", "tune")
        self.value: float | None = None

    def begin(self, context: monitor.RunContext) -> None:
        """Starts the clock."""
        super().begin(context)
        self.value, self._is_pruned, self._reported_at = None, False, 0

    def state(self) -> dict[str, Any]:
        """As of `EvaluationHook`, and what was reported."""
        return {**super().state(), "value": self.value, "reported_at": self._reported_at}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the trial."""
        super().restore(state)
        self.value, self._reported_at = state["value"], state["reported_at"]

    def end(self, context: monitor.RunContext) -> None:
        """Evaluates the final weights, or says that the trial was pruned.

        Raises:
          optuna.TrialPruned: it was.
        """
        if self._is_pruned:
            raise self._optuna.TrialPruned(context.stop_reason)
        super().end(context)

    def _evaluate(self, context: monitor.RunContext) -> None:
        before = len(context.evaluations)
        super()._evaluate(context)
        if len(context.evaluations) == before:
            return  # the weights are broken
        self.value = context.evaluations[-1].mean_return
        number = int(getattr(context, self._unit.removesuffix("s"))) // self._period
        if number <= self._reported_at:
            return  # at the end, after the last look
        self._reported_at = number
        self._trial.report(self.value, number)
        if self._trial.should_prune():
            self._is_pruned = True
            context.request_stop(
                f"Optuna prunes the trial: return {self.value:.6g} at look {number}"
            )
