"""The guard against NaN and infinity."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from pgest.contract import foreign_names
from pgest.hooks import monitor

_LOGGER = logging.getLogger(__name__)


class NanLossDuringTrainingError(RuntimeError):
    """A metric of an update, or a variable, became NaN or infinite."""


class NanTensorHook(monitor.BaseMonitor):
    """Ends the run when a metric of an update is NaN or infinite.

    The loss is looked at first, then every other metric. What is found marks the run as unhealthy
    (`RunContext.mark_unhealthy`), and an unhealthy run writes no checkpoint, whoever asks for
    one: the newest checkpoint stays the last good one. For that this hook has to see an update
    before any other hook does; `default_hooks` puts it first.

    Weights can be broken although no metric tells (a finite loss with an infinite gradient). So
    the variables are looked at before each checkpoint and at the end; what is found there ends
    the run after the next update, or makes the end fail.

    Args:
      fail_on_nan_loss: True raises `NanLossDuringTrainingError`; False asks the run to stop.
      ignore: names of metrics that may be NaN or infinite (an explained variance is, where all
        returns of a batch are equal).

    Raises:
      TypeError: `ignore` is one string instead of several.

    Example:
      >>> hook = NanTensorHook(ignore=["value/explained_variance"])
    """

    # Metrics are those of all workers, so all of them end in the same update.
    every_worker = True

    @foreign_names.told
    def __init__(self, fail_on_nan_loss: bool = True, *, ignore: Sequence[str] = ()) -> None:
        if isinstance(ignore, str):
            raise TypeError(
                f"NanTensorHook takes a sequence of names to ignore; got {ignore!r}: write "
                f"ignore=[{ignore!r}]."
            )
        self._fail = bool(fail_on_nan_loss)
        self._ignore = frozenset(ignore)

    def begin(self, context: monitor.RunContext) -> None:
        """Starts afresh."""
        self._told = False

    def after_run(self, context: monitor.RunContext) -> None:
        """Looks at the update's metrics.

        Raises:
          NanLossDuringTrainingError: one is not finite, unless the hook was told to stop only.
        """
        found = {
            name: value
            for name, value in context.metrics.items()
            if not math.isfinite(value) and name not in self._ignore
        }
        if found:
            first = "loss" if "loss" in found else next(iter(found))
            context.mark_unhealthy(f"metric {first!r} is {found[first]}")
        if not context.healthy:
            self._fail_or_stop(context, found)

    def end(self, context: monitor.RunContext) -> None:
        """Looks at the variables after a regular end, so that no run ends well with broken ones.

        Raises:
          NanLossDuringTrainingError: one is not finite, unless the hook was told to stop only.
        """
        if context.error is None and not self._told and not context.check_variables():
            self._fail_or_stop(context, {})

    def _fail_or_stop(self, context: monitor.RunContext, found: dict[str, float]) -> None:
        self._told = True
        message = self._message(context, found)
        if self._fail:
            raise NanLossDuringTrainingError(message)
        _LOGGER.error("%s", message)
        context.request_stop(str(context.unhealthy_reason))

    def _message(self, context: monitor.RunContext, found: dict[str, float]) -> str:
        others = {name: value for name, value in context.metrics.items() if name not in found}
        saved = (
            f"The last good checkpoint is {context.newest_checkpoint}."
            if context.newest_checkpoint is not None
            else "There is no checkpoint yet."
        )
        return (
            f"After step {context.step} (timestep {context.timestep}, episode {context.episode}) "
            f"{context.unhealthy_reason}. Not finite: {_listed(found)}; finite: {_listed(others)}. "
            f"{saved} Try a smaller learning rate, minimize(..., clip_norm=...), and log_prob of a "
            "distribution sooner than tf.math.log of a probability."
        )


def _listed(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} = {value:.6g}" for name, value in metrics.items()) or "none"
