"""Pendulum-v1 as pure functions of tensors."""

import math
from typing import NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf

from pgest.graph_environments import graph_environment, stateless_noise, trigonometry


class PendulumState(NamedTuple):
    """Pendulums; every field `[B]` in the environment's dtype."""

    angle: tf.Tensor
    """From upright, rad; keeps counting turns."""
    velocity: tf.Tensor
    """rad/s."""


class Pendulum(graph_environment.GraphEnvironment):
    """Swing a pendulum up by a torque too weak to lift it at once: gymnasium's Pendulum-v1.

    Observations are float32 `[B, 3]`: cosine and sine of the angle from upright, angular velocity
    (rad/s, clipped at ±8). Actions are torques `[B, 1]`, clipped at ±2. The reward is
    -(angle² + 0.1 velocity² + 0.001 torque²) with the angle in ±pi; no episode terminates.

    Args:
        num_envs: B.
        max_episode_steps: timesteps after which an episode is truncated.
        gravity: gymnasium's `g`.
        dtype: of the simulation, "float64" as gymnasium's or "float32"; observations are float32.

    Example:
        >>> import tensorflow as tf
        >>> from pgest.graph_environments import Pendulum
        >>> env = Pendulum(num_envs=2)
        >>> state = env.initial(seed=tf.constant([0, 0]))
        >>> state, transition = env.step(state, tf.zeros([2, 1]), seed=tf.constant([0, 1]))
        >>> bool(tf.reduce_all(transition.reward <= 0.0))
        True
    """

    MAX_VELOCITY = 8.0
    MAX_TORQUE = 2.0
    SECONDS_PER_STEP = 0.05
    MASS = 1.0
    LENGTH = 1.0

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = 200,
        gravity: float = 10.0,
        dtype: str = "float64",
    ) -> None:
        self.gravity = gravity
        self.dtype = graph_environment.simulation_dtype(dtype)
        high = np.array([1.0, 1.0, self.MAX_VELOCITY], np.float32)
        super().__init__(
            gymnasium.spaces.Box(-high, high, dtype=np.float32),
            gymnasium.spaces.Box(-self.MAX_TORQUE, self.MAX_TORQUE, (1,), np.float32),
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
        )

    def start(self, seed: tf.Tensor) -> PendulumState:
        """Draws an angle from ±pi and an angular velocity from ±1."""
        numbers = stateless_noise.uniform(seed, [2, self.num_envs], low=-1.0, dtype=self.dtype)
        return PendulumState(angle=math.pi * numbers[0], velocity=numbers[1])

    def advance(
        self, simulation: PendulumState, action: tf.Tensor, seed: tf.Tensor
    ) -> tuple[PendulumState, tf.Tensor, tf.Tensor]:
        """Applies the torques `[B, 1]` for 0.05 s (semi-implicit Euler)."""
        del seed
        angle, velocity = simulation
        torque = tf.clip_by_value(action[:, 0], -self.MAX_TORQUE, self.MAX_TORQUE)
        # Rounded in the action's own float32 before float64 takes over, as NumPy rounds it.
        pull = tf.cast(3.0 / (self.MASS * self.LENGTH**2) * torque, self.dtype)
        effort = tf.cast(0.001 * tf.square(torque), self.dtype)
        # Only the cost sees the angle wrapped into ±pi.
        turns = tf.floor((angle + math.pi) * (0.5 / math.pi))
        wrapped = angle - 2 * math.pi * turns
        cost = tf.square(wrapped) + 0.1 * tf.square(velocity) + effort
        sine, _ = trigonometry.sine_and_cosine(angle)
        acceleration = 3.0 * self.gravity / (2.0 * self.LENGTH) * sine + pull
        velocity = tf.clip_by_value(
            velocity + acceleration * self.SECONDS_PER_STEP, -self.MAX_VELOCITY, self.MAX_VELOCITY
        )
        moved = PendulumState(angle + velocity * self.SECONDS_PER_STEP, velocity)
        return moved, tf.cast(-cost, tf.float32), tf.zeros([self.num_envs], tf.bool)

    def observe(self, simulation: PendulumState) -> tf.Tensor:
        """Gives float32 `[B, 3]`: cosine, sine, angular velocity."""
        sine, cosine = trigonometry.sine_and_cosine(simulation.angle)
        columns = [cosine, sine, simulation.velocity]
        return tf.stack([tf.cast(column, tf.float32) for column in columns], axis=1)
