"""How well policies get, beside Stable-Baselines3 with the same settings.

    python benchmarks/learning.py                       # all runs that are not in the table yet
    python benchmarks/learning.py --only cartpole --seeds 3
    python benchmarks/learning.py --report              # only writes docs/algorithms/learning.md

Each run is a process of its own and appends one row to `results/learning.csv`, and its learning
curve to `results/learning_curves.csv`; a run that has a row is not run again. Settings are RL
Zoo's (github.com/DLR-RM/rl-baselines3-zoo, `hyperparams/`), without generalised state-dependent
exploration on both sides. The score is the mean return of greedy episodes after training. Seeds
are fixed beforehand and every row counts.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gymnasium
import numpy as np
from support import learning_report, tables
from support.learning_tasks import TASKS, Task

RESULTS = Path(__file__).parent / "results"
TABLE, CURVES = RESULTS / "learning.csv", RESULTS / "learning_curves.csv"
LIBRARIES = learning_report.LIBRARIES
PACKAGES = ("pgest", "tensorflow", "stable-baselines3", "sb3-contrib", "torch", "gymnasium")
EVALUATION_EPISODES = 50
EVALUATION_SEED = 10_000
CURVE_POINTS = 25


class SeededEpisodes(gymnasium.Wrapper):
    """Starts the same episodes in the same order for everybody who is evaluated."""

    def __init__(self, env_id: str) -> None:
        super().__init__(gymnasium.make(env_id))
        self._episode = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        del seed
        self._episode += 1
        return self.env.reset(seed=EVALUATION_SEED + self._episode, options=options)


# --- one run -----------------------------------------------------------------------------------


def run_pgest(task: Task, seed: int) -> tuple[list[float], list[tuple[int, float]], float]:
    """Trains and evaluates; returns the greedy returns, (timestep, return) pairs, seconds."""
    import pgest
    from pgest import models, schedules

    falling = lambda value, falls: schedules.linear(value, 0.0) if falls else value  # noqa: E731
    settings: dict[str, Any] = {
        "learning_rate": falling(task.learning_rate, task.learning_rate_falls),
        "entropy_weight": task.entropy_weight,
        "value_weight": task.value_weight,
        "clip_norm": task.clip_norm,
        "hidden_sizes": task.hidden_sizes,
        "activation": task.activation,
        "initial_std": math.exp(task.initial_log_std),
        "normalize_observation": task.normalize,
        "normalize_reward": task.normalize,
        "reward_discount": task.discount,
    }
    update: dict[str, Any] = {"discount": task.discount, "gae_lambda": task.gae_lambda}
    if task.algorithm == "PPO":
        size = task.minibatch_size
        whole = size >= task.horizon * task.num_envs
        update |= {"epochs": task.epochs, "minibatch_size": None if whole else size}
        clip_ratio = falling(task.clip_ratio, task.clip_ratio_falls)
        model: Any = models.PPO(clip_ratio=clip_ratio, **settings)
    elif task.algorithm == "A2C":
        update["normalize_advantage"] = False
        model = models.A2C(rms_epsilon=1e-10, **settings)  # PyTorch's 1e-5
    else:
        model = models.TRPO(
            cg_damping=task.cg_damping, cg_steps=task.cg_steps, critic_passes=task.critic_passes,
            critic_minibatch_size=task.minibatch_size, **settings,
        )  # fmt: skip

    class Curve(pgest.BaseMonitor):
        def __init__(self) -> None:
            self.points: list[tuple[int, float]] = []

        def after_episode(self, context: Any) -> None:
            for episode in context.episodes:
                self.points.append((context.timestep, episode.total))

    curve = Curve()
    config = pgest.RunConfig(tf_random_seed=seed, log_step_count_steps=None)
    agent = pgest.PGAgent(model, pgest.RolloutMemory(task.horizon), update, config=config)
    started = time.perf_counter()
    agent.train(
        pgest.make(task.env_id, num_envs=task.num_envs), timesteps=task.timesteps, hooks=[curve]
    )
    seconds = time.perf_counter() - started
    returns = agent.evaluate(SeededEpisodes(task.env_id), episodes=EVALUATION_EPISODES)
    scores = [returns["return_mean"], returns["return_std"]]
    return scores, curve.points, seconds


def run_peer(task: Task, seed: int) -> tuple[list[float], list[tuple[int, float]], float]:
    """The same with Stable-Baselines3."""
    import sb3_contrib
    import stable_baselines3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)
    falling = lambda value, falls: (lambda left: left * value) if falls else value  # noqa: E731
    activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[task.activation]
    settings: dict[str, Any] = {
        "n_steps": task.horizon,
        "gamma": task.discount,
        "gae_lambda": task.gae_lambda,
        "learning_rate": falling(task.learning_rate, task.learning_rate_falls),
        "policy_kwargs": {
            "net_arch": list(task.hidden_sizes),
            "activation_fn": activation,
            "log_std_init": task.initial_log_std,
        },
        "seed": seed,
        "device": "cpu",
    }
    if task.algorithm != "TRPO":
        settings |= {
            "ent_coef": task.entropy_weight,
            "vf_coef": task.value_weight,
            "max_grad_norm": task.clip_norm,
        }
    if task.algorithm == "PPO":
        settings |= {"batch_size": task.minibatch_size, "n_epochs": task.epochs}
        settings["clip_range"] = falling(task.clip_ratio, task.clip_ratio_falls)
    elif task.algorithm == "TRPO":
        settings |= {
            "batch_size": task.minibatch_size,
            "cg_damping": task.cg_damping,
            "cg_max_steps": task.cg_steps,
            "n_critic_updates": task.critic_passes,
        }

    class Curve(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.points: list[tuple[int, float]] = []

        def _on_step(self) -> bool:
            for info in self.locals["infos"]:
                if "episode" in info:
                    self.points.append((self.num_timesteps, float(info["episode"]["r"])))
            return True

    env = make_vec_env(task.env_id, n_envs=task.num_envs, seed=seed)
    if task.normalize:
        env = VecNormalize(env, gamma=task.discount)
    library = sb3_contrib if task.algorithm == "TRPO" else stable_baselines3
    model = getattr(library, task.algorithm)("MlpPolicy", env, **settings)
    curve = Curve()
    started = time.perf_counter()
    model.learn(task.timesteps, callback=curve)
    seconds = time.perf_counter() - started
    evaluated = make_vec_env(lambda: SeededEpisodes(task.env_id), n_envs=1)
    if task.normalize:
        evaluated = VecNormalize(evaluated, training=False, norm_reward=False)
        evaluated.obs_rms = env.obs_rms
    returns, _ = evaluate_policy(
        model, evaluated, EVALUATION_EPISODES, deterministic=True, return_episode_rewards=True
    )
    return [float(np.mean(returns)), float(np.std(returns))], curve.points, seconds


def run_random(task: Task, seed: int) -> tuple[list[float], list[tuple[int, float]], float]:
    """Actions drawn from the space."""
    env = SeededEpisodes(task.env_id)
    env.action_space.seed(seed)
    returns = []
    for _ in range(2 * EVALUATION_EPISODES):
        env.reset()
        total, ended = 0.0, False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total += float(reward)
            ended = terminated or truncated
        returns.append(total)
    return [float(np.mean(returns)), float(np.std(returns))], [], 0.0


RUNNERS = {"pgest": run_pgest, "stable-baselines3": run_peer, "random": run_random}


def run(name: str, library: str, seed: int) -> dict[str, Any]:
    """One run: its row, and its curve under `curve`."""
    task = TASKS[name]
    scores, points, seconds = RUNNERS[library](task, seed)
    versions = {
        package: importlib.metadata.version(package) for package in PACKAGES if _installed(package)
    }
    return {
        "task": name,
        "library": library,
        "seed": seed,
        "return_mean": round(scores[0], 4),
        "return_std": round(scores[1], 4),
        "episodes": EVALUATION_EPISODES * (2 if library == "random" else 1),
        "timesteps": task.timesteps if library != "random" else 0,
        "seconds": round(seconds, 1),
        "date": datetime.date.today().isoformat(),
        "versions": " ".join(f"{package}={version}" for package, version in versions.items()),
        "curve": binned(points, task.timesteps),
    }


def binned(points: list[tuple[int, float]], timesteps: int) -> list[tuple[int, float]]:
    """Mean return of the training episodes that ended in each of `CURVE_POINTS` stretches."""
    width = timesteps / CURVE_POINTS
    found = []
    for index in range(CURVE_POINTS):
        low, high = index * width, (index + 1) * width
        inside = [total for timestep, total in points if low < timestep <= high]
        if inside:
            found.append((round(high), round(float(np.mean(inside)), 4)))
    return found


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


# --- the table ---------------------------------------------------------------------------------

COLUMNS = (
    "task", "library", "seed", "return_mean", "return_std", "episodes", "timesteps", "seconds",
    "date", "versions",
)  # fmt: skip
CURVE_COLUMNS = ("task", "library", "seed", "timestep", "return")


def wanted(only: str, seeds: int | None, libraries: list[str]) -> Iterator[tuple[str, str, int]]:
    """The runs asked for, seed by seed, libraries in turn."""
    for name, task in TASKS.items():
        # "pendulum-ppo" is a task, and a part of another one's name.
        if name != only if only in TASKS else only not in name:
            continue
        yield name, "random", 0
        for seed in range(task.seeds if seeds is None else min(seeds, task.seeds)):
            for library in libraries:
                yield name, library, seed


def run_missing(only: str, seeds: int | None, libraries: list[str]) -> None:
    done = {(row["task"], row["library"], int(row["seed"])) for row in tables.read(TABLE)}
    for name, library, seed in wanted(only, seeds, libraries):
        if (name, library, seed) in done:
            continue
        command = [sys.executable, __file__, "--run", name, library, str(seed)]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(result.stdout.strip().splitlines()[-1])
        curve = [
            {"task": name, "library": library, "seed": seed, "timestep": timestep, "return": value}
            for timestep, value in row.pop("curve")
        ]
        tables.append(CURVES, CURVE_COLUMNS, curve)
        tables.append(TABLE, COLUMNS, [row])
        print(f"{name} {library} seed {seed}: {row['return_mean']} in {row['seconds']} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a task, or those whose names hold this")
    parser.add_argument("--seeds", type=int, help="the first so many seeds of each task")
    parser.add_argument("--library", choices=LIBRARIES, help="one of the two")
    parser.add_argument("--report", action="store_true", help="table and plot of what there is")
    parser.add_argument("--run", nargs=3, metavar=("TASK", "LIBRARY", "SEED"), help="one run")
    arguments = parser.parse_args()
    if arguments.run:
        name, library, seed = arguments.run
        print(json.dumps(run(name, library, int(seed))))
        return
    if not arguments.report:
        libraries = [arguments.library] if arguments.library else list(LIBRARIES)
        run_missing(arguments.only, arguments.seeds, libraries)
    learning_report.write(TASKS, tables.read(TABLE), tables.read(CURVES))


if __name__ == "__main__":
    main()
