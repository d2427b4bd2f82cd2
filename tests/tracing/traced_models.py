"""Runs a model_fn as the agent does, traced over a variable store, without an environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.contract import model_fn as model_fn_lib
from pgest.contract import run_config, update_config
from pgest.tracing import model as model_lib
from pgest.tracing import probing, updating

Modes = model_fn_lib.Modes
STATES = np.random.default_rng(0).normal(size=[6, 3]).astype(np.float32)
ACTIONS = np.array([0, 1, 0, 1, 1, 0], np.int32)


def make_model(model_fn: Any, params: dict | None = None, seed: int = 0) -> model_lib.Model:
    config = run_config.RunConfig(tf_random_seed=seed)
    return model_lib.Model(model_fn_lib.ModelFn(model_fn, params), params or {}, config, seed)


def labels(**more: Any) -> dict[str, Any]:
    rewards = np.ones([len(ACTIONS)], np.float32)
    return {"action": ACTIONS, "advantage": rewards, "discount_reward": rewards, **more}


def call(model: model_lib.Model, mode: Modes, **more: Any) -> dict[str, Any]:
    """Traces and runs one call. See `traced`."""
    return traced(model, mode, **more)()


def traced(model: model_lib.Model, mode: Modes, **more: Any) -> Callable[[], dict[str, Any]]:
    """Traces a call on `STATES`.

    Args:
      model: the model.
      mode: of the call.
      **more: further labels.

    Returns:
      What runs it, and in TRAIN executes the train_op; it returns what the spec holds, on the
      host: predictions, `log_prob`, `loss` and the metrics of `minimize`.
    """

    def outputs_of(features: Any, given: Any) -> dict[str, Any]:
        spec, build = model.call(features, given if mode is not Modes.PREDICT else None, mode)
        outputs = {**spec.predictions, **{f"metrics/{k}": v for k, v in build.metrics.items()}}
        if spec.distribution is not None:
            outputs["log_prob"] = spec.distribution.log_prob(given["action"])
        executed = [] if spec.train_op is None else [getattr(spec.train_op, "op", spec.train_op)]
        if spec.loss is not None:
            with tf.control_dependencies(executed):
                outputs["loss"] = tf.identity(spec.loss)
        return outputs

    arguments = tf.nest.map_structure(tf.constant, ({"state": STATES}, labels(**more)))
    concrete = tf.function(outputs_of, autograph=False).get_concrete_function(*arguments)

    def run() -> dict[str, Any]:
        outputs = concrete(*tf.nest.flatten(arguments))
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def check_on(
    model: model_lib.Model,
    features: Any,
    given: Any,
    recurrent: bool = False,
    size: int | None = None,
) -> None:
    """Traces a step, of any number of rows, and checks it on one batch."""
    found: dict[str, Any] = {}

    def step(features: Any, given: Any) -> tf.Tensor:
        spec, _ = model.call(features, given, Modes.TRAIN)
        log_prob = spec.distribution.log_prob(given["action"])
        found["trained"] = probing.Trained.of(features, given, log_prob)
        with tf.control_dependencies([spec.train_op]):
            return tf.identity(spec.loss)

    def spec_of(leaf: tf.Tensor) -> tf.TensorSpec:
        return tf.TensorSpec(leaf.shape if recurrent else [None, *leaf.shape[1:]], leaf.dtype)

    specs = tf.nest.map_structure(spec_of, (features, given))
    tf.function(step, autograph=False).get_concrete_function(*specs)
    trained = found["trained"]
    probing.check_log_probabilities(model, trained, features, given, size=size, recurrent=recurrent)


def make_updater(model: model_lib.Model, **config: Any) -> updating.Updater:
    """The compiled update of a feed-forward model of `STATES` and two actions."""
    flags = dict.fromkeys(("terminated", "truncated", "cut"), tf.TensorSpec([None, 1], tf.bool))
    floats = ("log_prob", "reward", "bootstrap_value")
    signature = {
        "state": tf.TensorSpec([None, 1, 3], tf.float32),
        "action": tf.TensorSpec([None, 1], tf.int32),
        **dict.fromkeys(floats, tf.TensorSpec([None, 1], tf.float32)),
        **flags,
    }
    graph = updating.UpdateGraph(model, update_config.UpdateConfig(**config), signature, False)
    return updating.Updater(graph, signature, False)


def batch() -> dict[str, np.ndarray]:
    """One episode, as `make_updater` takes it."""
    size = len(ACTIONS)
    zeros, ones = np.zeros([size, 1], np.float32), np.ones([size, 1], np.float32)
    ended = np.zeros([size, 1], np.bool_)
    last = ended.copy()
    last[-1] = True
    return {
        "state": STATES[:, None],
        "action": ACTIONS[:, None],
        "log_prob": zeros,
        "reward": ones,
        "bootstrap_value": zeros,
        "terminated": last,
        "truncated": ended,
        "cut": ended,
    }


def values(model: model_lib.Model) -> dict[str, np.ndarray]:
    """Everything that a checkpoint would hold."""
    return {name: variable.numpy() for name, variable in model.saved_variables().items()}


def restored(model_fn: Any, saved: dict[str, np.ndarray], **more: Any) -> model_lib.Model:
    """A model whose variables start from `saved`, as in a process that continues a run."""
    model = make_model(model_fn, **more)
    model.store.saved_value = lambda name, shape: saved.get(name)
    for name, variable in model.counters.variables.items():
        variable.assign(saved[name])
    model.counters.refresh()
    return model


class PlainSharing:
    """Sharing by name in ten lines of TensorFlow, with none of pgest's guards.

    With it the tests first show the silent failure that a guard turns into an error.

    Args:
      checked: refuse another shape under a known name.
    """

    def __init__(self, checked: bool = False):
        self.variables: dict[str, tf.Variable] = {}
        self._checked = checked

    def trace(self, function: Any, *arguments: Any) -> Any:
        def scoped(*inputs: Any) -> Any:
            with tf.variable_creator_scope(self._create):
                return function(*inputs)

        return tf.function(scoped, autograph=False).get_concrete_function(*arguments)

    def _create(self, next_creator: Any, **kwargs: Any) -> tf.Variable:
        name = "/".join(part for part in (tf.get_current_name_scope(), kwargs["name"]) if part)
        if name not in self.variables:
            with tf.init_scope():
                self.variables[name] = next_creator(**kwargs)
        elif self._checked and not self.variables[name].shape.is_compatible_with(kwargs["shape"]):
            raise ValueError(f"{name} has another shape")
        return self.variables[name]
