"""A step of several workers in two halves, with one exchange between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from pgest.tracing import dependencies, probing
from pgest.tracing import steps as steps_lib
from pgest.variables import sharing
from pgest.variables import workers as workers_lib

# What a step may do twice.
_HARMLESS = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape"}
_HARMLESS |= {"Assert", "CheckNumerics", "CheckNumericsV2"}


class Halves:
    """The step of a model_fn whose weights change by `minimize` alone.

    A step exchanges gradients, metrics and the KL. Metrics come after `minimize`, which takes the
    gradients of all workers, so that one exchange cannot have both where the model_fn is traced
    once. It is traced twice: the first half goes as far as `minimize` has the gradients of this
    worker, and to the metrics; the second one begins with what the exchange gave. What each half
    does not need falls out of it.

    Args:
      call: calls the model_fn with features, labels, a `workers.Exchange` and a `sharing.Half`.
      exchange: gives what makes means over labels those of all workers.
      minibatch: specs of features and labels.
      counter: the variable global_step.
      needs_divergence: whether `target_kl` is given.

    Attributes:
      fits: whether the step is the same in halves: no variable changes in the first one, and no
        metric looks at what the step does.
      names: of the metrics of a step.
      spec: what the model_fn returned.
      trained: where in the first half the policy is.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        exchange: Callable[[Any], workers_lib.Exchange],
        minibatch: tuple[Any, Any],
        counter: tf.Variable,
        needs_divergence: bool,
    ):
        self._call = call
        self._exchange = exchange
        self._counter = counter
        self._needs_divergence = needs_divergence
        self._packed: list[tf.TensorSpec] = []  # as what is exchanged unpacks
        self._names: tuple[str, ...] = ()
        self._watched: list[tf.Tensor] = []
        self._half = sharing.Half()
        self.names: tuple[str, ...] = ()
        self.spec: Any = None
        self.trained: probing.Trained | None = None
        first = tf.function(self._gradients, autograph=False)
        self._first = first.get_concrete_function(*minibatch)
        self.fits = self._fits()
        self._watched = []
        if self.fits:
            second = tf.function(self._apply, autograph=False)
            exchanged = [tf.TensorSpec(part.shape, part.dtype) for part in self._first.outputs]
            self._second = second.get_concrete_function(*minibatch, exchanged)

    def __call__(self, features: Any, labels: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """One step: its metrics, how far it moved global_step, and the KL, of all workers."""
        means = self._exchange(labels).means(self._first(features, labels))
        return self._second(features, labels, means)

    def _gradients(self, features: Any, labels: Any) -> list[tf.Tensor]:
        """The first half: gradients, metrics and KL of this worker, a vector of each dtype."""
        self._half = sharing.Half()  # it may be traced again where it made variables
        spec, build = self._call(features, labels, self._exchange(labels), self._half)
        self.spec = spec
        metrics, divergence, log_prob = steps_lib.seen(spec, build, labels, self._needs_divergence)
        self.trained = probing.Trained.of(features, labels, log_prob)
        self._names = tuple(metrics)
        numbers = tf.stack([*steps_lib.numbers(metrics), tf.cast(divergence, tf.float32)])
        pairs = [pair for part in build.gradients for pair in part]
        parts = [*(tf.convert_to_tensor(gradient) for gradient, _ in pairs), numbers]
        # Of an embedding's slices the variable knows the shape.
        shapes = [*(variable.shape for _, variable in pairs), numbers.shape]
        self._packed = [
            tf.TensorSpec(shape, part.dtype) for shape, part in zip(shapes, parts, strict=True)
        ]
        self._watched = [numbers]
        return [
            tf.concat([tf.reshape(parts[place], [-1]) for place in places], 0)
            for places in _of_one_dtype(self._packed)
        ]

    def _apply(
        self, features: Any, labels: Any, means: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The second half: what `minimize` does with the gradients of all workers."""
        *gradients, numbers = self._unpacked(means)
        before = self._counter.read_value()
        half = sharing.Half(given=gradients)
        spec, build = self._call(features, labels, self._exchange(labels), half)
        moved, counted = steps_lib.executed(spec, self._counter, before)
        own = {name: value for name, value in build.metrics.items() if name not in self._names}
        self.names = (*self._names, *own)
        with tf.control_dependencies([steps_lib.operation(counted)]):
            values = tf.concat([numbers[:-1], *(n[None] for n in steps_lib.numbers(own))], 0)
            return values, tf.identity(moved), tf.identity(numbers[-1])

    def _unpacked(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        parts: list[Any] = [None] * len(self._packed)
        for vector, places in zip(vectors, _of_one_dtype(self._packed), strict=True):
            pieces = tf.split(vector, [self._packed[at].shape.num_elements() for at in places])
            for place, piece in zip(places, pieces, strict=True):
                parts[place] = tf.reshape(piece, self._packed[place].shape)
        return parts

    def _fits(self) -> bool:
        graph, reached = self._first.graph, self._half.reached
        if len(reached) != 1 or reached[0].graph is not graph:
            return False  # no `minimize`, several, or one in a loop
        if dependencies.side_effects(graph) - _HARMLESS:
            return False
        names = [operation.name for operation in graph.get_operations()]
        after = set(names[names.index(reached[0].op.name) :])
        needed = dependencies.Dependencies(self._watched[0], control=True).operations
        # A variable that is read after `minimize` is read as the step has left it.
        return not any(
            op.name == reached[0].op.name
            or (op.name in after and any(part.dtype == tf.resource for part in op.inputs))
            for op in needed
        )


def _of_one_dtype(specs: Sequence[tf.TensorSpec]) -> list[list[int]]:
    """The places of the specs of each dtype, in order."""
    dtypes = dict.fromkeys(spec.dtype for spec in specs)
    return [[at for at, spec in enumerate(specs) if spec.dtype == dtype] for dtype in dtypes]
