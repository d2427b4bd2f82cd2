"""Environments as pure functions of tensors: the base that all of them share.

Such an environment runs inside the compiled program that trains: no transfer, no Python between
timesteps. It is written for a whole batch: every tensor has the number of environments B in front,
so its maths is plain elementwise TensorFlow and batching costs nothing.
"""

import abc
import copy
from typing import Any, NamedTuple, TypeVar

import gymnasium
import tensorflow as tf

from pgest.graph_environments import stateless_noise

Nest = Any  # a tensor or a (named) tuple, list or dict of them
GraphEnvironmentType = TypeVar("GraphEnvironmentType", bound="GraphEnvironment")

# What seeds are folded with, so that the uses of one seed stay unrelated. The numbers are unlikely
# ones, so that an environment may fold its own seed with 0, 1, 2, …
_INITIAL, _ADVANCE, _RESET = 9001, 9002, 9003


class EpisodeProgress(NamedTuple):
    """What the running episodes have gathered; every field has the shape `[B]`.

    The names are those of `episodes.EpisodeStatistics`.
    """

    total: tf.Tensor
    """float32: sum of the rewards, undiscounted."""
    length: tf.Tensor
    """int32: timesteps taken."""
    max: tf.Tensor
    """float32: largest reward of one timestep, -inf before the first."""
    min: tf.Tensor
    """float32: smallest reward of one timestep, +inf before the first."""


class EnvironmentState(NamedTuple):
    """All that B environments are: a nest of tensors, fit for `tf.while_loop` and checkpoints."""

    simulation: Nest
    """The environment's own state, every tensor `[B, …]`."""
    progress: EpisodeProgress
    """The running episodes so far."""


class Transition(NamedTuple):
    """What one timestep of B environments gave out."""

    observation: Nest
    """`[B, …]`: what to act on next; of a fresh episode where this one ended."""
    reward: tf.Tensor
    """float32 `[B]`."""
    terminated: tf.Tensor
    """bool `[B]`: the environment's own end; nothing can be gained after it."""
    truncated: tf.Tensor
    """bool `[B]`: the time limit was reached; both are true where both happen at once."""
    next_observation: Nest
    """`[B, …]`: what the action led to; the true last observation where the episode ended."""
    progress: EpisodeProgress
    """The episodes with this timestep; of the whole episode where it ended."""
    next_mask: Nest | None = None
    """bool `[B, n]` or a nest: the action mask of `next_observation`; None: all allowed."""

    @property
    def ended(self) -> tf.Tensor:
        """Says where the episode is over: bool `[B]`, terminated or truncated."""
        return self.terminated | self.truncated


