"""Plain environments stepped in this process, behind `EnvironmentView`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from typing_extensions import override

from pgest.environments import action_masks, own_states, played, results, worker
from pgest.environments.action_masks import stack_masks
from pgest.environments.infos import numeric_items
from pgest.environments.spaces import Misfit, Nest, row_of
from pgest.environments.view import EnvironmentFailure, EnvironmentView, Transition, reason


class InProcessEnvironments(EnvironmentView):
    """Plain environments stepped one after the other in this process.

    pgest resets each of them itself, with its own seed, when the next observation is asked for: no
    timestep is wasted and the last observation of an episode is what ``step`` returned.

    Args:
        envs: The environments; all of the same spaces.
        given: What the user gave.
        seed: The run's seed.
        owned: Whether pgest made them.

    Attributes:
        factory: What makes one more of them; None where nobody knows.

    Raises:
        ValueError: Spaces that differ or that pgest does not take.

    >>> envs = [gymnasium.make("CartPole-v1") for _ in range(2)]
    >>> with InProcessEnvironments(envs, given=envs, seed=1, owned=True) as view:
    ...     view.observe().shape
    ...     view.step(np.array([0, 1])).reward
    (2, 4)
    array([1., 1.], dtype=float32)
    """

    is_vector = True

    def __init__(
        self,
        envs: Sequence[gymnasium.Env],
        *,
        given: Any,
        seed: int | None,
        owned: bool,
    ) -> None:
        single_spaces = (envs[0].observation_space, envs[0].action_space)
        super().__init__(given, single_spaces, num_envs=len(envs), seed=seed, owned=owned)
        self.factory: Callable[[], Any] | None = None
        self._envs = tuple(envs)
        self._steps = tuple(env.step for env in envs)
        self._playing = tuple(range(len(envs)))
        self._acted = self._all_acted
        for index, env in enumerate(envs):
            if (env.observation_space, env.action_space) != single_spaces:
                raise ValueError(
                    f"Environment {index} has the spaces {env.observation_space} and "
                    f"{env.action_space}, environment 0 has {single_spaces[0]} and "
                    f"{single_spaces[1]}; all environments must have the same."
                )
        self._observation: Nest | None = None
        self._ended: list[int] = []
        self._episodes = [0] * len(envs)
        self._played = played.Played(len(envs))
        self._own: bool | None = None  # whether each gives its own state; None: not known yet
        self._mask_methods: tuple[Callable[[], Any], ...] | None = None
        if all(env.has_wrapper_attr("action_masks") for env in envs):
            self._mask_methods = tuple(env.get_wrapper_attr("action_masks") for env in envs)
        self._masked: bool | None = None  # known after the first reset
        self._mask_rows: list[Any] = [None] * len(envs)

    @override
    def reset(self, episode: int = 0) -> None:
        self._episodes = [int(episode)] * self.num_envs
        self._observation = None
        self._playing, self._acted = tuple(range(self.num_envs)), self._all_acted
        self.some_rest = False
        observation = self._observations.empty()
        for index in range(self.num_envs):
            self._reset_one(observation, index)
        self._began(observation)

    @override
    def observe(self) -> Nest:
        if self._observation is None:
            self.reset()
        elif self._ended:
            observation = self._observations.copy(self._observation)
            self._observation = None
            for index in self._ended:
                self._reset_one(observation, index)
            self._began(observation)
        self.action_mask = self._next_mask
        return self._observation

    @override
    def rest(self, index: int) -> None:
        self._playing = tuple(playing for playing in self._playing if playing != index)
        self._ended = [ended for ended in self._ended if ended != index]
        self._acted = np.zeros(self.num_envs, np.bool_)
        self._acted[list(self._playing)] = True
        self._acted.setflags(write=False)
        self.some_rest = True
        if not self._playing:
            self._observation = None  # whoever observes next begins anew

    @override
    def step(self, action: Nest) -> Transition:
        if self._observation is None or self._ended:
            raise RuntimeError("step() before observe(): observe what to act on first.")
        num_envs = self.num_envs
        given, action = action, self._actions.detach(action)
        row, write = self._actions.row, self._observations.write
        if self.some_rest:
            next_observation = self._observations.copy(self._observation)
        else:
            next_observation = self._observations.empty()
        reward = np.zeros(num_envs, np.float32)
        terminated, truncated = np.zeros(num_envs, np.bool_), np.zeros(num_envs, np.bool_)
        infos: dict[int, dict[str, float]] = {}
        self._observation = None  # what an exception below leaves behind: reset everything
        index = 0
        try:
            steps = self._steps
            for index in self._playing:
                result = steps[index](row(action, index))
                observation, number, ended, cut, info = results.step_values(result)
                reward[index] = number
                write(next_observation, index, observation)
                if ended or cut:
                    terminated[index], truncated[index] = ended, cut
                    infos[index] = numeric_items(info)
                if self._masked or "action_mask" in info:
                    self._follow_mask(index, info, ended, cut)
        except Misfit as error:
            raise self._misfit(error, index, action) from error
        except Exception as error:
            raise self._failure(f"failed in step(): {reason(error)},", index) from error
        self._check_observation(next_observation, action)
        next_mask = self._masks_after_step(list(infos)) if self._masked else None
        self.timestep += len(self._playing)
        self._played.note(given, reward)
        self._observation = next_observation
        self._ended = list(infos)
        acted = self._acted
        return Transition(reward, terminated, truncated, next_observation, acted, infos, next_mask)

    @override
    def state(self) -> dict[str, np.ndarray] | None:
        if self._observation is None or self.seed is None:
            return None
        of_episodes = self._given() if self._give_states() else self._played.state(self._actions)
        if of_episodes is None:
            return None
        ended = np.zeros(self.num_envs, np.bool_)
        ended[self._ended] = True
        observation = played.leaves(self._observations, self._observation, "observation")
        episodes = np.array(self._episodes)
        return {**played.header(self, episodes), "ended": ended, **observation, **of_episodes}

    @override
    def restore(self, state: Mapping[str, np.ndarray]) -> str | None:
        why = played.mismatch(self, state)
        if why is not None:
            return why
        self._observation = None
        self._episodes = (state["episodes"] - 1).tolist()
        observation = self._observations.empty()
        again = self._played
        try:
            if "lengths" in state:
                again = played.Played(self.num_envs)
                again.restore(self._actions, state)
                why = self._play_all(observation, state, again)
            else:
                why = self._take(observation, state)
        except (EnvironmentFailure, ValueError, RuntimeError) as error:
            return f"it failed when it was played again ({error})"
        if why is not None:
            return why
        self._began(observation)
        self._played = again
        self._ended = np.flatnonzero(state["ended"]).tolist()
        if self._masked and "lengths" not in state:
            action_masks.fill(self._next_mask, state)
            self._mask_rows = [row_of(self._next_mask, index) for index in range(self.num_envs)]
            for index in self._ended:
                self._mask_rows[index] = None
        self.timestep = int(state["timestep"])
        return None

    def _give_states(self) -> bool:
        """Whether each environment gives its own state, and takes it."""
        if self._own is None:
            self._own = all(map(own_states.offers, self._envs))
            if self._own:
                self._played = played.Unneeded(self.num_envs)
        return self._own

    def _given(self) -> dict[str, np.ndarray]:
        states = []
        for index, env in enumerate(self._envs):
            try:
                states.append(env.get_state())  # type: ignore[attr-defined]
            except Exception as error:
                message = f"failed in get_state(): {reason(error)},"
                raise self._failure(message, index) from error
        return {**action_masks.leaves(self._next_mask), **own_states.leaves(states)}

    def _take(self, observation: Nest, state: Mapping[str, np.ndarray]) -> str | None:
        """Gives the environments their states."""
        states = own_states.of(state, self.num_envs)
        for index in range(self.num_envs):
            self._reset_one(observation, index)
        if not self._give_states():
            return "it has no get_state() and set_state(state) now, and had them then"
        played.fill(self._observations, observation, state, "observation")
        for index, env in enumerate(self._envs):
            why, shown = own_states.bring_back(env, states[index])
            if why is not None:
                return why
            if shown is not None:
                self._observations.write(observation, index, shown)
        if not played.same(self._observations, observation, state):
            return "with its state set, it shows another observation"
        return None

    def _play_all(
        self, observation: Nest, state: Mapping[str, np.ndarray], again: played.Played
    ) -> str | None:
        """Plays the episodes under way again, from their resets."""
        for index in range(self.num_envs):
            self._reset_one(observation, index)
            if not self._play(observation, index, again.of(index)):
                return "played again, its rewards are others"
        if not played.same(self._observations, observation, state):
            return "played again, it stands elsewhere"
        return None

    def _play(self, observation: Nest, index: int, steps: list[tuple[Nest, np.ndarray]]) -> bool:
        """Plays one environment's actions again; whether each reward is what it was."""
        step, row = self._steps[index], self._actions.row
        for action, reward in steps:
            given = row(self._actions.detach(action), index)
            value, number, ended, cut, info = results.step_values(step(given))
            if np.float32(number) != reward[index]:
                return False
            self._observations.write(observation, index, value)
            if self._masked or "action_mask" in info:
                self._follow_mask(index, info, bool(ended), bool(cut))
        return True

    def _reset_one(self, observation: Nest, index: int) -> None:
        seed = self._seed_of(index)
        self._played.begin(index)
        try:
            value, info = results.reset_values(self._envs[index].reset(seed=seed))
            self._observations.write(observation, index, value)
            if self._masked is None:
                self._masked = self._mask_methods is not None or "action_mask" in info
            if self._masked or "action_mask" in info:
                self._follow_mask(index, info)
        except Misfit as error:
            raise self._misfit(error, index) from error
        except Exception as error:
            raise self._failure(f"failed in reset(): {reason(error)},", index) from error

    def _seed_of(self, index: int) -> int | None:
        """The seed of the episode that begins in an environment, which is counted here."""
        episode, self._episodes[index] = self._episodes[index], self._episodes[index] + 1
        return worker.episode_seed(self.seed, self.first_index + index, episode)

    def _follow_mask(
        self, index: int, info: dict[str, Any], terminated: bool = False, truncated: bool = False
    ) -> None:
        """Keeps the mask that an environment gave last; None where it gave none."""
        if not self._masked:
            raise ValueError("info has an action_mask, though it had none before")
        if terminated:
            self._mask_rows[index] = None  # nothing is left to choose, and no value to be made
        elif "action_mask" in info:
            self._mask_rows[index] = info["action_mask"]
        elif self._mask_methods is not None:
            self._mask_rows[index] = self._mask_methods[index]()
        elif truncated:
            self._mask_rows[index] = None
        else:
            raise ValueError("info has no action_mask, though it had one before")

    def _masks_after_step(self, ended: list[int]) -> Nest:
        """Keeps the masks of those that go on, and gives those of all last observations."""
        if not ended:
            self._set_mask(stack_masks(self._mask_rows))
            return self._next_mask
        known = self._acted.copy()
        known[[index for index in ended if self._mask_rows[index] is None]] = False
        last = stack_masks(self._mask_rows) if known.any() else self.action_mask
        for index in ended:
            self._mask_rows[index] = None
        if len(ended) < len(self._playing):
            self._set_mask(stack_masks(self._mask_rows))
        return self._mask_that_followed(last, known)

    def _began(self, observation: Nest) -> None:
        self._check_observation(observation)
        if self._masked and all(self._mask_rows[index] is not None for index in self._playing):
            self._set_mask(stack_masks(self._mask_rows))
        self._observation, self._ended = observation, []

    @override
    def _close_environments(self) -> None:
        with contextlib.ExitStack() as stack:  # closes the others too where one raises
            for env in self._envs:
                stack.callback(env.close)


