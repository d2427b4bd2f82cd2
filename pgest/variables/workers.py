"""Several processes that train one model: what they agree on goes through here.

Variables are plain ones on every worker. They are equal because initial values are functions of
the seed and the name, and because everything that changes them is made of sums over all workers.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.variables import sharing

_CHIEFS = ("chief", "master")
# What TensorFlow raises in the others when a process has gone, or does not answer in time.
_OF_COLLECTIVES = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
_SIGNS = ("ollective", "oordination service")
# Bytes of all workers' vectors: below, an exchange takes as long as its messages are many.
_SMALL = 4 * 2**20
# Of exchanges beside those of the strategy, whose numbers are small. The n-th that is traced has
# the n-th number in every process, whatever agents it is of.
_GROUP = 2**30
_INSTANCES = itertools.count(2**30)


class WorkerLostError(RuntimeError):
    """Another worker of this run has ended, or does not answer; this one cannot go on alone."""


@dataclasses.dataclass(frozen=True)
class Task:
    """Which part of a cluster this process is.

    Attributes:
      kind: "chief", "worker", "evaluator", …
      index: among those of its kind.
      num_workers: how many processes train, the chief among them.
      rank: of this one among those, the chief is 0; None where it does not train.
    """

    kind: str = "worker"
    index: int = 0
    num_workers: int = 1
    rank: int | None = 0

    @classmethod
    def of(cls, cluster: Mapping[str, Any], kind: str | None, index: int | None) -> Task:
        """The task of a cluster's specification; of no cluster: the only worker."""
        kind, index = kind or "worker", int(index or 0)
        if not cluster:
            return cls(kind, index)
        chiefs = sum(len(cluster.get(name, ())) for name in _CHIEFS)
        count = chiefs + len(cluster.get("worker", ()))
        ranks = {"worker": chiefs + index, **dict.fromkeys(_CHIEFS, 0)}
        return cls(kind, index, count, ranks.get(kind))

    @classmethod
    def of_environment(cls) -> Task:
        """The task that the environment variable TF_CONFIG describes.

        Raises:
          ValueError: it is no JSON object of `cluster` and `task`.
        """
        text = os.environ.get("TF_CONFIG") or "{}"
        try:
            config = json.loads(text)
            task = config.get("task", {})
            return cls.of(config.get("cluster", {}), task.get("type"), task.get("index"))
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(
                f"TF_CONFIG is {text!r} ({error}); expected JSON such as "
                '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
                '"task": {"type": "worker", "index": 0}}.'
            ) from error