class GraphEnvironment(abc.ABC):
    """B environments of one kind as pure functions of tensors.

    A new environment is three functions, each written for the whole batch:

    * `start(seed)`: fresh simulations;
    * `advance(simulation, action, seed)`: one timestep, no resetting;
    * `observe(simulation)`: what the policy sees.

    The base makes of them `initial` and `step`, with what every environment needs: automatic reset
    in the same step (gymnasium's SAME_STEP), the true last observation, the time limit apart from
    termination, episode statistics. All functions must be pure (no variables, no Python state) and
    keep shapes and dtypes, so that XLA can compile them into a loop. States of many `[B]` tensors
    (a named tuple) run faster than one `[B, n]` tensor, whose columns XLA does not vectorise.

    Args:
        observation_space: of one environment, without B.
        action_space: of one environment, without B. `step` takes actions in the space's own terms:
            a `Discrete` action is an integer tensor `[B]` from the space's `start` on.
        num_envs: B, static.
        max_episode_steps: timesteps after which an episode is truncated; None for no limit.

    Raises:
        TypeError: a space is not gymnasium's, or a number is not an integer.
        ValueError: a number is below 1.

    Example:
        A walk on a line that ends at ±3:

        >>> import gymnasium, tensorflow as tf
        >>> from pgest.graph_environments import GraphEnvironment
        >>> class Walk(GraphEnvironment):
        ...     def __init__(self, num_envs=1):
        ...         super().__init__(
        ...             gymnasium.spaces.Box(-3, 3, (1,)), gymnasium.spaces.Discrete(2),
        ...             num_envs=num_envs, max_episode_steps=20)
        ...     def start(self, seed):
        ...         return tf.zeros([self.num_envs])
        ...     def advance(self, simulation, action, seed):
        ...         place = simulation + tf.where(tf.equal(action, 1), 1.0, -1.0)
        ...         return place, place, tf.abs(place) >= 3.0
        ...     def observe(self, simulation):
        ...         return simulation[:, tf.newaxis]
        >>> walk = Walk(num_envs=2)
        >>> state = walk.initial(tf.constant([0, 0]))
        >>> for timestep in range(3):
        ...     seed = tf.constant([0, timestep])
        ...     state, transition = walk.step(state, tf.constant([1, 0]), seed)
        >>> transition.next_observation.numpy().tolist(), transition.observation.numpy().tolist()
        ([[3.0], [-3.0]], [[0.0], [0.0]])
        >>> transition.progress.total.numpy().tolist()
        [6.0, -6.0]
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        *,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
    ) -> None:
        for name, space in (
            ("observation_space", observation_space),
            ("action_space", action_space),
        ):
            if not isinstance(space, gymnasium.Space):
                raise TypeError(f"{name}={space!r}: expected a gymnasium.Space of one environment.")
        self.observation_space = observation_space
        self.action_space = action_space
        self.num_envs = _positive("num_envs", num_envs)
        self.max_episode_steps = checked_max_episode_steps(max_episode_steps)

    @abc.abstractmethod
    def start(self, seed: tf.Tensor) -> Nest:
        """Makes B fresh simulations.

        Called at every timestep, since each may end some episode: keep it cheap
        (`stateless_noise` draws numbers that are).

        Args:
            seed: int32 `[2]`; the result is a function of it alone.

        Returns:
            Nest of `[B, …]` tensors.
        """

    @abc.abstractmethod
    def advance(
        self, simulation: Nest, action: Nest, seed: tf.Tensor
    ) -> tuple[Nest, tf.Tensor, tf.Tensor]:
        """Takes one timestep in B simulations.

        Args:
            simulation: as `start` makes it; never one that has terminated.
            action: nest of `[B, …]` tensors, as the action space says.
            seed: int32 `[2]`, for environments with chance in them.

        Returns:
            The simulations after the action (same nest, shapes and dtypes), the reward float32
            `[B]`, and terminated bool `[B]`.
        """

    @abc.abstractmethod
    def observe(self, simulation: Nest) -> Nest:
        """Gives what the policy sees, `[B, …]` in the observation space's dtype."""

    def action_mask(self, simulation: Nest) -> Nest | None:
        """Gives which discrete actions are allowed, bool `[B, n]` or a nest; None: all."""
        del simulation
        return None

    def initial(self, seed: tf.Tensor) -> EnvironmentState:
        """Starts B episodes.

        Args:
            seed: int32 `[2]`; the state is a function of it alone.
        """
        simulation = self.start(stateless_noise.fold(_seed(seed), _INITIAL))
        return EnvironmentState(simulation, self._no_progress())

    def observation(self, state: EnvironmentState) -> Nest:
        """Gives what to act on in `state`, `[B, …]`: `initial`'s, or `Transition.observation`."""
        return self.observe(state.simulation)

    def step(
        self, state: EnvironmentState, action: Nest, seed: tf.Tensor
    ) -> tuple[EnvironmentState, Transition]:
        """Takes one timestep in B environments; those whose episode ends start the next one.

        Args:
            state: of `initial` or the step before.
            action: nest of `[B, …]` tensors in the terms of `action_space`.
            seed: int32 `[2]`, another one at each timestep (for example the run's seed and the
                global timestep): the reset and the environment's chance are functions of it.

        Returns:
            The state to act in next, and what this timestep gave out.
        """
        seed = _seed(seed)
        moved, reward, terminated = self.advance(
            state.simulation, action, stateless_noise.fold(seed, _ADVANCE)
        )
        progress = _added(state.progress, reward)
        if self.max_episode_steps is None:
            truncated = tf.zeros([self.num_envs], tf.bool)
        else:
            truncated = progress.length >= self.max_episode_steps
        # A fresh start for all, kept by few: cheaper under XLA than to choose who needs one.
        fresh = EnvironmentState(
            self.start(stateless_noise.fold(seed, _RESET)), self._no_progress()
        )
        next_state = _select(terminated | truncated, fresh, EnvironmentState(moved, progress))
        transition = Transition(
            observation=self.observe(next_state.simulation),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            next_observation=self.observe(moved),
            progress=progress,
            next_mask=self.action_mask(moved),
        )
        return next_state, transition

    def with_num_envs(self: GraphEnvironmentType, num_envs: int) -> GraphEnvironmentType:
        """Gives the same environment for another number of copies, for example to evaluate in.

        Args:
            num_envs: B of the copy; this object keeps its own.
        """
        other = copy.copy(self)
        other.num_envs = _positive("num_envs", num_envs)
        return other

    def _no_progress(self) -> EpisodeProgress:
        shape = [self.num_envs]
        return EpisodeProgress(
            total=tf.zeros(shape),
            length=tf.zeros(shape, tf.int32),
            max=tf.fill(shape, float("-inf")),
            min=tf.fill(shape, float("inf")),
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(num_envs={self.num_envs}, "
            f"max_episode_steps={self.max_episode_steps})"
        )


def checked_max_episode_steps(max_episode_steps: int | None) -> int | None:
    """Checks a time limit.

    Args:
        max_episode_steps: timesteps, or None for no limit.

    Raises:
        TypeError: it is neither None nor an integer.
        ValueError: it is below 1.
    """
    if max_episode_steps is None:
        return None
    return _positive("max_episode_steps", max_episode_steps)


def simulation_dtype(dtype: str) -> tf.DType:
    """Checks the dtype that a simulation is to compute in.

    Args:
        dtype: "float32" or "float64".

    Raises:
        ValueError: it is neither.
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype={dtype!r}: expected 'float32' or 'float64'.")
    return tf.as_dtype(dtype)


def _added(progress: EpisodeProgress, reward: tf.Tensor) -> EpisodeProgress:
    return EpisodeProgress(
        total=progress.total + reward,
        length=progress.length + 1,
        max=tf.maximum(progress.max, reward),
        min=tf.minimum(progress.min, reward),
    )


def _select(condition: tf.Tensor, chosen: Nest, otherwise: Nest) -> Nest:
    """Takes rows of `chosen` where `condition` (bool `[B]`) holds, else those of `otherwise`."""

    def rows(true_rows: tf.Tensor, false_rows: tf.Tensor) -> tf.Tensor:
        mask = tf.reshape(condition, [-1] + [1] * (false_rows.shape.rank - 1))
        return tf.where(mask, true_rows, false_rows)

    return tf.nest.map_structure(rows, chosen, otherwise)


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r}: expected an int.")
    if value < 1:
        raise ValueError(f"{name}={value}: expected at least 1.")
    return value


def _seed(seed: tf.Tensor) -> tf.Tensor:
    seed = tf.convert_to_tensor(seed)
    if seed.dtype != tf.int32 or seed.shape != [2]:
        raise ValueError(
            f"seed has dtype {seed.dtype.name} and shape {seed.shape}: expected int32 [2], for "
            "example tf.constant([run_seed, timestep])."
        )
    return seed
