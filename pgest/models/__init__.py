"""Ready-made model_fns: VPG, A2C, PPO and TRPO, on one skeleton."""

from pgest.models.a2c import A2C
from pgest.models.policy_gradient import PolicyGradientModel
from pgest.models.ppo import PPO
from pgest.models.trpo import TRPO
from pgest.models.vpg import VPG

__all__ = ["A2C", "PPO", "TRPO", "VPG", "PolicyGradientModel"]
