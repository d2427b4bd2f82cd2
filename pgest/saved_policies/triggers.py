"""Saving at intervals: `IntervalTrigger` and `PolicySavedModelTrigger`."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.policies import ready_made
from pgest.saved_policies import (
    async_policy_saver,
    closing,
    directories,
    policy_functions,
    policy_saver,
    snapshots,
    specs_proto,
)

_LOGGER = logging.getLogger(__name__)

GREEDY_POLICY = "greedy_policy"
COLLECT_POLICY = "collect_policy"
RAW_POLICY = "policy"
PORTABLE_POLICY = "portable_policy"


class IntervalTrigger:
    """Calls a function whenever a value has grown by an interval.

    Args:
      interval: fires when the value is at least this much above the one that it last fired at;
        never where it is 0 or less, forced or not.
      fn: called without arguments.
      start: the value that counts as the last one in the beginning.

    Raises:
      TypeError: `interval` is no number.

    >>> trigger = IntervalTrigger(10, lambda: print("fired"))
    >>> trigger(9)
    >>> trigger(12)
    fired
    """

    def __init__(self, interval: float, fn: Callable[[], Any], start: float = 0) -> None:
        if isinstance(interval, bool) or not isinstance(interval, int | float | np.number):
            raise TypeError(f"interval: got {interval!r}, expected a number.")
        self._interval = interval
        self._fn = fn
        self._start = start
        self._last = start
        if interval <= 0:
            _LOGGER.info("IntervalTrigger: interval %s never fires.", interval)

    def __call__(self, value: Any, force_trigger: bool = False) -> None:
        """Fires where the interval has passed.

        Args:
          value: number or scalar tensor, such as the train step.
          force_trigger: fires where the value is any other than the last.

        Raises:
          Exception: what the function raises; the interval then counts as not yet passed.
        """
        value = value.numpy() if hasattr(value, "numpy") else value
        due = value >= self._last + self._interval or (force_trigger and value != self._last)
        if self._interval <= 0 or not due:
            return
        self._fn()
        self._last = value

    def reset(self) -> None:
        """The interval starts at `start` again (the one of the last `set_start`, if any)."""
        self._last = self._start

    def set_start(self, start: float) -> None:
        """The interval starts here, as when a run goes on from a checkpoint."""
        self._start = self._last = start


class PolicySavedModelTrigger(IntervalTrigger, closing.Closing):
    """Exports the policies of an agent, and checkpoints that update the exports.

    At construction it writes SavedModels to `saved_model_dir/greedy_policy`, `/collect_policy`
    and `/policy`; each time it fires, the variables to
    `saved_model_dir/checkpoints/policy_checkpoint_<train step, 10 digits>`. A checkpoint updates
    any of the three: they have the same variables in the same order. `load_policy` opens them.

    Exports that are there already are kept where they compute the same; otherwise they are
    written again, unless checkpoints of another architecture lie beside them: then the directory
    is refused.

    Call `close()` at the end, or use it in a `with` statement: it saves the last state and waits
    for the thread.

    Args:
      saved_model_dir: directory for all of it.
      agent: has `policy` and `collect_policy`; and, if it likes, `post_process_policy()`, called
        before each save, whose result is saved in place of the policy's own variables.
      train_step: `tf.Variable`; its value names the checkpoints.
      interval: fires after so many train steps; 0 or less never.
      async_saving: whether checkpoints are written in a thread; see `AsyncPolicySaver`.
      metadata_metrics: objects with a `result()` (number, array or tensor), by name, saved along.
      start: train step that the first interval starts at.
      extra_concrete_functions: pairs of name and traced `tf.function`, registered in all exports.
      batch_size: see `PolicySaver`.
      use_nest_path_signatures: see `PolicySaver`.
      save_greedy_policy: False where the policy's distribution has no mode.
      input_fn_and_spec: see `PolicySaver`.
      save_collect_policy: whether `collect_policy` is exported.
      seed: see `PolicySaver`.
      keep_max: how many checkpoints are kept, the newest; None keeps all. Those of later steps than
        the present one, which an earlier run has left, are the first to go.
      portable: whether a SavedModel without TensorFlow Probability is kept up to date in
        `saved_model_dir/portable_policy` too.

    Raises:
      ValueError: `train_step` is no variable, `keep_max` is not positive, or the directory holds
        checkpoints of another architecture.
    """

    def __init__(  # noqa: PLR0913 - the signature is TF-Agents'
        self,
        saved_model_dir: policy_saver.Path,
        agent: Any,
        train_step: tf.Variable,
        interval: int,
        async_saving: bool = False,
        metadata_metrics: Mapping[str, Any] | None = None,
        start: int = 0,
        extra_concrete_functions: Sequence[tuple[str, Any]] | None = None,
        batch_size: int | None = None,
        use_nest_path_signatures: bool = True,
        save_greedy_policy: bool = True,
        input_fn_and_spec: policy_functions.InputFn | None = None,
        save_collect_policy: bool = True,
        seed: int | None = None,
        *,
        keep_max: int | None = None,
        portable: bool = False,
    ) -> None:
        if not isinstance(train_step, tf.Variable):
            raise ValueError(f"train_step must be a TensorFlow variable: {train_step!r}")
        if keep_max is not None and (isinstance(keep_max, bool) or keep_max < 1):
            raise ValueError(f"keep_max: got {keep_max!r}, expected None or an int of 1 or more.")
        super().__init__(interval, self._save_checkpoint, start)
        self._directory = os.path.abspath(directories.local(saved_model_dir))
        self._agent = agent
        self._train_step = train_step
        self._keep_max = keep_max
        self._on_disk: dict[int, str] | None = None
        self._metrics = dict(metadata_metrics or {})
        self._first = {name: _first_result(name, m) for name, m in self._metrics.items()}
        metadata = {
            name: tf.Variable(value, trainable=False, name=name)
            for name, value in self._first.items()
        }
        self._raw_policy = _raw(agent.policy)
        exported: dict[str, ready_made.TFPolicy] = {RAW_POLICY: self._raw_policy}
        if save_collect_policy:
            exported[COLLECT_POLICY] = agent.collect_policy
        if save_greedy_policy:
            is_greedy = isinstance(agent.policy, ready_made.GreedyPolicy)
            greedy = agent.policy if is_greedy else ready_made.GreedyPolicy(agent.policy)
            exported[GREEDY_POLICY] = greedy
        if portable:
            exported[PORTABLE_POLICY] = self._raw_policy
        self._savers = {
            name: policy_saver.PolicySaver(
                policy,
                batch_size=batch_size,
                use_nest_path_signatures=use_nest_path_signatures,
                seed=seed,
                train_step=train_step,
                input_fn_and_spec=input_fn_and_spec,
                metadata=metadata,
                portable=name == PORTABLE_POLICY,
            )
            for name, policy in exported.items()
        }
        self._share_variables()
        for name, function in extra_concrete_functions or ():
            for saver in self._savers.values():
                saver.register_concrete_function(name, function)
        self._export_all()
        self._thread: async_policy_saver.AsyncPolicySaver | None = None
        if async_saving:
            self._thread = async_policy_saver.AsyncPolicySaver(self._savers[RAW_POLICY])

    @property
    def exported(self) -> frozenset[str]:
        """Names of the exports that were written at construction; the others were kept."""
        return self._exported

    @property
    def saved_model_dir(self) -> str:
        """The directory that exports and checkpoints are written to."""
        return self._directory

    def close(self, final_save: bool = True) -> None:
        """Saves the present state where it was not saved yet, and waits until all is written.

        Args:
          final_save: False only waits.
        """
        try:
            if final_save:
                self(int(self._train_step.numpy()), force_trigger=True)
        finally:
            if self._thread is not None:
                self._thread.close()

    def flush(self) -> None:
        """Waits until everything is written; raises what failed."""
        if self._thread is not None:
            self._thread.flush()

    def _share_variables(self) -> None:
        """One order of variables for all exports, so that one checkpoint updates any of them."""
        savers = self._savers.values()
        shared = {id(variable): variable for saver in savers for variable in saver.variables}
        for saver in savers:
            saver.share_variables(list(shared.values()))

    def _export_all(self) -> None:
        directories.remove_leftovers(self._directory)
        directories.remove_leftovers(os.path.join(self._directory, directories.CHECKPOINTS))
        stale = [name for name, saver in self._savers.items() if not self._is_current(name, saver)]
        found = directories.checkpoint_steps(os.path.join(self._directory, directories.CHECKPOINTS))
        if stale:
            self._refuse_other_checkpoints(found)
        self._warn_of_later_checkpoints(found)
        self._exported = frozenset(stale)
        for name in stale:
            path = os.path.join(self._directory, name)
            if os.path.exists(os.path.join(path, specs_proto.FILE_NAME)):
                _LOGGER.warning("%s held another policy; it is exported anew.", path)
            self._savers[name].save(path)

    def _is_current(self, name: str, saver: policy_saver.PolicySaver) -> bool:
        """Whether the export that is there computes what this one would."""
        path = os.path.join(self._directory, name)
        if not os.path.exists(os.path.join(path, specs_proto.FILE_NAME)):
            return False
        return saver.matches(path)

    def _refuse_other_checkpoints(self, found: Mapping[int, str]) -> None:
        wanted = [tuple(variable.shape) for variable in self._savers[RAW_POLICY].variables]
        for path in found.values():
            if snapshots.shapes(path) != wanted:
                raise ValueError(
                    f"saved_model_dir {self._directory!r} holds checkpoints of another "
                    f"architecture ({os.path.basename(path)} has the variables "
                    f"{snapshots.shapes(path)}, this policy {wanted}); give another directory, "
                    "or remove that one."
                )

    def _warn_of_later_checkpoints(self, found: Mapping[int, str]) -> None:
        now = int(self._train_step.numpy())
        later = [step for step in found if step > now]
        if later:
            _LOGGER.warning(
                "%s holds checkpoints of the steps %s, later than the present %d, which "
                "load_policy takes for the newest: remove them, or save to another directory.",
                self._directory, later, now,
            )  # fmt: skip

    def _metadata_values(self) -> dict[str, np.ndarray]:
        return {
            name: _metric_value(name, metric, self._first[name])
            for name, metric in self._metrics.items()
        }

    def _save_checkpoint(self) -> None:
        saver = self._savers[RAW_POLICY]
        # Past the variables: to assign one takes the training as long as to save it.
        snapshot = saver.snapshot(self._processed_values(saver), self._metadata_values())
        name = directories.checkpoint_name(snapshot.step)
        path = os.path.join(self._directory, directories.CHECKPOINTS, name)

        def write() -> None:
            saver.write_checkpoint(snapshot, path)
            if PORTABLE_POLICY in self._savers:
                portable_path = os.path.join(self._directory, PORTABLE_POLICY)
                self._savers[PORTABLE_POLICY].write(snapshot, portable_path)
            self._keep_newest(snapshot.step, path)

        if self._thread is None:
            write()
            return
        for replaced in self._thread.submit("save_checkpoint", path, write):
            _LOGGER.warning("Saving is slower than the interval: %s is left out.", replaced)

    def _processed_values(self, saver: policy_saver.PolicySaver) -> dict[int, tf.Variable]:
        """Variables of a processed policy, by the positions of those that they stand for."""
        process = getattr(self._agent, "post_process_policy", None)
        processed = process() if callable(process) else None
        if not isinstance(processed, ready_made.TFPolicy):
            return {}
        positions = {id(variable): at for at, variable in enumerate(saver.variables)}
        own, given = self._raw_policy.variables(), _raw(processed).variables()
        if [variable.shape for variable in own] != [variable.shape for variable in given]:
            raise ValueError(
                "post_process_policy returned a policy with other variables than agent.policy; "
                "return one of the same architecture."
            )
        return {positions[id(old)]: new for old, new in zip(own, given, strict=True)}

    def _keep_newest(self, step: int, path: str) -> None:
        """Removes the oldest checkpoints, now that there is one of `step`."""
        if self._keep_max is None:
            return
        if self._on_disk is None:
            # Once: each file that a thread asks for takes Python from the one that trains.
            found = directories.checkpoint_steps(os.path.dirname(path))
            # Those of later steps are of an earlier run, and the first to go.
            self._on_disk = dict(sorted(found.items(), key=lambda item: (item[0] <= step, item)))
        self._on_disk.pop(step, None)
        self._on_disk[step] = path
        for oldest in list(self._on_disk)[: -self._keep_max]:
            with contextlib.suppress(FileNotFoundError):
                directories.remove(self._on_disk.pop(oldest), directories.CHECKPOINT_CONTENTS)


def _raw(policy: ready_made.TFPolicy) -> ready_made.TFPolicy:
    return policy.wrapped_policy if isinstance(policy, ready_made.GreedyPolicy) else policy


def _metric_value(name: str, metric: Any, first: np.ndarray) -> np.ndarray:
    """The present result, of the shape and dtype of the first one."""
    value = _copied(metric.result())
    if value.dtype == first.dtype and value.shape == first.shape:
        return value
    if value.shape != first.shape or not np.can_cast(value.dtype, first.dtype, "same_kind"):
        raise ValueError(
            f"metadata_metrics[{name!r}]: result() gave {value.dtype}{list(value.shape)}, expected "
            f"{first.dtype}{list(first.shape)} as at first."
        )
    return value.astype(first.dtype)


def _copied(result: Any) -> np.ndarray:
    """An array of its own: a metric may go on writing to its result while a thread saves it."""
    return np.array(result.numpy() if hasattr(result, "numpy") else result)


def _first_result(name: str, metric: Any) -> np.ndarray:
    """What the metric gives at first: every later result has its shape and dtype."""
    result = metric.result()
    value = _copied(result)
    if not tf.is_tensor(result) and value.dtype.kind not in "biuf":
        raise TypeError(f"metadata_metrics[{name!r}]: result() gave {result!r}, expected a number.")
    given_array = tf.is_tensor(result) or isinstance(result, np.ndarray)
    return value.astype(np.float32) if value.dtype == np.float64 and not given_array else value