class Workers:
    """The workers of a strategy, seen from one of them.

    Every worker has to call the same methods in the same order, with as many numbers.

    Args:
      strategy: a `tf.distribute.MultiWorkerMirroredStrategy` of one replica a worker.

    Attributes:
      rank: 0 is the chief.
      count: how many there are.
    """

    def __init__(self, strategy: Any):
        self._strategy = strategy
        task = task_of(strategy)
        self.rank, self.count = task.rank or 0, task.num_workers
        self._programs: dict[int, Callable[[tf.Tensor], tf.Tensor]] = {}
        self._lost = False
        self._on_cpus = all("CPU" in each for each in strategy.extended.worker_devices)
        self._timeout: float | None = None
        # Before whatever TensorFlow does at the end, and after what the user registers from here.
        atexit.register(self._end)

    def _end(self) -> None:
        """Ends the process where a worker is lost; TensorFlow would wait for it for minutes."""
        if self._lost:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

    @classmethod
    def of(cls, strategy: Any) -> Workers | None:
        """The workers of a strategy; None where there is but one."""
        return None if strategy is None or task_of(strategy).num_workers == 1 else cls(strategy)

    @property
    def is_chief(self) -> bool:
        """Whether this one writes checkpoints, points and exports."""
        return self.rank == 0

    def sums(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The sums over all workers, in the graph being traced: one exchange a dtype.

        The bits are the same on all workers: each part is added up in one order and passed on.

        Args:
          tensors: of floats, of the same shapes on every worker.
        """
        results: list[tf.Tensor] = list(tensors)
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            at = [place for place, tensor in enumerate(tensors) if tensor.dtype == dtype]
            flat = [tf.reshape(tensors[place], [-1]) for place in at]
            total = self._sum(tf.concat(flat, 0))
            parts = tf.split(total, [tf.size(part) for part in flat])
            for place, part in zip(at, parts, strict=True):
                results[place] = tf.reshape(part, tf.shape(tensors[place]))
                results[place].set_shape(tensors[place].shape)
        return results

    def _sum(self, vector: tf.Tensor) -> tf.Tensor:
        """The sum over all workers of a vector `[n]`.

        A ring passes parts on twice for each other worker, once to add them up and once to hand the
        sums out. A vector that is soon sent is passed on as a whole, once, and each worker adds up,
        in the order of the ranks: so all get the same bits.
        """
        size = vector.shape.num_elements()
        if not self._on_cpus or size is None or self.count * size * vector.dtype.size > _SMALL:
            return self._strategy.run(_all_reduced, args=(vector,))
        if self._timeout is None:
            self._timeout = _timeout(self._strategy)
        gathered = tf.raw_ops.CollectiveGatherV2(
            input=vector[None],
            group_size=self.count,
            group_key=_GROUP,
            instance_key=next(_INSTANCES),
            ordering_token=[],
            timeout_seconds=self._timeout,
        )
        # One after the other, whatever order a reduction takes on one kind of processor.
        return functools.reduce(tf.add, [gathered[rank] for rank in range(self.count)])

    def sum_now(self, numbers: Sequence[float]) -> list[float]:
        """The sums over all workers of numbers of the host.

        Raises:
          WorkerLostError: another worker is gone.
        """
        length = len(numbers)
        if length not in self._programs:
            signature = [tf.TensorSpec([length], tf.float64)]
            self._programs[length] = tf.function(
                lambda values: self.sums([values])[0], input_signature=signature, autograph=False
            )
        with self.watched():
            return self._programs[length](np.asarray(numbers, np.float64)).numpy().tolist()

    def of_chief(self, numbers: Sequence[float]) -> list[float]:
        """The chief's numbers, on every worker."""
        return self.sum_now(numbers if self.is_chief else [0.0] * len(numbers))

    def compare(self, numbers: Mapping[str, float], what: str) -> None:
        """Raises on all workers unless all of them have the chief's numbers.

        Args:
          numbers: by name; every worker has the same names.
          what: they are of, for the message.

        Raises:
          ValueError: some differ, on this worker or another.
          WorkerLostError: another worker is gone.
        """
        names, own = list(numbers), list(numbers.values())
        wanted = self.of_chief([len(own)])[0]
        if any(self.sum_now([len(own) != wanted])):
            raise ValueError(
                f"The workers differ in {what}: this one has {len(own)} of them, the chief "
                f"{wanted:.0f}. {_SAME_SCRIPT}"
            )
        theirs = self.of_chief(own)
        differ = [mine != other for mine, other in zip(own, theirs, strict=True)]
        counts = self.sum_now(differ)
        found = [name for name, count in zip(names, counts, strict=True) if count]
        if found:
            here = ", ".join(name for name, differs in zip(names, differ, strict=True) if differs)
            raise ValueError(
                f"The workers differ in {what}: {', '.join(found)}"
                + (f" (worker {self.rank} in {here})" if here else "")
                + f". {_SAME_SCRIPT}"
            )

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """To be put around what exchanges something.

        Raises:
          WorkerLostError: another worker is gone.
        """
        try:
            yield
        except tf.errors.OpError as error:
            text = str(error)
            if not isinstance(error, _OF_COLLECTIVES) and not any(s in text for s in _SIGNS):
                raise
            self._lost = True
            late = isinstance(error, tf.errors.DeadlineExceededError) or "imeout" in text
            raise WorkerLostError(
                f"Worker {self.rank} of {self.count} waited for the others in vain: "
                + (
                    "one of them did not answer within the timeout_seconds of the strategy's "
                    "CommunicationOptions. "
                    if late
                    else "one of them has ended. "
                )
                + "No checkpoint is written from here on. Start all workers again: they go on from "
                f"the newest checkpoint. TensorFlow says: {_cause(text)}"
            ) from error


_SAME_SCRIPT = (
    "Start the same program with the same settings on every worker, with a model_dir that all of "
    "them see."
)


@dataclasses.dataclass(frozen=True)
class Exchange:
    """How one call of a model_fn makes numbers those of all workers.

    Attributes:
      workers: they.
      rows: float32 scalar: how many timesteps are behind this worker's means; None: as many on
        each.
    """

    workers: Workers
    rows: tf.Tensor | None = None

    def means(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The means over the timesteps of all workers; one exchange a dtype."""
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        if self.rows is None:
            sums = self.workers.sums(tensors)
            return [total / tf.cast(self.workers.count, total.dtype) for total in sums]
        some = self.rows > 0.0
        # A mean over no rows is NaN, which no weight of 0 takes away.
        weighted = [
            tf.where(some, tensor * tf.cast(self.rows, tensor.dtype), tf.zeros_like(tensor))
            for tensor in tensors
        ]
        *sums, rows = self.workers.sums([*weighted, self.rows])
        return [total / tf.cast(rows, total.dtype) for total in sums]

    def moments(
        self, count: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Count, mean and variance of the rows of all workers, from those of each.

        Every worker's come to all, and are merged around the mean of all: a mean that is far from
        0 costs the variance nothing.

        Args:
          count: int64 scalar.
          mean: float64 `[*shape]`.
          variance: float64 `[*shape]`.
        """
        places = self.workers.count
        own = tf.one_hot(self.workers.rank, places, dtype=tf.float64)
        one = tf.cast(count, tf.float64)
        at = lambda part: tf.tensordot(own, part, axes=0)  # noqa: E731 - [W, *shape]
        counts, means, variances = self.workers.sums([at(one), at(mean), at(variance)])
        weights = counts / tf.reduce_sum(counts)
        merged = tf.tensordot(weights, means, axes=1)
        variances += tf.square(means - merged)
        total = tf.cast(tf.reduce_sum(counts), tf.int64)
        return total, merged, tf.tensordot(weights, variances, axes=1)


def mean_over_workers(tensor: Any) -> tf.Tensor:
    """The mean of a tensor over all workers; call it inside a model_fn.

    For a model_fn that changes variables by itself: `minimize` needs no help. Where a run has one
    worker, and in all modes but `Modes.TRAIN`, the tensor comes back as it is. Workers with more
    timesteps in a batch of whole episodes weigh more. Every call is an exchange over the network.

    Args:
      tensor: floats of any shape, the same shape on every worker; a mean over timesteps, or linear
        in one.

    Returns:
      The shape and dtype of `tensor`, the same bits on every worker.

    Raises:
      TypeError: it is not of floats.
      RuntimeError: no model_fn is being called.

    Example, inside a model_fn:

        gradients = [pgest.mean_over_workers(g) for g in tape.gradient(loss, variables)]
        optimizer.apply_gradients(zip(gradients, variables))
    """
    tensor = tf.convert_to_tensor(tensor)
    if not tensor.dtype.is_floating:
        raise TypeError(
            f"mean_over_workers got {tensor.dtype.name}; expected floats: tf.cast(…, tf.float32)."
        )
    return means_over_workers([tensor])[0]


def means_over_workers(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """`mean_over_workers` of several tensors of floats, in one exchange."""
    exchange = sharing.current().exchange
    return list(tensors) if exchange is None else exchange.means(tensors)


def task_of(strategy: Any) -> Task:
    """The task of the process in the cluster that a strategy was made for."""
    resolver = strategy.cluster_resolver
    return Task.of(resolver.cluster_spec().as_dict(), resolver.task_type, resolver.task_id)


def _all_reduced(tensor: tf.Tensor) -> tf.Tensor:
    # The output of a nested function has no device, which all_reduce looks for; a copy has one.
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(tensor))


def _timeout(strategy: Any) -> float:
    """The `timeout_seconds` of a strategy's CommunicationOptions; 0: it waits without limit."""
    traced = tf.function(lambda: strategy.run(_all_reduced, args=(tf.zeros([]),)), autograph=False)
    definition = traced.get_concrete_function().graph.as_graph_def()
    bodies = (definition.node, *(each.node_def for each in definition.library.function))
    reduced = (node for nodes in bodies for node in nodes if node.op == "CollectiveReduceV2")
    return next(reduced).attr["timeout_seconds"].f


def _cause(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if any(sign in line for sign in ("aborted by", "imed out"))]
    return (told or lines or [""])[0][:300]
