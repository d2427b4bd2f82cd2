"""Variables shared by name between the traces of a model_fn.

Estimator built one graph a mode and found the weights again by their names. A `VariableStore` does
the same in TensorFlow 2: while a model_fn is traced, a `tf.variable_creator_scope` hands out the
variable that the store holds under a name, or makes it. Sharing by name breaks silently where
nobody looks, so each way of breaking that was seen raises here.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tf_keras.src import backend as keras_backend

from pgest import counters as counters_lib

# A Keras optimizer makes these for itself. The step count belongs to the optimizer only where it
# is used without `minimize`; a constant learning rate is a setting, so it must not come back from
# a checkpoint in place of what the user now passes.
OPTIMIZER_STEP = "iteration"
_OPTIMIZER_SETTINGS = ("learning_rate", "current_learning_rate")

_FOREIGN = {
    "keras.src": (
        "a Keras 3 layer or optimizer made the variable {name!r}; pgest models are built with "
        "Keras 2: `import tf_keras` and use tf_keras.layers and tf_keras.optimizers instead"
    ),
    "tensorflow.python.training.": (
        "a tf.compat.v1.train optimizer made the variable {name!r}; use pgest.minimize(loss, "
        "tf_keras.optimizers.Adam(...)) instead"
    ),
}

# From a variable's name and shape to the value that a checkpoint holds, or None.
SavedValue = Callable[[str, tuple[int, ...]], np.ndarray | None]

_state = threading.local()


def current() -> Build:
    """Returns the model_fn call under way.

    Raises:
      RuntimeError: no model_fn is being called in this thread.
    """
    stack = getattr(_state, "builds", None)
    if not stack:
        raise RuntimeError(
            "This works only inside a model_fn, while an agent calls it. Outside, read "
            "agent.global_step, agent.global_timestep or agent.global_episode."
        )
    return stack[-1]


def get_global_step() -> tf.Variable:
    """The int64 variable that counts executions of the `train_op`; call it inside a model_fn."""
    return current().counters.variables[counters_lib.GLOBAL_STEP]


def get_global_timestep() -> tf.Variable:
    """The int64 variable that counts actions taken; call it inside a model_fn.

    Example of an exploration rate that falls from 1 to 0.1 in 10,000 timesteps:

        rate = tf_keras.optimizers.schedules.PolynomialDecay(1.0, 10_000, 0.1)
        epsilon = rate(pgest.get_global_timestep())
    """
    return current().counters.variables[counters_lib.GLOBAL_TIMESTEP]


def get_global_episode() -> tf.Variable:
    """The int64 variable that counts finished episodes; call it inside a model_fn."""
    return current().counters.variables[counters_lib.GLOBAL_EPISODE]


@contextlib.contextmanager
def scope(name: str) -> Iterator[None]:
    """Puts `name/` before the variables made inside, and lets Keras count layers afresh there.

    Layers are named in the order in which they are made (`dense`, `dense_1`, ...), so a critic
    that is built only in TRAIN, before the actor, would take the actor's names. Inside a scope it
    has names of its own.

    Args:
      name: prefix of the names; a scope may be opened again to reach the same variables.

    Example:

        with pgest.scope("critic"):
            value = tf_keras.layers.Dense(1)(hidden)
    """
    if not name or not isinstance(name, str):
        raise ValueError(f"pgest.scope got {name!r}; expected a non-empty string.")
    with current().renamed(name):
        yield


class Build:
    """One call of a model_fn: what it asked the store for."""

    def __init__(self, store: VariableStore, mode: str):
        self.store = store
        self.mode = mode
        self.counters = store.counters
        self.requested: dict[str, tf.Variable] = {}
        self.created: list[str] = []
        self.transients: dict[str, int] = {}
        self.metrics: dict[str, tf.Tensor] = {}
        self.optimizers = 0
        self._settings: frozenset[str] = frozenset(_OPTIMIZER_SETTINGS)
        self._duplicates: list[tuple[str, tf.Variable]] = []
        self._steps: list[tuple[str, tf.Variable]] = []
        self._error: Exception | None = None
        self._prefixes: list[str] = []
        self._roots: list[str] = []

    @property
    def trainable_variables(self) -> list[tf.Variable]:
        """The trainable variables that this call used, in the order in which it asked."""
        return [variable for variable in self.requested.values() if variable.trainable]

    @contextlib.contextmanager
    def renamed(self, prefix: str = "") -> Iterator[None]:
        """Starts names afresh: Keras' layer counts and TensorFlow's scopes, behind `prefix`."""
        graph = keras_backend.get_graph()
        counts = keras_backend.PER_GRAPH_OBJECT_NAME_UIDS
        outer = counts.get(graph)
        counts[graph] = collections.defaultdict(int)
        self._prefixes.append(prefix)
        try:
            # TensorFlow makes a scope's name unique within a graph; below a fresh root every
            # name is free again, and the root is taken off in `_full_name`.
            with tf.name_scope(prefix or "model"):
                self._roots.append(tf.get_current_name_scope())
                yield
        finally:
            self._prefixes.pop()
            if len(self._roots) > len(self._prefixes):
                self._roots.pop()
            if outer is None:
                counts.pop(graph, None)
            else:
                counts[graph] = outer

    @contextlib.contextmanager
    def settings(self, names: Iterable[str]) -> Iterator[None]:
        """Scalars of these names are settings inside: what the caller passes, never saved."""
        outer = self._settings
        self._settings = outer | frozenset(names)
        try:
            yield
        finally:
            self._settings = outer

    def release(self, optimizer_step: tf.Variable) -> None:
        """Takes an optimizer's own step count out of the store: `global_step` replaces it."""
        known = [variable is optimizer_step for _, variable in self._steps]
        if not any(known):
            raise ValueError(
                "The optimizer was made outside of the model_fn, so its variables would not be "
                "in the checkpoint: make it inside, for example "
                "pgest.minimize(loss, tf_keras.optimizers.Adam(1e-3))."
            )
        self._steps = [(n, v) for n, v in self._steps if v is not optimizer_step]

    def create(self, next_creator: Callable[..., tf.Variable], **kwargs: Any) -> tf.Variable:
        """The `tf.variable_creator_scope` of this call."""
        name = self._full_name(kwargs.get("name") or "Variable")
        try:
            _check_origin(name)
            return self._create(next_creator, name, kwargs)
        except (ValueError, TypeError) as error:
            # Keras' Sequential swallows a ValueError and goes on, so it is raised again at the
            # end of the call.
            self._error = self._error or error
            raise

    def _create(
        self, next_creator: Callable[..., tf.Variable], name: str, kwargs: dict[str, Any]
    ) -> tf.Variable:
        short = name.rsplit("/", 1)[-1]
        if short in self._settings and not kwargs.get("trainable"):
            return self.store.transient(next_creator, name, kwargs)
        if short == OPTIMIZER_STEP and not kwargs.get("trainable"):
            known = self.store.variables.get(name)
            variable = (
                self.store.transient(next_creator, name, kwargs) if known is None else known
            )
            self._steps.append((name, variable))
            return variable
        if name in self.requested:
            variable = self.store.transient(next_creator, name, kwargs)
            self._duplicates.append((name, variable))
            return variable
        if self.store.holds(name, self.mode):
            variable = self.store.get(name, kwargs)
        else:
            variable = self.store.make(next_creator, name, kwargs)
            self.created.append(name)
        self.requested[name] = variable
        return variable

    def _full_name(self, name: str) -> str:
        scope_name = tf.get_current_name_scope()
        root = self._roots[-1] if self._roots else ""
        if scope_name == root:
            scope_name = ""
        elif scope_name.startswith(root + "/"):
            scope_name = scope_name[len(root) + 1 :]
        parts = [prefix for prefix in self._prefixes if prefix] + [scope_name, name]
        return "/".join(part for part in parts if part)

    def finish(self) -> None:
        """Raises what went wrong; to be called when model_fn has returned."""
        if self._error is not None:
            raise self._error
        steps = collections.Counter(name for name, _ in self._steps)
        twice = [name for name, _ in self._duplicates]
        twice += [name for name, count in steps.items() if count > 1]
        if twice:
            raise ValueError(
                f"model_fn asked for the variable {twice[0]!r} twice in one call (Modes."
                f"{self.mode}): give the layers different names, or open a "
                "pgest.scope(...) around one of them; optimizers get names of their own "
                "through pgest.minimize."
            )
        for name, variable in self._steps:
            self.store.variables.setdefault(name, variable)
            self.requested[name] = variable


