"""Opens a graph environment as a gymnasium vector environment."""

from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium.vector.utils import batch_space

from pgest.graph_environments import graph_environment

Nest = Any


def as_gymnasium(
    env: graph_environment.GraphEnvironment, *, jit_compile: bool = True
) -> "GraphVectorEnv":
    """Opens a graph environment for code that knows gymnasium only.

    Args:
        env: any `GraphEnvironment`, wrapped or not.
        jit_compile: whether XLA compiles the step (about a second, at the first step).

    Returns:
        A `gymnasium.vector.VectorEnv` of `env.num_envs` environments.

    Example:
        >>> import numpy as np
        >>> from pgest.graph_environments import CartPole, as_gymnasium
        >>> envs = as_gymnasium(CartPole(num_envs=4))
        >>> observations, infos = envs.reset(seed=7)
        >>> step = envs.step(np.array([0, 1, 0, 1]))
        >>> step[0].shape, step[1].tolist(), step[4]
        ((4, 4), [1.0, 1.0, 1.0, 1.0], {})
    """
    return GraphVectorEnv(env, jit_compile=jit_compile)


class GraphVectorEnv(gymnasium.vector.VectorEnv[Any, Any, np.ndarray]):
    """B graph environments behind gymnasium's vector interface, autoreset mode SAME_STEP.

    Where an episode ends, `step` gives the first observation of the next one, and `infos` holds the
    true last one as `SyncVectorEnv` does: `infos["final_obs"]` (object array `[B]`), the boolean
    masks `infos["_final_obs"]` and `infos["_final_info"]`, and
    `infos["final_info"]["episode"]` with the return `"r"` and the length `"l"`, `[B]`, each with a
    mask. An environment with action masks gives `infos["action_mask"]` from `reset` and `step`,
    and where an episode ended the last one in `infos["final_info"]["action_mask"]`.

    One seed fixes all: equal seeds and actions give bit-equal rollouts.

    Args:
        env: the environment to open.
        jit_compile: whether XLA compiles the step.

    Raises:
        TypeError: `env` is no `GraphEnvironment`.
    """

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP, "render_modes": []}

    def __init__(
        self, env: graph_environment.GraphEnvironment, *, jit_compile: bool = True
    ) -> None:
        if not isinstance(env, graph_environment.GraphEnvironment):
            raise TypeError(f"env={env!r}: expected a pgest GraphEnvironment.")
        self.graph_environment = env
        self.num_envs = env.num_envs
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.observation_space = batch_space(env.observation_space, env.num_envs)
        self.action_space = batch_space(env.action_space, env.num_envs)
        self._compiled_initial = tf.function(self._initial, jit_compile=jit_compile)
        self._compiled_step = tf.function(self._step, jit_compile=jit_compile)
        self._state: graph_environment.EnvironmentState | None = None
        self._run_seed: int | None = None
        self._calls = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Nest, dict[str, Any]]:
        """Starts a new episode in every environment.

        Args:
            seed: fixes everything that follows; None goes on with the last one (the first time:
                with a random one).
            options: must be empty; no graph environment has any.

        Raises:
            ValueError: there are options.
        """
        if options:
            raise ValueError(f"options={options}: a graph environment takes none.")
        super().reset(seed=seed)
        if seed is not None:
            self._run_seed, self._calls = seed, 0
        elif self._run_seed is None:
            self._run_seed = int(self.np_random.integers(2**31))
        self._state, observation, mask = self._compiled_initial(self._next_seed())
        return _to_numpy(observation), _mask_info(mask)

    def step(
        self, actions: Nest
    ) -> tuple[Nest, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Takes one timestep in every environment.

        Args:
            actions: as `action_space` says, `[B, …]`.

        Returns:
            Observations `[B, …]` to act on next, rewards float32 `[B]`, terminations and
            truncations bool `[B]`, infos.

        Raises:
            RuntimeError: `reset` was never called.
            ValueError: the actions are not those of B environments.
        """
        if self._state is None:
            raise RuntimeError("step() before reset(): call reset(seed=…) first.")
        actions = tf.nest.map_structure(tf.convert_to_tensor, actions)
        for action in tf.nest.flatten(actions):
            if action.shape.rank == 0 or action.shape[0] != self.num_envs:
                raise ValueError(
                    f"actions of shape {action.shape}: expected {self.num_envs} rows, one for "
                    "each environment."
                )
        self._state, transition, mask = self._compiled_step(self._state, actions, self._next_seed())
        terminated, truncated = transition.terminated.numpy(), transition.truncated.numpy()
        infos = _mask_info(mask)
        ended = terminated | truncated
        if ended.any():
            infos.update(_final_infos(ended, transition))
        observation = _to_numpy(transition.observation)
        return observation, transition.reward.numpy(), terminated, truncated, infos

    def _initial(self, seed: tf.Tensor) -> tuple[Nest, ...]:
        state = self.graph_environment.initial(seed)
        mask = self.graph_environment.action_mask(state.simulation)
        return state, self.graph_environment.observation(state), mask

    def _step(
        self, state: graph_environment.EnvironmentState, action: Nest, seed: tf.Tensor
    ) -> tuple[Nest, ...]:
        state, transition = self.graph_environment.step(state, action, seed)
        return state, transition, self.graph_environment.action_mask(state.simulation)

    def _next_seed(self) -> tf.Tensor:
        words = np.array([self._run_seed, self._calls], np.int64).astype(np.uint32)
        self._calls += 1
        return tf.constant(words.view(np.int32))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.graph_environment!r})"


def _to_numpy(nest: Nest) -> Nest:
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), nest)


def _mask_info(mask: Nest | None) -> dict[str, Any]:
    return {} if mask is None else {"action_mask": _to_numpy(mask)}


def _final_infos(ended: np.ndarray, transition: graph_environment.Transition) -> dict[str, Any]:
    """What `SyncVectorEnv` puts into infos where episodes ended, in SAME_STEP mode."""
    last = _to_numpy(transition.next_observation)
    final_observations = np.full(ended.shape, None, dtype=object)
    for index in np.flatnonzero(ended):
        final_observations[index] = tf.nest.map_structure(lambda rows, i=index: rows[i], last)
    episode = {
        "r": np.where(ended, transition.progress.total.numpy(), 0.0),
        "l": np.where(ended, transition.progress.length.numpy(), 0),
        "_r": ended,
        "_l": ended,
    }
    masks = {}
    if transition.next_mask is not None:
        masks = _mask_info(transition.next_mask) | {"_action_mask": ended}
    return {
        "final_obs": final_observations,
        "_final_obs": ended,
        "final_info": {"episode": episode, "_episode": ended} | masks,
        "_final_info": ended,
    }
