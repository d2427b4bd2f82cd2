"""The contract between a user's model and the agent: modes, specs, how model_fn is called."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from pgest.contract import foreign_names, given, notes


class Modes(str, enum.Enum):
    """What a call of model_fn is for.

    * `TRAIN`: loss and `train_op` over a minibatch.
    * `EVAL`: evaluation loss and `eval_metric_ops`.
    * `PREDICT`: acting and serving; `labels` are None.
    * `COLLECT`: exploring with a model that gives no `distribution`; `labels` are None.
    """

    TRAIN = "train"
    EVAL = "eval"
    PREDICT = "infer"
    COLLECT = "collect"

    def __str__(self) -> str:
        return self.name


ACTING = (Modes.PREDICT, Modes.COLLECT)


@foreign_names.told_fields
@dataclasses.dataclass(frozen=True)
class EstimatorSpec:
    """What model_fn returns: the ops and tensors of one mode, checked when made.

    Attributes:
      mode: the mode that model_fn was called with.
      predictions: tensors by name, batch first; a single tensor is `{"results": tensor}`. Those
        made while acting come back in `labels` under the same names (`value`, `log_prob`, ...).
      loss: scalar to minimise (TRAIN) or to report (EVAL).
      train_op: op, tensor or variable whose execution is one step (TRAIN).
      eval_metric_ops: by name, a `tf_keras.metrics.Metric` that was updated, or a pair
        (value tensor, update op).
      export_outputs: further serving signatures, each a tensor or a dict of tensors.
      training_chief_hooks: monitors for the chief's training alone.
      training_hooks: monitors for training.
      evaluation_hooks: monitors of EVAL, for each `evaluate`: begin, after_episode and end, where
        `context.metrics` are the results.
      prediction_hooks: monitors of PREDICT, for each `predict`: begin and end.
      extra_ops: ops or tensors to run with each `train_op`.
      distribution: the distribution over actions (TensorFlow Probability), batch first.
      policy_state: a recurrent model's next state, a nest of tensors `[B, ...]`.
      metrics: scalars by name, for hooks and TensorBoard.
      after_batch: function of the whole batch, leaves `[T, B, ...]` by name (`state`, `reward`,
        `terminated`, `truncated`, predictions), called in the graph once an update, after its last
        step: where running statistics are updated, since before that every epoch and minibatch
        must see those that acted. Where environments stand end to end, `[N, 1, ...]`, `env_index`
        is the environment of each row.

    Raises:
      ValueError: the mode lacks what it needs, or the loss is no scalar.
      TypeError: a field is of another type.

    Example:

    >>> spec = EstimatorSpec(Modes.EVAL, loss=tf.constant(1.0))
    >>> spec.mode is Modes.EVAL
    True
    """

    mode: Modes
    predictions: Any = None
    loss: tf.Tensor | None = None
    train_op: Any = None
    eval_metric_ops: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    export_outputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training_chief_hooks: Sequence[Any] = ()
    training_hooks: Sequence[Any] = ()
    evaluation_hooks: Sequence[Any] = ()
    prediction_hooks: Sequence[Any] = ()
    extra_ops: Sequence[Any] = ()
    distribution: Any = None
    policy_state: Any = None
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    after_batch: Callable[[dict[str, Any]], Any] | None = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "mode", Modes(self.mode))
        except ValueError as error:
            raise ValueError(
                f"EstimatorSpec got mode={self.mode!r}; expected one of "
                f"{', '.join(f'Modes.{mode}' for mode in Modes)}."
            ) from error
        self._normalize_fields()
        self._check_needs()
        self._check_eval_metrics()
        self._check_loss()

    def _normalize_fields(self) -> None:
        predictions = self.predictions
        if predictions is None:
            predictions = {}
        elif not isinstance(predictions, Mapping):
            predictions = {"results": predictions}
        object.__setattr__(self, "predictions", dict(predictions))
        for name in ("eval_metric_ops", "export_outputs", "metrics"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Mapping):
                raise TypeError(
                    f"EstimatorSpec.{name} is {type(value).__name__}; expected a dict by name."
                )
            object.__setattr__(self, name, dict(value or {}))
        for name in (
            "training_chief_hooks",
            "training_hooks",
            "evaluation_hooks",
            "prediction_hooks",
            "extra_ops",
        ):
            object.__setattr__(self, name, tuple(getattr(self, name) or ()))

    def _check_needs(self) -> None:
        missing = []
        if self.mode is Modes.TRAIN:
            missing = [name for name in ("loss", "train_op") if getattr(self, name) is None]
        elif self.mode is Modes.EVAL and self.loss is None:
            missing = ["loss"]
        elif self.mode in ACTING and self.distribution is None:
            if "results" not in self.predictions:
                missing = ["distribution (or predictions['results'], the actions)"]
        if missing:
            raise ValueError(
                f"EstimatorSpec for Modes.{self.mode} lacks {' and '.join(missing)}: pass "
                f"{'it' if len(missing) == 1 else 'them'} when model_fn is called with this mode."
            )
        for method in ("sample", "log_prob"):
            if self.distribution is not None and not hasattr(self.distribution, method):
                raise TypeError(
                    f"EstimatorSpec.distribution is {type(self.distribution).__name__}, which has "
                    f"no `{method}`; expected a distribution of TensorFlow Probability."
                )

    def _check_eval_metrics(self) -> None:
        for name, value in self.eval_metric_ops.items():
            pair = isinstance(value, (tuple, list)) and len(value) == 2
            if pair or isinstance(value, tf_keras.metrics.Metric):
                continue
            kind = type(value)
            library = " of Keras 3" if kind.__module__.startswith("keras.") else ""
            raise TypeError(
                f"EstimatorSpec.eval_metric_ops[{name!r}] is {kind.__name__}{library}; expected a "
                "tf_keras.metrics.Metric whose update_state was called, or a pair (value tensor, "
                "update op)."
            )

    def _check_loss(self) -> None:
        if self.loss is None:
            return
        loss = tf.convert_to_tensor(self.loss)
        if loss.shape.rank not in (0, None) and loss.shape.num_elements() != 1:
            raise ValueError(
                f"EstimatorSpec.loss has shape {loss.shape}; expected a scalar. Reduce it, for "
                "example with tf.reduce_mean."
            )
        if not loss.dtype.is_floating:
            raise ValueError(f"EstimatorSpec.loss is {loss.dtype.name}; expected a float.")
        object.__setattr__(self, "loss", tf.reshape(loss, []))


_OPTIONAL = ("mode", "params", "config", "model_dir")


class ModelFn:
    """A user's model_fn with its arguments found by name, as Estimator finds them.

    Args:
      model_fn: function, bound method, `functools.partial` or object with `__call__`; takes
        `features` and `labels`, and any of `mode`, `params`, `config`, `model_dir`.
      params: hyper-parameters to pass on, or None.

    Raises:
      ValueError: an argument is missing or unknown, or params were given and it takes none.
      TypeError: it cannot be called.
    """

    def __init__(self, model_fn: Callable[..., EstimatorSpec], params: Mapping[str, Any] | None):
        if not callable(model_fn):
            raise TypeError(
                f"model_fn is {type(model_fn).__name__}, which cannot be called; expected "
                "model_fn(features, labels, mode, params)."
            )
        self._model_fn = model_fn
        self.name = _name(model_fn)
        arguments = _Arguments(self.name, model_fn)
        arguments.check(params)
        self._wanted = [name for name in _OPTIONAL if arguments.takes(name)]

    def __repr__(self) -> str:
        return repr(self._model_fn) if dataclasses.is_dataclass(self._model_fn) else self.name

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The fields of a model_fn that is a dataclass, as the ready-made ones are; else none."""
        if not dataclasses.is_dataclass(self._model_fn) or isinstance(self._model_fn, type):
            return {}
        fields = dataclasses.fields(self._model_fn)
        return {field.name: getattr(self._model_fn, field.name) for field in fields}

    def __call__(self, features: Any, labels: Any, mode: Modes, **context: Any) -> EstimatorSpec:
        """Calls the user's function and checks that it returned a spec of this mode."""
        known = {"features": features, "labels": labels, "params": context.get("params")}
        known = {name: _named(value, name, mode) for name, value in known.items()}
        arguments = {**context, **known, "mode": mode}
        wanted = ("features", "labels", *self._wanted)
        try:
            spec = self._model_fn(**{name: arguments.get(name) for name in wanted})
        except Exception as error:
            notes.add(error, self.name, str(mode), known)
            raise
        if not isinstance(spec, EstimatorSpec):
            raise TypeError(
                f"model_fn {self.name} returned {type(spec).__name__} for Modes.{mode}; expected "
                "an EstimatorSpec."
            )
        if spec.mode is not mode:
            raise ValueError(
                f"model_fn {self.name} was called with Modes.{mode} and returned an EstimatorSpec "
                f"of Modes.{spec.mode}: pass on the mode that it was given."
            )
        return spec