class VariableStore:
    """The variables of a model, by name.

    Args:
      counters: the model's counters.
      seed: initial values are a function of it and of the variable's name, so they depend
        neither on the order in which variables are born nor on the process's own random state.
    """

    def __init__(self, counters: counters_lib.Counters, seed: int):
        self.counters = counters
        self.seed = seed
        self.variables: dict[str, tf.Variable] = {}
        self.adopted: set[str] = set()
        # Set while a checkpoint is being restored.
        self.saved_value: SavedValue = no_saved_value
        # By mode, name and how often the call asked: tf.function runs the Python twice and allows
        # new variables only at the first time.
        self._transient: dict[tuple[str, str, int], tf.Variable] = {}
        # Metrics' variables, born in EVAL: reset before each evaluation, never saved.
        self.local: dict[str, tuple[tf.Variable, Any]] = {}

    @contextlib.contextmanager
    def building(self, mode: str) -> Iterator[Build]:
        """Everything created inside goes through the store. See `Build`."""
        build = Build(self, mode)
        stack = _state.__dict__.setdefault("builds", [])
        stack.append(build)
        try:
            with _seeded(self.seed), build.renamed(), tf.variable_creator_scope(build.create):
                yield build
            build.finish()
        finally:
            stack.pop()

    def holds(self, name: str, mode: str) -> bool:
        """Whether a call of `mode` finds the name."""
        return name in self.variables or (mode == "EVAL" and name in self.local)

    def get(self, name: str, kwargs: dict[str, Any]) -> tf.Variable:
        """Returns the variable of that name if its shape and dtype fit what is asked for."""
        variable = self.variables[name] if name in self.variables else self.local[name][0]
        shape, dtype = _requested_shape_and_dtype(kwargs)
        if shape is not None and not variable.shape.is_compatible_with(shape):
            raise ValueError(
                f"The variable {name!r} has shape {variable.shape} and is asked for with shape "
                f"{shape}: two layers share the name. Name them, or use pgest.scope(...)."
            )
        if dtype is not None and tf.as_dtype(dtype).base_dtype != variable.dtype.base_dtype:
            raise ValueError(
                f"The variable {name!r} is {variable.dtype.name} and is asked for as "
                f"{tf.as_dtype(dtype).name}: two layers share the name."
            )
        return variable

    def make(
        self, next_creator: Callable[..., tf.Variable], name: str, kwargs: dict[str, Any]
    ) -> tf.Variable:
        """Makes a variable outside of the graph being traced, and keeps it under its name."""
        with tf.init_scope(), tf.name_scope(""):
            value = self._initial_value(name, kwargs)
            saved = self.saved_value(name, _shape(value))
            if saved is not None:
                _check_saved(name, value, saved)
                value = saved
            variable = next_creator(**{**kwargs, "initial_value": value, "name": name})
            if current().mode == "EVAL" and saved is None and not variable.trainable:
                self.local[name] = (variable, variable.numpy())
            else:
                self.variables[name] = variable
        return variable

    def transient(
        self, next_creator: Callable[..., tf.Variable], name: str, kwargs: dict[str, Any]
    ) -> tf.Variable:
        """A variable of this call alone, neither shared nor saved; another trace reuses it."""
        build = current()
        build.transients[name] = occurrence = build.transients.get(name, -1) + 1
        key = (build.mode, name, occurrence)
        with tf.init_scope(), tf.name_scope(""):
            value = self._initial_value(name, kwargs)
            if key in self._transient:
                self._transient[key].assign(value)
            else:
                creation = {**kwargs, "initial_value": value, "name": f"transient/{name}"}
                self._transient[key] = next_creator(**creation)
        return self._transient[key]

    def _initial_value(self, name: str, kwargs: dict[str, Any]) -> Any:
        value = kwargs.get("initial_value")
        if callable(value):
            with _seeded(_derived_seed(self.seed, name)):
                value = value()
        return _static_value(name, value)

    def adopt(self, captured: list[tf.Variable]) -> None:
        """Takes in variables that a trace captured from outside, so that they are saved."""
        known = {id(variable) for variable in self.variables.values()}
        known |= {id(variable) for variable in self._transient.values()}
        known |= {id(variable) for variable, _ in self.local.values()}
        known |= {id(variable) for variable in self.counters.variables.values()}
        for variable in captured:
            if id(variable) in known:
                continue
            known.add(id(variable))
            name = variable.name.split(":")[0]
            if name.rsplit("/", 1)[-1] in (OPTIMIZER_STEP, *_OPTIMIZER_SETTINGS):
                raise ValueError(
                    f"The train_op uses an optimizer that was made outside of the model_fn (its "
                    f"variable {name!r} is not the model's): make the optimizer inside model_fn."
                )
            while name in self.variables:
                name = f"outside/{name}"
            saved = self.saved_value(name, tuple(variable.shape))
            if saved is not None:
                _check_saved(name, variable, saved)
                with tf.init_scope():
                    variable.assign(saved)
            self.variables[name] = variable
            self.adopted.add(name)


