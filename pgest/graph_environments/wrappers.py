"""Environments made of other environments.

A wrapper is itself a `GraphEnvironment`: it forwards `start`, `advance` and `observe` and changes
what it is for. Resetting, the time limit and the statistics happen once, in the outermost one, so
they speak of what that one gives out (scaled rewards, for example).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf

from pgest.graph_environments import graph_environment, stateless_noise

Nest = Any
# What StickyActions folds its seed with, plus how many there are inside of it: unlikely numbers, so
# that an environment may fold its own seed with 0, 1, 2, …
_STICK = 47_001


class GraphWrapper(graph_environment.GraphEnvironment):
    """Forwards everything to another environment; the base of wrappers.

    Args:
        env: the environment inside.
        observation_space: of one environment, if the wrapper changes it.
        action_space: of one environment, if the wrapper changes it.

    Raises:
        TypeError: `env` is no `GraphEnvironment`.
    """

    def __init__(
        self,
        env: graph_environment.GraphEnvironment,
        *,
        observation_space: gymnasium.Space[Any] | None = None,
        action_space: gymnasium.Space[Any] | None = None,
    ) -> None:
        if not isinstance(env, graph_environment.GraphEnvironment):
            raise TypeError(
                f"env={env!r}: expected a GraphEnvironment; gymnasium's environments take "
                "gymnasium's own wrappers."
            )
        self.env = env
        super().__init__(
            observation_space or env.observation_space,
            action_space or env.action_space,
            num_envs=env.num_envs,
            max_episode_steps=env.max_episode_steps,
        )

    def start(self, seed: tf.Tensor) -> Nest:
        """See `GraphEnvironment.start`."""
        return self.env.start(seed)

    def advance(
        self, simulation: Nest, action: Nest, seed: tf.Tensor
    ) -> tuple[Nest, tf.Tensor, tf.Tensor]:
        """See `GraphEnvironment.advance`."""
        return self.env.advance(simulation, action, seed)

    def observe(self, simulation: Nest) -> Nest:
        """See `GraphEnvironment.observe`."""
        return self.env.observe(simulation)

    def action_mask(self, simulation: Nest) -> Nest | None:
        """See `GraphEnvironment.action_mask`."""
        return self.env.action_mask(simulation)

    def with_num_envs(self, num_envs: int) -> "GraphWrapper":
        """See `GraphEnvironment.with_num_envs`; the environment inside changes too."""
        other = super().with_num_envs(num_envs)
        other.env = self.env.with_num_envs(num_envs)
        return other

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.env!r})"


class TimeLimit(GraphWrapper):
    """Truncates episodes after another number of timesteps than the environment's own.

    Args:
        env: the environment inside; its own limit no longer counts.
        max_episode_steps: timesteps, or None for no limit.

    Example:
        >>> from pgest.graph_environments import CartPole, TimeLimit
        >>> TimeLimit(CartPole(num_envs=8), 100).max_episode_steps
        100
    """

    def __init__(
        self, env: graph_environment.GraphEnvironment, max_episode_steps: int | None
    ) -> None:
        super().__init__(env)
        self.max_episode_steps = graph_environment.checked_max_episode_steps(max_episode_steps)


class RewardScale(GraphWrapper):
    """Gives `scale * reward + shift`; the episode statistics are of the scaled rewards too.

    Args:
        env: the environment inside.
        scale: factor.
        shift: added after scaling.
    """

    def __init__(
        self, env: graph_environment.GraphEnvironment, scale: float, *, shift: float = 0.0
    ) -> None:
        super().__init__(env)
        self.scale = float(scale)
        self.shift = float(shift)

    def advance(
        self, simulation: Nest, action: Nest, seed: tf.Tensor
    ) -> tuple[Nest, tf.Tensor, tf.Tensor]:
        """See `GraphEnvironment.advance`."""
        simulation, reward, terminated = self.env.advance(simulation, action, seed)
        return simulation, self.scale * reward + self.shift, terminated


class TransformObservation(GraphWrapper):
    """Shows a function of the observation.

    Args:
        env: the environment inside.
        function: pure TensorFlow, from the nest of `[B, …]` observations to that of the new ones.
        observation_space: of one environment, for what `function` gives.

    Example:
        CartPole without velocities:

        >>> import gymnasium, tensorflow as tf
        >>> from pgest.graph_environments import CartPole, TransformObservation
        >>> env = TransformObservation(CartPole(num_envs=2), lambda rows: rows[:, ::2],
        ...                            gymnasium.spaces.Box(-5.0, 5.0, (2,)))
        >>> env.observation(env.initial(tf.constant([0, 0]))).shape.as_list()
        [2, 2]
    """

    def __init__(
        self,
        env: graph_environment.GraphEnvironment,
        function: Callable[[Nest], Nest],
        observation_space: gymnasium.Space[Any],
    ) -> None:
        super().__init__(env, observation_space=observation_space)
        self.function = function

    def observe(self, simulation: Nest) -> Nest:
        """See `GraphEnvironment.observe`."""
        return self.function(self.env.observe(simulation))


class RescaleAction(GraphWrapper):
    """Takes actions from [low, high] where the environment has other bounds.

    Args:
        env: the environment inside, with a bounded `Box` of actions.
        low: lower bound of every action's component.
        high: upper bound.

    Raises:
        TypeError: the action space is no `Box`.
        ValueError: the action space is not bounded, or `low >= high`.

    Example:
        >>> from pgest.graph_environments import Pendulum, RescaleAction
        >>> RescaleAction(Pendulum(), low=-1.0, high=1.0).action_space
        Box(-1.0, 1.0, (1,), float32)
    """

    def __init__(
        self,
        env: graph_environment.GraphEnvironment,
        *,
        low: float = -1.0,
        high: float = 1.0,
    ) -> None:
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Box):
            raise TypeError(f"action space {space}: expected a Box; other actions have no scale.")
        if not space.is_bounded():
            raise ValueError(f"action space {space}: expected finite bounds to scale from.")
        if low >= high:
            raise ValueError(f"low={low}, high={high}: expected low < high.")
        box = gymnasium.spaces.Box(low, high, space.shape, np.float32)
        super().__init__(env, action_space=box)
        self._slope = ((space.high - space.low) / (high - low)).astype(np.float32)
        self._offset = (space.low - low * self._slope).astype(np.float32)

    def advance(
        self, simulation: Nest, action: Nest, seed: tf.Tensor
    ) -> tuple[Nest, tf.Tensor, tf.Tensor]:
        """See `GraphEnvironment.advance`."""
        return self.env.advance(simulation, action * self._slope + self._offset, seed)


class FramesState(NamedTuple):
    """What `FrameStack` adds to a simulation."""

    inner: Nest
    """The simulation inside."""
    frames: tf.Tensor
    """`[B, count, …]`: the last observations, the newest last."""


class FrameStack(GraphWrapper):
    """Shows the last observations together, on a new axis `[B, count, …]`, the newest last.

    A fresh episode shows its first observation `count` times, as gymnasium's FrameStackObservation
    does by default.

    Args:
        env: the environment inside; its observation is one `Box`.
        count: how many observations.

    Raises:
        TypeError: the observation space is no `Box`.
        ValueError: `count` is below 2.

    Example:
        >>> import tensorflow as tf
        >>> from pgest.graph_environments import CartPole, FrameStack
        >>> env = FrameStack(CartPole(num_envs=2), 3)
        >>> env.observation(env.initial(tf.constant([0, 0]))).shape.as_list()
        [2, 3, 4]
    """

    def __init__(self, env: graph_environment.GraphEnvironment, count: int) -> None:
        space = env.observation_space
        if not isinstance(space, gymnasium.spaces.Box):
            raise TypeError(f"observation space {space}: expected a Box to stack.")
        if count < 2:
            raise ValueError(f"count={count}: expected at least 2 observations to stack.")
        low, high = (np.repeat(bound[None], count, axis=0) for bound in (space.low, space.high))
        super().__init__(env, observation_space=gymnasium.spaces.Box(low, high, dtype=space.dtype))
        self.count = count

    def start(self, seed: tf.Tensor) -> FramesState:
        """See `GraphEnvironment.start`."""
        inner = self.env.start(seed)
        return FramesState(inner, tf.stack([self.env.observe(inner)] * self.count, axis=1))

    def advance(
        self, simulation: FramesState, action: Nest, seed: tf.Tensor
    ) -> tuple[FramesState, tf.Tensor, tf.Tensor]:
        """See `GraphEnvironment.advance`."""
        inner, reward, terminated = self.env.advance(simulation.inner, action, seed)
        newest = self.env.observe(inner)[:, tf.newaxis]
        frames = tf.concat([simulation.frames[:, 1:], newest], axis=1)
        return FramesState(inner, frames), reward, terminated

    def observe(self, simulation: FramesState) -> tf.Tensor:
        """See `GraphEnvironment.observe`."""
        return simulation.frames

    def action_mask(self, simulation: FramesState) -> Nest | None:
        """See `GraphEnvironment.action_mask`."""
        return self.env.action_mask(simulation.inner)


class StickyState(NamedTuple):
    """What `StickyActions` adds to a simulation."""

    inner: Nest
    """The simulation inside."""
    last_action: tf.Tensor
    """`[B]`: what was done last; the space's first action at the start of an episode."""


