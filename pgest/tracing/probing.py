"""Traces that run only what is fetched, as Estimator's sessions did.

Within a `tf.function` everything that changes state runs, whatever is returned. To look at the
policy in a step without a step, and to evaluate with a model_fn that also builds a `train_op`, the
graph has to be cut down to what is wanted.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.contract import model_fn
from pgest.tracing import dependencies
from pgest.tracing import model as model_lib

Modes = model_fn.Modes
_TOLERANCE = 1e-4


class LogProbabilityMismatchError(ValueError):
    """TRAIN's distribution is not the one that acted."""


@dataclasses.dataclass
class Pruned:
    """A traced call of model_fn and ways to run parts of it.

    Attributes:
      spec: what model_fn returned, symbolic.
      inputs: placeholders of (features, labels).
      wrapped: the wrapped function of the whole trace.
    """

    spec: model_fn.EstimatorSpec
    inputs: tuple[Any, Any]
    wrapped: Any

    def fetch(self, fetches: Any, features: Any, labels: Any) -> Any:
        """Runs what `fetches` needs, and nothing else."""
        leaves = tf.nest.flatten((features, labels))
        return self.program(fetches)(*[tf.convert_to_tensor(leaf) for leaf in leaves])

    def program(self, fetches: Any) -> Any:
        """The function of the flat inputs that computes `fetches`."""
        return self.wrapped.prune(tf.nest.flatten(self.inputs), fetches)


def trace(model: model_lib.Model, features: Any, labels: Any, mode: Modes) -> Pruned:
    """Traces model_fn in `mode` for tensors, or specs, like `features` and `labels`."""
    structure = (features, labels)
    found: dict[str, Any] = {}

    def call(*leaves: tf.Tensor) -> tf.Tensor:
        packed: tuple[Any, Any] = tf.nest.pack_sequence_as(structure, leaves)
        # In a graph of wrap_function's own name Keras makes the layers of TensorFlow 1, and a
        # Sequential of those does not know its variables.
        tf.compat.v1.get_default_graph().name = "model_fn"
        spec, _ = model.call(packed[0], packed[1], mode)
        found.update(spec=spec, inputs=packed)
        return tf.zeros([])

    signature = [_spec(leaf) for leaf in tf.nest.flatten(structure)]
    wrapped = tf.compat.v1.wrap_function(call, signature)
    return Pruned(wrapped=wrapped, **found)


@dataclasses.dataclass
class Trained:
    """Where in the trace of a step the policy is.

    Attributes:
      inputs: tensors of (features, labels).
      log_prob: of the actions in labels, as the policy in TRAIN has them.
    """

    inputs: tuple[Any, Any]
    log_prob: tf.Tensor

    @classmethod
    def of(cls, features: Any, labels: Any, log_prob: tf.Tensor | None) -> Trained | None:
        """That of a step; None where there are no log-probabilities."""
        return None if log_prob is None else cls((features, labels), log_prob)


