"""MinAtar's Breakout as pure functions of tensors."""

from typing import NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf

from pgest.graph_environments import graph_environment, stateless_noise

_SIZE = 10
_FIRST_BRICK_ROW, _BRICK_ROWS = 1, 3
_PADDLE_ROW = _SIZE - 1
_ALL_BRICKS = (1 << (_BRICK_ROWS * _SIZE)) - 1


def _image_tables() -> tuple[np.ndarray, np.ndarray]:
    """For each number of the image `[400]`: its cell (by channel), and the bit of its brick."""
    cells = np.full((3, _SIZE * _SIZE, 4), -1, np.int32)
    for channel in range(3):
        cells[channel, :, channel] = np.arange(_SIZE * _SIZE)
    bricks = np.zeros((_SIZE, _SIZE, 4), np.int32)
    bits = 1 << np.arange(_BRICK_ROWS * _SIZE, dtype=np.int32)
    bricks[_FIRST_BRICK_ROW : _FIRST_BRICK_ROW + _BRICK_ROWS, :, 3] = bits.reshape(-1, _SIZE)
    return cells.reshape(3, -1), bricks.reshape(-1)


_CELLS, _BRICKS = _image_tables()


class BreakoutState(NamedTuple):
    """One game in each row; every field int32 or bool `[B]`."""

    ball_row: tf.Tensor
    """int32, 0 at the top."""
    ball_column: tf.Tensor
    """int32, 0 at the left."""
    row_step: tf.Tensor
    """int32: -1 where the ball flies up, 1 down."""
    column_step: tf.Tensor
    """int32: -1 where the ball flies left, 1 right."""
    trail_row: tf.Tensor
    """int32: where the ball was a timestep ago."""
    trail_column: tf.Tensor
    """int32: where the ball was a timestep ago."""
    paddle: tf.Tensor
    """int32: column of the paddle."""
    bricks: tf.Tensor
    """int32: bit `10 * row + column` of a brick that stands, rows from the uppermost brick row."""
    striking: tf.Tensor
    """bool: the last timestep met a brick, so the next brick is flown through unbroken."""


