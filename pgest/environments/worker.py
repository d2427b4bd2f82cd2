"""What runs inside the processes of asynchronous environments.

Imports gymnasium and numpy alone, and modules that do: they are sent to the processes by value, so
that none of them has to import pgest, and with it TensorFlow, only to step an environment.
"""

from __future__ import annotations

import copy
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

# By name: a module as a whole would be imported in the process.
from pgest.environments.own_states import are_offered, bring_back, offers
from pgest.environments.results import reset_values, step_values
from pgest.environments.spaces import Misfit, batched

BLOCK = 64  # how many seeds are made at once
BLOCKS = 2**14  # how many of them are kept, of a few hundred bytes each
_blocks: dict[tuple[int, int, int], np.ndarray] = {}  # by (seed, index, episode // BLOCK)
RESEED = "pgest_reseed"  # the key of (seed, episodes, first index) in the options of a full reset
# The keys of (actions, rewards) of each environment, or of its state, in the same options.
PLAY_AGAIN, TAKE_STATE = "pgest_play_again", "pgest_take_state"
# The keys of what that led to in an info: what went wrong, and whether the observation is of it.
WENT_WRONG, SHOWN = "pgest_went_wrong", "pgest_shown"


def episode_seed(seed: int | None, index: int, episode: int) -> int | None:
    """The seed of one episode of one environment: a function of the run's seed and two counters.

    Args:
        seed: The run's seed; None: unseeded.
        index: Which of the environments.
        episode: Which of its episodes.

    Returns:
        A seed below 2**31 (some simulators take no more), or None.

    >>> episode_seed(7, 0, 1) == episode_seed(7, 0, 1) != episode_seed(7, 1, 0)
    True
    >>> episode_seed(None, 0, 1) is None
    True
    """
    if seed is None:
        return None
    key = (seed, index, episode // BLOCK)
    if key not in _blocks:
        # Many at once: alone, a seed would cost as much as a timestep of a light environment.
        if len(_blocks) >= BLOCKS:
            _blocks.clear()
        sequence = np.random.SeedSequence(seed, spawn_key=key[1:])
        _blocks[key] = sequence.generate_state(BLOCK) >> 1
    return int(_blocks[key][episode % BLOCK])


class WorkerEnvironment(gymnasium.Wrapper):
    """An environment that reseeds itself at every reset, also where gymnasium resets it.

    What does not fit gymnasium's API or its space is found here: gymnasium casts on its way to the
    other process. The wrapper also offers ``action_masks()`` as ``info["action_mask"]``, which
    crosses at no extra round trip, and hands errors over as plain RuntimeErrors: gymnasium waits
    forever for an exception that cannot be pickled.

    Args:
        env: The environment.
        index: Which of the environments it is.
    """

    def __init__(self, env: gymnasium.Env, index: int) -> None:
        super().__init__(env)
        self._index = index
        self._seed: int | None = None
        self._first_index = 0
        self._episode = 0
        self._observations = batched(env.observation_space, 1, "observation_space")
        self._masks = None
        if env.has_wrapper_attr("action_masks"):
            self._masks = env.get_wrapper_attr("action_masks")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets with the seed of (seed, index, episode); `options` bring these to a full reset."""
        options = dict(options or {})
        self._episode += 1
        if RESEED in options:
            self._seed, episodes, self._first_index = options.pop(RESEED)
            self._episode = episodes[self._index]
        played, states = options.pop(PLAY_AGAIN, None), options.pop(TAKE_STATE, None)
        seed = episode_seed(self._seed, self._first_index + self._index, self._episode)
        try:
            observation, info = reset_values(self.env.reset(seed=seed, options=options or None))
            if played is not None:
                observation, info = self._play(observation, info, *played[self._index])
            elif states is not None:
                observation, info = self._take(observation, info, states[self._index])
            self._observations.check(observation)
            return observation, self._with_mask(info)
        except Exception as error:
            raise self._portable(error, "reset") from error

    def _play(
        self, observation: Any, info: dict[str, Any], actions: list[Any], rewards: list[Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Plays actions again; says in the info whether each reward is what it was."""
        same = True
        for action, reward in zip(actions, rewards, strict=True):
            observation, number, terminated, truncated, info = step_values(self.env.step(action))
            # An episode under way did not end then.
            same = same and np.float32(number) == reward and not (terminated or truncated)
        why = "" if same else "played again, its rewards are others"
        return observation, {**info, WENT_WRONG: why, SHOWN: True}

    def _take(
        self, observation: Any, info: dict[str, Any], state: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Gives the environment its state."""
        why: str | None = "it has no get_state() and set_state(state) now, and had them then"
        shown = None
        if are_offered(self.env):
            why, shown = bring_back(self.env, state)
        observation = observation if shown is None else shown
        return observation, {**info, WENT_WRONG: why or "", SHOWN: shown is not None}

    def offers_state(self) -> bool:
        """Whether the environment gives its state itself, and takes it."""
        return offers(self.env)

    def own_state(self) -> Any:
        """The state that the environment gives itself."""
        try:
            return self.env.get_state()  # type: ignore[attr-defined]
        except Exception as error:
            raise self._portable(error, "get_state") from error

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps; the last observation of an episode is a copy that the reset cannot overwrite."""
        try:
            result = self.env.step(action)
            observation, reward, terminated, truncated, info = step_values(result)
            self._observations.check(observation)
            if terminated or truncated:
                if not terminated:  # what terminated has nothing left to choose
                    info = self._with_mask(info)
                observation, info = copy.deepcopy(observation), copy.deepcopy(info)
            else:
                info = self._with_mask(info)
            return observation, reward, terminated, truncated, info
        except Exception as error:
            raise self._portable(error, "step") from error

    def _with_mask(self, info: dict[str, Any]) -> dict[str, Any]:
        if self._masks is None or "action_mask" in info:
            return info
        return {**info, "action_mask": self._masks()}

    def _portable(self, error: Exception, method: str) -> RuntimeError:
        if isinstance(error, Misfit):  # the environment raised nothing
            return RuntimeError(f"Environment {self._index} ({self.env}) in {method}(): {error}")
        return RuntimeError(
            f"Environment {self._index} ({self.env}) failed in {method}(): "
            f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        )


def make_worker_environment(factory: Callable[[], gymnasium.Env], index: int) -> WorkerEnvironment:
    """Makes environment `index` from `factory`, in the process where it will live.

    Args:
        factory: Makes one environment.
        index: Which of the environments it is.
    """
    if multiprocessing.parent_process() is not None:
        # A terminal sends Ctrl-C to the whole group of processes. The main process ends the run in
        # order (hooks, checkpoint) and needs its environments for the timestep under way.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return WorkerEnvironment(factory(), index)
