"""What the update of one worker needs to know of the batches of all the others."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from pgest import returns
from pgest.contract import update_config
from pgest.variables import workers as workers_lib

_EPSILON = 1e-8
_EXPLAINED = "value/explained_variance"


class CommonUpdate:
    """The numbers of an update that are of all workers' batches together.

    Args:
      workers: they.
      normalize_advantage: whether advantages get mean 0 and standard deviation 1.
      recurrent: whether leaves are `[T, B, ...]` and minibatches take environments, not timesteps.
      equal: whether all workers' batches have as many timesteps.
    """

    def __init__(
        self,
        workers: workers_lib.Workers,
        normalize_advantage: bool,
        recurrent: bool,
        equal: bool,
    ):
        self._workers = workers
        self._equal = equal
        self._normalize = normalize_advantage
        self._recurrent = recurrent

    @classmethod
    def of(
        cls,
        workers: workers_lib.Workers | None,
        config: update_config.UpdateConfig,
        recurrent: bool,
        horizon: int | None,
    ) -> CommonUpdate | None:
        """That of batches of `horizon` timesteps, None where it varies; None of one alone."""
        if workers is None:
            return None
        return cls(workers, config.normalize_advantage, recurrent, horizon is not None)

    def begin(
        self, labels: Any, metrics: dict[str, Any], permutations: tf.Tensor, size: int | None
    ) -> tuple[tf.Tensor, dict[str, Any]]:
        """One exchange before the first step, where there is something to exchange.

        Args:
          labels: of the batch.
          metrics: of the batch.
          permutations: int32 `[epochs, rows]`, the orders of the rows.
          size: rows of a minibatch; None: the batch as a whole.

        Returns:
          Mean and standard deviation of the advantages of each minibatch, float32 `[M, 2]` in the
          order of the steps, `[1, 2]` of the batch as a whole, `[0, 2]` where they stay as they
          are; and the metrics of all batches.
        """
        sums = []
        if _EXPLAINED in metrics:
            sums.append(_residual_sums(labels["value"], labels["value_target"]))
        if self._normalize:
            sums.append(self._advantage_sums(labels["advantage"], permutations, size))
        totals = self._workers.sums(sums)
        if _EXPLAINED in metrics:
            metrics = {**metrics, _EXPLAINED: _explained_variance(totals[0])}
        if not self._normalize:
            return tf.zeros([0, 2]), metrics
        count, first, second = tf.unstack(totals[-1])
        mean = first / count
        variance = (second - first * mean) / tf.maximum(count - 1.0, 1.0)
        deviation = tf.sqrt(tf.maximum(variance, 0.0)) + _EPSILON
        # A single timestep is left as it is, as `returns.normalize` leaves it.
        moments = tf.where(count[:, None] > 1.0, tf.stack([mean, deviation], 1), [[0.0, 1.0]])
        return tf.cast(moments, tf.float32), metrics

    def normalized(self, labels: Any, moments: tf.Tensor, step: int | tf.Tensor) -> Any:
        """Labels of a step with advantages normalised by what `begin` gave."""
        if not self._normalize:
            return labels
        mean, deviation = tf.unstack(moments[step])
        return {**labels, "advantage": (labels["advantage"] - mean) / deviation}

    def exchange(self, labels: Any) -> workers_lib.Exchange:
        """What makes means over `labels` those of all workers."""
        if self._equal:
            return workers_lib.Exchange(self._workers)
        return workers_lib.Exchange(self._workers, tf.cast(tf.size(labels["reward"]), tf.float32))

    def _advantage_sums(
        self, advantage: tf.Tensor, permutations: tf.Tensor, size: int | None
    ) -> tf.Tensor:
        """How many, their sum and that of their squares: float64 `[3, M]`."""
        wide = tf.cast(advantage, tf.float64)
        powers = tf.stack([tf.ones_like(wide), wide, tf.square(wide)])
        if self._recurrent:
            powers = tf.reduce_sum(powers, 1)
        if size is None:
            return tf.reduce_sum(powers, 1, keepdims=True)
        epochs, rows = tf.unstack(tf.shape(permutations))
        steps = (rows + size - 1) // size
        step = tf.range(epochs)[:, None] * steps + tf.range(rows) // size
        taken = tf.gather(powers, tf.reshape(permutations, [-1]), axis=1)
        total = epochs * steps
        return tf.transpose(
            tf.math.unsorted_segment_sum(tf.transpose(taken), tf.reshape(step, [-1]), total)
        )


def _residual_sums(value: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """How many, and sums and squares of targets and of what values lack to them: float64 `[5]`."""
    target = tf.cast(target, tf.float64)
    residual = target - tf.cast(value, tf.float64)
    parts = (tf.ones_like(target), target, tf.square(target), residual, tf.square(residual))
    return tf.stack([tf.reduce_sum(part) for part in parts])


def _explained_variance(sums: tf.Tensor) -> tf.Tensor:
    """`returns.explained_variance` of all rows behind `_residual_sums`, float32."""
    count, first, second, residual, squared = tf.unstack(sums)
    variance = second / count - tf.square(first / count)
    unexplained = squared / count - tf.square(residual / count)
    # The difference of two means leaves a share of them where there is no variance.
    varies = variance > tf.maximum(1e-12 * second / count, returns.NO_VARIANCE)
    explained = 1.0 - unexplained / tf.where(varies, variance, 1.0)
    return tf.cast(tf.where(varies, explained, 0.0), tf.float32)
