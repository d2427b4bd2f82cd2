"""An environment that gives what a test tells it to; imports nothing of pgest, for processes."""

import gymnasium
import numpy as np
from gymnasium import spaces


class GivingEnv(gymnasium.Env):
    """Gives what `given` says, by name, at its step number `at` (0: at reset); else what is right.

    The names are observation, reward, terminated, truncated, info, and result for all in one.
    """

    def __init__(self, space, at=1, **given):
        self.observation_space, self.action_space = space, spaces.Discrete(2)
        self.at, self.given, self.steps = at, given, 0

    def right(self):
        space = self.observation_space
        if isinstance(space, spaces.Dict):
            return {key: np.zeros(part.shape, part.dtype) for key, part in space.items()}
        if isinstance(space, spaces.Discrete):
            return int(space.start)
        return np.zeros(space.shape, space.dtype)

    def now(self, name, otherwise):
        return self.given.get(name, otherwise) if self.steps == self.at else otherwise

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        observation = self.now("observation", self.right())
        return self.now("result", (observation, self.now("info", {})))

    def step(self, action):
        self.steps += 1
        result = (
            self.now("observation", self.right()),
            self.now("reward", 1.0),
            self.now("terminated", False),
            self.now("truncated", False),
            self.now("info", {}),
        )
        return self.now("result", result)


def second_gives_fractions():
    """A right one, or one that gives fractions where its space has bytes, in the second process."""
    import multiprocessing

    space = spaces.Box(0, 255, (3,), np.uint8)
    if multiprocessing.current_process().name.endswith("-1"):
        return GivingEnv(space, observation=np.array([0.2, 0.9, 0.5]))
    return GivingEnv(space, at=-1)


def gives_two_rewards():
    return GivingEnv(spaces.Box(0, 1, (3,)), reward=np.ones(2))
