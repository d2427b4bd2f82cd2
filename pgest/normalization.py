"""Running means and variances as model state: normalised observations and scaled rewards.

The statistics are variables made inside the model_fn, so they are shared between modes, saved with
every checkpoint and part of every export. Reading them never changes them: `update` is an op of its
own, for TRAIN alone, so evaluation and serving see them frozen.

An update belongs into `EstimatorSpec.after_batch`, which runs once a batch, after its last step:
until then every epoch and minibatch has to see the statistics that acted, or probability ratios
would not start at 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium import spaces

from pgest import returns
from pgest.variables import sharing

_EPSILON = 1e-8


class RunningMoments:
    """Mean, variance and count of all rows ever given to `update`, as four variables.

    Batches are merged by the parallel formula of Chan, Golub & LeVeque 1979 (of which Welford 1962
    is the case of one row), whatever their sizes: the result is the population variance of all rows
    together, within rounding. Both are computed in float64. The mean is kept as the sum of two
    float32 numbers, so that it is right where it is a billion standard deviations from 0, and a
    program that only reads it need not have float64.

    Args:
        shape: of a row.
        name: prefix of the variables, `{name}_mean`, `{name}_mean_remainder`, `{name}_variance`,
            `{name}_count`.

    Attributes:
        mean: float32 `[*shape]`.
        remainder: float32 `[*shape]`, what `mean` lacks to the mean in float64.
        variance: float32 `[*shape]`.
        count: int64.

    >>> moments = RunningMoments([])
    >>> _ = moments.update(tf.constant([1., 2.])), moments.update(tf.constant([6.]))
    >>> float(moments.mean), round(float(moments.variance), 4), int(moments.count)
    (3.0, 4.6667, 3)
    """

    def __init__(self, shape: Any, *, name: str = "moments"):
        self.shape = tf.TensorShape(shape)
        self._exchange = sharing.exchange_under_way()
        self.mean = _state(np.zeros(self.shape, np.float32), f"{name}_mean")
        # A checkpoint from before there was one has none: then it starts from 0, as it was.
        self.remainder = _state(np.zeros(self.shape, np.float32), f"{name}_mean_remainder")
        self.variance = _state(np.ones(self.shape, np.float32), f"{name}_variance")
        # An int64 still counts where a float32 has stopped to, at 16.8 million.
        self.count = _state(np.zeros([], np.int64), f"{name}_count")

    def update(self, rows: tf.Tensor) -> tf.Operation:
        """Merges a batch in.

        Args:
            rows: `[..., *shape]`, any leading axes, at least one row.

        Returns:
            An op that has run when the variables are new; `None` where TensorFlow runs eagerly.

        Raises:
            ValueError: the last axes are not `shape`.
        """
        rows = tf.cast(rows, tf.float64)
        leading = rows.shape.rank - self.shape.rank
        if leading < 1 or not rows.shape[leading:].is_compatible_with(self.shape):
            raise ValueError(
                f"RunningMoments of rows {self.shape} got {rows.shape}; expected the rows' shape "
                "behind one leading axis at least."
            )
        axes = list(range(leading))
        added = tf.reduce_prod(tf.shape(rows, out_type=tf.int64)[:leading])
        added_mean = tf.reduce_mean(rows, axes)
        added_variance = tf.reduce_mean(tf.square(rows - added_mean), axes)
        if self._exchange is not None:
            moments = (added, added_mean, added_variance)
            added, added_mean, added_variance = self._exchange.moments(*moments)
        count = self.count.read_value() + added
        weight = tf.cast(added, tf.float64) / tf.cast(count, tf.float64)
        variance = tf.cast(self.variance.read_value(), tf.float64)
        mean = self.exact_mean()
        difference = added_mean - mean
        # Weighted by shares of the count, not by counts: sums of squares would outgrow float32.
        merged = variance + weight * (added_variance - variance)
        merged += weight * (1.0 - weight) * tf.square(difference)
        mean += weight * difference
        rounded = tf.cast(mean, tf.float32)
        return tf.group(
            self.mean.assign(rounded),
            self.remainder.assign(tf.cast(mean - tf.cast(rounded, tf.float64), tf.float32)),
            self.variance.assign(tf.cast(merged, tf.float32)),
            self.count.assign(count),
        )

    def exact_mean(self) -> tf.Tensor:
        """The mean in float64, `[*shape]`."""
        mean, remainder = self.mean.read_value(), self.remainder.read_value()
        return tf.cast(mean, tf.float64) + tf.cast(remainder, tf.float64)


class ObservationNormalizer:
    """Observations with mean 0 and variance 1, clipped: the Boxes of floats in a nest.

    All else passes unchanged. The mean is taken off in float64 where observations are of float64,
    and may then be a billion standard deviations; in float32 elsewhere, and may be a million.
    Made inside a model_fn, in every mode (Huang et al. 2022, details of continuous actions 5 and
    6):

        normalizer = normalization.ObservationNormalizer(pgest.get_observation_space())
        observation = normalizer(features["state"])
        ...
        after_batch = lambda batch: normalizer.update(batch["state"])

    Args:
        space: the observation space.
        clip: normalised values stay within +-clip.
        name: prefix of the variables' names.

    >>> normalizer = ObservationNormalizer(spaces.Box(-9, 9, (1,)))
    >>> _ = normalizer.update(tf.constant([[1.], [3.]]))
    >>> normalizer(tf.constant([[3.]])).numpy().tolist()
    [[1.0]]
    """

    def __init__(self, space: gymnasium.Space, *, clip: float = 10.0, name: str = "observation"):
        if not clip > 0:
            raise ValueError(f"ObservationNormalizer: clip must be positive, got {clip!r}.")
        self._clip = clip
        self._moments = _moments(space, name)

    def __call__(self, observation: Any) -> Any:
        """Normalises with the statistics as they are.

        Args:
            observation: a nest like the space, `[..., *shape]`.

        Returns:
            The same nest; Boxes of floats as float32.
        """
        return _map(self._normalize, self._moments, observation)

    def update(self, observation: Any) -> tf.Operation:
        """Merges observations in; see `RunningMoments.update`.

        Args:
            observation: a nest like the space, `[..., *shape]`, not normalised.
        """
        updates: list[tf.Operation] = []

        def merge(moments: RunningMoments, part: tf.Tensor) -> tf.Tensor:
            updates.append(moments.update(part))
            return part

        _map(merge, self._moments, observation)
        return tf.group(*[update for update in updates if update is not None])

    def _normalize(self, moments: RunningMoments, part: tf.Tensor) -> tf.Tensor:
        deviation = tf.sqrt(moments.variance + _EPSILON)
        part = tf.convert_to_tensor(part)
        if part.dtype == tf.float64:
            normalized = tf.cast(part - moments.exact_mean(), tf.float32) / deviation
        else:
            # Each part divided for itself: a compiler that adds constants up before they are taken
            # off would round the remainder away.
            normalized = (tf.cast(part, tf.float32) - moments.mean) / deviation
            normalized -= moments.remainder / deviation
        return tf.clip_by_value(normalized, -self._clip, self._clip)


class RewardScaler:
    """Rewards divided by the standard deviation of the running discounted return, clipped.

    `R[t] = r[t] + discount * R[t - 1]`, from 0 at every episode's start, as Stable-Baselines3's
    `VecNormalize`: the mean stays in, so the sign of a reward does. Nothing else starts it anew:
    however episodes are cut into batches and pieces, after an update on the same rewards its
    statistics are VecNormalize's to rounding; that one scales each reward by the statistics up to
    its own time, this one a batch by those of the batches before.

    Args:
        num_envs: B, of the environments that are trained on, whose running returns are carried from
            batch to batch; None where the statistics are only read.
        discount: of the running return.
        clip: scaled rewards stay within +-clip.
        name: prefix of the variables' names.

    Attributes:
        moments: of the running return.
        running_return: `[B]`; None where `num_envs` is.

    >>> scaler = RewardScaler(1, discount=0.5)
    >>> _ = scaler.update(tf.constant([[2.], [1.]]), tf.constant([[False], [True]]))
    >>> float(scaler.moments.mean), scaler.running_return.numpy().tolist()
    (2.0, [0.0])
    """

    def __init__(
        self,
        num_envs: int | None,
        *,
        discount: float,
        clip: float = 10.0,
        name: str = "reward",
    ):
        self._discount = discount
        self._clip = clip
        self.moments = RunningMoments([], name=name)
        self.running_return: tf.Variable | None = None
        if num_envs is not None:
            # Part of the environments' state: with another number of them it starts anew.
            name = f"environment/{name}_running_return_{num_envs}"
            self.running_return = _state(np.zeros([num_envs], np.float32), name)

    @property
    def scale(self) -> tf.Tensor:
        """What rewards are multiplied by, a scalar."""
        return tf.math.rsqrt(self.moments.variance + _EPSILON)

    def __call__(self, rewards: tf.Tensor) -> tf.Tensor:
        """Scales rewards with the statistics as they are.

        Args:
            rewards: any shape.

        Returns:
            float32, the same shape.
        """
        scaled = tf.cast(rewards, tf.float32) * self.scale
        return tf.clip_by_value(scaled, -self._clip, self._clip)

    def update(
        self, rewards: tf.Tensor, ended: tf.Tensor, *, env_index: tf.Tensor | None = None
    ) -> tf.Operation:
        """Merges a batch's running returns in.

        Every environment goes on where its last row stood, in this batch or in one before, unless
        its episode ended there: where a memory has cut an episode it goes on as well.

        Args:
            rewards: `[T, B]`, a column for each environment; or `[N, 1]`, one environment's rows
                after another's; not scaled, in the order of time.
            ended: bool, the same shape: terminated or truncated after this reward.
            env_index: int32 `[N, 1]`, the environment of each row, ascending; None where each has
                a column. In a batch it stands under `memory.ENV_INDEX`. Rows of an index from B on
                are of environments that have been left: they start from 0 and are not carried on.

        Returns:
            See `RunningMoments.update`.

        Raises:
            RuntimeError: the scaler was made to read alone.
            ValueError: the rewards have neither B columns nor, with `env_index`, one.
        """
        if self.running_return is None:
            raise RuntimeError("This RewardScaler only reads: make it with num_envs to update it.")
        num_envs = self.running_return.shape[0]
        rewards, ended = tf.cast(rewards, tf.float32), tf.cast(ended, tf.bool)
        if rewards.shape[1] != (num_envs if env_index is None else 1):
            raise ValueError(
                f"RewardScaler of {num_envs} environments got rewards {rewards.shape}; expected "
                "a column for each, or one column and env_index=batch['env_index'] beside it."
            )
        before = self.running_return.read_value()
        if env_index is None:
            running, after = self._columns(rewards, ended, before)
        else:
            env_index = tf.cast(env_index, tf.int32)
            running, after = self._end_to_end(rewards, ended, env_index, before)
        updates = [self.moments.update(running), self.running_return.assign(after)]
        return tf.group(*[update for update in updates if update is not None])

    def _columns(
        self, rewards: tf.Tensor, ended: tf.Tensor, before: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Running returns `[T, B]` of rewards `[T, B]`, and what is carried on, `[B]`."""
        started = tf.concat([tf.zeros_like(ended[:1]), ended[:-1]], axis=0)
        factor = self._discount * tf.cast(~started, tf.float32)
        rewards = tf.concat([rewards[:1] + factor[:1] * before, rewards[1:]], axis=0)
        running = returns.linear_recurrence(rewards, factor, reverse=False)
        return running, tf.where(ended[-1], tf.zeros_like(running[-1]), running[-1])

    def _end_to_end(
        self, rewards: tf.Tensor, ended: tf.Tensor, env_index: tf.Tensor, before: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Running returns `[N, 1]` of rewards `[N, 1]`, and what is carried on, `[B]`."""
        environments = tf.range(before.shape[0])
        first = tf.concat([tf.ones_like(ended[:1]), env_index[1:] != env_index[:-1]], axis=0)
        started = tf.concat([tf.zeros_like(ended[:1]), ended[:-1]], axis=0)
        carried = tf.gather(before, tf.minimum(env_index, environments[-1]))
        carries = first & (env_index <= environments[-1])
        rewards = tf.where(carries, rewards + self._discount * carried, rewards)
        factor = self._discount * tf.cast(~(started | first), tf.float32)
        running = returns.linear_recurrence(rewards, factor, reverse=False)
        # The index ascends, so that an environment's rows end where a larger one would be put in.
        begins = tf.searchsorted(env_index[:, 0], environments, side="left")
        ends = tf.searchsorted(env_index[:, 0], environments, side="right")
        going_on = tf.where(ended, tf.zeros_like(running), running)[:, 0]
        last = tf.gather(going_on, tf.maximum(ends - 1, 0))
        return running, tf.where(ends > begins, last, before)


def _state(initial: np.ndarray, name: str) -> tf.Variable:
    return tf.Variable(initial, trainable=False, name=name)


def _moments(space: gymnasium.Space, name: str) -> Any:
    """A nest like the space of RunningMoments, None where nothing is to be normalised."""
    if isinstance(space, spaces.Dict):
        return {key: _moments(child, f"{name}_{key}") for key, child in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_moments(child, f"{name}_{i}") for i, child in enumerate(space.spaces))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return RunningMoments(space.shape, name=name)
    return None


def _map(function: Callable[[RunningMoments, tf.Tensor], Any], moments: Any, nest: Any) -> Any:
    """Applies to the parts that have moments; tf.nest would take a None for a leaf of its own."""
    if isinstance(moments, dict):
        return {key: _map(function, child, nest[key]) for key, child in moments.items()}
    if isinstance(moments, tuple):
        pairs = zip(moments, nest, strict=True)
        return tuple(_map(function, child, part) for child, part in pairs)
    return nest if moments is None else function(moments, nest)
