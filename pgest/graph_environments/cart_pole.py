"""CartPole-v1 as pure functions of tensors."""

import math
from typing import NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf

from pgest.graph_environments import graph_environment, stateless_noise, trigonometry


class CartPoleState(NamedTuple):
    """Carts with their poles; every field `[B]` in the environment's dtype."""

    position: tf.Tensor
    """Of the cart, m."""
    velocity: tf.Tensor
    """Of the cart, m/s."""
    angle: tf.Tensor
    """Of the pole from upright, rad."""
    angular_velocity: tf.Tensor
    """Of the pole, rad/s."""


class CartPole(graph_environment.GraphEnvironment):
    """Balance a pole on a cart that is pushed left or right: gymnasium's CartPole-v1.

    Observations are float32 `[B, 4]`: position of the cart (m), its velocity (m/s), angle of the
    pole from upright (rad), its angular velocity (rad/s). Action 0 pushes left, 1 right. The reward
    is 1 at each timestep; the episode terminates where the cart leaves ±2.4 m or the pole ±12°.

    Equal to gymnasium's NumPy environment step by step. (The JAX rendering that gymnasium ships in
    `envs.functional` adds pole mass and length where the equations multiply them.)

    Args:
        num_envs: B.
        max_episode_steps: timesteps after which an episode is truncated.
        dtype: of the simulation, "float64" as gymnasium's or "float32"; observations are float32.

    References:
        Barto, Sutton, Anderson, "Neuronlike adaptive elements that can solve difficult learning
        control problems", 1983; equations as corrected by R. V. Florian, 2007.

    Example:
        >>> import tensorflow as tf
        >>> from pgest.graph_environments import CartPole
        >>> env = CartPole(num_envs=3)
        >>> state = env.initial(seed=tf.constant([0, 0]))
        >>> state, transition = env.step(state, tf.constant([0, 1, 1]), seed=tf.constant([0, 1]))
        >>> transition.observation.shape.as_list(), transition.reward.numpy().tolist()
        ([3, 4], [1.0, 1.0, 1.0])
    """

    GRAVITY = 9.8
    POLE_MASS = 0.1
    TOTAL_MASS = 1.1
    HALF_LENGTH = 0.5
    FORCE = 10.0
    SECONDS_PER_STEP = 0.02
    MAX_POSITION = 2.4
    MAX_ANGLE = 12 * 2 * math.pi / 360
    START_BOUND = 0.05

    def __init__(
        self, num_envs: int = 1, *, max_episode_steps: int | None = 500, dtype: str = "float64"
    ) -> None:
        self.dtype = graph_environment.simulation_dtype(dtype)
        # Twice the limits, so that the last observation of an episode lies within the space.
        high = np.array([2 * self.MAX_POSITION, np.inf, 2 * self.MAX_ANGLE, np.inf], np.float32)
        super().__init__(
            gymnasium.spaces.Box(-high, high, dtype=np.float32),
            gymnasium.spaces.Discrete(2),
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
        )

    def start(self, seed: tf.Tensor) -> CartPoleState:
        """Draws all four numbers evenly from ±0.05."""
        numbers = stateless_noise.uniform(
            seed,
            [4, self.num_envs],
            low=-self.START_BOUND,
            high=self.START_BOUND,
            dtype=self.dtype,
        )
        return CartPoleState(*tf.unstack(numbers))

    def advance(
        self, simulation: CartPoleState, action: tf.Tensor, seed: tf.Tensor
    ) -> tuple[CartPoleState, tf.Tensor, tf.Tensor]:
        """Pushes the carts, action integer `[B]`, and integrates 0.02 s by Euler's method."""
        del seed
        position, velocity, angle, angular_velocity = simulation
        force = tf.where(
            tf.equal(action, 1),
            tf.constant(self.FORCE, self.dtype),
            tf.constant(-self.FORCE, self.dtype),
        )
        # An episode lives within ±12°, so no range reduction is needed.
        sine, cosine = trigonometry.small_sine_and_cosine(angle)
        pole = self.POLE_MASS * self.HALF_LENGTH
        push = (force + pole * tf.square(angular_velocity) * sine) / self.TOTAL_MASS
        angular_acceleration = (self.GRAVITY * sine - cosine * push) / (
            self.HALF_LENGTH * (4.0 / 3.0 - self.POLE_MASS * tf.square(cosine) / self.TOTAL_MASS)
        )
        acceleration = push - pole * angular_acceleration * cosine / self.TOTAL_MASS
        moved = CartPoleState(
            position=position + self.SECONDS_PER_STEP * velocity,
            velocity=velocity + self.SECONDS_PER_STEP * acceleration,
            angle=angle + self.SECONDS_PER_STEP * angular_velocity,
            angular_velocity=angular_velocity + self.SECONDS_PER_STEP * angular_acceleration,
        )
        terminated = (tf.abs(moved.position) > self.MAX_POSITION) | (
            tf.abs(moved.angle) > self.MAX_ANGLE
        )
        return moved, tf.ones([self.num_envs]), terminated

    def observe(self, simulation: CartPoleState) -> tf.Tensor:
        """Gives float32 `[B, 4]`."""
        return tf.stack([tf.cast(column, tf.float32) for column in simulation], axis=1)