class _Arguments:
    """The arguments that a model_fn takes, but for those that a partial has bound."""

    def __init__(self, name: str, model_fn: Callable[..., Any]):
        self._name = name
        parameters = inspect.signature(model_fn).parameters
        self._bound = _bound_keywords(model_fn)
        self._signature = f"({', '.join(str(parameter) for parameter in parameters.values())})"
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        named = {key: p for key, p in parameters.items() if p.kind not in variadic}
        self._names = {
            key
            for key, p in named.items()
            if key not in self._bound and p.kind is not p.POSITIONAL_ONLY
        }
        self._unusable = [key for key, p in named.items() if p.kind is p.POSITIONAL_ONLY]
        self._any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    def takes(self, name: str) -> bool:
        """Whether the agent may pass `name`."""
        return name in self._names or (self._any and name not in self._bound)

    def check(self, params: Mapping[str, Any] | None) -> None:
        """Raises `ValueError` where an argument is missing or unknown."""
        shown = f"model_fn {self._name}{self._signature}"
        expected = "expected model_fn(features, labels[, mode[, params[, config[, model_dir]]]])"
        if self._unusable:
            raise ValueError(
                f"{shown} takes {_quoted(self._unusable)} by position alone; the agent passes "
                "arguments by name: remove the `/`."
            )
        missing = [name for name in ("features", "labels") if not self.takes(name)]
        if missing:
            raise ValueError(f"{shown} lacks {_quoted(missing)}; {expected}.")
        unknown = sorted(self._names - {"features", "labels", *_OPTIONAL})
        if unknown:
            raise ValueError(
                f"{shown} takes {_quoted(unknown)}, which the agent does not know; {expected}. "
                "Bind others with functools.partial, or put them into params."
            )
        if params and "params" in self._bound:
            raise ValueError(
                f"params {sorted(params)} were given, but {shown} has `params` bound already: "
                "give one of them."
            )
        if params and not self.takes("params"):
            raise ValueError(
                f"params {sorted(params)} were given, but {shown} does not take `params`: add the "
                "argument, or do not pass params."
            )


def _named(value: Any, name: str, mode: Modes) -> Any:
    """A dict that tells of a name that is missing; anything else as it is."""
    return given.Given(value, name, str(mode)) if type(value) is dict else value


def _bound_keywords(model_fn: Any) -> set[str]:
    """Keywords bound by a `functools.partial`, through others around it."""
    bound: set[str] = set()
    while isinstance(model_fn, functools.partial):
        bound |= set(model_fn.keywords)
        model_fn = model_fn.func
    return bound


def _name(model_fn: Any) -> str:
    while isinstance(model_fn, functools.partial):
        model_fn = model_fn.func
    return getattr(model_fn, "__qualname__", type(model_fn).__name__)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
