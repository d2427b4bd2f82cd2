"""Advantage actor-critic."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from pgest import losses, schedules
from pgest.contract import foreign_names
from pgest.memory import memory
from pgest.models import policy_gradient


@foreign_names.told_fields
@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class A2C(policy_gradient.PolicyGradientModel):
    """Advantage actor-critic (Mnih et al. 2016, https://arxiv.org/abs/1602.01783), synchronous.

    Attributes:
      rms_epsilon: added to RMSProp's mean square, under its root, as in the paper. (PyTorch adds
        its own to the root; 1e-10 here is like 1e-5 there.)

    Example:

        agent = pgest.PGAgent(
            pgest.models.A2C(), pgest.RolloutMemory(horizon=5),
            optimizer_params={"gae_lambda": 1.0, "normalize_advantage": False},
        )
    """

    learning_rate: Any = 7e-4
    rms_epsilon: float = 1e-5

    def default_memory(self) -> memory.BatchMemory:
        """A rollout of five timesteps of each environment."""
        return memory.RolloutMemory(horizon=5)

    def default_optimizer_params(self) -> dict[str, Any]:
        """Returns of n timesteps, as they are."""
        return {"gae_lambda": 1.0, "normalize_advantage": False}

    def loss(
        self, distribution: Any, value: tf.Tensor | None, labels: Mapping[str, Any]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Log-probabilities weighted by advantages."""
        log_prob = distribution.log_prob(labels["action"])
        policy_loss = losses.policy_gradient_loss(log_prob, labels["advantage"])
        metrics = {"loss/policy": policy_loss}
        return self.add_value_and_entropy(policy_loss, distribution, value, labels, metrics)

    def optimizer(self) -> tf_keras.optimizers.Optimizer:
        """RMSProp, as in the paper."""
        return tf_keras.optimizers.RMSprop(
            schedules.learning_rate(self.learning_rate), rho=0.99, epsilon=self.rms_epsilon
        )
