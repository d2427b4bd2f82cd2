"""An environment with action masks: `gymnasium.make("contestants.masked:Masked-v0")`."""

from __future__ import annotations

import gymnasium
import numpy as np


class Masked(gymnasium.Env):
    """Observations of 16 numbers, one of 64 in turn; episodes of 100 timesteps.

    A mask allows eight of sixteen actions. The largest number of the observation shows the one of
    them that is rewarded. Who sees it gets 100, and random ones of the allowed actions get 12.5.
    """

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (16,), np.float32)
    action_space = gymnasium.spaces.Discrete(16)

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._observations = generator.uniform(0.0, 0.5, [64, 16]).astype(np.float32)
        self._masks = np.zeros([64, 16], np.bool_)
        self._rewarded = generator.integers(16, size=64).tolist()
        for index, rewarded in enumerate(self._rewarded):
            others = [action for action in range(16) if action != rewarded]
            self._masks[index, [rewarded, *generator.permutation(others)[:7]]] = True
            self._observations[index, rewarded] = 1.0
        self._time = 0

    def action_masks(self) -> np.ndarray:
        """Of the latest observation: bool `[16]`, True where an action is allowed."""
        return self._masks[self._time % 64]

    def reset(self, *, seed=None, options=None):
        """The first observation."""
        super().reset(seed=seed)
        self._time = 0
        return self._observations[0], {}

    def step(self, action):
        """The next observation; 1 for the action that the one before has shown."""
        reward = float(action == self._rewarded[self._time % 64])
        self._time += 1
        return self._observations[self._time % 64], reward, self._time == 100, False, {}


gymnasium.register("Masked-v0", Masked)
