"""The checkpoint that a model starts from, and the weights that an evaluation asks for."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.agents import directory_lock
from pgest.contract import run_config
from pgest.tracing import model as model_lib
from pgest.variables import checkpoints, store

_LOGGER = logging.getLogger(__name__)
_AT = "at"  # the three counters of a worker's own state


class SavedState:
    """The checkpoint that a model starts from, and what of it the model has taken.

    Args:
      model: whose variables are born with the saved values.
      model_dir: where its checkpoints are, or None.
      warm_start_from: a checkpoint or model_dir to take over what fits from, where `model_dir`
        has no checkpoint.

    Attributes:
      lock: to be held by who writes to `model_dir`.
    """

    def __init__(
        self,
        model: model_lib.Model,
        model_dir: str | None,
        warm_start_from: str | os.PathLike[str] | None,
    ):
        self._model = model
        self._model_dir = model_dir
        self.lock = directory_lock.DirectoryLock(model_dir if model.is_chief else None)
        if warm_start_from is not None:  # read later, maybe from another working directory
            warm_start_from = run_config.absolute(warm_start_from)
        self._warm_start_from = warm_start_from
        self._path: str | None = None
        self._run_path: str | None = None
        self._values: dict[str, np.ndarray] = {}
        self._restored = False
        self._writing: futures.Future[str] | None = None
        self._locked = contextlib.ExitStack()  # while a thread writes

    def restore(self) -> None:
        """Reads the newest checkpoint, once; variables take their values from it at birth."""
        if self._restored:
            return
        self._restored = True
        newest = checkpoints.read_newest(self._model_dir)
        if newest is not None:
            self._take(*newest)
        elif self._warm_start_from is not None:
            self._warm_start()

    def check_whole_model(self) -> None:
        """Raises where the checkpoint is not one of this model; to be called when it is built.

        Reports what a warm start did not take over.
        """
        self._check_fit(whole=True)
        if isinstance(self._model.store.saved_value, _WarmStart):
            self._model.store.saved_value.report()
        self._values = {}
        self._model.store.saved_value = store.no_saved_value

    def run_state(self) -> tuple[str | None, dict[str, np.ndarray]]:
        """The checkpoint that the model starts from, and what its run needs, until it is taken."""
        path = self._run_path
        if path is None:
            return None, {}
        return path, checkpoints.read_run(path) if self._model.is_chief else self._own_run()

    def save_own(self, run: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Writes what another worker than the chief needs beside the chief's checkpoint of now.

        Args:
          run: gives numbers by name, which `take_run` gives back where the counters are the same.
        """
        if self._model_dir is None or self._model.is_chief:
            return
        self._model.counters.publish()
        checkpoints.save(
            self._own_directory(),
            self._model.counters.variables,
            step=self._model.counters.step,
            run={**run(), _AT: self._counts()},
            keep_max=self._model.config.keep_checkpoint_max,
        )

    def _own_run(self) -> dict[str, np.ndarray]:
        for path in reversed(checkpoints.all_checkpoints(self._own_directory())):
            with contextlib.suppress(tf.errors.OpError, ValueError):  # one that is damaged
                run = checkpoints.read_run(path)
                if np.array_equal(run.get(_AT, ()), self._counts()):
                    return run
        return {}

    def _own_directory(self) -> str:
        rank = 0 if self._model.workers is None else self._model.workers.rank
        return os.path.join(str(self._model_dir), "workers", str(rank))

    def _counts(self) -> np.ndarray:
        counters = self._model.counters
        return np.array([counters.step, counters.timestep, counters.episode], np.int64)

    def take_run(self) -> tuple[str | None, dict[str, np.ndarray]]:
        """As `run_state`, once."""
        taken, self._run_path = self.run_state(), None
        return taken

    def save(self, run: Callable[[], Mapping[str, np.ndarray]]) -> str | None:
        """Writes a checkpoint; returns its path, None without a model_dir or finite weights.

        Args:
          run: gives numbers by name, which `take_run` gives back.
        """
        if not self._writes:
            return None
        self.wait()
        broken = self._model.non_finite_variables()
        if broken:
            _LOGGER.warning(
                "No checkpoint is written: NaN or infinity in variables %s. The newest: %s.",
                ", ".join(broken), checkpoints.latest(self._model_dir),
            )  # fmt: skip
            return None
        self._model.counters.publish()
        with self.lock:
            return self._writer()(self._model.saved_variables(), run=run())

    def start(self, run: Callable[[], Mapping[str, np.ndarray]]) -> futures.Future[str] | None:
        """As `save`, but a thread writes what is the case now, finite weights, as it must be known.

        Returns:
          Gives the path, or raises what failed; None without a model_dir.
        """
        if not self._writes:
            return None
        self.wait()
        self._model.counters.publish()
        values = checkpoints.values_of(self._model.saved_variables())
        copied = {name: np.array(value) for name, value in run().items()}
        self._locked.enter_context(self.lock)
        threads = futures.ThreadPoolExecutor(1, "checkpoint")
        self._writing = threads.submit(self._writer(), values, run=copied)
        threads.shutdown(wait=False)  # the thread ends with its work, before the interpreter does
        return self._writing

    def wait(self) -> None:
        """Until no thread writes any more, so that the directory is as it should be by now."""
        if self._writing is not None:
            futures.wait([self._writing])
            self._writing = None
            self._locked.close()

    @property
    def _writes(self) -> bool:
        return self._model_dir is not None and self._model.is_chief

    def _writer(self) -> Callable[..., str]:
        config = self._model.config
        return functools.partial(
            checkpoints.save,
            str(self._model_dir),
            step=self._model.counters.step,
            keep_max=config.keep_checkpoint_max,
            keep_every_n_hours=config.keep_checkpoint_every_n_hours,
        )

    def live_or_saved(self) -> dict[str, Any]:
        """Values by name: the live variables, and what the checkpoint holds besides."""
        self.restore()
        self._model.counters.publish()
        live = {n: v.numpy() for n, v in self._model.saved_variables().items()}
        return {**self._values, **live}

    @contextlib.contextmanager
    def weights(
        self, checkpoint_path: str | None, *, trained: bool, publish: bool = True
    ) -> Iterator[None]:
        """Inside, the variables hold the weights asked for; see `PGAgent.evaluate`.

        Args:
          checkpoint_path: whose weights; None: the agent's own.
          trained: whether they may have trained here; else the newest checkpoint's are taken.
          publish: copy the counters to their variables, of trained weights too.
        """
        self.restore()
        if publish or not trained or checkpoint_path is not None:
            self._model.counters.publish()
        if checkpoint_path is None:
            if not trained:
                self._follow_newest()
            yield
            self._check_fit(whole=False)
            return
        self.wait()
        checkpoint_path = self._located(os.path.expanduser(checkpoint_path))
        values = checkpoints.read(checkpoint_path)
        before = self.live_or_saved()
        try:
            # Variables that are born inside take these values too, and have their own afterwards.
            with self._model.store.lent(values) as own:
                self._assign(values)
                yield
                checkpoints.check_fit(
                    checkpoint_path, values, self._model.store.variables, whole=False
                )
        finally:
            self._assign({**before, **own})

    def _located(self, path: str) -> str:
        """The checkpoint that a path, a directory or "best" means.

        Raises:
          FileNotFoundError: there is none.
        """
        directory = path
        if path == "best":
            if self._model_dir is None:
                raise FileNotFoundError(
                    'checkpoint_path="best" is what an EvaluationHook kept in model_dir, and this '
                    "agent has no model_dir."
                )
            directory = os.path.join(self._model_dir, "best")
        elif not os.path.isdir(path):
            return path
        newest = checkpoints.latest(directory)
        if newest is None:
            raise FileNotFoundError(
                f"checkpoint_path={path!r}: the directory {directory!r} holds no checkpoint."
                + (" Train with a pgest.EvaluationHook to keep the best." if path == "best" else "")
            )
        return newest

    def _follow_newest(self) -> None:
        path = checkpoints.latest(self._model_dir)
        if path is not None and path != self._path:
            newest = checkpoints.read_newest(self._model_dir)
            if newest is not None:
                self._take(*newest)
                self._assign(self._values)

    def _check_fit(self, *, whole: bool) -> None:
        if self._path is not None and self._values:
            variables = self._model.saved_variables()
            checkpoints.check_fit(self._path, self._values, variables, whole=whole)

    def _take(self, path: str, values: dict[str, np.ndarray]) -> None:
        def fitting(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
            # What does not fit is listed as a whole once the model is built.
            value = checkpoints.value_of(name, values)
            if self._model.workers is not None and name.startswith(checkpoints.ENVIRONMENT):
                return None  # of the chief's environments; on every worker new episodes begin
            return None if value is None or value.shape != shape else value

        self._path, self._run_path, self._values = path, path, values
        self._model.store.saved_value = fitting
        for name, variable in self._model.counters.variables.items():
            if name in values:
                variable.assign(values[name])
        self._model.counters.refresh()
        if self._model.config.tf_random_seed is None and store.SEED in values:
            self._model.take_seed(int(values[store.SEED]))

    def _assign(self, values: Mapping[str, Any]) -> None:
        for name, variable in self._model.saved_variables().items():
            value = checkpoints.value_of(name, values)
            if value is not None:
                variable.assign(value)
        self._model.counters.refresh()

    def _warm_start(self) -> None:
        source = os.fspath(self._warm_start_from or "")
        path = checkpoints.latest(source) if os.path.isdir(source) else source
        if not path:
            raise ValueError(f"warm_start_from={source!r} holds no checkpoint.")
        values = checkpoints.read(path)
        for name in self._model.counters.variables:
            values.pop(name, None)
        self._model.store.saved_value = _WarmStart(path, values)


class _WarmStart:
    """Gives saved values by name where they fit, and reports the rest."""

    def __init__(self, path: str, values: dict[str, np.ndarray]):
        self._path = path
        self._values = values
        self._taken: set[str] = set()
        self._anew: dict[str, str] = {}

    def __call__(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        if not checkpoints.is_of_model(name):
            return None  # a new run does not go on with another one's episodes
        value = checkpoints.value_of(name, self._values)
        if value is not None and shape == value.shape:
            self._taken.add(name)
            return value
        self._anew[name] = "none there" if value is None else f"{value.shape} there, {shape} here"
        return None

    def report(self) -> None:
        """Warns of what starts anew and of what is left over."""
        left = sorted(set(filter(checkpoints.is_of_model, self._values)) - self._taken)
        left = [name for name in left if name not in self._anew]
        lines = [f"  {name} starts anew ({why})" for name, why in sorted(self._anew.items())]
        lines += [f"  {name} of the checkpoint is not used" for name in left]
        if lines:
            warnings.warn(
                f"warm_start_from {self._path!r} took over {len(self._taken)} variables, but:\n"
                + "\n".join(lines),
                stacklevel=2,
            )