class SingleEnvironment(InProcessEnvironments):
    """One plain environment: `InProcessEnvironments` of one, with a ``step`` without the loop.

    A light environment's own step costs a few microseconds, which the loop would double.

    Args:
        env: The environment.
        given: What the user gave.
        seed: The run's seed.
        owned: Whether pgest made it.
    """

    is_vector = False

    def __init__(self, env: gymnasium.Env, *, given: Any, seed: int | None, owned: bool) -> None:
        super().__init__([env], given=given, seed=seed, owned=owned)
        self._step = env.step

    @override
    def step(self, action: Nest) -> Transition:
        if self._observation is None or self._ended:
            raise RuntimeError("step() before observe(): observe what to act on first.")
        given, action = action, self._actions.detach(action)
        next_observation = self._observations.empty()
        self._observation = None
        try:
            result = self._step(self._actions.row(action, 0))
            value, number, terminated, truncated, info = results.step_values(result)
            self._observations.write(next_observation, 0, value)
            if self._masked or "action_mask" in info:
                self._follow_mask(0, info, terminated, truncated)
        except Misfit as error:
            raise self._misfit(error, 0, action) from error
        except Exception as error:
            raise self._failure(f"failed in step(): {reason(error)},", 0) from error
        reward = np.array([number], np.float32)
        self._check_observation(next_observation, action)
        ended = terminated or truncated
        next_mask = self._masks_after_step([0] if ended else []) if self._masked else None
        self.timestep += 1
        self._played.note(given, reward)
        self._observation = next_observation
        if not ended:
            none, acted = self._none, self._all_acted
            return Transition(reward, none, none, next_observation, acted, {}, next_mask)
        self._ended = [0]
        return Transition(
            reward,
            np.array([terminated]),
            np.array([truncated]),
            next_observation,
            self._all_acted,
            {0: numeric_items(info)},
            next_mask,
        )
