"""MountainCar-v0 and MountainCarContinuous-v0 as pure functions of tensors."""

from typing import NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf

from pgest.graph_environments import graph_environment, stateless_noise, trigonometry

_MIN_POSITION, _MAX_POSITION = -1.2, 0.6
_MAX_SPEED = 0.07
_SLOPE = 0.0025  # gravity along the curve


class MountainCarState(NamedTuple):
    """Cars; every field `[B]` in the environment's dtype."""

    position: tf.Tensor
    """Along the track, -1.2 to 0.6."""
    velocity: tf.Tensor
    """Along the track for each timestep."""


class MountainCar(graph_environment.GraphEnvironment):
    """Drive a weak car out of a valley by swinging: gymnasium's MountainCar-v0.

    Observations are float32 `[B, 2]`: position in [-1.2, 0.6], velocity in ±0.07. Action 0 pushes
    left, 1 not at all, 2 right. The reward is -1 at each timestep; the episode terminates at the
    position 0.5 with at least the goal velocity.

    Args:
        num_envs: B.
        max_episode_steps: timesteps after which an episode is truncated.
        goal_velocity: least velocity at the goal.
        dtype: of the simulation, "float64" as gymnasium's or "float32"; observations are float32.

    Example:
        >>> import tensorflow as tf
        >>> from pgest.graph_environments import MountainCar
        >>> env = MountainCar(num_envs=2)
        >>> state = env.initial(seed=tf.constant([0, 0]))
        >>> state, transition = env.step(state, tf.constant([0, 2]), seed=tf.constant([0, 1]))
        >>> transition.reward.numpy().tolist()
        [-1.0, -1.0]
    """

    FORCE = 0.001
    GOAL_POSITION = 0.5

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = 200,
        goal_velocity: float = 0.0,
        dtype: str = "float64",
    ) -> None:
        self.goal_velocity = goal_velocity
        self.dtype = graph_environment.simulation_dtype(dtype)
        super().__init__(
            _observation_space(),
            gymnasium.spaces.Discrete(3),
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
        )

    def start(self, seed: tf.Tensor) -> MountainCarState:
        """Draws a position from [-0.6, -0.4] and no velocity."""
        return _start(seed, self.num_envs, self.dtype)

    def advance(
        self, simulation: MountainCarState, action: tf.Tensor, seed: tf.Tensor
    ) -> tuple[MountainCarState, tf.Tensor, tf.Tensor]:
        """Pushes the cars for one timestep, action integer `[B]`."""
        del seed
        push = tf.cast(action - 1, self.dtype) * self.FORCE
        moved = _move(simulation, push)
        terminated = _at_goal(moved, self.GOAL_POSITION, self.goal_velocity)
        return moved, -tf.ones([self.num_envs]), terminated

    def observe(self, simulation: MountainCarState) -> tf.Tensor:
        """Gives float32 `[B, 2]`."""
        return tf.stack([tf.cast(column, tf.float32) for column in simulation], axis=1)


class MountainCarContinuous(graph_environment.GraphEnvironment):
    """The car of `MountainCar` with a force to choose: gymnasium's MountainCarContinuous-v0.

    Observations are float32 `[B, 2]`: position and velocity. Actions are forces `[B, 1]`, clipped
    at ±1. The reward is -0.1 action² (of the action as given), and 100 more at the goal: position
    0.45 with at least the goal velocity, where the episode terminates.

    Args:
        num_envs: B.
        max_episode_steps: timesteps after which an episode is truncated.
        goal_velocity: least velocity at the goal.
        dtype: of the simulation, "float32" as gymnasium's (here it rounds its state at each
            timestep) or "float64".

    Example:
        >>> import tensorflow as tf
        >>> from pgest.graph_environments import MountainCarContinuous
        >>> env = MountainCarContinuous(num_envs=2)
        >>> state = env.initial(seed=tf.constant([0, 0]))
        >>> state, transition = env.step(state, tf.zeros([2, 1]), seed=tf.constant([0, 1]))
        >>> transition.next_observation.shape.as_list()
        [2, 2]
    """

    POWER = 0.0015
    GOAL_POSITION = 0.45

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = 999,
        goal_velocity: float = 0.0,
        dtype: str = "float32",
    ) -> None:
        self.goal_velocity = goal_velocity
        self.dtype = graph_environment.simulation_dtype(dtype)
        super().__init__(
            _observation_space(),
            gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32),
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
        )

    def start(self, seed: tf.Tensor) -> MountainCarState:
        """Draws a position from [-0.6, -0.4] and no velocity."""
        return _start(seed, self.num_envs, self.dtype)

    def advance(
        self, simulation: MountainCarState, action: tf.Tensor, seed: tf.Tensor
    ) -> tuple[MountainCarState, tf.Tensor, tf.Tensor]:
        """Pushes the cars for one timestep, action float `[B, 1]`."""
        del seed
        force = tf.cast(action[:, 0], self.dtype)
        moved = _move(simulation, tf.clip_by_value(force, -1.0, 1.0) * self.POWER)
        terminated = _at_goal(moved, self.GOAL_POSITION, self.goal_velocity)
        reward = tf.where(terminated, tf.constant(100.0, self.dtype), 0.0) - 0.1 * force * force
        return moved, tf.cast(reward, tf.float32), terminated

    def observe(self, simulation: MountainCarState) -> tf.Tensor:
        """Gives float32 `[B, 2]`."""
        return tf.stack([tf.cast(column, tf.float32) for column in simulation], axis=1)


def _observation_space() -> gymnasium.spaces.Box:
    low = np.array([_MIN_POSITION, -_MAX_SPEED], np.float32)
    high = np.array([_MAX_POSITION, _MAX_SPEED], np.float32)
    return gymnasium.spaces.Box(low, high, dtype=np.float32)


def _start(seed: tf.Tensor, num_envs: int, dtype: tf.DType) -> MountainCarState:
    position = stateless_noise.uniform(seed, [num_envs], low=-0.6, high=-0.4, dtype=dtype)
    return MountainCarState(position, tf.zeros_like(position))


def _move(simulation: MountainCarState, push: tf.Tensor) -> MountainCarState:
    """One timestep on the curve; the left wall takes all speed."""
    position, velocity = simulation
    _, cosine = trigonometry.sine_and_cosine(3.0 * position)
    velocity = tf.clip_by_value(velocity + (push - _SLOPE * cosine), -_MAX_SPEED, _MAX_SPEED)
    position = tf.clip_by_value(position + velocity, _MIN_POSITION, _MAX_POSITION)
    stopped = (position <= _MIN_POSITION) & (velocity < 0.0)
    return MountainCarState(position, tf.where(stopped, tf.zeros_like(velocity), velocity))


def _at_goal(moved: MountainCarState, position: float, velocity: float) -> tf.Tensor:
    return (moved.position >= position) & (moved.velocity >= velocity)
