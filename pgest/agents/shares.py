"""Which episodes of several environments an evaluation counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from typing_extensions import override

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
