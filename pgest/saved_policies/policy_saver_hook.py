"""`PolicySaverHook`: exports of the policy while it is trained."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.hooks import monitor
from pgest.policies import ready_made
from pgest.saved_policies import directories, triggers
from pgest.variables import counters

_LOGGER = logging.getLogger(__name__)

DIRECTORY = "policies"


class PolicySaverHook(monitor.BaseMonitor):
    """Exports the agent's policies when a run begins, and their weights every so often.

    What is written, and how it is opened again, says `PolicySavedModelTrigger`, which does the
    work. The metadata of an export are `global_step`, `global_timestep` and `global_episode`. A
    run that goes on in the same directory keeps its exports and adds checkpoints.

    A save that fails during the run is logged and the run goes on; what was saved before is
    untouched. If the last one, at the end, fails too, the error is raised.

    Args:
      every: how often the weights are saved; they are at the end in any case.
      directory: where to; `model_dir/policies` if None.
      keep_max: how many checkpoints are kept; None keeps all.
      async_saving: whether files are written in a thread while the run goes on.
      portable: whether `portable_policy/`, which needs no TensorFlow Probability, is written too.
      **options: of `PolicySavedModelTrigger`: `batch_size`, `save_greedy_policy`,
        `save_collect_policy`, `metadata_metrics`, `extra_concrete_functions`, `seed`, ….

    Raises:
      TypeError: `every` is no `Every`.

    Example:

        agent.train(env, max_steps=1000, hooks=[PolicySaverHook(every=Every(steps=100))])
        policy = load_policy("runs/cartpole/policies")
    """

    def __init__(
        self,
        every: monitor.Every,
        directory: str | os.PathLike[str] | None = None,
        *,
        keep_max: int | None = 5,
        async_saving: bool = True,
        portable: bool = False,
        **options: Any,
    ) -> None:
        if not isinstance(every, monitor.Every):
            raise TypeError(
                f"every: got {every!r} of type {type(every).__name__}, expected an Every, such as "
                "Every(steps=100)."
            )
        self._every = every
        self._directory = directory
        self._options = {
            **options,
            "keep_max": keep_max,
            "async_saving": async_saving,
            "portable": portable,
        }
        self._trigger: triggers.PolicySavedModelTrigger | None = None

    def begin(self, context: monitor.RunContext) -> None:
        """Exports the policies.

        Raises:
          ValueError: there is neither a directory nor a `model_dir`.
          OSError: the directory cannot be written to.
        """
        directory = self._directory
        if directory is None:
            if context.model_dir is None:
                raise ValueError(
                    "PolicySaverHook has no directory and the run has no model_dir; give "
                    "directory=... or PGAgent(model_dir=...)."
                )
            directory = os.path.join(context.model_dir, DIRECTORY)
        options = dict(self._options)
        # A model that gives actions and no distribution acts greedily as it is.
        is_greedy = isinstance(context.agent.policy, ready_made.GreedyPolicy)
        options.setdefault("save_greedy_policy", is_greedy)
        options["metadata_metrics"] = {
            "global_step": _Count(lambda: context.step),
            "global_timestep": _Count(lambda: context.timestep),
            "global_episode": _Count(lambda: context.episode),
            **(options.get("metadata_metrics") or {}),
        }
        # `Every` says when; the trigger saves whenever it is asked.
        self._trigger = triggers.PolicySavedModelTrigger(
            directory,
            context.agent,
            context.agent.counters.variables[counters.GLOBAL_STEP],
            interval=1,
            **options,
        )
        if self._is_saved(context.step):
            self._trigger.set_start(context.step)
        else:
            self._trigger.set_start(-1)
        self._timer = self._every.timer(context)

    def state(self) -> None:
        """Remembers nothing, and lets exports under way end, since a checkpoint is being written.

        A run that goes on from there would not write them again.
        """
        if self._trigger is not None:
            try:
                self._trigger.flush()
            except (OSError, tf.errors.OpError) as error:
                _LOGGER.error("A policy was not saved: %s", error)

    def after_run(self, context: monitor.RunContext) -> None:
        """Saves the weights where it is time."""
        if not self._timer.due(context):
            return
        try:
            self._save(context)
        except (OSError, tf.errors.OpError) as error:
            _LOGGER.error("No policy was saved at step %d: %s", context.step, error)

    def after_episode(self, context: monitor.RunContext) -> None:
        """Saves the weights where it is time: episodes end between updates as well."""
        self.after_run(context)

    def end(self, context: monitor.RunContext) -> None:
        """Saves the last weights and waits until they are on the disk."""
        trigger, self._trigger = self._trigger, None
        if trigger is None:
            return
        try:
            try:
                trigger.flush()
            except (OSError, tf.errors.OpError) as error:
                _LOGGER.error("A policy was not saved: %s", error)
                trigger.set_start(-1)  # it may be the last one, which is then saved again
            if context.healthy:
                trigger(context.step, force_trigger=True)
        finally:
            trigger.close(final_save=False)

    def _save(self, context: monitor.RunContext) -> None:
        if self._trigger is not None and context.healthy:
            self._trigger(context.step, force_trigger=True)

    def _is_saved(self, step: int) -> bool:
        """Whether the directory holds the present weights."""
        if self._trigger is None:
            return False
        if triggers.RAW_POLICY in self._trigger.exported:
            return True
        path = os.path.join(self._trigger.saved_model_dir, directories.CHECKPOINTS)
        return step in directories.checkpoint_steps(path)


class _Count:
    """A counter of the run, as a metric."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count

    def result(self) -> np.int64:
        """The present count."""
        return np.int64(self._count())
