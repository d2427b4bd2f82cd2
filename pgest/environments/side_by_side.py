"""More episodes of some environments at once than they are: in copies of them."""

from __future__ import annotations

import contextlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium import wrappers
from typing_extensions import override

from pgest.environments import played, results, worker
from pgest.environments.in_process import InProcessEnvironments
from pgest.environments.spaces import BatchedArray, BatchedNest, Nest
from pgest.environments.view import EnvironmentFailure, EnvironmentView, Transition

# The modules of environments that are known to have nothing but their own state, all of which a
# reset with a seed begins anew. FrozenLake's is none: a map may be drawn when it is made.
_KNOWN = (
    "gymnasium.envs.classic_control.acrobot",
    "gymnasium.envs.classic_control.cartpole",
    "gymnasium.envs.classic_control.continuous_mountain_car",
    "gymnasium.envs.classic_control.mountain_car",
    "gymnasium.envs.classic_control.pendulum",
    "gymnasium.envs.toy_text.blackjack",
    "gymnasium.envs.toy_text.cliffwalking",
    "gymnasium.envs.toy_text.taxi",
)
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
        size: B.
        numbers: The numbers of the episodes that each row has begun, in order.
    """

    def __init__(self, first: InProcessEnvironments, copies: list[gymnasium.Env]) -> None:
        envs = [*first._envs, *copies]
        super().__init__(envs, given=first.env, seed=first.seed, owned=True)
        self._copies = copies
        self.first_index = first.first_index
        self._played = played.Unneeded(len(envs))  # nobody asks where an evaluation stands
        self._masked = first._masked
        self._mask_rows[: first.num_envs] = first._mask_rows
        self.size = first.num_envs
        self._first = first
        self._begun = [1] * self.size
        # Of the first copy's first episode: actions, and what followed.
        self._watched: list[tuple[Any, list[Any]]] = []
        self._watches = True
        self.numbers: list[list[int]] = [[0] if row < self.size else [] for row in range(len(envs))]
        observation, given = self._observations.empty(), first.observe()
        for row in range(self.size):
            self._observations.write(observation, row, first._observations.row(given, row))
        for row in range(self.size, self.num_envs):
            self._reset_one(observation, row)
        self._start = _seen(self._observations, observation, self.size)
        self._began(observation)
        first._observation = None

    @override
    def reset(self, episode: int = 0) -> None:
        self._watches = False
        self._begun = [int(episode)] * self.size
        self.numbers = [[] for _ in range(self.num_envs)]
        super().reset(episode)

    @override
    def step(self, action: Nest) -> Transition:
        transition = super().step(action)
        if self._watches:
            row = self.size
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
        seed = worker.episode_seed(self.seed, self.first_index, self.numbers[self.size][0])
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
        env = index % self.size
        number, self._begun[env] = self._begun[env], self._begun[env] + 1
        self.numbers[index].append(number)
        return worker.episode_seed(self.seed, self.first_index + env, number)

    @override
    def _failure(self, message: str, index: int | None) -> EnvironmentFailure:
        # Whoever gave B environments knows of no others.
        return super()._failure(message, None if index is None else index % self.size)

    @override
    def _close_environments(self) -> None:
        with contextlib.ExitStack() as stack:  # closes the others too where one raises
            for env in self._copies:
                stack.callback(env.close)


def _seen(arrays: BatchedArray | BatchedNest, observation: Nest, row: int) -> list[Any]:
    return [leaf[row].copy() for _, leaf in arrays.leaves(observation)]


def _same(left: list[Any], right: list[Any]) -> bool:
    return all(map(np.array_equal, left, right))


def may_be_copied(view: EnvironmentView, wish: bool | None = None) -> bool:
    """Whether a view is of environments that others may stand beside.

    Args:
        view: The view, reset.
        wish: None: of an id that is known to be nothing but its own state; True: of other ids
            and of factories too; False: of none.
    """
    if wish is False or not isinstance(view, InProcessEnvironments):
        return False
    if view.factory is None or view.seed is None or not (wish or isinstance(view.env, str)):
        return False
    env: Any = view._envs[0]
    if getattr(env, "render_mode", None) is not None:
        return False
    while isinstance(env, gymnasium.Wrapper):
        kind = type(env)
        own = kind.__module__.startswith("gymnasium.wrappers.") and kind not in _WITH_FUNCTIONS
        if not own or issubclass(kind, _ALONE):
            return False
        env = env.env
    module = type(env).__module__
    # A world of Box2D is not quite a new one after a reset.
    return module in _KNOWN or (bool(wish) and not module.startswith("gymnasium.envs.box2d"))


def side_by_side(first: EnvironmentView, most: int) -> SideBySide | None:
    """Environments with copies beside them; None where no copy is wanted or could be made.

    Args:
        first: What `may_be_copied`, reset to its first episodes.
        most: How many environments there are to be in all.
    """
    if not isinstance(first, InProcessEnvironments) or first.factory is None:
        return None
    if first.num_envs >= most:
        return None
    copies: list[Any] = []
    known = {id(env.unwrapped) for env in first._envs}
    with contextlib.ExitStack() as made:
        try:
            while first.num_envs + len(copies) < most:
                env = first.factory()
                if id(env.unwrapped) in known:  # one object again and again
                    return None
                known.add(id(env.unwrapped))
                made.callback(env.close)
                copies.append(env)
            together = SideBySide(first, copies)
        except Exception:  # a licence for one, a port that is taken: then there is one
            return None
        made.pop_all()
    return together