class Breakout(graph_environment.GraphEnvironment):
    """Break three rows of bricks with a ball and a paddle on 10 × 10 cells: MinAtar's Breakout.

    Observations are `[B, 10, 10, 4]` of 0 and 1, one channel each: paddle, ball, trail (the ball's
    cell a timestep ago, which tells its direction), bricks. Actions: 0 stays, 1 moves the paddle
    left, 2 right. The reward is 1 for each brick; the episode terminates where the ball gets past
    the paddle.

    The rules: the ball moves one cell along a diagonal. Walls and the ceiling reflect it. A brick
    reflects it upwards or downwards and breaks; a further brick met in the very next timestep is
    flown through. The paddle sends it back up: straight on if the ball comes from above the paddle,
    back where it came from if it meets the paddle sideways. When no brick is left as the ball comes
    down to the paddle, three new rows are set up. The game starts with the ball at the height of
    the lowest bricks, at the left or right edge, flying down and inwards, the paddle in column 4.

    MinAtar also repeats the last action with probability 0.1: wrap in `StickyActions(env, 0.1)`.

    Args:
        num_envs: B.
        max_episode_steps: timesteps after which an episode is truncated; MinAtar itself has no
            limit, and a policy that never misses needs one.
        observation_dtype: "float32", or "uint8" or "bool" for a quarter of the memory.

    Raises:
        ValueError: `observation_dtype` is another one.

    References:
        Young and Tian, "MinAtar: An Atari-inspired testbed for thorough and reproducible
        reinforcement learning experiments", 2019, arXiv:1903.03176.

    Example:
        >>> import tensorflow as tf
        >>> from pgest.graph_environments import Breakout
        >>> env = Breakout(num_envs=2)
        >>> state = env.initial(seed=tf.constant([0, 0]))
        >>> env.observation(state).shape.as_list()
        [2, 10, 10, 4]
        >>> tf.reduce_sum(env.observation(state), axis=[1, 2])[0].numpy().tolist()
        [1.0, 1.0, 1.0, 30.0]
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = 1000,
        observation_dtype: str = "float32",
    ) -> None:
        if observation_dtype not in ("float32", "uint8", "bool"):
            raise ValueError(
                f"observation_dtype={observation_dtype!r}: expected 'float32', 'uint8' or 'bool'."
            )
        self.observation_dtype = tf.as_dtype(observation_dtype)
        super().__init__(
            gymnasium.spaces.Box(0, 1, (_SIZE, _SIZE, 4), np.dtype(observation_dtype)),
            gymnasium.spaces.Discrete(3),
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
        )

    def start(self, seed: tf.Tensor) -> BreakoutState:
        """Sets up all bricks and throws the ball in from a random side."""
        right = stateless_noise.integers(seed, [self.num_envs], bound=2)
        column = right * (_SIZE - 1)
        row = tf.fill([self.num_envs], _FIRST_BRICK_ROW + _BRICK_ROWS - 1)
        return BreakoutState(
            ball_row=row,
            ball_column=column,
            row_step=tf.ones_like(column),
            column_step=1 - 2 * right,
            trail_row=row,
            trail_column=column,
            paddle=tf.fill([self.num_envs], 4),
            bricks=tf.fill([self.num_envs], _ALL_BRICKS),
            striking=tf.zeros([self.num_envs], tf.bool),
        )

    def advance(
        self, simulation: BreakoutState, action: tf.Tensor, seed: tf.Tensor
    ) -> tuple[BreakoutState, tf.Tensor, tf.Tensor]:
        """Moves paddles and balls by one cell, action integer `[B]`."""
        del seed
        old = simulation
        move = tf.cast(tf.equal(action, 2), tf.int32) - tf.cast(tf.equal(action, 1), tf.int32)
        paddle = tf.clip_by_value(old.paddle + move, 0, _SIZE - 1)

        column = old.ball_column + old.column_step
        column_step = tf.where((column < 0) | (column >= _SIZE), -old.column_step, old.column_step)
        column = tf.clip_by_value(column, 0, _SIZE - 1)
        row = old.ball_row + old.row_step
        ceiling = row < 0

        bit = _brick_bit(row, column)
        meets = tf.not_equal(tf.bitwise.bitwise_and(old.bricks, bit), 0)
        breaks = meets & ~old.striking
        bricks = tf.where(breaks, tf.bitwise.bitwise_xor(old.bricks, bit), old.bricks)

        bottom = tf.equal(row, _PADDLE_ROW)
        bricks = tf.where(bottom & tf.equal(bricks, 0), _ALL_BRICKS, bricks)
        from_above = bottom & tf.equal(old.ball_column, paddle)
        from_aside = bottom & tf.equal(column, paddle) & ~from_above
        bounces = breaks | from_above | from_aside

        moved = BreakoutState(
            ball_row=tf.where(ceiling, 0, tf.where(bounces, old.ball_row, row)),
            ball_column=column,
            row_step=tf.where(ceiling | bounces, -old.row_step, old.row_step),
            column_step=tf.where(from_aside, -column_step, column_step),
            trail_row=old.ball_row,
            trail_column=old.ball_column,
            paddle=paddle,
            bricks=bricks,
            striking=meets,
        )
        return moved, tf.cast(breaks, tf.float32), bottom & ~from_above & ~from_aside

    def observe(self, simulation: BreakoutState) -> tf.Tensor:
        """Draws `[B, 10, 10, 4]`: paddle, ball, trail, bricks."""
        paddle = _PADDLE_ROW * _SIZE + simulation.paddle
        ball = simulation.ball_row * _SIZE + simulation.ball_column
        trail = simulation.trail_row * _SIZE + simulation.trail_column
        # One comparison of the whole image for each channel, against a table that can match in
        # that channel only. All of it flat, the shape last: XLA vectorises a loop over 400 numbers,
        # and not one over 10 × 10 × 4.
        image = tf.not_equal(tf.bitwise.bitwise_and(simulation.bricks[:, tf.newaxis], _BRICKS), 0)
        for channel, position in enumerate((paddle, ball, trail)):
            image |= tf.equal(position[:, tf.newaxis], _CELLS[channel])
        image = tf.cast(image, self.observation_dtype)
        return tf.reshape(image, [self.num_envs, _SIZE, _SIZE, 4])


def _brick_bit(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
    """The bit of a cell in `BreakoutState.bricks`, 0 outside of the brick rows."""
    brick_row = row - _FIRST_BRICK_ROW
    inside = (brick_row >= 0) & (brick_row < _BRICK_ROWS)
    place = tf.where(inside, brick_row * _SIZE + column, 0)
    return tf.where(inside, tf.bitwise.left_shift(tf.ones_like(place), place), 0)
