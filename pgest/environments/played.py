"""What environments did since their episodes began: enough to play it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pgest.environments.spaces import BatchedArray, BatchedNest, Nest
from pgest.environments.view import EnvironmentView

# An endless episode would be remembered, and played again, for ever.
LONGEST = 2**17


class Played:
    """The actions and rewards of the episodes under way.

    Args:
        num_envs: B.
    """

    def __init__(self, num_envs: int) -> None:
        self._log: list[tuple[Nest, np.ndarray]] = []
        self._starts = [0] * num_envs
        self._lost: set[int] = set()
        self._have_begun = False  # episodes, since the last timestep

    def note(self, action: Nest, reward: np.ndarray) -> None:
        """Adds a timestep of all environments; nobody writes into either later."""
        if self._have_begun:
            self._forget()
        self._log.append((action, reward))
        if len(self._log) > LONGEST:
            self._lost = set(range(len(self._starts)))
            self._log.clear()
            self._starts = [0] * len(self._starts)

    def begin(self, index: int) -> None:
        """Begins a new episode in one environment."""
        self._starts[index] = len(self._log)
        self._have_begun = True
        self._lost.discard(index)

    def _forget(self) -> None:
        """Forgets what is of no episode any more; once a timestep, however many episodes begin."""
        self._have_begun = False
        first = min(self._starts)
        if 2 * first >= len(self._log):  # each timestep is moved at most once, then
            del self._log[:first]
            self._starts = [start - first for start in self._starts]

    def state(self, actions: BatchedArray | BatchedNest) -> dict[str, np.ndarray] | None:
        """Numbers by name; None where an episode is longer than what is remembered.

        Args:
            actions: What is known of actions ``[B, …]``.
        """
        if self._lost:
            return None
        first = min(self._starts)
        log = self._log[first:]
        state = {"lengths": len(self._log) - np.array(self._starts, np.int64)}
        state["rewards"] = np.array([reward for _, reward in log], np.float32)
        rows = [[leaf for _, leaf in actions.leaves(action)] for action, _ in log]
        for at, column in enumerate(zip(*rows, strict=True)):
            state[f"actions/{at}"] = np.stack(column)
        return state

    def restore(self, actions: BatchedArray | BatchedNest, state: Mapping[str, Any]) -> None:
        """Takes over what `state` gave."""
        rewards = state["rewards"]
        self._log = []
        for at, reward in enumerate(rewards):
            action = actions.empty()
            self._log.append((fill(actions, action, state, "actions", at), reward))
        self._starts = (len(rewards) - state["lengths"]).tolist()
        self._lost = set()

    def of(self, index: int) -> list[tuple[Nest, np.ndarray]]:
        """The episode under way of one environment: actions and rewards of all, in order."""
        return self._log[self._starts[index] :]


class Unneeded(Played):
    """Of environments that give their whole state themselves: nothing is remembered."""

    def note(self, action: Nest, reward: np.ndarray) -> None:
        """Does nothing."""

    def begin(self, index: int) -> None:
        """Does nothing."""


def header(view: EnvironmentView, episodes: np.ndarray) -> dict[str, np.ndarray]:
    """What says which environments these were, for `mismatch`, and how far they are."""
    return {
        "episodes": np.array(episodes, np.int64),
        "timestep": np.array(view.timestep, np.int64),
        "seed": np.array(view.seed, np.int64),
    }


def mismatch(view: EnvironmentView, state: Mapping[str, np.ndarray]) -> str | None:
    """Why environments cannot go on with a state, as a clause; None where they may."""
    if not state:
        return "an episode under way was too long to be played again, or had no seed"
    if len(state["episodes"]) != view.num_envs:
        return f"there are {view.num_envs} environments now, {len(state['episodes'])} then"
    if int(state["seed"]) != view.seed:
        return f"its seed is {view.seed} now, it was {state['seed']} then"
    return None


def fill(
    arrays: BatchedArray | BatchedNest,
    nest: Nest,
    state: Mapping[str, Any],
    name: str,
    at: int | None = None,
) -> Nest:
    """Writes the leaves `name/0`, `name/1`, … of a state into a nest ``[B, …]``; returns it.

    Args:
        arrays: What is known of the nest.
        nest: Arrays of its own.
        state: Numbers by name.
        name: What the leaves are called.
        at: Their row; None: all of them.
    """
    for number, (_, leaf) in enumerate(arrays.leaves(nest)):
        saved = state[f"{name}/{number}"]
        leaf[...] = saved if at is None else saved[at]
    return nest


def leaves(arrays: BatchedArray | BatchedNest, nest: Nest, name: str) -> dict[str, np.ndarray]:
    """The leaves of a nest ``[B, …]`` as `name/0`, `name/1`, …."""
    return {f"{name}/{number}": leaf for number, (_, leaf) in enumerate(arrays.leaves(nest))}


def same(arrays: BatchedArray | BatchedNest, nest: Nest, state: Mapping[str, Any]) -> bool:
    """Whether an observation ``[B, …]`` is, bit for bit, the one of a state."""
    now = leaves(arrays, nest, "observation")
    return all(
        leaf.shape == state[name].shape and leaf.tobytes() == state[name].tobytes()
        for name, leaf in now.items()
    )
