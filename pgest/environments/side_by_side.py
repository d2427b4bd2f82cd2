"""More episodes of some environments at once than they are: in copies of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import wrappers
from typing_extensions import override

from pgest.environments import played, results, worker
from pgest.environments.in_process import InProcessEnvironments
from pgest.environments.spaces import BatchedArray, BatchedNest, Nest
from pgest.environments.view import EnvironmentFailure, EnvironmentView, Transition

# Copies are made for about so many seconds: of a light environment all that are wanted, of a large
# one a few.
_SECONDS = 0.1
# gymnasium's wrappers do something to their own episode and nothing else, but for these: those that
# record write files of one name, and statistics would be of a part of the episodes.
_ALONE = (
    wrappers.Autoreset,
    wrappers.RecordVideo,
    wrappers.NormalizeObservation,
    wrappers.NormalizeReward,
    wrappers.HumanRendering,
)
# With functions of a user's, of which nothing is known; what gymnasium derives of them has its own.
_WITH_FUNCTIONS = (
    wrappers.TransformAction,
    wrappers.TransformObservation,
    wrappers.TransformReward,
)


class SideBySide(InProcessEnvironments):
    """Episodes of some environments, each with the seed that it would have there.

    Row r belongs to environment r % B: it plays episodes of that one, whichever comes next.

    Args:
        first: The B environments, reset to their first episodes. They are stepped here from now
            on; it begins anew when it is used again.
        copies: Further environments like them.

    Attributes:
        numbers: The numbers of the episodes that each row has begun, in order.
    """

    def __init__(self, first: InProcessEnvironments, copies: list[gymnasium.Env]) -> None:
        envs = [*first._envs, *copies]
        super().__init__(envs, given=first.env, seed=first.seed, owned=True)
        self._copies = copies
        self._played = played.Unneeded(len(envs))  # nobody asks where an evaluation stands
        self._masked = first._masked
        self._mask_rows[: first.num_envs] = first._mask_rows
        self._size = first.num_envs
        self._first = first
        self._begun = [1] * self._size
        # Of the first copy's first episode: actions, and what followed.
        self._watched: list[tuple[Any, list[Any]]] = []
        self._watches = True
        self.numbers: list[list[int]] = [
            [0] if row < self._size else [] for row in range(len(envs))
        ]
        observation, given = self._observations.empty(), first.observe()
        for row in range(self._size):
            self._observations.write(observation, row, first._observations.row(given, row))
        for row in range(self._size, self.num_envs):
            self._reset_one(observation, row)
        self._start = _seen(self._observations, observation, self._size)
        self._began(observation)
        first._observation = None

    @override
    def reset(self, episode: int = 0) -> None:
        self._watches = False
        self._begun = [int(episode)] * self._size
        self.numbers = [[] for _ in range(self.num_envs)]
        super().reset(episode)

    @override
    def step(self, action: Nest) -> Transition:
        transition = super().step(action)
        if self._watches:
            row = self._size
            ended = bool(transition.terminated[row] or transition.truncated[row])
            seen = _seen(self._observations, transition.next_observation, row)
            given = self._actions.row(self._actions.detach(action), row)
            self._watched.append((given, [*seen, transition.reward[row], ended]))
            self._watches = not ended
        return transition

    def follow_from_seeds(self) -> bool:
        """Whether the first copy's first episode is the same in the first environment, after its.

        Where episodes follow from those before as well, they are others in copies.
        """
        env, arrays = self._envs[0], self._first._observations
        observation = arrays.empty()
        seed = worker.episode_seed(self.seed, 0, self.numbers[self._size][0])
        try:
            value, _ = results.reset_values(env.reset(seed=seed))
            arrays.write(observation, 0, value)
            if not _same(_seen(arrays, observation, 0), self._start):
                return False
            for action, seen in self._watched:
                value, number, terminated, truncated, _ = results.step_values(env.step(action))
                arrays.write(observation, 0, value)
                ended = bool(terminated or truncated)
                again = [*_seen(arrays, observation, 0), np.float32(number), ended]
                if not _same(again, seen):
                    return False
        except Exception:  # whatever it raises, it has not raised in the copy
            return False
        return True

    @override
    def _seed_of(self, index: int) -> int | None:
        env = index % self._size
        number, self._begun[env] = self._begun[env], self._begun[env] + 1
        self.numbers[index].append(number)
        return worker.episode_seed(self.seed, env, number)

    @override
    def _failure(self, message: str, index: int | None) -> EnvironmentFailure:
        # Whoever gave B environments knows of no others.
        return super()._failure(message, None if index is None else index % self._size)

    @override
    def _close_environments(self) -> None:
        with contextlib.ExitStack() as stack:  # closes the others too where one raises
            for env in self._copies:
                stack.callback(env.close)


def _seen(arrays: BatchedArray | BatchedNest, observation: Nest, row: int) -> list[Any]:
    return [leaf[row].copy() for _, leaf in arrays.leaves(observation)]


def _same(left: list[Any], right: list[Any]) -> bool:
    return all(map(np.array_equal, left, right))


def may_be_copied(view: EnvironmentView) -> bool:
    """Whether a view is of environments that others can stand beside, as far as one can see."""
    if not isinstance(view, InProcessEnvironments) or view.factory is None or view.seed is None:
        return False
    env: Any = view._envs[0]
    if getattr(env, "render_mode", None) == "human":
        return False
    while isinstance(env, gymnasium.Wrapper):
        kind = type(env)
        own = kind.__module__.startswith("gymnasium.wrappers.") and kind not in _WITH_FUNCTIONS
        if not own or issubclass(kind, _ALONE):
            return False
        env = env.env
    # A world of Box2D is not quite a new one after a reset.
    return not type(env).__module__.startswith("gymnasium.envs.box2d")


def side_by_side(
    first: EnvironmentView, most: int, clock: Callable[[], float] = time.perf_counter
) -> SideBySide | None:
    """Environments with copies beside them; None where no copy could be made.

    Args:
        first: What `may_be_copied`, reset to its first episodes.
        most: How many environments there may be in all.
        clock: Tells the time, in seconds.
    """
    if not isinstance(first, InProcessEnvironments) or first.factory is None:
        return None
    copies: list[Any] = []
    known = {id(env.unwrapped) for env in first._envs}
    until = clock() + _SECONDS
    with contextlib.ExitStack() as made:
        try:
            while first.num_envs + len(copies) < most and clock() < until:
                env = first.factory()
                if id(env.unwrapped) in known:  # one object again and again
                    return None
                known.add(id(env.unwrapped))
                made.callback(env.close)
                copies.append(env)
            if copies:
                together = SideBySide(first, copies)
                made.pop_all()
                return together
        except Exception:  # a licence for one, a port that is taken: then there is one
            return None
    return None
