"""Variables shared by name between the traces of a model_fn.

Estimator built one graph a mode and found the weights again by their names. A `VariableStore` does
the same in TensorFlow 2: while a model_fn is traced, a `tf.variable_creator_scope` hands out the
variable that the store holds under a name, or makes it. Sharing by name breaks silently where
nobody looks, so each way of breaking that was seen raises here.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import tensorflow as tf
from tf_keras.src import backend as keras_backend

from pgest.variables import called_layers, counters, initial_values, legacy_getter, origins
from pgest.variables import store as variable_store

Origin = origins.Origin
_ROOT = "model_fn"
_NOISE = 0x5DE5DE

_state = threading.local()
_as_it_is = contextlib.nullcontext


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


def exchange_under_way() -> Any:
    """The `exchange` of the model_fn call under way; None outside of one."""
    stack = getattr(_state, "builds", None)
    return stack[-1].exchange if stack else None


def get_global_step() -> tf.Variable:
    """The int64 variable that counts executions of the `train_op`; call it inside a model_fn."""
    return current().counters.variables[counters.GLOBAL_STEP]


def get_global_timestep() -> tf.Variable:
    """The int64 variable that counts actions taken; call it inside a model_fn.

    Example of an exploration rate that falls from 1 to 0.1 in 10,000 timesteps:

        rate = tf_keras.optimizers.schedules.PolynomialDecay(1.0, 10_000, 0.1)
        epsilon = rate(pgest.get_global_timestep())
    """
    return current().counters.variables[counters.GLOBAL_TIMESTEP]


def get_global_episode() -> tf.Variable:
    """The int64 variable that counts finished episodes; call it inside a model_fn."""
    return current().counters.variables[counters.GLOBAL_EPISODE]


def get_observation_space() -> gymnasium.Space:
    """The observation space of one environment; call it inside a model_fn."""
    return _spaces()[0]


def get_action_space() -> gymnasium.Space:
    """The action space of one environment; call it inside a model_fn."""
    return _spaces()[1]


def get_num_envs() -> int:
    """How many environments are trained on at once; call it inside a model_fn."""
    return current().store.num_envs


def noise_seed(every: int) -> tf.Tensor | None:
    """A stateless int32 `[2]` seed that changes with every so many timesteps of an environment.

    Returns:
      None unless model_fn is called to act in environments whose timesteps are counted.
    """
    stack = getattr(_state, "builds", None)
    if not stack or stack[-1].store.acting is None:
        return None
    store = stack[-1].store
    timestep, num_envs, rank = store.acting
    interval = timestep // (every * num_envs)
    low, high = tf.cast(interval % 2**31, tf.int32), tf.cast(interval // 2**31, tf.int32)
    # Another stream than that of actions.
    own = tf.constant((store.seed ^ _NOISE) % 2**31, tf.int32)
    seed = tf.stack([tf.bitwise.bitwise_xor(own, high), low])
    return tf.random.experimental.stateless_fold_in(seed, rank) if rank else seed


def _spaces() -> tuple[gymnasium.Space, gymnasium.Space]:
    spaces = current().store.spaces
    if spaces is None:
        raise RuntimeError("The spaces are not known: this model has not seen an environment.")
    return spaces


@contextlib.contextmanager
def reuse() -> Iterator[None]:
    """Builds something a second time: the same names give the same variables inside.

    For layers that have to be applied again after their variables have changed, as a line search
    does; elsewhere call one layer object twice.
    """
    with current().reused():
        yield


@contextlib.contextmanager
def scope(name: str) -> Iterator[None]:
    """Puts `name/` before the variables made inside, and lets Keras count layers afresh there.

    Layers are named in the order in which they are made (`dense`, `dense_1`, ...), so a critic
    that is built only in TRAIN, before the actor, would take the actor's names. Inside a scope it
    has names of its own.

    Args:
      name: prefix of the names. Scopes nest. A scope that is opened again in the same call counts
        from the start again, so its layers need names that differ from those of the first time.

    Raises:
      ValueError: the name is empty, no string, or unfit for a scope of TensorFlow.
      RuntimeError: no model_fn is being called.

    Example:

        with pgest.scope("critic"):
            value = tf_keras.layers.Dense(1)(hidden)
    """
    if not isinstance(name, str) or not name.strip("/"):
        raise ValueError(f"pgest.scope got {name!r}; expected a non-empty string.")
    with current().renamed(name.strip("/")):
        yield


@dataclasses.dataclass
class Half:
    """One half of a step that is traced in two, with an exchange between them.

    Attributes:
      given: the gradients of all workers, of which the second half is made; None in the first one,
        which ends with those of this worker.
      reached: what `minimize` returned in the first half, a tensor a call.
    """

    given: Sequence[tf.Tensor] | None = None
    reached: list[tf.Tensor] = dataclasses.field(default_factory=list)


class Build:
    """One call of a model_fn: what it asked the store for.

    Attributes:
      requested: the variables of the store that the call used, by name, in the order of asking.
      metrics: scalars by name, reported beside those of the model_fn's spec.
      gradients: of each loss that `minimize` was given, (gradient, variable) before clipping.
      optimizers: how many `minimize` has applied so far.
      layers: the Keras layers that it called.
      error: the first that was raised while a variable was being made.
      exchange: how means become those of all workers; None where nothing is exchanged.
      half: the half of a step that it is; None: a whole one.
    """

    def __init__(self, store: variable_store.VariableStore, mode: str, rooted: bool = True):
        self.store = store
        self._rooted = rooted
        self.mode = mode
        self.counters = store.counters
        self.requested: dict[str, tf.Variable] = {}
        self.metrics: dict[str, tf.Tensor] = {}
        self.gradients: list[list[tuple[Any, tf.Variable]]] = []
        self.optimizers = 0
        self.error: Exception | None = None
        self.exchange: Any = None
        self.half: Half | None = None
        self.layers = called_layers.CalledLayers()
        self._transients: collections.Counter[str] = collections.Counter()
        self._steps: list[tuple[str, tf.Variable]] = []
        self._slots: set[int] = set()
        self._applying = False
        self._prefixes: list[str] = []
        self._roots: list[str] = []
        self._graph = tf.compat.v1.get_default_graph()
        self._read_before = {id(variable) for variable in _read_variables(self._graph)}

    @property
    def trainable_variables(self) -> list[tf.Variable]:
        """The trainable variables that this call used, of layers made outside too.

        Those of layers with `trainable = False` are left out.
        """
        used = {id(v): v for v in (*self.requested.values(), *self.captured)}
        left_out = self._slots | self.layers.frozen
        return [v for v in used.values() if v.trainable and id(v) not in left_out]

    @property
    def captured(self) -> list[tf.Variable]:
        """What this call read without asking the store, as of a layer that was built before."""
        known = {id(variable) for variable in self.requested.values()} | self._read_before
        return [v for v in _read_variables(self._graph) if id(v) not in known]

    @contextlib.contextmanager
    def renamed(self, prefix: str = "") -> Iterator[None]:
        """Starts names afresh: Keras' layer counts and TensorFlow's scopes, behind `prefix`."""
        graph = tf.compat.v1.get_default_graph()  # what Keras counts layers by, eagerly too
        counts = keras_backend.PER_GRAPH_OBJECT_NAME_UIDS
        outer = counts.get(graph)
        # TensorFlow makes a scope's name unique within a graph; below a fresh root every
        # name is free again, and the root is taken off in `_full_name`.
        with tf.name_scope(prefix or _ROOT) if prefix or self._rooted else _as_it_is():
            self._prefixes.append(prefix)
            self._roots.append(tf.get_current_name_scope())
            counts[graph] = collections.defaultdict(int)
            try:
                yield
            finally:
                self._prefixes.pop()
                self._roots.pop()
                if outer is None:
                    counts.pop(graph, None)
                else:
                    counts[graph] = outer

    @contextlib.contextmanager
    def reused(self) -> Iterator[None]:
        """Starts names afresh, and lets those that were asked for be asked for again."""
        outer, self.requested = self.requested, {}
        try:
            with self.renamed():
                yield
        finally:
            self.requested = {**outer, **self.requested}

    @contextlib.contextmanager
    def applying(self, optimizer_name: str) -> Iterator[None]:
        """Gives the slots of one optimizer, applied inside, names of their own."""
        outer, self._applying = self._applying, True
        try:
            with self.renamed(optimizer_name):
                yield
        finally:
            self._applying = outer

    def release(self, optimizer_step: tf.Variable) -> bool:
        """Takes an optimizer's own step count out of the store: `global_step` replaces it.

        Returns:
          False where it was not made in this call.
        """
        left = [(name, v) for name, v in self._steps if v is not optimizer_step]
        found = len(left) < len(self._steps)
        self._steps = left
        return found

    def create(self, next_creator: Callable[..., tf.Variable], **kwargs: Any) -> tf.Variable:
        """The `tf.variable_creator_scope` of this call."""
        name = self._full_name(kwargs.get("name") or "Variable")
        try:
            return self._create(next_creator, name, kwargs)
        except (ValueError, TypeError) as error:
            # Keras' Sequential swallows a ValueError and goes on, so it is raised again at the
            # end of the call.
            self.error = self.error or error
            raise

    def _create(
        self, next_creator: Callable[..., tf.Variable], name: str, kwargs: dict[str, Any]
    ) -> tf.Variable:
        origin = origins.origin_of(name)
        if origin is Origin.OPTIMIZER_STEP:
            variable = self._transient(next_creator, name, kwargs)
            self._steps.append((name, variable))
            return variable
        described = map(kwargs.get, ("synchronization", "aggregation", "collections"))
        metric = variable_store.is_metric(*described)
        evaluating = self.mode == "EVAL"
        if origin is Origin.OPTIMIZER_SETTING or (metric and not evaluating):
            return self._transient(next_creator, name, kwargs)
        slot = origin is Origin.OPTIMIZER_SLOT
        if name in self.requested:
            if not (metric or (slot and self._applying)):
                raise ValueError(self._asked_twice(name))
            name = self._numbered(name)
        self.store.check_free(name)
        variable = self.store.obtain(next_creator, name, kwargs, local=evaluating, saved=not metric)
        self.requested[name] = variable
        if slot:
            self._slots.add(id(variable))
        return variable

    def _numbered(self, name: str) -> str:
        """A free name; tf_keras names the variables of all metrics alike, and Adafactor's."""
        number = 1
        while f"{name}_{number}" in self.requested:
            number += 1
        return f"{name}_{number}"

    def _transient(
        self, next_creator: Callable[..., tf.Variable], name: str, kwargs: dict[str, Any]
    ) -> tf.Variable:
        self._transients[name] += 1
        key = (self.mode, name, self._transients[name])
        return self.store.transient(next_creator, key, kwargs)

    def _full_name(self, name: str) -> str:
        scope_name = tf.get_current_name_scope()
        root = self._roots[-1] if self._roots else ""
        if scope_name == root:
            scope_name = ""
        elif scope_name.startswith(root + "/"):
            scope_name = scope_name[len(root) + 1 :]
        parts = [prefix for prefix in self._prefixes if prefix] + [scope_name, name]
        return "/".join(part for part in parts if part)

    def _asked_twice(self, name: str) -> str:
        return (
            f"model_fn asked for the variable {name!r} twice in one call (Modes.{self.mode}), and "
            "would get one variable for two uses. Give the layers (or tf.Variables) different "
            "names, or open a pgest.scope(...) around one of them; to use one layer twice, make "
            "it once and call it twice; optimizers get names of their own through pgest.minimize."
        )

    def finish(self) -> None:
        """Raises what went wrong; to be called when model_fn has returned."""
        if self.error is not None:
            raise self.error
        counted = collections.Counter(name for name, _ in self._steps)
        for name, count in counted.items():
            if count > 1:
                raise ValueError(self._asked_twice(name))
        for name, variable in self._steps:
            self.requested[name] = self.store.keep(name, variable)
        for name, variable in self.store.adopt(self.captured).items():
            self.requested.setdefault(name, variable)


