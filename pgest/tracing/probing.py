"""Traces that run only what is fetched, as Estimator's sessions did.

Within a `tf.function` everything that changes state runs, whatever is returned. To look at the
TRAIN trace without training, and to evaluate with a model_fn that also builds a `train_op`, the
graph has to be cut down to what is wanted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pgest import model_fn as model_fn_lib
from pgest.tracing import model as model_lib

Modes = model_fn_lib.Modes
_TOLERANCE = 1e-4
_SUMMARY_OPS = ("WriteSummary", "WriteScalarSummary", "WriteHistogramSummary", "WriteImageSummary")


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

    spec: model_fn_lib.EstimatorSpec
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
    found: list[Any] = []

    def call(*leaves: tf.Tensor) -> tf.Tensor:
        packed = tf.nest.pack_sequence_as(structure, leaves)
        spec, _ = model.call(*packed, mode)
        found[:] = [spec, packed]
        return tf.zeros([])

    signature = [_spec(leaf) for leaf in tf.nest.flatten(structure)]
    wrapped = tf.compat.v1.wrap_function(call, signature)
    return Pruned(*found, wrapped)


def check_log_probabilities(
    model: model_lib.Model, features: dict[str, Any], labels: dict[str, Any]
) -> set[str]:
    """Raises unless TRAIN's distribution gives back the log-probabilities of acting.

    Args:
      model: after PREDICT and TRAIN were traced.
      features: of the first batch.
      labels: of the first batch; `log_prob` among them.

    Returns:
      The types of all operations of the TRAIN trace.

    Raises:
      LogProbabilityMismatchError: they differ by more than 1e-4; it lists each mode's variables.
    """
    used = dict(model.used)
    pruned = trace(model, features, labels, Modes.TRAIN)
    model.used = used
    distribution = pruned.spec.distribution
    types = {node.op for node in pruned.wrapped.graph.as_graph_def().node}
    if distribution is None or "log_prob" not in labels:
        return types
    with pruned.wrapped.graph.as_default():
        log_prob = tf.convert_to_tensor(distribution.log_prob(pruned.inputs[1]["action"]))
    training = pruned.fetch(log_prob, features, labels).numpy()
    acting = np.asarray(labels["log_prob"])
    difference = float(np.max(np.abs(training - acting))) if acting.size else 0.0
    if difference <= _TOLERANCE * max(1.0, float(np.max(np.abs(acting)))):
        return types
    graph = pruned.program(log_prob).graph
    between = sorted({op.type for op in graph.get_operations() if _is_random(op.type)})
    if between:
        import warnings

        warnings.warn(
            f"On the first batch TRAIN's log-probabilities differ from those of acting by up to "
            f"{difference:.3g}, through {', '.join(between)} (Dropout, BatchNorm or the like in "
            "the policy). Probability ratios will not start at 1.",
            stacklevel=2,
        )
        return types
    raise LogProbabilityMismatchError(
        f"On the first batch, before any update, TRAIN's distribution gives log-probabilities "
        f"that differ from those of acting by up to {difference:.3g} (shape {training.shape}): it "
        "is not the policy that acted. Most often the modes build layers in another order, so "
        "that the names meet other variables; build the shared layers first, or put each part "
        f"into a pgest.scope(...). Variables by mode:\n{model.describe_modes()}"
    )


def _is_random(operation_type: str) -> bool:
    return "Random" in operation_type or "FusedBatchNorm" in operation_type


def has_summaries(operation_types: Sequence[str] | set[str]) -> bool:
    """Whether model_fn writes summaries of its own."""
    return any(name in operation_types for name in _SUMMARY_OPS)


def _spec(leaf: Any) -> tf.TensorSpec:
    if isinstance(leaf, tf.TensorSpec):
        return leaf
    leaf = tf.convert_to_tensor(leaf)
    return tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype)
