"""The tasks of `learning.py`, with RL Zoo's hyper-parameters.

From `hyperparams/{ppo,a2c,trpo}.yml` of github.com/DLR-RM/rl-baselines3-zoo as of April 2026, but
without generalised state-dependent exploration, and with orthogonal initialisation throughout: on
both sides. Environments of MuJoCo are version 5 where the Zoo has 4 or older.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Task:
    """One algorithm on one environment, in words that both libraries have."""

    algorithm: str
    env_id: str
    num_envs: int
    timesteps: int
    horizon: int
    seeds: int
    discount: float = 0.99
    gae_lambda: float = 0.95
    minibatch_size: int = 64
    epochs: int = 10
    learning_rate: float = 3e-4
    learning_rate_falls: bool = False
    clip_ratio: float = 0.2
    clip_ratio_falls: bool = False
    entropy_weight: float = 0.0
    value_weight: float = 0.5
    clip_norm: float = 0.5
    normalize: bool = False
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    initial_log_std: float = 0.0
    cg_damping: float = 0.1
    cg_steps: int = 15
    critic_passes: int = 10


def ppo(env_id: str, num_envs: int, timesteps: int, horizon: int, seeds: int, **rest: Any) -> Task:
    return Task("PPO", env_id, num_envs, timesteps, horizon, seeds, **rest)


def a2c(env_id: str, num_envs: int, timesteps: int, seeds: int, **rest: Any) -> Task:
    settings = {"gae_lambda": 1.0, "learning_rate": 7e-4, "horizon": 5, **rest}
    return Task("A2C", env_id, num_envs, timesteps, seeds=seeds, **settings)


def trpo(env_id: str, num_envs: int, timesteps: int, horizon: int, seeds: int, **rest: Any) -> Task:
    settings = {"learning_rate": 1e-3, "minibatch_size": 128, **rest}
    return Task("TRPO", env_id, num_envs, timesteps, horizon, seeds, **settings)


MUJOCO = {
    "normalize": True, "initial_log_std": -2.0, "activation": "relu", "hidden_sizes": (256, 256)
}  # fmt: skip

TASKS = {
    "cartpole-ppo": ppo(
        "CartPole-v1", 8, 100_000, 32, 10, discount=0.98, gae_lambda=0.8, minibatch_size=256,
        epochs=20, learning_rate=1e-3, learning_rate_falls=True, clip_ratio_falls=True,
    ),
    "cartpole-a2c": a2c("CartPole-v1", 8, 500_000, 10),
    "cartpole-trpo": trpo(
        "CartPole-v1", 2, 100_000, 512, 30, gae_lambda=0.98, minibatch_size=512, cg_damping=1e-3,
        critic_passes=20,
    ),
    "acrobot-ppo": ppo(
        "Acrobot-v1", 16, 1_000_000, 256, 5, gae_lambda=0.94, epochs=4, normalize=True
    ),
    "acrobot-a2c": a2c("Acrobot-v1", 16, 500_000, 5, normalize=True),
    "acrobot-trpo": trpo("Acrobot-v1", 2, 100_000, 1024, 10, normalize=True),
    "pendulum-ppo": ppo("Pendulum-v1", 4, 100_000, 1024, 10, discount=0.9, learning_rate=1e-3),
    "pendulum-a2c": a2c(
        "Pendulum-v1", 8, 1_000_000, 30, horizon=8, gae_lambda=0.9, discount=0.9, value_weight=0.4,
        learning_rate_falls=True, normalize=True, initial_log_std=-2.0,
    ),
    "pendulum-trpo": trpo("Pendulum-v1", 2, 100_000, 1024, 10, discount=0.9, critic_passes=15),
    "mountaincarcontinuous-ppo": ppo(
        "MountainCarContinuous-v0", 1, 20_000, 8, 10, discount=0.9999, gae_lambda=0.9,
        minibatch_size=256, learning_rate=7.77e-5, entropy_weight=0.00429, clip_ratio=0.1,
        clip_norm=5.0, value_weight=0.19, normalize=True, initial_log_std=-3.29,
    ),
    "mountaincarcontinuous-a2c": a2c(
        "MountainCarContinuous-v0", 4, 100_000, 10, horizon=100, normalize=True
    ),
    "mountaincarcontinuous-trpo": trpo(
        "MountainCarContinuous-v0", 2, 50_000, 2048, 30, normalize=True
    ),
    "lunarlander-ppo": ppo(
        "LunarLander-v3", 16, 1_000_000, 1024, 5, discount=0.999, gae_lambda=0.98, epochs=4,
        entropy_weight=0.01,
    ),
    "lunarlander-a2c": a2c(
        "LunarLander-v3", 8, 200_000, 10, discount=0.995, learning_rate=8.3e-4,
        learning_rate_falls=True, entropy_weight=1e-5,
    ),
    "lunarlander-trpo": trpo(
        "LunarLander-v3", 2, 200_000, 512, 10, gae_lambda=0.98, cg_damping=0.01, critic_passes=15
    ),
    "invertedpendulum-ppo": ppo(
        "InvertedPendulum-v5", 1, 1_000_000, 32, 10, discount=0.999, gae_lambda=0.9, epochs=5,
        learning_rate=2.22425e-4, entropy_weight=1.37976e-7, clip_ratio=0.4, clip_norm=0.3,
        value_weight=0.19816, normalize=True,
    ),
    "hopper-ppo": ppo(
        "Hopper-v5", 1, 1_000_000, 512, 3, discount=0.999, gae_lambda=0.99, minibatch_size=32,
        epochs=5, learning_rate=9.80828e-5, entropy_weight=0.00229519, clip_norm=0.7,
        value_weight=0.835671, **MUJOCO,
    ),
    "halfcheetah-ppo": ppo(
        "HalfCheetah-v5", 1, 1_000_000, 512, 5, discount=0.98, gae_lambda=0.92, epochs=20,
        learning_rate=2.0633e-5, entropy_weight=0.000401762, clip_ratio=0.1, clip_norm=0.8,
        value_weight=0.58096, **MUJOCO,
    ),
}  # fmt: skip