@contextlib.contextmanager
def building(
    store: variable_store.VariableStore, mode: str, rooted: bool = True
) -> Iterator[Build]:
    """Every variable that is made inside goes through the store.

    Args:
      store: of the model.
      mode: the name of the mode of this call of model_fn.
      rooted: False where nothing else was named in this graph, so that the tags of `tf.summary`
        calls stay as the user wrote them.

    Raises:
      ValueError, TypeError: a variable cannot be shared by name; the first such error of the call,
        even where Keras swallowed it.
    """
    build = Build(store, mode, rooted)
    stack = _state.__dict__.setdefault("builds", [])
    stack.append(build)
    try:
        with contextlib.ExitStack() as inside:
            inside.enter_context(initial_values.seeded(store.seed))
            build.layers = inside.enter_context(called_layers.noted())
            inside.enter_context(build.renamed())
            inside.enter_context(tf.variable_creator_scope(build.create))
            inside.enter_context(legacy_getter.refused(store))
            yield build
        build.finish()
    except Exception as error:
        if build.error is None or build.error is error:
            raise
        raise build.error from error  # the later ones follow from the first
    finally:
        stack.pop()


def _read_variables(graph: Any) -> list[tf.Variable]:
    """The variables that a graph has read so far, in the order of their capture."""
    read = {id(v.handle): v for v in getattr(graph, "_watched_variables", ())}
    captures = [id(external) for external, _ in getattr(graph, "captures", ())]
    ordered = [read.pop(key) for key in captures if key in read]
    return ordered + sorted(read.values(), key=lambda variable: variable.name)
