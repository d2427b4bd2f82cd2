"""What a hook is, what it sees, and when it fires.

A hook is a `BaseMonitor`; what it may look at and ask for is a `RunContext`; how often it fires is
an `Every`. Nothing else of a run is visible to a hook, and hooks do not know of one another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from pgest.hooks import intervals, run_checkpoints
from pgest.hooks import limits as limits_lib
from pgest.variables import whole_files

if TYPE_CHECKING:
    from pgest.contract import episodes as episodes_module
    from pgest.contract import run_config

_LOGGER = logging.getLogger(__name__)

# Hooks and their clock are used together; `monitor.Every` saves each of them an import.
Every = intervals.Every
EveryTimer = intervals.EveryTimer
Limits = limits_lib.Limits


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation that was made during a run.

    Attributes:
      name: the name given to `RunContext.evaluate`; None for the unnamed one.
      step: `global_step` of the weights that were evaluated.
      timestep: `global_timestep` then.
      episode: `global_episode` then.
      results: what `PGAgent.evaluate` returned.
    """

    name: str | None
    step: int
    timestep: int
    episode: int
    results: Mapping[str, float]

    @property
    def mean_return(self) -> float:
        """Mean undiscounted return over the evaluation's episodes."""
        return float(self.results["return_mean"])


