"""Evaluations during a run, and the best checkpoint."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Mapping
from typing import Any

import gymnasium

from pgest.environments import view
from pgest.hooks import best_checkpoint, intervals, monitor

_HAVE_EPISODES = (gymnasium.Env, gymnasium.vector.VectorEnv, view.EnvironmentView)
_LOGGER = logging.getLogger(__name__)


class EvaluationHook(monitor.BaseMonitor):
    """Plays greedy episodes every so often and keeps the best checkpoint.

    The results go to TensorBoard under `eval/` (`eval_<name>/`), to `RunContext.evaluations` and
    so to the stop hooks. The checkpoint with the highest mean return is copied to `best/` (or
    `best/<name>/`) in `model_dir`, with `best.json` beside it: its return, its counters and all
    results. A run that goes on later measures itself against it.

    Args:
      env: an environment of the hook's own, as `PGAgent.evaluate` takes one; never the one that
        is trained on, since an evaluation would break off its episode.
      every: how often.
      episodes: how many episodes an evaluation plays.
      name: tells several evaluation hooks apart.
      keep_best: whether to keep the best checkpoint.
      at_end: whether to evaluate once more at a regular end, where weights have changed since.

    Raises:
      TypeError: `every` is no `Every`, or `episodes` no integer.
      ValueError: `episodes` is not positive, the name cannot be a directory's, or, when the run
        begins, `env` is the environment trained on.

    Example:
      >>> hook = EvaluationHook("CartPole-v1", monitor.Every(timesteps=10_000), episodes=20)
    """

    def __init__(
        self,
        env: Any,
        every: monitor.Every,
        *,
        episodes: int = 10,
        name: str | None = None,
        keep_best: bool = True,
        at_end: bool = True,
    ) -> None:
        self._env = env
        self._every = intervals.require_every("EvaluationHook", every)
        self._episodes = intervals.positive_count("EvaluationHook(episodes=…)", episodes)
        if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
            raise ValueError(
                f"EvaluationHook takes a name that can be a directory's; got {name!r}."
            )
        self._name = name
        self._keep_best = keep_best
        self._at_end = at_end
        self._best: best_checkpoint.BestCheckpoint | None = None

    @property
    def best(self) -> best_checkpoint.BestCheckpoint | None:
        """The best checkpoint so far; None without a `model_dir`, or where none is kept."""
        return self._best

    def begin(self, context: monitor.RunContext) -> None:
        """Starts the clock and reads how good the best of earlier runs was."""
        # An id or a factory makes a new environment each time, one in the graph has no state.
        if self._env is context.environment and isinstance(self._env, _HAVE_EPISODES):
            raise ValueError(
                "EvaluationHook was given the environment that is trained on; an evaluation would "
                "break off its episode. Give it one of its own, such as gymnasium.make(...)."
            )
        self._timer = self._every.timer(context)
        self._evaluated_at = context.step
        self._to_keep: dict[str, Any] | None = None
        self._best = None
        if self._keep_best and context.model_dir is not None:
            directory = posixpath.join(context.model_dir, "best", *filter(None, [self._name]))
            self._best = best_checkpoint.BestCheckpoint(directory)

    def state(self) -> dict[str, Any]:
        """When the next evaluation is due, and one whose checkpoint is not in `best/` yet."""
        return {
            "timer": self._timer.state(),
            "evaluated_at": self._evaluated_at,
            "to_keep": self._to_keep,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the clock."""
        self._timer.restore(state["timer"])
        self._evaluated_at, self._to_keep = state["evaluated_at"], state["to_keep"]

    def after_run(self, context: monitor.RunContext) -> None:
        """Evaluates where it is time."""
        if self._has_left():  # killed before it was used
            self._use(context, context.last_checkpoint)
        if self._is_due(context):
            self._evaluate(context)

    def after_episode(self, context: monitor.RunContext) -> None:
        """Evaluates where it is time: episodes end between updates as well."""
        self.after_run(context)

    def end(self, context: monitor.RunContext) -> None:
        """Evaluates the final weights."""
        self._use(context, context.last_checkpoint)
        if self._at_end and context.error is None and self._evaluated_at != context.step:
            self._evaluate(context)

    def _is_due(self, context: monitor.RunContext) -> bool:
        return self._timer.due(context)

    def _evaluate(self, context: monitor.RunContext) -> None:
        if not context.healthy:
            return
        self._evaluated_at = context.step
        self._play(context)
        if self._note(context.evaluations[-1]):
            self._use(context, context.save_checkpoint())

    def _play(self, context: monitor.RunContext) -> None:
        context.evaluate(self._env, self._episodes, self._name)

    def _note(self, made: monitor.Evaluation) -> bool:
        """Remembers what is to be done with a checkpoint of the evaluated weights, if anything."""
        if self._best is None or not made.mean_return > self._best.mean_return:
            return False
        self._to_keep = {
            "mean_return": made.mean_return,
            "step": made.step,
            "timestep": made.timestep,
            "episode": made.episode,
            "episodes": self._episodes,
            "results": {name: float(value) for name, value in made.results.items()},
        }
        return True

    def _has_left(self) -> bool:
        """Whether something is to be done yet."""
        return self._to_keep is not None

    def _use(self, context: monitor.RunContext, path: str | None) -> None:
        """Does what was remembered with the checkpoint: copies that of the best evaluation."""
        details, self._to_keep = self._to_keep, None
        if self._best is None or details is None or path is None:
            return
        if details["mean_return"] > self._best.mean_return:
            kept = self._best.keep(path, **details)
            _LOGGER.info(
                "Best return so far, %.6g at step %d: %s.",
                details["mean_return"], details["step"], kept,
            )  # fmt: skip