def _check_origin(name: str) -> None:
    """Raises where the variable comes from a library whose variables cannot be shared by name."""
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == __name__ and frame.f_code.co_name == "building":
            return
        for prefix, sentence in _FOREIGN.items():
            if module.startswith(prefix) and "optimizer" not in prefix:
                if prefix.endswith(".") and not _is_v1_optimizer(module):
                    continue
                raise TypeError(sentence.format(name=name) + ".")
        frame = frame.f_back


def _is_v1_optimizer(module: str) -> bool:
    return module.rsplit(".", 1)[-1] in (
        "adam",
        "adagrad",
        "adadelta",
        "ftrl",
        "gradient_descent",
        "momentum",
        "optimizer",
        "rmsprop",
        "slot_creator",
    )


def _requested_shape_and_dtype(kwargs: dict[str, Any]) -> tuple[tf.TensorShape | None, Any]:
    shape, dtype, value = kwargs.get("shape"), kwargs.get("dtype"), kwargs.get("initial_value")
    if shape is None and value is not None:
        if callable(value):
            with tf.init_scope(), _seeded(0):
                value = value()
        value = value if tf.is_tensor(value) else np.asarray(value)
        shape = value.shape
        if dtype is None and tf.is_tensor(value):
            dtype = value.dtype
    return (None if shape is None else tf.TensorShape(shape)), dtype


