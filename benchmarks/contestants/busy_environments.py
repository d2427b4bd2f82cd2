"""CartPoles whose step keeps the processor busy, as a simulator would: `Busy200-v0`, in us."""

from __future__ import annotations

import time

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

MICROSECONDS = (0, 50, 100, 200, 1000, 5000, 20000)


class Busy(CartPoleEnv):
    """Takes `microseconds` a step, and what CartPole itself takes."""

    def __init__(self, microseconds: int, **given):
        super().__init__(**given)
        self._seconds = microseconds / 1e6

    def step(self, action):
        """Computes for a while."""
        until = time.perf_counter() + self._seconds
        while time.perf_counter() < until:
            pass
        return super().step(action)


for each in MICROSECONDS:
    gymnasium.register(f"Busy{each}-v0", Busy, max_episode_steps=500, kwargs={"microseconds": each})
