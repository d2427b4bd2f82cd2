"""An environment of images: `gymnasium.make("contestants.pixels:Pixels-v0")`."""

from __future__ import annotations

import gymnasium
import numpy as np


class Pixels(gymnasium.Env):
    """Observations of 84 x 84 x 4 random bytes, one of 64 in turn; episodes of 200 timesteps.

    A white band, a quarter of the image, shows the action that is rewarded. Who sees it gets 200,
    and random actions get 50.
    """

    observation_space = gymnasium.spaces.Box(0, 255, (84, 84, 4), np.uint8)
    action_space = gymnasium.spaces.Discrete(4)

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._frames = generator.integers(256, size=[64, 84, 84, 4], dtype=np.uint8)
        for index, frame in enumerate(self._frames):
            frame[np.arange(84) // 21 == (index + 1) % 4] = 255
        self._time = 0

    def reset(self, *, seed=None, options=None):
        """The first image."""
        super().reset(seed=seed)
        self._time = 0
        return self._frames[0], {}

    def step(self, action):
        """The next image; 1 for the action that the one before has shown."""
        self._time += 1
        reward = float(action == self._time % 4)
        return self._frames[self._time % 64], reward, self._time == 200, False, {}


gymnasium.register("Pixels-v0", Pixels)
