"""Which episodes of several environments an evaluation counts."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from typing_extensions import override

from pgest.contract.episodes import EpisodeStatistics
from pgest.memory import memory as memory_lib


class Shares(memory_lib.BatchMemory):
    """Keeps the same share of episodes of every environment: else short ones would be favoured.

    Args:
      num_episodes: of all environments together.
      num_envs: B.

    Attributes:
      left: episodes that an environment has still to play, int64 `[B]`.
    """

    def __init__(self, num_episodes: int, num_envs: int):
        super().__init__(episodes=num_episodes)
        self.left = (num_episodes + num_envs - 1 - np.arange(num_envs)) // num_envs

    def number(self, column: int) -> int:
        """The place of the episode that ends there among those of its environment."""
        return -int(self.left[column])

    def in_order(
        self, finished: Sequence[tuple[int, EpisodeStatistics]]
    ) -> list[EpisodeStatistics]:
        """Episodes that were given with their numbers, in the order in which they ended."""
        return [statistics for _, statistics in finished]

    def ended(self, column: int) -> bool:
        """Counts an episode that has ended; whether another one of its environment is wanted."""
        self.left[column] -= 1
        return bool(self.left[column] > 0)

    @override
    def step_vector(self, values: Mapping[str, Any], acted: np.ndarray | None = None) -> None:
        wanted = self.left > 0
        if not wanted.all():
            acted = wanted if acted is None else acted & wanted
        super().step_vector(values, acted)

    @override
    def bootstrap(self, columns: np.ndarray, values: np.ndarray) -> None:
        wanted = self.left[columns] > 0
        super().bootstrap(columns[wanted], values[wanted])


class GroupShares(Shares):
    """Keeps the episodes of `num_envs` environments that several groups of copies play.

    Args:
      num_episodes: of all environments together.
      num_envs: in one group.
      numbers: of the episodes that each copy has begun, in order; grows as it begins more.
    """

    def __init__(self, num_episodes: int, num_envs: int, numbers: Sequence[Sequence[int]]):
        super().__init__(num_episodes, num_envs)
        self._to_begin = self.left.copy()
        self._numbers = numbers
        self.left = np.zeros([len(numbers)], np.int64)
        for column in range(len(numbers)):
            self._begin(column)

    def _begin(self, column: int) -> bool:
        env = column % len(self._to_begin)
        self.left[column] = self._to_begin[env] > 0
        self._to_begin[env] -= 1
        return bool(self.left[column])

    @override
    def ended(self, column: int) -> bool:
        return self._begin(column)

    @override
    def number(self, column: int) -> int:
        return self._numbers[column][-1]

    @override
    def in_order(
        self, finished: Sequence[tuple[int, EpisodeStatistics]]
    ) -> list[EpisodeStatistics]:
        num_envs = len(self._to_begin)
        ends: list[tuple[int, int, EpisodeStatistics]] = []
        for env in range(num_envs):
            own = [pair for pair in finished if pair[1].env_index % num_envs == env]
            end = 0
            for _, statistics in sorted(own, key=operator.itemgetter(0)):
                end += statistics.length
                ends.append((end, env, statistics))
        return [statistics for *_, statistics in sorted(ends, key=operator.itemgetter(0, 1))]

    @override
    def sample(self) -> dict[str, Any]:
        batch = super().sample()
        num_envs = len(self._to_begin)
        after = np.flatnonzero(np.logical_or(batch["terminated"], batch["truncated"])) + 1
        rows = np.split(np.arange(after[-1]), after[:-1])
        places = [
            (column % num_envs, number)
            for column, numbers in enumerate(self._numbers)
            for number in numbers
        ]
        order = np.concatenate(
            [rows[at] for at in sorted(range(len(places)), key=places.__getitem__)]
        )
        batch[memory_lib.ENV_INDEX] = batch[memory_lib.ENV_INDEX] % num_envs
        return tf.nest.map_structure(lambda leaf: leaf[order], batch)
