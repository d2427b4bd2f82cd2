"""Notes on what a model_fn raises: which mode was traced, what there is, and what to write.

Code that comes from tf.estimator fails in TensorFlow's words, below tens of lines of traceback.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import tensorflow as tf
import tf_keras

from pgest.contract import given as given_lib

_LOGGER = logging.getLogger(__name__)
_PACKAGE = __name__.partition(".")[0]

_MINIMIZE = (
    "Write train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(1e-3)): it takes the variables "
    "that this call used and moves global_step."
)
_GET_VARIABLE = (
    "Write a layer of tf_keras, or tf.Variable(tf.zeros([4, 2]), name='weights'): a variable is "
    "shared between modes by its name."
)
_LAYERS = "Write tf_keras.layers.Dense(64, activation='tanh')(features['state'])."
_GRAPH = (
    "There is no session: features and labels are the tensors, and what model_fn returns in its "
    "EstimatorSpec is run. Numbers to look at go into EstimatorSpec(metrics={'name': scalar})."
)
_STEP = "Write pgest.get_global_step(); pgest.minimize moves it, without being told."
_NO_VALUES = (
    "model_fn is traced, once a mode: its tensors have no values yet. Choose with tf.where or "
    "tf.cond, print with tf.print, report with EstimatorSpec(metrics={'name': scalar})."
)
# Names of TensorFlow 1, without "tf." and "tf.compat.v1.", and what is written for them.
_SUCCESSORS = (
    (
        r"estimator\b",
        "tf.estimator left TensorFlow in 2.16. Write pgest.EstimatorSpec, pgest.Modes.TRAIN, "
        "pgest.RunConfig, pgest.PGAgent.",
    ),
    (r"train\.\w*Optimizer$", _MINIMIZE),
    (r"train\.\w*global_step$", _STEP),
    (
        r"train\.\w*(decay|constant)",
        "Write tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.ExponentialDecay(1e-3, "
        "1000, 0.9)), or a pgest.Schedule.",
    ),
    (
        r"train\.\w*(Hook|Scaffold|Saver|Session)",
        "The agent writes checkpoints by itself; hooks are pgest.LoggingTensorHook, "
        "pgest.StopAtStepHook and the like, and your own a pgest.BaseMonitor.",
    ),
    (r"(contrib\.)?distributions\b", "Write tensorflow_probability.distributions."),
    (r"(contrib\.)?(layers|nn|slim)\b|contrib\b", _LAYERS),
    (
        r"losses\b",
        "Write the loss as a scalar tensor, such as -tf.reduce_mean(distribution.log_prob("
        "labels['action']) * labels['advantage']).",
    ),
    (
        r"metrics\b",
        "Write EstimatorSpec(eval_metric_ops={'name': metric}) with a tf_keras.metrics.Metric "
        "whose update_state was called.",
    ),
    (r"(variable_scope|AUTO_REUSE)", "Write with pgest.scope('critic'): ..."),
    (r"get_variable", _GET_VARIABLE),
    (r"(placeholder|Session|InteractiveSession|\w*variables_initializer|get_default_)", _GRAPH),
    (r"(multinomial|random\.multinomial)", "Return the distribution: the agent samples from it."),
    (r"(summary|Print$)", _NO_VALUES),
    (r"logging\b", "Write Python's own logging."),
)
_ABSENT = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_KERAS_2 = re.compile(r"`(\w+)` is not available with Keras 3")
_ROOTS = re.compile(
    r"^(tensorflow(\._api\.v2)?|keras\._tf_keras\.keras|keras)\b\.?(compat\.v[12]\.?)?"
)
_GET_VARIABLE_MODULE = "tensorflow.python.ops.variable_scope"
_SESSION_MODULE = "tensorflow.python.client.session"
_MINIMIZES = re.compile(r"No variables to optimize|minimize\(\)|`tape` is required")
_WANTS_VALUES = re.compile(
    r"Cannot evaluate tensor using `eval|'numpy'|as a Python `bool`|symbolic.*array|Session"
)


def add(error: Exception, name: str, mode: str, arguments: Mapping[str, Any]) -> None:
    """Notes on an error that a model_fn raised what a reader needs to know.

    From Python 3.11 on it is a note; before that the text of the error ends with it.

    Args:
      error: as it is about to be raised on.
      name: of the model_fn.
      mode: that was traced.
      arguments: what the model_fn was given: `features`, `labels`, `params`.
    """
    if isinstance(error, given_lib.MissingNameError):
        return  # it says all this itself
    note = f"model_fn {name} was traced in Modes.{mode}. "
    hint = _hint(error, arguments)
    if hint is not None:
        note += hint
    elif not _modules(error.__traceback__)[-1].startswith(f"{_PACKAGE}."):
        note += " ".join(f"{what}: {_shown(value)}." for what, value in arguments.items())
    if sys.version_info >= (3, 11):
        error.add_note(note.strip())
    else:
        extend(error, note.strip())


def extend(error: Exception, note: str) -> None:
    """Ends the text of an error with a note, where it has a text of its own; else logs it."""
    first = error.args[0] if error.args else None
    if isinstance(first, str) and str(error) == first:
        error.args = (f"{first}\n{note}", *error.args[1:])
    else:
        _LOGGER.error("%s: %s", type(error).__name__, note)


def successor(path: str) -> str | None:
    """What is written for a name of TensorFlow 1; None: nobody knows.

    Args:
      path: without "tf.".

    Example:
      >>> successor("train.get_or_create_global_step")
      'Write pgest.get_global_step(); pgest.minimize moves it, without being told.'
    """
    for pattern, text in _SUCCESSORS:
        if re.match(pattern, path):
            return text
    if hasattr(tf.compat.v1, path):
        return f"tf.{path} was TensorFlow 1's: write tf.compat.v1.{path}, or what succeeds it."
    return None


def _hint(error: Exception, arguments: Mapping[str, Any]) -> str | None:
    text, modules = str(error), _modules(error.__traceback__)
    if isinstance(error, AttributeError):
        absent, old_layer = _ABSENT.search(text), _KERAS_2.search(text)
        if absent is not None and _ROOTS.match(absent[1]):
            return successor(f"{_ROOTS.sub('', absent[1])}.{absent[2]}".strip("."))
        if old_layer is not None:
            return _layer(old_layer[1])
    if _GET_VARIABLE_MODULE in modules:
        return _GET_VARIABLE
    if _MINIMIZES.search(text):
        return _MINIMIZE
    if "'NoneType'" in text and arguments.get("labels") is None:
        return (
            "labels is None in this mode, which acts. Return before it is read: if mode == "
            "pgest.Modes.PREDICT: return pgest.EstimatorSpec(mode, distribution=distribution)."
        )
    if _WANTS_VALUES.search(text) or _SESSION_MODULE in modules:
        return _NO_VALUES
    return None


def _layer(name: str) -> str:
    """What is written for a function or class of tf.compat.v1.layers.

    >>> _layer("max_pooling2d")
    'Write tf_keras.layers.MaxPooling2D(...)(inputs), a layer that is made and then called.'
    """
    plain = name.replace("_", "").lower()
    found = [layer for layer in dir(tf_keras.layers) if layer.lower() == plain]
    if not found or found[0] == "Dense":
        return _LAYERS
    return f"Write tf_keras.layers.{found[0]}(...)(inputs), a layer that is made and then called."


def _shown(value: Any) -> str:
    if value is None:
        return "None"
    if not isinstance(value, Mapping):
        return type(value).__name__
    return f"a dict of {given_lib.described(value)}" if value else "an empty dict"


def _modules(trace: TracebackType | None) -> list[str]:
    """The modules of the calls that an error came through, the one that raised it last."""
    names = []
    while trace is not None:
        names.append(trace.tb_frame.f_globals.get("__name__") or "")
        trace = trace.tb_next
    return names
