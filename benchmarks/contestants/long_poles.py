"""CartPoles whose episodes take 500 timesteps whatever the policy does; the id is `LongPole-v0`."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

ID = "LongPole-v0"
LENGTH = 500


class LongPole(CartPoleEnv):
    """Goes on where the pole has fallen."""

    def step(self, action: Any) -> tuple[Any, ...]:
        """One timestep."""
        observation, reward, _, truncated, info = super().step(action)
        self.steps_beyond_terminated = None
        return observation, reward, False, truncated, info


gymnasium.register(ID, LongPole, max_episode_steps=LENGTH)
