"""The vanilla policy gradient: REINFORCE, with or without a baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from pgest import losses
from pgest.contract import foreign_names
from pgest.models import policy_gradient


@foreign_names.told_fields
@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class VPG(policy_gradient.PolicyGradientModel):
    """REINFORCE (Williams 1992, https://doi.org/10.1007/BF00992696).

    Attributes:
      baseline: the model predicts a value, and advantages are what exceeds it.

    Example:

        agent = pgest.PGAgent(pgest.models.VPG(learning_rate=1e-2), pgest.BatchMemory(2000))
    """

    baseline: bool = True

    @property
    def predicts_value(self) -> bool:
        """Whether there is a baseline."""
        return self.baseline

    def loss(
        self, distribution: Any, value: tf.Tensor | None, labels: Mapping[str, Any]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Log-probabilities weighted by advantages."""
        log_prob = distribution.log_prob(labels["action"])
        policy_loss = losses.policy_gradient_loss(log_prob, labels["advantage"])
        metrics = {"loss/policy": policy_loss}
        return self.add_value_and_entropy(policy_loss, distribution, value, labels, metrics)
