"""The variables of a model, by name: found again, made, restored, or taken in from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from pgest.variables import counters as counters_lib
from pgest.variables import initial_values

# The names that Keras gives an optimizer's own step count.
_OPTIMIZER_STEPS = ("iteration", "iter")
_OUTSIDE = "outside"
# The collections of what Estimator initialised anew for each evaluation.
_KEYS = tf.compat.v1.GraphKeys
_LOCAL = frozenset([_KEYS.LOCAL_VARIABLES, _KEYS.METRIC_VARIABLES])
# The name under which checkpoints hold a run's seed, beside the counters and the model's variables.
SEED = "random_seed"

# From a variable's name and shape to the value that a checkpoint holds, or None.
SavedValue = Callable[[str, tuple[int, ...]], np.ndarray | None]


class VariableStore:
    """The variables of a model, by name.

    Args:
      counters: the model's counters.
      seed: initial values are a function of it and of the variable's name, so they depend
        neither on the order in which variables are born nor on the process's own random state.

    Attributes:
      variables: by name, what a checkpoint holds.
      adopted: names of those that were made outside of the model_fn.
      spaces: observation and action space of one environment, once one is known.
      num_envs: how many environments are trained on at once.
      acting: the timestep, an int64 scalar, the number of the environments that are acted in (of
        all workers) and the worker's rank, while model_fn is called for that; else None.
      saved_value: the `SavedValue` that new variables start from.
      beside: variables that are saved beside these, under names that pgest keeps.
      local: variables that EVAL alone has asked for, with their initial values: reset before each
        evaluation, never saved.
    """

    def __init__(self, counters: counters_lib.Counters, seed: int):
        self.counters = counters
        self.seed = seed
        self.variables: dict[str, tf.Variable] = {}
        self.adopted: set[str] = set()
        self.beside: list[tf.Variable] = []
        self.saved_value: SavedValue = no_saved_value
        self.spaces: tuple[gymnasium.Space, gymnasium.Space] | None = None
        self.num_envs = 1
        self.acting: tuple[tf.Tensor, int, int] | None = None
        self.local: dict[str, tuple[tf.Variable, Any]] = {}
        self._lent: Mapping[str, np.ndarray] = {}
        self._own: dict[str, np.ndarray] = {}
        # By mode, name and how often the call asked: tf.function allows new variables only at the
        # first time that it runs the Python.
        self._transient: dict[tuple[str, str, int], tf.Variable] = {}

    def obtain(
        self,
        next_creator: Callable[..., tf.Variable],
        name: str,
        kwargs: dict[str, Any],
        *,
        local: bool = False,
        saved: bool = True,
    ) -> tf.Variable:
        """Returns the variable `name`, made if it is new.

        Args:
          next_creator: makes it.
          name: in full.
          kwargs: what `tf.Variable` was called with.
          local: EVAL asks for what it may have for itself.
          saved: whether it is one of those that checkpoints hold.

        Raises:
          ValueError: shape, dtype or trainability are not those of the variable that there is, or
            of the checkpoint's.
        """
        if name in self.local and not local and saved:
            # EVAL came first and took it for its own; it is the model's.
            self._add(name, self.local.pop(name)[0])
        if name in self.variables and saved:
            return self._checked(name, self.variables[name], kwargs)
        if name in self.local:
            return self._checked(name, self.local[name][0], kwargs)
        with tf.init_scope(), tf.name_scope(""):
            value = self._initial_value(name, kwargs)
            restored = self.saved_value(name, _shape(value)) if saved else None
            if restored is not None:
                value = _checked_saved(name, value, restored)
            variable = _made(next_creator, {**kwargs, "initial_value": value, "name": name})
            if local and restored is None and name not in self._lent:
                self.local[name] = (variable, variable.numpy())
            else:
                self._add(name, variable)
        return variable

    def check_free(self, name: str) -> None:
        """Raises ValueError where a model's variable would take a name that pgest keeps."""
        if name in (*self.counters.variables, SEED):
            raise ValueError(
                f"model_fn makes a variable called {name!r}, a name that pgest keeps for its own "
                "in checkpoints: give it another one. The counters are pgest.get_global_step(), "
                "pgest.get_global_timestep() and pgest.get_global_episode()."
            )

    @contextlib.contextmanager
    def lent(self, values: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Variables that are born inside get `values`, in place of what is their own.

        Yields:
          What is their own, by name; filled as they are born.
        """
        self._lent, self._own = values, {}
        try:
            yield self._own
        finally:
            self._lent, self._own = {}, {}

    def _add(self, name: str, variable: tf.Variable) -> None:
        """Makes a variable, which has its own value, one of the model's."""
        if name in self._lent:
            with tf.init_scope():
                self._own[name] = variable.numpy()
                variable.assign(_checked_saved(name, variable, self._lent[name]))
        self.variables[name] = variable

    def transient(
        self,
        next_creator: Callable[..., tf.Variable],
        key: tuple[str, str, int],
        kwargs: dict[str, Any],
    ) -> tf.Variable:
        """A variable of one call alone, neither shared nor saved; another trace reuses it."""
        name = key[1]
        with tf.init_scope(), tf.name_scope(""):
            value = self._initial_value(name, kwargs)
            if key not in self._transient:
                # tf.compat.v1.wrap_function takes each name once.
                full_name = "/".join(["transient", *map(str, key)])
                creation = {**kwargs, "initial_value": value, "name": full_name}
                self._transient[key] = _made(next_creator, creation)
            elif self._transient[key] is not self.variables.get(name):
                self._transient[key].assign(value)
        return self._transient[key]

    def keep(self, name: str, variable: tf.Variable) -> tf.Variable:
        """Makes a transient variable one of the model's; returns the model's."""
        if name not in self.variables:
            self._restore(name, variable)
            self._add(name, variable)
        return self.variables[name]

    def adopt(self, captured: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
        """Takes in variables that a trace captured from outside, so that they are saved.

        They are named `outside/...`: a layer made inside may have the same name.

        Returns:
          Those of `captured` that are the model's, by name.

        Raises:
          ValueError: they belong to an optimizer, or do not fit the checkpoint.
        """
        names = {id(variable): name for name, variable in self.variables.items()}
        ours = [*self._transient.values(), *self.counters.variables.values()]
        ours += [self.counters.progress, *self.beside]
        ours += [variable for variable, _ in self.local.values()]
        known = {id(variable) for variable in ours}
        found: dict[str, tf.Variable] = {}
        for variable in captured:
            if id(variable) in known:
                continue
            if id(variable) not in names:
                names[id(variable)] = self._adopt(variable)
            name = names[id(variable)]
            if name in self.variables:
                found[name] = variable
        return found

    def _adopt(self, variable: tf.Variable) -> str:
        short = variable.name.split(":")[0]
        if short.rpartition("/")[2] in _OPTIMIZER_STEPS and variable.dtype == tf.int64:
            raise ValueError(outside_optimizer(f"its step count is {short!r}"))
        name = f"{_OUTSIDE}/{short}"
        number = 1
        while name in self.variables or name in self.local:
            name = f"{_OUTSIDE}/{short}_{number}"
            number += 1
        with tf.init_scope():
            if is_metric(variable.synchronization, variable.aggregation):
                self.local[name] = (variable, variable.numpy())
                return name
            self._restore(name, variable)
        self._add(name, variable)
        self.adopted.add(name)
        return name

    def _restore(self, name: str, variable: tf.Variable) -> None:
        saved = self.saved_value(name, tuple(variable.shape))
        if saved is not None:
            with tf.init_scope():
                variable.assign(_checked_saved(name, variable, saved))

    def _initial_value(self, name: str, kwargs: dict[str, Any]) -> Any:
        seed = initial_values.derived_seed(self.seed, name)
        return initial_values.compute(name, kwargs.get("initial_value"), seed)

    def _checked(self, name: str, variable: tf.Variable, kwargs: dict[str, Any]) -> tf.Variable:
        shape, dtype = self._wanted(name, kwargs)
        reason = "two layers share the name. Name them, or use pgest.scope(...)."
        if not variable.shape.is_compatible_with(shape):
            raise ValueError(
                f"The variable {name!r} has shape {variable.shape} and is asked for with shape "
                f"{shape}: {reason}"
            )
        if dtype is not None and tf.as_dtype(dtype).base_dtype != variable.dtype.base_dtype:
            raise ValueError(
                f"The variable {name!r} is {variable.dtype.name} and is asked for as "
                f"{tf.as_dtype(dtype).name}: {reason}"
            )
        trainable = kwargs.get("trainable")
        if trainable is not None and bool(trainable) != variable.trainable:
            raise ValueError(
                f"The variable {name!r} was made with trainable={variable.trainable} and is asked "
                f"for with trainable={bool(trainable)}: give it the same in every mode, and leave "
                "it out of the training with pgest.minimize(..., var_list=[...])."
            )
        return variable

    def _wanted(self, name: str, kwargs: dict[str, Any]) -> tuple[tf.TensorShape, Any]:
        shape, dtype, value = kwargs.get("shape"), kwargs.get("dtype"), kwargs.get("initial_value")
        if shape is None or (dtype is None and not callable(value)):
            with tf.init_scope(), tf.name_scope(""):
                value = tf.convert_to_tensor(self._initial_value(name, kwargs), dtype)
            shape, dtype = value.shape, value.dtype
        return tf.TensorShape(shape), dtype


def _made(next_creator: Callable[..., tf.Variable], kwargs: dict[str, Any]) -> tf.Variable:
    """A new variable, outside of any graph.

    tf.function need not lift it out of the one being traced. After a trace in which it had to, it
    traces everything a second time.
    """
    return next_creator(**{**kwargs, "experimental_enable_variable_lifting": False})


def no_saved_value(name: str, shape: tuple[int, ...]) -> None:
    """The `SavedValue` of a model that starts from nothing."""


def outside_optimizer(what: str) -> str:
    """The error of an optimizer that was not made by the call that uses it."""
    return (
        f"The optimizer was made outside of this call of the model_fn ({what}), so its variables "
        "would not be in the checkpoint: make it inside, for example pgest.minimize(loss, "
        "tf_keras.optimizers.Adam(1e-3))."
    )


def is_metric(synchronization: Any, aggregation: Any, collections: Any = None) -> bool:
    """Whether these are a metric's: what it counts is neither shared nor saved.

    Args:
      synchronization: of the variable.
      aggregation: of the variable; TensorFlow 1 has an enumeration of its own.
      collections: of TensorFlow 1, which put local and metric variables aside by them.
    """
    if _LOCAL.intersection(collections or ()):
        return True
    return synchronization is tf.VariableSynchronization.ON_READ and aggregation in (
        tf.VariableAggregation.SUM,
        tf.compat.v1.VariableAggregation.SUM,
    )


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if tf.is_tensor(value) else np.shape(value)


def _checked_saved(name: str, value: Any, saved: np.ndarray) -> np.ndarray:
    shape = _shape(value)
    if shape != saved.shape:
        raise ValueError(
            f"The checkpoint holds the variable {name!r} with shape {saved.shape}; the "
            f"model wants {shape}. Train it in another model_dir, or restore what fits "
            "with warm_start_from."
        )
    return saved
