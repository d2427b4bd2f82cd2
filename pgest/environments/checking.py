"""Looks at environments before they are trained on: steps them a few times, says what it saw."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
from gymnasium import spaces

from pgest.environments import spaces as environment_spaces
from pgest.environments.spaces import BatchedArray, Nest
from pgest.environments.view import EnvironmentFailure, EnvironmentView, Transition


@dataclasses.dataclass
class Examination:
    """What was seen of environments.

    Attributes:
        rows: What was looked at, what was seen of it, and what is wrong with that (else empty).
        failure: What ended the examination early; training would have raised it too.
    """

    rows: list[tuple[str, str, str]]
    failure: EnvironmentFailure | None = None

    @property
    def faults(self) -> list[str]:
        """What is wrong, a sentence each."""
        return [f"{name}: {fault}" for name, _, fault in self.rows if fault]


def examine(view: EnvironmentView, timesteps: int) -> Examination:
    """Steps environments with random actions that their masks allow.

    Args:
        view: The environments; whatever episode is under way is lost.
        timesteps: How many of each environment.

    >>> from pgest.environments import making
    >>> with making.view("CartPole-v1", seed=0) as cartpole:
    ...     examine(cartpole, 20).faults
    []
    """
    before, seen = view.timestep, _Seen(view)
    failure = None
    try:
        view.reset()
        first = view.observe()
        view.reset()
        seen.reset(first, view.observe())
        for _ in range(timesteps):
            observation, mask = view.observe(), view.action_mask
            seen.step(observation, mask, view.step(seen.action(mask)))
    except EnvironmentFailure as error:
        failure = error
    finally:
        view.timestep = before
    rows = seen.rows()
    if failure is not None:
        rows.append(("timesteps", f"failed after {seen.timesteps}", str(failure)))
    return Examination(rows, failure)


class _Leaf:
    """What was seen of one array of the observations."""

    def __init__(self, part: BatchedArray) -> None:
        self.part = part
        self.low, self.high = np.inf, -np.inf
        self.outside = ""

    def look(self, batch: np.ndarray) -> None:
        if not batch.size:
            return
        self.low = min(self.low, batch.min())
        self.high = max(self.high, batch.max())
        space = self.part.space
        if not self.outside and isinstance(space, spaces.Box):
            wrong = (batch < space.low) | (batch > space.high)
            if wrong.any():
                self.outside = f"{batch[wrong][0]} is outside of the bounds of {space}"


class _Seen:
    """Everything that was seen."""

    def __init__(self, view: EnvironmentView) -> None:
        self._view = view
        self._rng = np.random.default_rng(0)
        self._action_space = copy.deepcopy(view.action_space)  # its generator is the user's
        self._action_space.seed(0)
        self._actions = environment_spaces.batched(view.action_space, view.num_envs, "action_space")
        self._observations = environment_spaces.batched(
            view.observation_space, view.num_envs, "observation_space"
        )
        empty = self._observations.empty()
        self._leaves = [_Leaf(part) for part, _ in self._observations.leaves(empty)]
        self.timesteps, self._terminated, self._truncated = 0, 0, 0
        self._rewards: list[float] = []
        self._allowed: list[int] = []
        self._names: set[str] = set()
        self._firsts: set[bytes] = set()
        self._lasts: list[bytes] = []
        self._is_first = np.ones(view.num_envs, np.bool_)
        self._others = False  # whether any observation was not a first one
        self._repeats: bool | None = None

    def action(self, mask: Nest | None) -> Nest:
        """A random action of each environment, in its own terms."""
        action = self._actions.empty()
        for index in range(self._view.num_envs):
            row = None if mask is None else _row(mask, index)
            self._actions.write(action, index, _sample(self._action_space, row, self._rng))
        return action

    def reset(self, first: Nest, again: Nest) -> None:
        """Two resets with one seed."""
        self._repeats = self._key(first) == self._key(again)
        self._look(again)

    def step(self, observation: Nest, mask: Nest | None, transition: Transition) -> None:
        """One timestep."""
        acted = transition.acted
        self.timesteps += int(acted.sum())
        self._rewards += transition.reward[acted].tolist()
        self._look(transition.next_observation)
        self._follow(observation, transition)
        if isinstance(mask, np.ndarray):
            self._allowed += mask.reshape(len(mask), -1).sum(axis=1)[acted].tolist()
        self._terminated += int(transition.terminated.sum())
        self._truncated += int(transition.truncated.sum())
        for numbers in transition.infos.values():
            self._names |= set(numbers)

    def rows(self) -> list[tuple[str, str, str]]:
        """See `Examination.rows`."""
        found = [self._observation_row(leaf) for leaf in self._leaves]
        found.append(("action_space", str(self._view.action_space), ""))
        if self._rewards:
            seen = f"{min(self._rewards):g} to {max(self._rewards):g} in {self.timesteps} timesteps"
            found.append(("reward", seen, ""))
            ends = f"{self._terminated} terminated, {self._truncated} truncated"
            found.append(("ends", ends, self._fault_of_ends()))
            found.append(("info", ", ".join(sorted(self._names)) or "no numbers at an end", ""))
        if self._view.action_mask is not None:
            some = "nested"
            if self._allowed:
                some = f"{min(self._allowed)} to {max(self._allowed)} allowed"
            found.append(("action_mask", some, ""))
        if self._repeats is not None and self._view.seed is not None:
            seen = "repeat themselves" if self._repeats else "two resets with one seed differ"
            fault = "" if self._repeats else "reset(seed=...) does not seed everything"
            found.append(("seeds", seen, fault))
        return found

    def _look(self, observation: Nest) -> None:
        batches = self._observations.leaves(observation)
        for leaf, (_, batch) in zip(self._leaves, batches, strict=True):
            leaf.look(batch)

    def _follow(self, observation: Nest, transition: Transition) -> None:
        """Keeps the first and the last observations of episodes."""
        ended = transition.terminated | transition.truncated
        for index in range(self._view.num_envs):
            if not transition.acted[index]:  # NEXT_STEP: this step was the reset
                self._firsts.add(self._key(transition.next_observation, index))
                continue
            key = self._key(observation, index)
            if self._is_first[index]:
                self._firsts.add(key)
            elif key not in self._firsts:
                self._others = True
            if ended[index]:
                self._lasts.append(self._key(transition.next_observation, index))
        self._is_first = ended & (not self._view.resets_take_steps)

    def _observation_row(self, leaf: _Leaf) -> tuple[str, str, str]:
        seen = f"{leaf.part.dtype} {leaf.part.shape}"
        if leaf.low <= leaf.high:
            seen += f", {leaf.low:g} to {leaf.high:g}"
        return leaf.part.path, seen, leaf.outside

    def _fault_of_ends(self) -> str:
        all_first = all(last in self._firsts for last in self._lasts)
        if len(self._lasts) > 1 and all_first and self._others:
            return "last observations are first ones: does it reset itself within step()?"
        return ""

    def _key(self, observation: Nest, index: int | None = None) -> bytes:
        rows = slice(None) if index is None else slice(index, index + 1)
        return b"".join(leaf[rows].tobytes() for _, leaf in self._observations.leaves(observation))


def _sample(space: spaces.Space, mask: Any, rng: np.random.Generator) -> Any:
    """A random element of a space that the mask, if there is one, allows."""
    if isinstance(space, spaces.Dict):
        parts = mask if isinstance(mask, dict) else {}
        return {key: _sample(part, parts.get(key), rng) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        masks = mask if isinstance(mask, tuple) else (None,) * len(space.spaces)
        return tuple(_sample(*pair, rng) for pair in zip(space.spaces, masks, strict=True))
    if isinstance(mask, np.ndarray) and isinstance(space, spaces.Discrete):
        return space.start + rng.choice(np.flatnonzero(mask))
    if isinstance(mask, np.ndarray) and isinstance(space, spaces.MultiDiscrete):
        sizes = space.nvec.ravel()
        choices = np.split(mask.ravel(), np.cumsum(sizes)[:-1])
        chosen = [rng.choice(np.flatnonzero(choice)) for choice in choices]
        return (np.reshape(chosen, space.shape) + space.start).astype(space.dtype)
    return space.sample()


def _row(mask: Nest, index: int) -> Any:
    if isinstance(mask, dict):
        return {key: _row(part, index) for key, part in mask.items()}
    if isinstance(mask, tuple):
        return tuple(_row(part, index) for part in mask)
    return mask[index]
