"""The checkpoints of a run: when one is written, by whom, and when none is."""

from __future__ import annotations

import abc
import logging
from collections.abc import Sequence
from concurrent import futures

from pgest.variables import checkpoints

_LOGGER = logging.getLogger(__name__)


class RunCheckpoints(abc.ABC):
    """What a run knows of its checkpoints, and whether its weights are worth one.

    Args:
      model_dir: where the run writes; None for a run that writes nothing.

    Attributes:
      step: `global_step`, which is that of the next checkpoint.
      timestep: `global_timestep`.
      episode: `global_episode`.
    """

    def __init__(self, model_dir: str | None) -> None:
        self.model_dir = model_dir
        self.step = 0
        self.timestep = 0
        self.episode = 0
        self._last_checkpoint: str | None = None
        self._writing: futures.Future[str] | None = None  # a checkpoint
        self._unhealthy_reason: str | None = None
        self._saved_at: tuple[int, int, int] | None = None

    # --- what an agent's run overrides ---------------------------------------------------------

    def write_checkpoint(self) -> str | None:
        """Writes a checkpoint now and returns its path; None where there is no `model_dir`."""
        return None

    def start_checkpoint(self) -> futures.Future[str] | None:
        """Lets a thread write what is the case now; None where `write_checkpoint` has to."""
        return None

    def non_finite_variables(self) -> Sequence[str]:
        """Names of the variables that hold a NaN or an infinity; looked at before each save."""
        return ()

    @abc.abstractmethod
    def flush_summaries(self) -> None:
        """Brings the points of TensorBoard to the disk."""

    # --- health --------------------------------------------------------------------------------

    def mark_unhealthy(self, reason: str) -> None:
        """Says that the weights are no longer worth keeping; from here on nothing is saved.

        Args:
          reason: what was found, such as "metric 'loss' is nan". The first one is kept.
        """
        if self._unhealthy_reason is None:
            self._unhealthy_reason = reason

    @property
    def healthy(self) -> bool:
        """False once NaN or infinity was found; then `save_checkpoint` writes nothing."""
        return self._unhealthy_reason is None

    @property
    def unhealthy_reason(self) -> str | None:
        """What was found; None while the run is healthy."""
        return self._unhealthy_reason

    def check_variables(self) -> bool:
        """Looks at the variables themselves; marks the run unhealthy where one is not finite.

        Returns:
          Whether the run is healthy.
        """
        if self.healthy:
            broken = list(self.non_finite_variables())
            if broken:
                self.mark_unhealthy(f"NaN or infinity in variables {', '.join(broken)}")
        return self.healthy

    # --- checkpoints ---------------------------------------------------------------------------

    @property
    def last_checkpoint(self) -> str | None:
        """Path of the newest checkpoint that this run wrote; None before.

        One that is being written is waited for.
        """
        self.finish_checkpoint()
        return self._last_checkpoint

    @last_checkpoint.setter
    def last_checkpoint(self, path: str | None) -> None:
        self._last_checkpoint = path

    @property
    def newest_checkpoint(self) -> str | None:
        """Path of the newest checkpoint in `model_dir`, of whichever run; None: there is none.

        It is a good one: nothing is saved once weights are broken.
        """
        return self.last_checkpoint or checkpoints.latest(self.model_dir)

    def save_checkpoint(self, *, wait: bool = True) -> str | None:
        """Writes a checkpoint, unless the weights are broken or were saved already.

        A poisoned checkpoint would become the newest one, and the next run would go on from it;
        so the refusal is here, where every writer passes, and not in each hook. Weights can be
        broken while the loss was still finite (a finite loss with an infinite gradient), so the
        variables themselves are looked at too.

        Args:
          wait: until it is on the disk; False lets a thread write what is the case now, while
            training goes on. One checkpoint is written at a time.

        Returns:
          The path of the checkpoint that holds the present state; None without a `model_dir`,
          where the run is not healthy, or where it is not waited for.

        Raises:
          OSError: it, or the one that was being written, cannot be written.
        """
        self.finish_checkpoint()
        counters = (self.step, self.timestep, self.episode)
        if self.healthy and self._saved_at == counters:
            return self.last_checkpoint
        if not self.check_variables():
            _LOGGER.warning(
                "No checkpoint is written at step %d: %s. The newest good one: %s.",
                self.step, self.unhealthy_reason, self.newest_checkpoint,
            )  # fmt: skip
            return None
        if not wait:
            self._writing = self.start_checkpoint()
            if self._writing is not None:
                self._saved_at = counters
                return None
        path = self.write_checkpoint()
        if path is not None:
            self.last_checkpoint, self._saved_at = path, counters
            self.flush_summaries()
        return path

    def finish_checkpoint(self, *, wait: bool = True) -> None:
        """Takes note of a checkpoint that a thread has written.

        Args:
          wait: for one that is being written; False leaves it alone.

        Raises:
          OSError: it could not be written.
        """
        if self._writing is None or not (wait or self._writing.done()):
            return
        try:
            path = self._writing.result()
        except Exception:  # but not a second Ctrl-C, which does not end the writing
            self._writing = self._saved_at = None
            raise
        self._writing = None
        self.last_checkpoint = path
        self.flush_summaries()