def read_by_policy(trained: Trained | None, prepare: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
    """Features and labels of a batch that the policy in a step reads, and `log_prob`.

    To run the whole preparation, which is compiled in the update, takes as long as the check.

    Args:
      trained: the traced step.
      prepare: the traced `Preparation`, whose features and labels the step takes.
      batch: as `prepare` takes it.

    Returns:
      What `check_log_probabilities` takes; None in place of what is not read.
    """
    if trained is None:
        return {}, {}
    prepared = prepare.structured_outputs[:2]
    policy = dependencies.Dependencies(trained.log_prob)
    read = [policy.contains(leaf) for leaf in tf.nest.flatten(trained.inputs)]
    read = tf.nest.pack_sequence_as(prepared, read)
    read[1]["log_prob"] = True
    tf.nest.assert_same_structure(prepare.structured_input_signature[0][0], dict(batch))
    read = tf.nest.flatten(read)
    needs = dependencies.Dependencies(*itertools.compress(tf.nest.flatten(prepared), read))
    leaves = tf.nest.flatten(batch)
    pairs = zip(prepare.inputs[: len(leaves)], leaves, strict=True)  # variables follow
    given = [(inside, leaf) for inside, leaf in pairs if needs.contains(inside)]
    function = needs.function([inside for inside, _ in given])
    found = iter(function(*[tf.convert_to_tensor(leaf) for _, leaf in given]))
    return tf.nest.pack_sequence_as(prepared, [next(found) if reads else None for reads in read])


def check_log_probabilities(
    model: model_lib.Model,
    trained: Trained | None,
    features: dict[str, Any],
    labels: dict[str, Any],
    *,
    size: int | None = None,
    recurrent: bool = False,
    compare: bool = True,
) -> None:
    """Raises unless TRAIN's distribution is the one that acted.

    It is when it gives back the log-probabilities of acting and depends on no weight that acting
    does not use. (Heads that start at zero give the same probabilities whatever their inputs.)

    Args:
      model: after acting and TRAIN were traced.
      trained: the traced step; None of a model without a distribution, which has nothing to check.
      features: of the first batch, tensors or arrays; what the policy does not read may be None.
      labels: of the first batch, as features; `log_prob` among them.
      size: rows to look at in one go, all of them in the end, where the step takes any number: an
        update by minibatches has the memory for one. None takes all at once.
      recurrent: a row is an environment, with time before it, and not a timestep.
      compare: False where weights from before an update may have acted in the batch: then only
        which weights are used is looked at.

    Raises:
      LogProbabilityMismatchError: they differ by more than 1e-4, or other weights are used; it
        lists each mode's variables. Where Dropout, BatchNorm, a counter or the like stand between,
        a difference only warns.
    """
    if trained is None:
        return
    needs = dependencies.Dependencies(trained.log_prob)
    _check_weights(model, needs)
    if not compare:
        return
    # Of what is needed alone: slices of a tensor and arguments of a function take their time.
    axes = tf.nest.flatten(_row_axes(features, labels, recurrent))
    leaves = zip(tf.nest.flatten(trained.inputs), tf.nest.flatten((features, labels)), axes,
                 strict=True)  # fmt: skip
    needed = [(leaf, np.asarray(given), axis) for leaf, given, axis in leaves
              if needs.contains(leaf)]  # fmt: skip
    function = needs.function([leaf for leaf, *_ in needed])
    acted = np.asarray(labels["log_prob"])
    rows, scale = acted.shape[int(recurrent)], _scale(acted)
    taken = tf.nest.flatten(trained.inputs[1]["action"])[0].shape[int(recurrent)]
    difference = 0.0
    for chosen in _pieces(rows, taken or size):
        given = [tf.constant(np.take(array, chosen, axis)) for _, array, axis in needed]
        (computed,) = function(*given)
        training, acting = computed.numpy(), np.take(acted, chosen, int(recurrent))
        difference = max(difference, _difference(training, acting, scale))
    if difference <= _TOLERANCE:
        return
    between = _between(model, needs)
    if not between:
        raise LogProbabilityMismatchError(
            "On the first batch, before any update, TRAIN's distribution gives log-probabilities "
            f"that differ from those of acting by up to {difference:.3g} (shapes {training.shape} "
            f"and {acting.shape}). {_advice(model)}"
        )
    warnings.warn(
        f"On the first batch TRAIN's log-probabilities differ from those of acting by up to "
        f"{difference:.3g}, through {', '.join(between)} (Dropout, BatchNorm, exploration that "
        "follows a counter, or the like in the policy). Probability ratios will not start at 1. "
        "What exploration depended on while acting is in labels if it is among the predictions.",
        stacklevel=2,
    )


def _check_weights(model: model_lib.Model, needs: dependencies.Dependencies) -> None:
    acting = [mode for mode in model_fn.ACTING if mode in model.used]
    if not acting:
        return
    acted = {name for mode in acting for name in model.used[mode]}
    weights = {name: v for name, v in model.store.variables.items() if v.trainable}
    others = sorted(needs.variables(weights) - acted)
    if others:
        raise LogProbabilityMismatchError(
            f"TRAIN's distribution depends on {', '.join(others)}, which acting does not use. "
            f"{_advice(model)}"
        )


def _row_axes(features: dict[str, Any], labels: dict[str, Any], recurrent: bool) -> Any:
    """The axis of the rows, for each leaf: 1 where time comes before them."""
    axes = tf.nest.map_structure(lambda leaf: int(recurrent), (features, labels))
    if "policy_state" in features:
        axes[0]["policy_state"] = tf.nest.map_structure(lambda leaf: 0, features["policy_state"])
    return axes


def _pieces(rows: int, size: int | None) -> Iterator[np.ndarray]:
    """All rows, `size` at a time; the last ones are followed by the first ones again."""
    size = size or rows
    for start in range(0, rows, size):
        yield np.arange(start, start + size) % rows


def _scale(acting: np.ndarray) -> float:
    """The largest log-probability where that exceeds 1."""
    finite = np.abs(acting[np.isfinite(acting)])
    return max(1.0, float(finite.max())) if finite.size else 1.0


def _difference(training: np.ndarray, acting: np.ndarray, scale: float) -> float:
    """The largest difference as a part of `scale`."""
    if training.shape != acting.shape:
        return float("inf")
    apart = ~((training == acting) | (np.isnan(training) & np.isnan(acting)))
    if not apart.any():
        return 0.0
    difference = float(np.max(np.abs(training[apart] - acting[apart]))) / scale
    return float("inf") if np.isnan(difference) else difference


def _advice(model: model_lib.Model) -> str:
    return (
        "It is not the policy that acted. Most often the modes build layers in another order, so "
        "that the names meet other variables; build the shared layers first, or put each part "
        f"into a pgest.scope(...). Variables by mode:\n{model.describe_modes()}"
    )


def _between(model: model_lib.Model, needs: dependencies.Dependencies) -> list[str]:
    """What makes TRAIN differ rightly.

    Random operations, layers with batch statistics, and counters, which have moved since acting.
    """
    end = "/moving_mean"
    used = model.used.get(Modes.TRAIN, ())
    layers = {name[: -len(end)].rpartition("/")[2] for name in used if name.endswith(end)}
    found = needs.variables({**model.counters.variables, "progress": model.counters.progress})
    for kind, name in needs.nodes():
        if "Random" in kind:
            found.add(kind)
        found |= layers.intersection(name.split("/"))
    return sorted(found)


def _spec(leaf: Any) -> tf.TensorSpec:
    if isinstance(leaf, tf.TensorSpec):
        return leaf
    leaf = tf.convert_to_tensor(leaf)
    return tf.TensorSpec(leaf.shape, leaf.dtype)