def _static_value(name: str, value: Any) -> Any:
    """The value of a symbolic initial value, where it does not depend on the data."""
    if not tf.is_tensor(value) or hasattr(value, "numpy"):
        return value
    static = tf.get_static_value(value)
    if static is None:
        raise ValueError(
            f"The initial value of the variable {name!r} is computed inside the model_fn and is "
            "not known when the variable is made: pass a callable, as in "
            "tf.Variable(lambda: tf.random.normal([8]))."
        )
    return tf.constant(static, dtype=value.dtype)


def no_saved_value(name: str, shape: tuple[int, ...]) -> None:
    """The `SavedValue` of a model that starts from nothing."""


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if tf.is_tensor(value) else np.shape(value)


def _check_saved(name: str, value: Any, saved: np.ndarray) -> None:
    shape = _shape(value)
    if shape != saved.shape:
        raise ValueError(
            f"The checkpoint holds the variable {name!r} with shape {saved.shape}; the "
            f"model wants {shape}. Train it in another model_dir, or restore what fits "
            "with warm_start_from."
        )


def _derived_seed(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds Python, NumPy, TensorFlow and Keras inside, and puts the process's state back."""
    unset = 87654321  # what tf.compat.v1.get_seed says where no global seed was set
    with tf.init_scope():
        tf_seed = tf.compat.v1.get_seed(0)[0]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    keras_generator = getattr(keras_backend._SEED_GENERATOR, "generator", None)
    random.seed(seed)
    np.random.seed(seed)
    with tf.init_scope():
        tf.random.set_seed(seed)
    keras_backend._SEED_GENERATOR.generator = random.Random(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        with tf.init_scope():
            tf.random.set_seed(None if tf_seed == unset else tf_seed)
        if keras_generator is None:
            del keras_backend._SEED_GENERATOR.generator
        else:
            keras_backend._SEED_GENERATOR.generator = keras_generator
