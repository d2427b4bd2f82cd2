"""The tasks of `learning.py`, with the settings that the package has for them: RL Zoo's.

From `hyperparams/{ppo,a2c,trpo}.yml` of github.com/DLR-RM/rl-baselines3-zoo as of April 2026, but
without generalised state-dependent exploration, and with orthogonal initialisation throughout: on
both sides. Environments of MuJoCo are version 5 where the Zoo has 4 or older.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from pgest.commands import task_settings


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


# How many seeds each is measured with.
SEEDS = {
    ("ppo", "CartPole-v1"): 10,
    ("a2c", "CartPole-v1"): 10,
    ("trpo", "CartPole-v1"): 30,
    ("ppo", "Acrobot-v1"): 5,
    ("a2c", "Acrobot-v1"): 5,
    ("trpo", "Acrobot-v1"): 10,
    ("ppo", "Pendulum-v1"): 10,
    ("a2c", "Pendulum-v1"): 30,
    ("trpo", "Pendulum-v1"): 10,
    ("ppo", "MountainCarContinuous-v0"): 10,
    ("a2c", "MountainCarContinuous-v0"): 10,
    ("trpo", "MountainCarContinuous-v0"): 30,
    ("ppo", "LunarLander-v3"): 5,
    ("a2c", "LunarLander-v3"): 10,
    ("trpo", "LunarLander-v3"): 10,
    ("ppo", "InvertedPendulum-v5"): 10,
    ("ppo", "Hopper-v5"): 3,
    ("ppo", "HalfCheetah-v5"): 5,
}


def task(algorithm: str, env_id: str, seeds: int) -> Task:
    """The task that the package's settings describe."""
    values = dict(task_settings.tuned(algorithm, env_id).values)
    renamed: dict[str, Any] = {}
    for name in ("learning_rate", "clip_ratio"):
        falling = isinstance(values.get(name), str)
        if name in values:
            renamed[name] = task_settings.made(values[name])
        if falling:
            initial = float(renamed[name].function(0.0))
            renamed |= {name: float(f"{initial:.6g}"), f"{name}_falls": True}
    whole = values["num_envs"] * values["horizon"]
    size = "critic_minibatch_size" if algorithm == "trpo" else "minibatch_size"
    if size in values:
        renamed["minibatch_size"] = values[size] or whole
    if "initial_std" in values:
        renamed["initial_log_std"] = round(math.log(values["initial_std"]), 6)
    if "hidden_sizes" in values:
        renamed["hidden_sizes"] = tuple(values["hidden_sizes"])
    if "normalize_observation" in values:
        renamed["normalize"] = values["normalize_observation"]
    fields = {field.name for field in dataclasses.fields(Task)}
    same = {key: value for key, value in values.items() if key in fields}
    return Task(algorithm.upper(), env_id, seeds=seeds, **(same | renamed))


TASKS = {
    f"{env_id.rpartition('-')[0].lower()}-{algorithm}": task(algorithm, env_id, seeds)
    for (algorithm, env_id), seeds in SEEDS.items()
}
