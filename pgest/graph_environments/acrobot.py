"""Acrobot-v1 as pure functions of tensors."""

import math
from typing import NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf

from pgest.graph_environments import graph_environment, stateless_noise, trigonometry

_GRAVITY = 9.8


class AcrobotState(NamedTuple):
    """Arms; every field `[B]` in the environment's dtype."""

    angle1: tf.Tensor
    """Of the first link, 0 hangs down, rad."""
    angle2: tf.Tensor
    """Of the second link from the first, rad."""
    velocity1: tf.Tensor
    """Of `angle1`, rad/s."""
    velocity2: tf.Tensor
    """Of `angle2`, rad/s."""


class Acrobot(graph_environment.GraphEnvironment):
    """Swing a two-link arm above a line by its middle joint alone: gymnasium's Acrobot-v1.

    Observations are float32 `[B, 6]`: cosine and sine of the first joint's angle (0 hangs down) and
    of the second's (relative to the first link), both angular velocities (rad/s, clipped at ±4 pi
    and ±9 pi). Actions 0, 1, 2 are torques of -1, 0, 1 N m. The reward is -1 at each timestep and 0
    at the last; the episode terminates where the tip is one link above the first joint.

    The equations are those of the book, gymnasium's default, integrated by one Runge-Kutta step of
    0.2 s.

    Args:
        num_envs: B.
        max_episode_steps: timesteps after which an episode is truncated.
        dtype: of the simulation, "float64" as gymnasium's or "float32"; observations are float32.

    References:
        Sutton, "Generalization in reinforcement learning: successful examples using sparse coarse
        coding", 1996; Sutton and Barto, "Reinforcement Learning: An Introduction".

    Example:
        >>> import tensorflow as tf
        >>> from pgest.graph_environments import Acrobot
        >>> env = Acrobot(num_envs=2)
        >>> state = env.initial(seed=tf.constant([0, 0]))
        >>> state, transition = env.step(state, tf.constant([0, 2]), seed=tf.constant([0, 1]))
        >>> transition.observation.shape.as_list(), transition.reward.numpy().tolist()
        ([2, 6], [-1.0, -1.0])
    """

    SECONDS_PER_STEP = 0.2
    MAX_VELOCITY1 = 4 * math.pi
    MAX_VELOCITY2 = 9 * math.pi
    START_BOUND = 0.1

    def __init__(
        self, num_envs: int = 1, *, max_episode_steps: int | None = 500, dtype: str = "float64"
    ) -> None:
        self.dtype = graph_environment.simulation_dtype(dtype)
        high = np.array([1.0, 1.0, 1.0, 1.0, self.MAX_VELOCITY1, self.MAX_VELOCITY2], np.float32)
        super().__init__(
            gymnasium.spaces.Box(-high, high, dtype=np.float32),
            gymnasium.spaces.Discrete(3),
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
        )

    def start(self, seed: tf.Tensor) -> AcrobotState:
        """Draws all four numbers evenly from ±0.1."""
        numbers = stateless_noise.uniform(
            seed,
            [4, self.num_envs],
            low=-self.START_BOUND,
            high=self.START_BOUND,
            dtype=self.dtype,
        )
        return AcrobotState(*tf.unstack(numbers))

    def advance(
        self, simulation: AcrobotState, action: tf.Tensor, seed: tf.Tensor
    ) -> tuple[AcrobotState, tf.Tensor, tf.Tensor]:
        """Applies the torques, action integer `[B]`, for 0.2 s (fourth-order Runge-Kutta)."""
        del seed
        torque = tf.cast(action - 1, self.dtype)
        half, whole = 0.5 * self.SECONDS_PER_STEP, self.SECONDS_PER_STEP
        slope1 = _slope(simulation, torque)
        slope2 = _slope(_along(simulation, half, slope1), torque)
        slope3 = _slope(_along(simulation, half, slope2), torque)
        slope4 = _slope(_along(simulation, whole, slope3), torque)
        angle1, angle2, velocity1, velocity2 = (
            field + whole / 6.0 * (s1 + 2.0 * s2 + 2.0 * s3 + s4)
            for field, s1, s2, s3, s4 in zip(
                simulation, slope1, slope2, slope3, slope4, strict=True
            )
        )
        moved = AcrobotState(
            _wrap(angle1),
            _wrap(angle2),
            tf.clip_by_value(velocity1, -self.MAX_VELOCITY1, self.MAX_VELOCITY1),
            tf.clip_by_value(velocity2, -self.MAX_VELOCITY2, self.MAX_VELOCITY2),
        )
        sine1, cosine1 = trigonometry.sine_and_cosine(moved.angle1)
        sine2, cosine2 = trigonometry.sine_and_cosine(moved.angle2)
        terminated = -cosine1 - (cosine1 * cosine2 - sine1 * sine2) > 1.0
        return moved, tf.where(terminated, 0.0, -1.0), terminated

    def observe(self, simulation: AcrobotState) -> tf.Tensor:
        """Gives float32 `[B, 6]`."""
        sine1, cosine1 = trigonometry.sine_and_cosine(simulation.angle1)
        sine2, cosine2 = trigonometry.sine_and_cosine(simulation.angle2)
        columns = [cosine1, sine1, cosine2, sine2, simulation.velocity1, simulation.velocity2]
        return tf.stack([tf.cast(column, tf.float32) for column in columns], axis=1)


def _slope(simulation: AcrobotState, torque: tf.Tensor) -> AcrobotState:
    """d/dt of the state; both links have mass, length and inertia 1, centre of mass at 0.5."""
    angle1, angle2, velocity1, velocity2 = simulation
    sine1, cosine1 = trigonometry.sine_and_cosine(angle1)
    sine2, cosine2 = trigonometry.sine_and_cosine(angle2)
    inertia1 = 3.5 + cosine2
    inertia2 = 1.25 + 0.5 * cosine2
    # cos(angle - pi/2) is the sine of the angle; that of the sum by the addition theorem.
    gravity2 = 0.5 * _GRAVITY * (sine1 * cosine2 + cosine1 * sine2)
    gravity1 = (
        -0.5 * tf.square(velocity2) * sine2
        - velocity2 * velocity1 * sine2
        + 1.5 * _GRAVITY * sine1
        + gravity2
    )
    ratio = inertia2 / inertia1
    acceleration2 = (torque + ratio * gravity1 - 0.5 * tf.square(velocity1) * sine2 - gravity2) / (
        1.25 - inertia2 * ratio
    )
    acceleration1 = -(inertia2 * acceleration2 + gravity1) / inertia1
    return AcrobotState(velocity1, velocity2, acceleration1, acceleration2)


def _along(simulation: AcrobotState, seconds: float, slope: AcrobotState) -> AcrobotState:
    return AcrobotState(*(x + seconds * s for x, s in zip(simulation, slope, strict=True)))


def _wrap(angle: tf.Tensor) -> tf.Tensor:
    """Brings angles into ±pi by whole turns."""
    return angle - 2 * math.pi * tf.round(angle * (0.5 / math.pi))