class RunContext(run_checkpoints.RunCheckpoints):
    """What a hook sees of a run, and the few things that it may ask for.

    The agent keeps the plain attributes up to date; hooks read them. An agent's run derives from
    this class and overrides `write_checkpoint`, `run_evaluation` and `non_finite_variables`.

    Args:
      model_dir: where the run writes; None for a run that writes nothing.
      config: the run's `RunConfig`.
      limits: where the run ends. Hooks may tighten it in `begin`; whoever runs the loop reads
        `context.limits` after all hooks have begun.
      agent: the `PGAgent`.
      environment: the environment trained on, as the user gave it.
      hyperparameters: what the HParams page of TensorBoard shows; nested mappings are flattened.
      clock: seconds as a float, never going back; another one makes tests independent of time.

    Attributes:
      step: `global_step` after what just happened.
      timestep: `global_timestep` after what just happened.
      episode: `global_episode` after what just happened.
      batch_timestep: `global_timestep` when the batch of the last update was full, where others
        were collected since (`overlap_updates`); else None.
      metrics: floats by name, of the last update ("loss", "policy/entropy", …); empty before it.
      episodes: in `after_run` the episodes that ended since the previous update, in
        `after_episode` exactly the one, else empty.
      evaluations: every evaluation made through `evaluate` in this run, oldest first.
      error: in `end`, what made the run fail or interrupted it; None after a regular end.
    """

    def __init__(
        self,
        *,
        model_dir: str | None = None,
        config: run_config.RunConfig | None = None,
        limits: Limits | None = None,
        agent: Any = None,
        environment: Any = None,
        hyperparameters: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(model_dir)
        self.config = config
        self.limits = limits if limits is not None else Limits()
        self.agent = agent
        self.environment = environment
        self.hyperparameters: Mapping[str, Any] = dict(hyperparameters or {})
        self.clock = clock
        self.batch_timestep: int | None = None
        self.metrics: Mapping[str, float] = {}
        self.episodes: Sequence[episodes_module.EpisodeStatistics] = ()
        self.evaluations: list[Evaluation] = []
        self.error: BaseException | None = None
        self._stop_reason: str | None = None
        self._summaries_requested = False
        self._writer: tf.summary.SummaryWriter | None = None

    # --- what an agent's run overrides ---------------------------------------------------------

    def run_evaluation(
        self, env: Any, *, episodes: int, name: str | None, hooks: Sequence[BaseMonitor] = ()
    ) -> dict[str, float]:
        """Plays greedy episodes with the present weights; see `PGAgent.evaluate`."""
        raise NotImplementedError(
            f"{type(self).__name__} does not override run_evaluation, so its hooks cannot evaluate"
        )

    # --- stopping ------------------------------------------------------------------------------

    def request_stop(self, reason: str = "") -> None:
        """Asks the run to end once what is under way (an update, an action) is finished.

        Args:
          reason: one clause for the log, such as "return 480.0 >= 475.0". The first one is kept.
        """
        if self._stop_reason is None:
            self._stop_reason = reason
            if reason:
                _LOGGER.info("Stopping at step %d: %s.", self.step, reason)

    @property
    def should_stop(self) -> bool:
        """Whether a hook has asked the run to end."""
        return self._stop_reason is not None

    @property
    def stop_reason(self) -> str | None:
        """The reason given with the first `request_stop`; None while nobody has asked."""
        return self._stop_reason

    # --- things a hook may ask for -------------------------------------------------------------

    def evaluate(
        self,
        env: Any,
        episodes: int = 10,
        name: str | None = None,
        *,
        hooks: Sequence[BaseMonitor] = (),
    ) -> dict[str, float]:
        """Plays greedy episodes and notes the result in `evaluations`.

        Args:
          env: an environment of its own, never the one that is trained on.
          episodes: how many episodes to play.
          name: tells several evaluations of one run apart.
          hooks: of the evaluation, see `PGAgent.evaluate`.

        Returns:
          What `PGAgent.evaluate` returns; "return_mean" among it.
        """
        results = self.run_evaluation(env, episodes=episodes, name=name, hooks=hooks)
        self.evaluations.append(
            Evaluation(name, self.step, self.timestep, self.episode, dict(results))
        )
        return results

    def request_summaries(self) -> None:
        """In `before_run`: this update also runs the `tf.summary` calls of the model_fn."""
        self._summaries_requested = True

    def take_summary_request(self) -> bool:
        """Whether summaries were requested since the last call; for whoever runs the update."""
        requested, self._summaries_requested = self._summaries_requested, False
        return requested

    # --- TensorBoard ---------------------------------------------------------------------------

    @property
    def summary_writer(self) -> tf.summary.SummaryWriter | None:
        """The writer for `model_dir`, opened on first use; None without a `model_dir`."""
        if self._writer is None and self.model_dir is not None:
            # Flushed often: people watch a run while it goes on.
            self._writer = tf.summary.create_file_writer(self.model_dir, flush_millis=10_000)
        return self._writer

    def flush_summaries(self) -> None:
        """Brings what was written so far to the disk; nothing where no writer was opened."""
        if self._writer is not None:
            with self.writing_summaries():
                self._writer.flush()

    @contextlib.contextmanager
    def writing_summaries(self) -> Iterator[None]:
        """To be put around what writes to TensorBoard; what comes after a failure is readable.

        Raises:
          OSError: it cannot be written; says why.
        """
        try:
            yield
        except tf.errors.OpError as error:
            self.drop_summary_writer()
            raise OSError(
                f"TensorBoard's points could not be written to {self.model_dir!r}: "
                f"{whole_files.reason(error)} Checkpoints are as they were. Make room, or let the "
                "directory be written to, and train again: points go on in a new file."
            ) from error

    def drop_summary_writer(self) -> None:
        """Lets the next point open a new file.

        A failed write cuts a record in two. TensorFlow's writer goes on behind it without a word,
        where no reader looks any more.
        """
        self._writer = None

    def close(self) -> None:
        """Closes the summary writer, if one was opened; the agent calls it after every `end`."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class BaseMonitor:
    """A hook: five moments of a run, none of which does anything unless overridden.

    `begin` is called once before the first action; `before_run` and `after_run` surround one
    compiled update, which may be many steps; `after_episode` follows each finished episode, one
    by one also in a vector of environments. `end` is always called where `begin` was, also
    after an error, which is then in `context.error`; an error raised in an `end` is passed on
    once the other hooks have ended. Acting runs no hook.

    Where several workers train one model, hooks run on the chief alone, unless `every_worker`.

    A hook may serve several runs one after the other; `begin` starts it afresh. What it has to
    remember of a run that is killed and goes on, `state` gives and `restore` takes.

    Example:
      >>> class PrintLoss(BaseMonitor):
      ...     def begin(self, context):
      ...         self._timer = Every(steps=10).timer(context)
      ...     def after_run(self, context):
      ...         if self._timer.due(context):
      ...             print(context.step, context.metrics["loss"])
      >>> context = RunContext()
      >>> hook = PrintLoss()
      >>> hook.begin(context)
      >>> context.step, context.metrics = 25, {"loss": 0.5}
      >>> hook.after_run(context)
      25 0.5
    """

    # Whether the hook runs on every worker. There `context.model_dir` is None but on the chief, and
    # what the hook assigns to variables has to be the same on all of them.
    every_worker = False

    def begin(self, context: RunContext) -> None:
        """Called once, when the counters have been restored and nothing has been done yet."""

    def before_run(self, context: RunContext) -> None:
        """Called before each update."""

    def after_run(self, context: RunContext) -> None:
        """Called after each update; `context.metrics` are the update's."""

    def after_episode(self, context: RunContext) -> None:
        """Called after each finished episode, which is `context.episodes[0]`."""

    def state(self) -> Mapping[str, Any] | None:
        """What the hook remembers of the run, for the checkpoint that is being written.

        A checkpoint that is written while hooks have their turns also holds what is told to them:
        the hooks that have not had theirs are told when the run goes on, so each event meets each
        hook once. At a regular end nothing is kept: the next run begins afresh.

        Returns:
          What JSON can hold: a dict of numbers, strings, lists and such dicts; None: nothing.
        """
        return None

    def restore(self, state: Mapping[str, Any]) -> None:
        """Called after `begin` where a run goes on, with what `state` gave in its process.

        Hooks are told apart by their class, and by their order among those of one class.

        Args:
          state: as JSON gives it back.
        """

    def end(self, context: RunContext) -> None:
        """Called once at the end, also where the run failed (`context.error`)."""
