"""Acrobot-v1 as pure functions of tensors."""

import math

import gymnasium
import numpy as np
import tensorflow as tf

from pgest.graph_environments import graph_environment, stateless_noise, trigonometry


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

    GRAVITY = 9.8
    SECONDS_PER_STEP = 0.2
    MAX_VELOCITIES = (4 * math.pi, 9 * math.pi)
    START_BOUND = 0.1

    def __init__(
        self, num_envs: int = 1, *, max_episode_steps: int | None = 500, dtype: str = "float64"
    ) -> None:
        self.dtype = graph_environment.simulation_dtype(dtype)
        high = np.array([1.0, 1.0, 1.0, 1.0, *self.MAX_VELOCITIES], np.float32)
        super().__init__(
            gymnasium.spaces.Box(-high, high, dtype=np.float32),
            gymnasium.spaces.Discrete(3),
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
        )

    def start(self, seed: tf.Tensor) -> tf.Tensor:
        """Draws `[B, 4]` numbers evenly from ±0.1: two angles and two angular velocities."""
        return stateless_noise.uniform(
            seed,
            [self.num_envs, 4],
            low=-self.START_BOUND,
            high=self.START_BOUND,
            dtype=self.dtype,
        )

    def advance(
        self, simulation: tf.Tensor, action: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Applies the torques, action integer `[B]`, for 0.2 s (fourth-order Runge-Kutta)."""
        del seed
        torque = tf.cast(action - 1, self.dtype)
        half, whole = 0.5 * self.SECONDS_PER_STEP, self.SECONDS_PER_STEP
        slope1 = self._derivative(simulation, torque)
        slope2 = self._derivative(simulation + half * slope1, torque)
        slope3 = self._derivative(simulation + half * slope2, torque)
        slope4 = self._derivative(simulation + whole * slope3, torque)
        moved = simulation + whole / 6.0 * (slope1 + 2.0 * slope2 + 2.0 * slope3 + slope4)
        first, second, first_velocity, second_velocity = tf.unstack(moved, axis=1)
        first, second = _wrap(first), _wrap(second)
        first_limit, second_limit = self.MAX_VELOCITIES
        moved = tf.stack(
            [
                first,
                second,
                tf.clip_by_value(first_velocity, -first_limit, first_limit),
                tf.clip_by_value(second_velocity, -second_limit, second_limit),
            ],
            axis=1,
        )
        _, first_cosine = trigonometry.sine_and_cosine(first)
        _, tip_cosine = trigonometry.sine_and_cosine(first + second)
        terminated = -first_cosine - tip_cosine > 1.0
        return moved, tf.where(terminated, 0.0, -1.0), terminated

    def observe(self, simulation: tf.Tensor) -> tf.Tensor:
        """Gives float32 `[B, 6]`."""
        sine, cosine = trigonometry.sine_and_cosine(simulation[:, :2])
        return tf.cast(
            tf.stack(
                [
                    cosine[:, 0],
                    sine[:, 0],
                    cosine[:, 1],
                    sine[:, 1],
                    simulation[:, 2],
                    simulation[:, 3],
                ],
                axis=1,
            ),
            tf.float32,
        )

    def _derivative(self, simulation: tf.Tensor, torque: tf.Tensor) -> tf.Tensor:
        """d/dt of `[B, 4]`; both links have mass, length and inertia 1, centre of mass at 0.5."""
        _, _, velocity1, velocity2 = tf.unstack(simulation, axis=1)
        sines, cosines = trigonometry.sine_and_cosine(simulation[:, :2])
        sine1, sine2 = tf.unstack(sines, axis=1)
        cosine1, cosine2 = tf.unstack(cosines, axis=1)
        inertia1 = 3.5 + cosine2
        inertia2 = 1.25 + 0.5 * cosine2
        # cos(angle - pi/2) is the sine of the angle; that of the sum by the addition theorem.
        gravity2 = 0.5 * self.GRAVITY * (sine1 * cosine2 + cosine1 * sine2)
        gravity1 = (
            -0.5 * velocity2 * velocity2 * sine2
            - velocity2 * velocity1 * sine2
            + 1.5 * self.GRAVITY * sine1
            + gravity2
        )
        ratio = inertia2 / inertia1
        acceleration2 = (
            torque + ratio * gravity1 - 0.5 * velocity1 * velocity1 * sine2 - gravity2
        ) / (1.25 - inertia2 * ratio)
        acceleration1 = -(inertia2 * acceleration2 + gravity1) / inertia1
        return tf.stack([velocity1, velocity2, acceleration1, acceleration2], axis=1)


def _wrap(angle: tf.Tensor) -> tf.Tensor:
    """Brings angles into ±pi by whole turns."""
    return angle - 2 * math.pi * tf.round(angle * (0.5 / math.pi))
