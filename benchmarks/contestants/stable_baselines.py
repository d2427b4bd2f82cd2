"""Stable-Baselines3 and sb3-contrib; their environments are always Python's, one after the other.

The variant "1 thread" calls `torch.set_num_threads(1)`, any other leaves PyTorch alone.
"""

from __future__ import annotations

import statistics

import stable_baselines3
import torch
from stable_baselines3.common import callbacks, env_util
from support import serving


class Looking(callbacks.BaseCallback):
    """Looks at every step whether there is something to do."""

    def _on_step(self) -> bool:
        if self.n_calls % 1000 == 0:
            self.seen = self.num_timesteps
        return True


class Trainer:
    """A learner that goes on learning.

    Args:
      work: what to do.

    Attributes:
      library: that has the algorithms.
    """

    library = stable_baselines3

    def __init__(self, work: serving.Work):
        if work.variant == "1 thread":
            torch.set_num_threads(1)
        env = env_util.make_vec_env(work.environment, n_envs=work.num_envs, seed=0)
        settings = {
            "n_steps": work.horizon,
            "learning_rate": work.learning_rate,
            "gamma": work.discount,
            "gae_lambda": work.gae_lambda,
            "seed": 0,
            "device": "cpu",
        }
        if work.algorithm == "TRPO":
            settings |= {"n_critic_updates": work.epochs, "batch_size": work.minibatch_size}
        else:
            settings |= {"ent_coef": work.entropy_weight, "vf_coef": work.value_weight}
        if work.algorithm in ("PPO", "MaskablePPO"):
            settings |= {"n_epochs": work.epochs, "batch_size": work.minibatch_size}
        if work.width != 64:
            settings["policy_kwargs"] = {"net_arch": [work.width, work.width]}
        library = self.library
        if work.algorithm in ("MaskablePPO", "TRPO"):
            import sb3_contrib as library
        learner, policy = getattr(library, work.algorithm), "MlpPolicy"
        if work.images:
            policy = "CnnPolicy"
        if work.cell_size:
            import sb3_contrib

            learner, policy = sb3_contrib.RecurrentPPO, "MlpLstmPolicy"
            settings["policy_kwargs"] = {"lstm_hidden_size": work.cell_size}
        self._learner = learner(policy, env, **settings)
        self._callbacks = [Looking() for _ in range(work.hooks)] or None

    @property
    def timesteps(self) -> int:
        """Taken so far."""
        return self._learner.num_timesteps

    def train(self, timesteps: int) -> None:
        """Takes so many more."""
        self._learner.learn(timesteps, self._callbacks, reset_num_timesteps=False)

    def recent_return(self) -> float | None:
        """The mean of the latest hundred episodes."""
        latest = self._learner.ep_info_buffer
        return statistics.fmean(float(info["r"]) for info in latest) if latest else None


if __name__ == "__main__":
    serving.serve(Trainer)
