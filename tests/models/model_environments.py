"""Environments that the tests of models train on: any spaces, masks, a memory task."""

import gymnasium
import numpy as np
from gymnasium import spaces


class AnySpaces(gymnasium.Env):
    """Draws observations and rewards; five timesteps an episode, every second one truncated."""

    def __init__(self, observation_space, action_space):
        self.observation_space = observation_space
        self.action_space = action_space
        self._episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self._time = 0
        self._episodes += 1
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self._time += 1
        ended = self._time == 5
        truncated = ended and self._episodes % 2 == 0
        reward = float(self.np_random.normal())
        return self.observation_space.sample(), reward, ended and not truncated, truncated, {}


class Masked(AnySpaces):
    """The last action of every choice is never allowed, the first only at even times."""

    def __init__(self, action_space):
        super().__init__(spaces.Box(-1, 1, (3,), np.float32), action_space)
        discrete = isinstance(action_space, spaces.Discrete)
        self._choices = [int(action_space.n)] if discrete else action_space.nvec.tolist()

    def _mask(self):
        parts = []
        for choice in self._choices:
            part = np.ones(choice, np.int8)
            part[-1] = 0
            part[0] = self._time % 2 == 0
            parts.append(part)
        return np.concatenate(parts)

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed)
        return observation, {"action_mask": self._mask()}

    def step(self, action):
        allowed = np.split(self._mask(), np.cumsum(self._choices)[:-1])
        for choice, part in zip(np.atleast_1d(action), allowed, strict=True):
            assert part[choice], (action, allowed)
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, {"action_mask": self._mask()}


class Recall(gymnasium.Env):
    """Shows a sign at first and asks for it `delay` timesteps later: +1 if right, -1 if wrong.

    A policy that sees only the present observation is right half of the time.
    """

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, delay=3):
        self._delay = delay

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._time = 0
        self._sign = int(self.np_random.integers(2))
        return np.array([2 * self._sign - 1, 0], np.float32), {}

    def step(self, action):
        self._time += 1
        asked = self._time > self._delay
        observation = np.array([0, self._time == self._delay], np.float32)
        reward = (1.0 if action == self._sign else -1.0) if asked else 0.0
        return observation, reward, asked, False, {}
