"""`AsyncPolicySaver`: saving without keeping the training waiting."""

from __future__ import annotations

import atexit
import dataclasses
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from pgest.saved_policies import closing, policy_saver

_LOGGER = logging.getLogger(__name__)

# At exit, a file system that does not answer must not keep the interpreter for ever.
_EXIT_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class _Request:
    kind: str
    directory: str
    write: Callable[[], None]


class AsyncPolicySaver(closing.Closing):
    """Writes in a thread what a `PolicySaver` would write in the caller's.

    The values are taken when `save` or `save_checkpoint` is called, all at once, so a file holds
    one moment of the training however long it waits; the train step in it is of that moment. One
    request of each kind may wait while another is written. A further one replaces the waiting one
    of its kind, and says so by its result: nothing is dropped silently.

    An error of the thread is raised by the next call (`save`, `save_checkpoint`, `flush` or
    `close`), which then does nothing else; after that, saving may go on. Everything else, such as
    `register_function` and `get_train_step`, is handed to the saver.

    Close it, or use it in a `with` statement. What was requested and not closed is still written
    when the interpreter exits.

    Args:
      policy_saver: the saver.

    Example:

        with AsyncPolicySaver(PolicySaver(policy, train_step=step)) as saver:
            for _ in range(1000):
                ...
                saver.save_checkpoint(f"checkpoints/policy_checkpoint_{int(step):010d}")
    """

    def __init__(self, policy_saver: policy_saver.PolicySaver) -> None:
        self._saver = policy_saver
        self._waiting: dict[str, _Request] = {}
        self._writing: _Request | None = None
        self._error: BaseException | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="policy saver", daemon=True)
        self._thread.start()
        atexit.register(self._close_at_exit)

    def save(
        self,
        export_dir: policy_saver.Path,
        blocking: bool = False,
        options: tf.saved_model.SaveOptions | None = None,
    ) -> tuple[str, ...]:
        """Saves the policy as a SavedModel; see `PolicySaver.save`.

        Args:
          export_dir: the directory.
          blocking: whether to return only when the directory is there.
          options: for `tf.saved_model.save`.

        Returns:
          The directories of earlier requests that this one replaced: they will not be written.
          () in the regular case.

        Raises:
          ValueError: the saver was closed.
          Exception: what an earlier request failed with; this one is not taken up.
        """
        self._check_open()
        snapshot = self._saver.snapshot()
        return self.submit(
            "save", export_dir, lambda: self._saver.write(snapshot, export_dir, options), blocking
        )

    def save_checkpoint(
        self,
        export_dir: policy_saver.Path,
        blocking: bool = False,
        options: tf.train.CheckpointOptions | None = None,
    ) -> tuple[str, ...]:
        """Saves the variables; see `PolicySaver.save_checkpoint`, and `save` for the rest."""
        self._check_open()
        snapshot = self._saver.snapshot()
        return self.submit(
            "save_checkpoint",
            export_dir,
            lambda: self._saver.write_checkpoint(snapshot, export_dir, options),
            blocking,
        )

    def submit(
        self,
        kind: str,
        export_dir: policy_saver.Path,
        write: Callable[[], None],
        blocking: bool = False,
    ) -> tuple[str, ...]:
        """Has the thread call `write`; of each kind one request may wait. See `save`."""
        request = _Request(kind, os.fspath(export_dir), write)
        with self._changed:
            self._check_open()
            replaced = self._waiting.pop(kind, None)
            self._waiting[kind] = request
            self._changed.notify_all()
            if blocking:
                self._changed.wait_for(
                    lambda: self._writing is not request and request not in self._waiting.values()
                )
                self._raise_error()
        return () if replaced is None else (replaced.directory,)

    def flush(self) -> None:
        """Returns when everything requested is on the disk; raises what failed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and self._writing is None)
            self._raise_error()

    def close(self) -> None:
        """Writes what waits and ends the thread; raises what failed. Closing twice is harmless."""
        self._end_thread(timeout=None)
        with self._changed:
            self._raise_error()

    def __getattr__(self, name: str) -> Any:
        # Copying and unpickling ask for attributes before there is a saver.
        if name.startswith("__") or "_saver" not in vars(self):
            raise AttributeError(name)
        return getattr(self._saver, name)

    def _check_open(self) -> None:
        with self._changed:
            self._raise_error()
            if self._closing:
                raise ValueError(
                    "Saving thread in AsyncPolicySaver is not alive: the saver was closed. Make "
                    "another one."
                )

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _end_thread(self, timeout: float | None) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        atexit.unregister(self._close_at_exit)

    def _close_at_exit(self) -> None:
        self._end_thread(_EXIT_SECONDS)
        if self._thread.is_alive():
            _LOGGER.error("The interpreter exits before everything requested was saved.")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                request = self._waiting.pop(next(iter(self._waiting)))
                self._writing = request
            try:
                request.write()
            except BaseException as error:
                _LOGGER.error("Saving to %s failed: %s", request.directory, error)
                with self._changed:
                    self._error = error
            finally:
                with self._changed:
                    self._writing = None
                    # The request holds a copy of the weights.
                    del request
                    self._changed.notify_all()
