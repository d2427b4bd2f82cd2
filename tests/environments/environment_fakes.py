"""Tiny environments with known behaviour, for the tests of views.

Imports nothing of pgest: processes that make these environments import this file.
"""

import multiprocessing
import os
import pathlib
import sys
import time

import gymnasium
import numpy as np
from gymnasium import spaces


class CountingEnv(gymnasium.Env):
    """Observes how many steps its episode has; ends after `length`, terminated or truncated."""

    def __init__(self, length=3, truncates=False):
        self.length, self.truncates = length, truncates
        self.observation_space = spaces.Box(0, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.seeds, self.actions, self.closed, self.steps = [], [], 0, 0
        self.buffer = np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.steps = 0
        return self.observe(), {"steps": 0}

    def step(self, action):
        self.actions.append(action)
        self.steps += 1
        ended = self.steps >= self.length
        info = {"steps": self.steps, "name": "counting", "nested": {"half": self.steps / 2}}
        return self.observe(), 1.5, ended and not self.truncates, ended and self.truncates, info

    def observe(self):
        # The same array every time, as many environments do to save an allocation.
        self.buffer[:] = self.steps, len(self.seeds)
        return self.buffer

    def close(self):
        self.closed += 1


class PayingEnv(CountingEnv):
    """Each timestep pays what `rewards` says; the last one truncates the episode."""

    def __init__(self, rewards):
        super().__init__(length=len(rewards), truncates=True)
        self.rewards = rewards

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, self.rewards[self.steps - 1], *rest


class FailingEnv(CountingEnv):
    """A CountingEnv that does `what` at its step number `at`."""

    def __init__(self, what, at=2):
        super().__init__(length=100)
        self.what, self.at = what, at

    def reset(self, *, seed=None, options=None):
        if self.what == "raise in reset":
            raise OSError("no simulator")
        return super().reset(seed=seed)

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if self.steps == self.at:
            if self.what == "raise":
                raise KeyError("gear")
            if self.what == "unpicklable":
                raise UnpicklableError(lambda: None)
            if self.what.startswith("observation"):
                observation = np.array([1.0, float(self.what.split()[1])])
            if self.what.startswith("reward"):
                reward = float(self.what.split()[1])
            if self.what == "shape":
                observation = np.zeros(5)
        return observation, reward, terminated, truncated, info


class UnpicklableError(Exception):
    """An exception that cannot cross to another process."""


class SpaceEnv(gymnasium.Env):
    """Samples its observations from any space and keeps the actions that it got."""

    def __init__(self, observation_space, action_space, length=3):
        self.observation_space, self.action_space = observation_space, action_space
        self.length, self.observations, self.actions = length, [], []

    def sample(self):
        self.observations.append(self.observation_space.sample())
        return self.observations[-1]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.sample(), {}

    def step(self, action):
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.actions.append(action)
        self.steps += 1
        return self.sample(), 0.0, self.steps >= self.length, False, {}


class MaskedEnv(CountingEnv):
    """Allows only the action `steps % 3` of three; says so in info, or through a method."""

    def __init__(self, length=3, forget_at=None):
        super().__init__(length)
        self.action_space = spaces.Discrete(3)
        self.forget_at = forget_at

    def mask(self):
        mask = np.zeros(3, np.int8)
        mask[self.steps % 3] = 1
        return mask

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        return observation, info | {"action_mask": self.mask()}

    def step(self, action):
        if action != self.steps % 3:
            raise ValueError(f"action {action} is not allowed")
        observation, reward, terminated, truncated, info = super().step(action)
        if not terminated and self.steps != self.forget_at:
            info["action_mask"] = self.mask()
        return observation, reward, terminated, truncated, info


class MethodMaskedEnv(CountingEnv):
    """Allows only the action `steps % 3`, through a method."""

    def __init__(self, length=3):
        super().__init__(length)
        self.action_space = spaces.Discrete(3)

    def action_masks(self):
        return np.arange(3) == self.steps % 3


class ModulesEnv(CountingEnv):
    """Says in info what its process has imported."""

    def step(self, action):
        observation, reward, terminated, truncated, _ = super().step(action)
        info = {name: name in sys.modules for name in ("tensorflow", "pgest", "gymnasium")}
        return observation, reward, terminated, truncated, info


def cartpole(max_episode_steps=10):
    return gymnasium.make("CartPole-v1", max_episode_steps=max_episode_steps)


def fails_in_the_second():
    """An environment that raises what cannot be pickled, if this is the second process."""
    if multiprocessing.current_process().name.endswith("-1"):
        return FailingEnv("unpicklable")
    return CountingEnv(length=100)


def failing_first():
    return FailingEnv("raise")


class DyingEnv(CountingEnv):
    """A CountingEnv whose simulator takes the process along at action 1."""

    def step(self, action):
        if action == 1:
            os._exit(139)
        return super().step(action)


class SlowEnv(CountingEnv):
    """Takes `seconds` for a timestep, and leaves a file when it is closed."""

    def __init__(self, seconds, path):
        super().__init__(length=100)
        self.seconds, self.path = seconds, path

    def step(self, action):
        time.sleep(self.seconds)
        return super().step(action)

    def close(self):
        if self.steps:  # gymnasium also makes one that never plays
            pathlib.Path(self.path).touch()


def raises_at_once():
    raise OSError("no licence")


def tilting(observation):
    """A poor CartPole policy that is a function of the observation: some episodes end in time."""
    return (observation[:, 0] > 0).astype(np.int64)


def trajectories(view, timesteps, policy=tilting):
    """For each environment, the transitions that count: (o, a, r, o', terminated, truncated)."""
    rows = [[] for _ in range(view.num_envs)]
    while min(map(len, rows)) < timesteps:
        observation = view.observe()
        action = policy(observation)
        transition = view.step(action)
        for index in np.flatnonzero(transition.acted):
            rows[index].append(
                (
                    observation[index].tolist(),
                    action[index].tolist(),
                    float(transition.reward[index]),
                    transition.next_observation[index].tolist(),
                    bool(transition.terminated[index]),
                    bool(transition.truncated[index]),
                )
            )
    return [row[:timesteps] for row in rows]