class StickyActions(GraphWrapper):
    """Repeats the last action instead of the given one, each time with the same probability.

    Args:
        env: the environment inside, with `Discrete` actions.
        probability: of a repetition, in [0, 1]; MinAtar uses 0.1, the Atari benchmark 0.25.

    Raises:
        TypeError: the action space is not `Discrete`.
        ValueError: `probability` is outside of [0, 1].

    References:
        Machado et al., "Revisiting the Arcade Learning Environment", 2018, arXiv:1709.06009.
    """

    def __init__(self, env: graph_environment.GraphEnvironment, probability: float) -> None:
        if not isinstance(env.action_space, gymnasium.spaces.Discrete):
            raise TypeError(f"action space {env.action_space}: expected Discrete.")
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"probability={probability}: expected 0 to 1.")
        super().__init__(env)
        self.probability = probability
        self._first_action = int(env.action_space.start)
        self._purpose = _STICK + _sticky_inside(env)

    def start(self, seed: tf.Tensor) -> StickyState:
        """See `GraphEnvironment.start`."""
        return StickyState(self.env.start(seed), tf.fill([self.num_envs], self._first_action))

    def advance(
        self, simulation: StickyState, action: tf.Tensor, seed: tf.Tensor
    ) -> tuple[StickyState, tf.Tensor, tf.Tensor]:
        """See `GraphEnvironment.advance`."""
        die = stateless_noise.fold(seed, self._purpose)
        chance = stateless_noise.uniform(die, [self.num_envs])
        action = tf.where(
            chance < self.probability, simulation.last_action, tf.cast(action, tf.int32)
        )
        inner, reward, terminated = self.env.advance(simulation.inner, action, seed)
        return StickyState(inner, action), reward, terminated

    def observe(self, simulation: StickyState) -> Nest:
        """See `GraphEnvironment.observe`."""
        return self.env.observe(simulation.inner)

    def action_mask(self, simulation: StickyState) -> Nest | None:
        """See `GraphEnvironment.action_mask`."""
        return self.env.action_mask(simulation.inner)


def _sticky_inside(env: graph_environment.GraphEnvironment) -> int:
    """How many `StickyActions` an environment is made of: each needs a die of its own."""
    if not isinstance(env, GraphWrapper):
        return 0
    return isinstance(env, StickyActions) + _sticky_inside(env.env)
