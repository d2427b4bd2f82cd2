"""PPO of rlox: CartPole and advantages in Rust, networks in PyTorch.

The variant "1 thread" calls `torch.set_num_threads(1)`, any other leaves PyTorch alone.
"""

from __future__ import annotations

import statistics

import torch
from rlox.algorithms import ppo
from support import serving


class Trainer:
    """A learner that goes on learning.

    Args:
      work: what to do.
    """

    def __init__(self, work: serving.Work):
        if work.variant == "1 thread":
            torch.set_num_threads(1)
        self._learner = ppo.PPO(
            work.environment, n_envs=work.num_envs, seed=0, n_steps=work.horizon,
            n_epochs=work.epochs, batch_size=work.minibatch_size,
            learning_rate=work.learning_rate, gamma=work.discount, gae_lambda=work.gae_lambda,
            vf_coef=work.value_weight, ent_coef=work.entropy_weight, clip_vloss=False,
            anneal_lr=False,
        )  # fmt: skip
        self._batch = work.horizon * work.num_envs
        self.timesteps = 0

    def train(self, timesteps: int) -> None:
        """Takes at least so many more."""
        updates = -(-timesteps // self._batch)
        self._learner.train(updates * self._batch)
        self.timesteps += updates * self._batch

    def recent_return(self) -> float | None:
        """The mean of the latest hundred episodes."""
        latest = self._learner.collector.episode_rewards[-100:]
        return statistics.fmean(map(float, latest)) if latest else None


if __name__ == "__main__":
    serving.serve(Trainer)
