"""One call of `train`: its limits, its hooks, interrupts, and how it ends."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent import futures
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.agents import agreement, descriptions, resuming, turns
from pgest.contract import episodes as episodes_lib
from pgest.hooks import monitor
from pgest.variables import workers as workers_lib

_LOGGER = logging.getLogger(__name__)


class Run(monitor.RunContext):
    """What hooks see of a run, and what starts and ends it; a context manager.

    Args:
      agent: the `PGAgent` that trains.
      environment: what the user gave.
      limits: absolute.

    Attributes:
      interrupt: the signal that ends the run, which this worker or another one got; None: none.
      agreement: with the other workers; None where there are none.
    """

    def __init__(self, agent: Any, environment: Any, limits: monitor.Limits):
        super().__init__(
            model_dir=agent.model_dir if agent.model.is_chief else None,
            config=agent.config,
            limits=limits,
            agent=agent,
            environment=environment,
            hyperparameters=descriptions.hyperparameters(agent, environment),
        )
        self._agent = agent
        self._counters = agent.counters  # the agent itself looks for a checkpoint each time
        self.turns = turns.Turns(self)
        self._left: dict[str, np.ndarray] | None = None  # when hooks were about to end
        self.interrupt: int | None = None
        self.agreement: agreement.Agreement | None = None
        self._insisted = False
        self._handlers: dict[int, Any] = {}
        self.look()
        if agent.model.workers is not None:
            self.agreement = agreement.Agreement(agent.model.workers, self)

    def look(self) -> None:
        """Takes over the agent's counters."""
        counters = self._counters
        self.step, self.timestep, self.episode = counters.step, counters.timestep, counters.episode

    def __enter__(self) -> Run:
        self._agent._run = self
        self._agent.events.begin()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._interrupted)
        return self

    def memory(self) -> dict[str, np.ndarray]:
        """What another process needs to go on with this run, beside what the trainer knows."""
        if self._left is not None:
            return self._left
        return resuming.memory_of(self)

    def is_over(self) -> bool:
        """Whether the run ends: a hook or a signal asked, or a limit is reached."""
        if self.should_stop:
            return True
        self.look()
        return self.limits.reached(self)

    def must_pause(self) -> bool:
        """Asked before each timestep: whether acting has to stop here."""
        if self.agreement is not None:
            return self.agreement.must_pause()
        if self._stop_reason is not None:
            return True
        counters, limits = self._counters, self.limits
        return (limits.max_timesteps is not None and counters.timestep >= limits.max_timesteps) or (
            limits.max_episodes is not None and counters.episode >= limits.max_episodes
        )

    def request_stop(self, reason: str = "") -> None:
        """Asks the run to end; see `RunContext.request_stop`. Of several workers, all do."""
        if self.agreement is None:
            super().request_stop(reason)
        else:
            self.agreement.ask(reason)

    def stop_with_others(self, reason: str) -> None:
        """Ends the run, as all workers do now."""
        super().request_stop(reason)

    @property
    def steps_left(self) -> int | None:
        """How many steps the limit still allows; None without one."""
        if self.limits.max_steps is None:
            return None
        return self.limits.max_steps - self._counters.step

    def may_end_within(self, steps: int) -> bool:
        """Whether the run is over once so many more steps are done, whatever is collected."""
        left = self.steps_left
        return self.must_pause() or (left is not None and left <= steps)

    @property
    def progress(self) -> float:
        """How near the run is to the nearest of its limits, 0 to 1; 0 without limits."""
        limits, counters = self.limits, self._counters
        pairs = (
            (counters.step, limits.max_steps),
            (counters.timestep, limits.max_timesteps),
            (counters.episode, limits.max_episodes),
        )
        parts = [count / limit for count, limit in pairs if limit is not None]
        return min(max(parts, default=0.0), 1.0)

    def happened(
        self,
        finished: Sequence[episodes_lib.EpisodeStatistics] = (),
        metrics: Mapping[str, float] | None = None,
        batch_timestep: int | None = None,
    ) -> None:
        """Tells the hooks of episodes that ended together, and of an update after them."""
        self.look()
        self.turns.tell(finished, metrics, batch_timestep)

    def before_update(self) -> None:
        """Tells the hooks that an update comes."""
        self.look()
        for hook in self.turns.begun():
            hook.before_run(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        passed_on = isinstance(error, KeyboardInterrupt) and self.interrupt is not None
        if passed_on and not self._insisted:
            # Ctrl-C in a terminal reaches the processes of an environment too, and comes back as
            # its error: the run was asked to end once, and does so in order.
            error = None
        self.error = error
        if isinstance(error, workers_lib.WorkerLostError):
            self.mark_unhealthy("another worker is lost, maybe amid an update")
        self.look()
        failures: list[BaseException] = []
        try:
            ends = [hook.end for hook in self.turns.begun()]
            for action in (Run._leave, *ends, _save, Run._wait, Run.close, Run._note_files):
                try:
                    action(self)
                # Every hook is ended, whatever another one or an impatient Ctrl-C does.
                except BaseException as exception:
                    failures.append(exception)
            if isinstance(error, tf.errors.OpError):
                self.drop_summary_writer()  # it may have been a summary of the model_fn
        finally:
            self._agent._run = None
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            self._agent.stop_reason = self._why(error or next(iter(failures), None))
        if error is None and failures:
            raise failures[0]
        for failure in failures:
            _LOGGER.error("A hook failed while the run was ending: %s", failure)
        if self.interrupt is not None and error is None:
            self._pass_on(self.interrupt)
        return error is None

    def _leave(self) -> None:
        """Keeps what hooks remember now: what they do at the end is no part of a run that goes on.

        A regular end is one; nothing is kept then.
        """
        self._left = {}
        if self.was_broken_off:
            self._left = resuming.memory_of(self)
        if self.error is None and self.turns.begun():
            self.save_own()

    def _wait(self) -> None:
        """Until no thread writes here any more; where nobody can wait, it keeps the lock."""
        if not self._insisted:
            self._agent._saved.wait()

    def _note_files(self) -> None:
        if self.turns.begun() and not self.was_broken_off:
            self._agent.events.note(self.last_checkpoint)

    @property
    def was_broken_off(self) -> bool:
        """Whether an error or a signal ends it."""
        return self.error is not None or self.interrupt is not None

    def _why(self, failure: BaseException | None) -> str:
        """Why the run ended, as one clause."""
        if self.interrupt is not None and self.stop_reason is not None:
            return self.stop_reason
        if failure is not None:
            return f"{type(failure).__name__}: {failure}"
        if self.stop_reason is not None:
            return self.stop_reason or "a hook asked to stop"
        for kind in ("step", "timestep", "episode"):
            limit = getattr(self.limits, f"max_{kind}s")
            if limit is not None and getattr(self, kind) >= limit:
                return f"max_{kind}s={limit} is reached"
        return "nothing was left to do"

    def _pass_on(self, number: int) -> None:
        """Ends what called `train` as well: a loop over seeds is not to go on with the next one.

        Where a person sits at the prompt, the prompt is what Ctrl-C asks for.
        """
        saved = "nothing is saved, there is no model_dir"
        if not self._agent.model.is_chief:
            saved = "the chief saves"
        elif self.model_dir is not None:
            saved = f"the newest checkpoint is {self.newest_checkpoint}"
        _LOGGER.warning(
            "%s: the run ended after step %d; %s.", signal.Signals(number).name, self.step, saved
        )
        if number == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        if not _is_interactive():
            raise KeyboardInterrupt

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        """Lets the step end first; a second signal does not wait."""
        if self.interrupt is not None:
            self._insisted = True
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self.interrupt = number
        self.request_stop(f"{signal.Signals(number).name} was received")

    # --- what RunContext leaves to the run -----------------------------------------------------

    def write_checkpoint(self) -> str | None:
        """Writes a checkpoint of the agent."""
        return self._agent.save_checkpoint()

    def start_checkpoint(self) -> futures.Future[str] | None:
        """Lets a thread write a checkpoint of the agent as it is now."""
        agent = self._agent
        return agent._saved.start(lambda: resuming.state_of(agent._trainer, self))

    def run_evaluation(
        self,
        env: Any,
        *,
        episodes: int,
        name: str | None,
        hooks: Sequence[monitor.BaseMonitor] = (),
    ) -> dict[str, float]:
        """Evaluates the agent with its present weights."""
        return self._agent.evaluate(env, episodes=episodes, name=name, hooks=hooks)

    def non_finite_variables(self) -> list[str]:
        """Names of variables that hold a NaN or an infinity."""
        return self._agent.model.non_finite_variables()

    @property
    def summary_writer(self) -> tf.summary.SummaryWriter | None:
        """The agent's writer: it outlives a run, so that what was traced with it does too."""
        self._writer = self._agent.summary_writer
        return self._writer

    def drop_summary_writer(self) -> None:
        """Lets the next point open a new file, whichever run writes it."""
        super().drop_summary_writer()
        self._agent.events.drop()

    @property
    def has_saved(self) -> bool:
        """Whether the newest checkpoint is of the present counters."""
        counters = self._counters
        return self._saved_at == (counters.step, counters.timestep, counters.episode)

    def save_own(self) -> None:
        """Writes what this worker needs beside the chief's checkpoint."""
        if self.agreement is not None:
            agent = self._agent
            agent._saved.save_own(lambda: resuming.state_of(agent._trainer, self))

    def holds(self, path: str | None) -> None:
        """Says that the checkpoint `path` is of this very moment."""
        self.last_checkpoint = path
        self._saved_at = (self.step, self.timestep, self.episode)

    def close(self) -> None:
        """Flushes the writer, which stays open."""
        self.flush_summaries()


def _save(run: Run) -> None:
    if run.turns.begun():
        run.save_checkpoint()


def settings_of(model_fn: Any, optimizer_params: Any) -> tuple[Any, Any]:
    """The memory that a ready-made model was made for, and its update under the user's settings.

    Raises:
      ValueError: the model_fn does not say what memory it needs.
    """
    if not hasattr(model_fn, "default_memory"):
        raise ValueError(
            "PGAgent got no memory, and this model_fn does not say which one it needs (the "
            "ready-made pgest.models do): pass memory=pgest.BatchMemory(batch_size=2000)."
        )
    if optimizer_params is None or isinstance(optimizer_params, Mapping):
        optimizer_params = {**model_fn.default_optimizer_params(), **(optimizer_params or {})}
    return model_fn.default_memory(), optimizer_params


def _is_interactive() -> bool:
    """Whether a person types the next command: a shell of Python, IPython, a notebook."""
    ipython = sys.modules.get("IPython")
    return hasattr(sys, "ps1") or (ipython is not None and ipython.get_ipython() is not None)


def absolute_limits(
    agent: Any,
    steps: tuple[int | None, int | None],
    timesteps: tuple[int | None, int | None],
    episodes: tuple[int | None, int | None],
) -> monitor.Limits:
    """Turns `steps` and `max_steps`, and their like, into absolute limits.

    Args:
      agent: whose counters tell where the run begins.
      steps: this many more, and up to this many in all; None where there is no such limit.
      timesteps: likewise.
      episodes: likewise.

    Raises:
      ValueError: both of a pair are given, or one is not positive.
      TypeError: one is no integer.
    """
    limits = {}
    counters = agent.counters
    given = (("steps", steps), ("timesteps", timesteps), ("episodes", episodes))
    for kind, (more, total) in given:
        if more is not None and total is not None:
            raise ValueError(
                f"train got {kind}={more} and max_{kind}={total}; give one: {kind} is this many "
                f"more, max_{kind} up to this many in all."
            )
        for name, value in ((kind, more), (f"max_{kind}", total)):
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"train got {name}={value!r}; expected a positive integer.")
            if value <= 0:
                raise ValueError(f"train got {name}={value}; expected a positive integer.")
        if more is not None:
            total = int(more) + getattr(counters, kind[:-1])
        limits[f"max_{kind}"] = None if total is None else int(total)
    return monitor.Limits(**limits)


def check_override(kind: type, agent: type, num_envs: int) -> None:
    """Raises `ValueError` where a subclass of the agent plays episodes of one environment."""
    if kind.run_episode is not agent.run_episode:  # type: ignore[attr-defined]
        raise ValueError(
            f"{kind.__name__} overrides run_episode, which plays one environment, and was given "
            f"{num_envs} at once: give it a single environment, or use a hook (after_episode) in "
            "place of the override."
        )
