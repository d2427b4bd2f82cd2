"""Stable-Baselines3's `evaluate_policy`, of 20 episodes, deterministic; one thread."""

from __future__ import annotations

import stable_baselines3
import torch
from stable_baselines3.common import env_util, evaluation
from support import serving

from contestants import long_poles


class Evaluator:
    """A policy that goes on being evaluated.

    Args:
      work: what to do.
    """

    def __init__(self, work: serving.Work):
        torch.set_num_threads(1)
        self._env = env_util.make_vec_env(long_poles.ID, n_envs=work.num_envs, seed=0)
        self._learner = stable_baselines3.PPO("MlpPolicy", self._env, seed=0, device="cpu")
        self._episodes = work.episodes
        self.timesteps = 0

    def train(self, timesteps: int) -> None:
        """Evaluates once."""
        del timesteps
        _, lengths = evaluation.evaluate_policy(
            self._learner, self._env, self._episodes, return_episode_rewards=True
        )
        self.timesteps += sum(lengths)

    def recent_return(self) -> float | None:
        """Nothing is learnt here."""
        return None


if __name__ == "__main__":
    serving.serve(Evaluator)
