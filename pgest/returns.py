"""Returns and advantages, as pure functions of time-first tensors.

Everything here is `[T, B]`: T timesteps of B environments. `terminated` zeroes the bootstrap,
`ended` (`terminated | truncated`, or wherever else the sequence was cut) cuts the sum,
`next_values` are values of the *true* next observation, so a truncated episode bootstraps from its
last one. Rewards are never edited.

Both returns and generalised advantages solve a linear recurrence, `x[t] = a[t] + b[t] * x[t + 1]`,
which `linear_recurrence` solves in O(log T) vectorised operations instead of T sequential ones.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# Below it a variance is what rounding leaves of none.
NO_VARIANCE = 1e-20
# So many rows are solved by operations of each length; XLA takes 20 ms or more to compile one.
_FEW_ROWS = 8


def discounted_returns(
    rewards: tf.Tensor,
    terminated: tf.Tensor,
    ended: tf.Tensor,
    next_values: tf.Tensor,
    *,
    discount: float | tf.Tensor,
) -> tf.Tensor:
    """Returns of every timestep, bootstrapped where a sequence was cut before its end.

    `G[t] = r[t] + discount * G[t + 1]` inside an episode. Where it ended, and at the last row, `G[t
    + 1]` is replaced by `next_values[t]`, or by 0 where the episode terminated (Sutton & Barto
    2018, eq. 3.9; for the bootstrap after a truncation Pardo et al. 2018,
    https://arxiv.org/abs/1712.00378, eq. 6).

    Args:
        rewards: float `[T, B]`.
        terminated: bool `[T, B]`: the environment's own end; nothing follows.
        ended: bool `[T, B]`: terminated, truncated or cut; the next row belongs to another
            sequence. The last row counts as ended.
        next_values: float `[T, B]`, values of the true next observations; zeros for plain returns.
        discount: in [0, 1], a scalar.

    Returns:
        `[T, B]`, the dtype of `rewards`.

    Raises:
        ValueError: an argument is not `[T, B]`, or shapes differ.

    >>> column = lambda *values: tf.constant(values, shape=[len(values), 1])
    >>> returns = discounted_returns(column(1., 1., 1.), column(False, False, True),
    ...                              column(False, False, True), column(0., 0., 9.), discount=0.5)
    >>> returns[:, 0].numpy().tolist()
    [1.75, 1.5, 1.0]
    """
    rewards = tf.convert_to_tensor(rewards)
    terminated, ended, next_values = _as_time_batch(
        rewards, terminated=terminated, ended=ended, next_values=next_values
    )
    discount = tf.cast(discount, rewards.dtype)
    # The last row is always a cut: what follows it is not here.
    cut = _with_last_row_true(ended)
    bootstrap = tf.where(cut & ~terminated, next_values, tf.zeros_like(next_values))
    going_on = tf.cast(~cut, rewards.dtype)
    return linear_recurrence(rewards + discount * bootstrap, discount * going_on)


def gae(
    rewards: tf.Tensor,
    values: tf.Tensor,
    next_values: tf.Tensor,
    terminated: tf.Tensor,
    ended: tf.Tensor,
    *,
    discount: float | tf.Tensor,
    lambda_: float | tf.Tensor,
) -> tf.Tensor:
    """Generalised advantage estimates.

    Schulman et al. 2016, https://arxiv.org/abs/1506.02438, eq. 16:
    `delta[t] = r[t] + discount * (1 - terminated[t]) * next_values[t] - values[t]`,
    `A[t] = delta[t] + discount * lambda_ * (1 - ended[t]) * A[t + 1]`, `A[T] = 0`.
    The value targets that go with them (TD(lambda)) are `A + values`.

    Args:
        rewards: float `[T, B]`.
        values: float `[T, B]`, of the observations acted on.
        next_values: float `[T, B]`, of the true next observations.
        terminated: bool `[T, B]`: the environment's own end; the next value counts as 0.
        ended: bool `[T, B]`: terminated, truncated or cut; the sum stops here.
        discount: in [0, 1], a scalar.
        lambda_: in [0, 1], a scalar: 0 is the TD error, 1 the return minus the value.

    Returns:
        `[T, B]`, the dtype of `rewards`.

    Raises:
        ValueError: an argument is not `[T, B]`, or shapes differ.

    >>> column = lambda *values: tf.constant(values, shape=[len(values), 1])
    >>> advantages = gae(column(1., 1.), column(0., 0.), column(0., 4.), column(False, False),
    ...                  column(False, True), discount=0.5, lambda_=1.0)
    >>> advantages[:, 0].numpy().tolist()
    [2.5, 3.0]
    """
    rewards = tf.convert_to_tensor(rewards)
    values, next_values, terminated, ended = _as_time_batch(
        rewards, values=values, next_values=next_values, terminated=terminated, ended=ended
    )
    discount = tf.cast(discount, rewards.dtype)
    lambda_ = tf.cast(lambda_, rewards.dtype)
    bootstrap = tf.where(terminated, tf.zeros_like(next_values), next_values)
    delta = rewards + discount * bootstrap - values
    return linear_recurrence(delta, discount * lambda_ * tf.cast(~ended, rewards.dtype))


def linear_recurrence(offset: tf.Tensor, factor: tf.Tensor, *, reverse: bool = True) -> tf.Tensor:
    """Solves `x[t] = offset[t] + factor[t] * x[t + 1]`, `x[T] = 0`, in O(log T) tensor operations.

    A row is the map `x -> offset + factor * x`, and two such maps compose to a third. A static
    length is solved by odd-even reduction (compose neighbours, solve half the length, fill in the
    odd rows), a length known only at run time by doubling the span of every row's map (Hillis &
    Steele 1986). Either costs about a millisecond at T = 2000 where a loop over the rows costs
    thirty. Rounding errors grow with log T, not with T.

    Args:
        offset: float `[T, ...]`.
        factor: float, the same shape.
        reverse: False runs forward in time: `x[t] = offset[t] + factor[t] * x[t - 1]`.

    Returns:
        x, the shape and dtype of `offset`.

    >>> linear_recurrence(tf.constant([1., 2., 4.]), tf.constant([.5, .5, .5])).numpy().tolist()
    [3.0, 4.0, 4.0]
    """
    offset, factor = tf.convert_to_tensor(offset), tf.convert_to_tensor(factor)
    if not reverse:
        return linear_recurrence(offset[::-1], factor[::-1])[::-1]
    length = offset.shape[0]
    if length is None:
        return _span_doubling(offset, factor)
    if length <= _FEW_ROWS:
        return _odd_even_reduction(offset, factor)
    return _odd_even_in_place(offset, factor)


def explained_variance(prediction: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """`1 - Var[target - prediction] / Var[target]`: 1 is perfect, 0 no better than a constant.

    Args:
        prediction: float, any shape.
        target: float, the same shape.

    Returns:
        A scalar; 0 where the target does not vary and nothing can be explained (NaN in
        Stable-Baselines3, which would end a run that watches its metrics for NaN).

    >>> float(explained_variance(tf.constant([1., 2., 3.]), tf.constant([1., 2., 3.])))
    1.0
    """
    target = tf.convert_to_tensor(target)
    residual = target - tf.cast(prediction, target.dtype)
    variance = tf.math.reduce_variance(target)
    varies = variance > NO_VARIANCE
    unexplained = tf.math.reduce_variance(residual) / tf.where(varies, variance, 1.0)
    return tf.where(varies, 1.0 - unexplained, 0.0)


def normalize(advantages: tf.Tensor, *, epsilon: float = 1e-8) -> tf.Tensor:
    """`(advantages - mean) / (std + epsilon)` over all elements.

    The standard deviation is the unbiased one (divided by N - 1), as in Stable-Baselines3, whose
    `torch.std` is. A single element has none and is returned as it came, also as there.

    Args:
        advantages: float, any shape.
        epsilon: added to the standard deviation.

    Returns:
        The shape and dtype of `advantages`.

    >>> normalize(tf.constant([1., 2., 3.])).numpy().round(6).tolist()
    [-1.0, 0.0, 1.0]
    """
    advantages = tf.convert_to_tensor(advantages)
    count = tf.cast(tf.size(advantages), advantages.dtype)
    centered = advantages - tf.reduce_mean(advantages)
    variance = tf.reduce_sum(tf.square(centered)) / tf.maximum(count - 1, 1)
    return tf.where(count > 1, centered / (tf.sqrt(variance) + epsilon), advantages)


def _odd_even_reduction(offset: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """`linear_recurrence` of a static length, which has to be short."""
    length = offset.shape[0]
    if length <= 1:
        return offset
    if length % 2:
        padding = [[0, 1]] + [[0, 0]] * (offset.shape.rank - 1)
        offset, factor = tf.pad(offset, padding), tf.pad(factor, padding)
    even = _odd_even_reduction(offset[::2] + factor[::2] * offset[1::2], factor[::2] * factor[1::2])
    after_odd = tf.concat([even[1:], tf.zeros_like(even[:1])], axis=0)
    odd = offset[1::2] + factor[1::2] * after_odd
    interleaved = tf.reshape(tf.stack([even, odd], axis=1), tf.shape(offset))
    return tf.ensure_shape(interleaved, offset.shape)[:length]


def _odd_even_in_place(offset: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """`_odd_even_reduction` as a loop, whose body does not change its shape.

    The row `i` of a length that was halved `k` times stands at `i * 2**k` of the whole. All rows
    are multiplied each time, and those whose turn it is are kept.
    """
    length, levels = offset.shape[0], (offset.shape[0] - 1).bit_length()
    rows = tf.range(length)
    column = tf.reshape(rows, [length] + [1] * (offset.shape.rank - 1))

    def body(turn: tf.Tensor, offset: tf.Tensor, factor: tf.Tensor) -> Any:
        composes = turn < levels  # the even rows; after that the odd ones are filled in
        span = tf.bitwise.left_shift(1, tf.where(composes, turn, 2 * levels - 1 - turn))
        place = tf.bitwise.bitwise_and(column, 2 * span - 1)
        chosen = tf.equal(place, tf.where(composes, 0, span))

        def following(leaf: tf.Tensor) -> tf.Tensor:
            moved = tf.gather(leaf, tf.minimum(rows + span, length - 1))
            return tf.where(column + span < length, moved, tf.zeros_like(leaf))

        solution = tf.where(chosen, offset + factor * following(offset), offset)
        composed = tf.where(chosen & composes, factor * following(factor), factor)
        return turn + 1, solution, composed

    turns = 2 * levels
    start = (tf.constant(0), offset, factor)
    # A number of turns that is known lets XLA differentiate it.
    return tf.while_loop(lambda turn, *_: turn < turns, body, start, maximum_iterations=turns)[1]


def _span_doubling(offset: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """`linear_recurrence` of a length known only at run time."""
    shape = tf.shape(offset)

    def further(rows: tf.Tensor, span: tf.Tensor) -> tf.Tensor:
        # `rows[span:]` and zeros, as a slice of a size that XLA can tell.
        begin = tf.concat([[span], tf.zeros_like(shape[1:])], axis=0)
        padded = tf.concat([rows, tf.zeros_like(rows)], axis=0)
        return tf.ensure_shape(tf.slice(padded, begin, shape), rows.shape)

    def doubled(
        span: tf.Tensor, offset: tf.Tensor, factor: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        solution = offset + factor * further(offset, span)
        return 2 * span, solution, factor * further(factor, span)

    _, solution, _ = tf.while_loop(
        lambda span, *_: span < shape[0],
        doubled,
        (tf.constant(1), offset, factor),
    )
    return solution


def _with_last_row_true(ended: tf.Tensor) -> tf.Tensor:
    return tf.concat([ended[:-1], tf.ones_like(ended[-1:])], axis=0)


def _as_time_batch(rewards: tf.Tensor, **others: tf.Tensor) -> list[tf.Tensor]:
    """Converts the others to the rewards' company, checking that all are `[T, B]` alike."""
    if rewards.shape.rank not in (None, 2):
        raise ValueError(
            f"rewards must be [T, B] (time first), got shape {rewards.shape}. "
            "A single environment is B = 1: add an axis with rewards[:, tf.newaxis]."
        )
    converted = []
    for name, other in others.items():
        dtype = tf.bool if name in ("terminated", "ended") else rewards.dtype
        other = tf.cast(other, dtype)
        if not other.shape.is_compatible_with(rewards.shape):
            raise ValueError(
                f"{name} must have the shape of rewards, {rewards.shape} ([T, B], time first), "
                f"got {other.shape}."
            )
        converted.append(other)
    return converted
