"""A user's model_fn over one variable store, called while something is being traced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.contract import model_fn as model_fn_lib
from pgest.contract import run_config
from pgest.variables import counters, sharing, store
from pgest.variables import workers as workers_lib

Modes = model_fn_lib.Modes
SEED = store.SEED


class Model:
    """The model: its function, its variables and its counters.

    Args:
      model_fn: the user's function, wrapped.
      params: hyper-parameters for it.
      config: the run's configuration.
      seed: of this run; initial values are a function of it. Of several workers the chief's.

    Attributes:
      workers: those of the run; None where this process is the only one.
    """

    def __init__(
        self,
        model_fn: model_fn_lib.ModelFn,
        params: Mapping[str, Any],
        config: run_config.RunConfig,
        seed: int,
    ):
        self.model_fn = model_fn
        self.config = config
        self.workers = workers_lib.Workers.of(config.train_distribute)
        if self.workers is not None:
            seed = int(self.workers.of_chief([seed])[0])
        # Saved, so that a run without a seed of the user's goes on with the one that was drawn.
        with tf.init_scope():
            self._saved_seed = tf.Variable(seed, trainable=False, dtype=tf.int64, name=SEED)
        self.counters = counters.Counters()
        self.store = store.VariableStore(self.counters, seed)
        self.store.beside.append(self._saved_seed)
        # The state of in-graph environments, saved with the model but no part of it.
        self.environment: dict[str, tf.Variable] = {}
        self.traces: dict[Modes, int] = dict.fromkeys(Modes, 0)
        self.export_outputs: tuple[str, ...] = ()
        self.prediction_hooks: tuple[Any, ...] = ()
        self.used: dict[Modes, tuple[str, ...]] = {}
        self._context = {"params": dict(params), "config": config, "model_dir": config.model_dir}

    @property
    def seed(self) -> int:
        """Of this run: all randomness is a function of it and of the counters."""
        return self.store.seed

    def read_seed(self) -> tf.Tensor:
        """The seed, an int64 scalar of the graph being traced, which is that of any seed."""
        return self._saved_seed.read_value()

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what there is to write."""
        return self.workers is None or self.workers.is_chief

    def take_seed(self, seed: int) -> None:
        """Goes on with the seed of a checkpoint; before anything is built."""
        self.store.seed = seed
        self._saved_seed.assign(seed)

    def call(
        self,
        features: Any,
        labels: Any,
        mode: Modes,
        *,
        rooted: bool = True,
        exchange: workers_lib.Exchange | None = None,
        half: sharing.Half | None = None,
    ) -> tuple[model_fn_lib.EstimatorSpec, sharing.Build]:
        """Calls the model_fn in the graph being traced; returns its spec and what it used.

        `rooted` is as `variables.building` has it, `exchange` what `minimize` goes through, `half`
        which part of a step that is traced in two.
        """
        self.traces[mode] += 1
        with sharing.building(self.store, mode.name, rooted) as build:
            build.exchange, build.half = exchange, half
            spec = self.model_fn(features, labels, mode, **self._context)
        self.used[mode] = tuple(build.requested)
        if mode is Modes.PREDICT:
            self.export_outputs = tuple(spec.export_outputs)
            self.prediction_hooks = tuple(spec.prediction_hooks)
        return spec, build

    def saved_variables(self) -> dict[str, tf.Variable]:
        """Everything a checkpoint holds: counters, seed and the model's variables, by name."""
        beside = {**self.counters.variables, SEED: self._saved_seed}
        return {**beside, **self.store.variables, **self.environment}

    def non_finite_variables(self) -> list[str]:
        """Names of variables that hold a NaN or an infinity."""
        return [
            name
            for name, variable in self.store.variables.items()
            if variable.dtype.is_floating and not _is_finite(np.asarray(variable.read_value()))
        ]

    def describe_modes(self) -> str:
        """A table of the variables of each mode that was traced, for errors and `check`."""
        names = sorted({name for used in self.used.values() for name in used})
        width = max([len(name) for name in names] + [8])
        modes = [mode for mode in Modes if mode in self.used]
        lines = [
            f"{'variable':<{width}}  {'shape':<14}" + "".join(f"{mode!s:<9}" for mode in modes)
        ]
        for name in names:
            variable = self.store.variables.get(name)
            shape = "" if variable is None else str(tuple(variable.shape))
            marks = "".join(f"{'x' if name in self.used[mode] else '-':<9}" for mode in modes)
            lines.append(f"{name:<{width}}  {shape:<14}{marks}")
        return "\n".join(lines)


def _is_finite(values: np.ndarray) -> bool:
    """Whether no number is NaN or infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        # One pass: where a sum is finite, all its terms are. It may overflow by itself.
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())
