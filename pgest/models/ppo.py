"""Proximal policy optimisation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from pgest import losses
from pgest.contract import foreign_names
from pgest.memory import memory
from pgest.models import policy_gradient


@foreign_names.told_fields
@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class PPO(policy_gradient.PolicyGradientModel):
    """PPO with the clipped surrogate (Schulman et al. 2017, https://arxiv.org/abs/1707.06347).

    Epochs, minibatches and the stop by KL are the agent's: `optimizer_params={"epochs": 10,
    "minibatch_size": 64, "target_kl": 0.02}`.

    Attributes:
      clip_ratio: how far the probability ratio may move from 1 before its gradient is cut off.

    Example:

        agent = pgest.PGAgent(pgest.models.PPO())  # 2048 timesteps, 10 epochs, minibatches of 64
        agent = pgest.PGAgent(
            pgest.models.PPO(), pgest.RolloutMemory(horizon=256),
            optimizer_params={"epochs": 10, "minibatch_size": 64},
        )
    """

    clip_ratio: Any = 0.2

    def default_memory(self) -> memory.BatchMemory:
        """A rollout of 2048 timesteps of each environment."""
        return memory.RolloutMemory(horizon=2048)

    def default_optimizer_params(self) -> dict[str, Any]:
        """Ten epochs of minibatches of 64."""
        return {"epochs": 10, "minibatch_size": 64}

    def loss(
        self, distribution: Any, value: tf.Tensor | None, labels: Mapping[str, Any]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The clipped surrogate."""
        metrics: dict[str, tf.Tensor] = {}
        clip_ratio = self.hyperparameter("clip_ratio", metrics)
        log_prob = distribution.log_prob(labels["action"])
        policy_loss = losses.clipped_surrogate_loss(
            log_prob, labels["log_prob"], labels["advantage"], clip_ratio=clip_ratio
        )
        metrics["loss/policy"] = policy_loss
        metrics["policy/clip_fraction"] = losses.clip_fraction(
            log_prob, labels["log_prob"], clip_ratio=clip_ratio
        )
        return self.add_value_and_entropy(policy_loss, distribution, value, labels, metrics)
