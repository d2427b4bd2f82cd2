"""How well policies get, beside Stable-Baselines3 with the same settings.

    python benchmarks/learning.py                       # all runs that are not in the table yet
    python benchmarks/learning.py --only cartpole --seeds 3
    python benchmarks/learning.py --report              # statistics, docs table and plots

Each run is a process of its own and appends one row to `results/learning.csv`, and its learning
curve to `results/learning_curves.csv`; a run that has a row is not run again. Settings are RL
Zoo's (github.com/DLR-RM/rl-baselines3-zoo, `hyperparams/`), without generalised state-dependent
exploration on both sides. The score is the mean return of greedy episodes after training. Seeds
are fixed beforehand and every row counts.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
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

RESULTS = Path(__file__).parent / "results"
TABLE, CURVES = RESULTS / "learning.csv", RESULTS / "learning_curves.csv"
LIBRARIES = ("pgest", "stable-baselines3")
PACKAGES = ("pgest", "tensorflow", "stable-baselines3", "sb3-contrib", "torch", "gymnasium")
EVALUATION_EPISODES = 50
EVALUATION_SEED = 10_000
CURVE_POINTS = 25


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
        "CartPole-v1", 2, 100_000, 512, 10, gae_lambda=0.98, minibatch_size=512, cg_damping=1e-3,
        critic_passes=20,
    ),
    "acrobot-ppo": ppo(
        "Acrobot-v1", 16, 1_000_000, 256, 5, gae_lambda=0.94, epochs=4, normalize=True
    ),
    "acrobot-a2c": a2c("Acrobot-v1", 16, 500_000, 5, normalize=True),
    "acrobot-trpo": trpo("Acrobot-v1", 2, 100_000, 1024, 10, normalize=True),
    "pendulum-ppo": ppo("Pendulum-v1", 4, 100_000, 1024, 10, discount=0.9, learning_rate=1e-3),
    "pendulum-a2c": a2c(
        "Pendulum-v1", 8, 1_000_000, 5, horizon=8, gae_lambda=0.9, discount=0.9, value_weight=0.4,
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
        "MountainCarContinuous-v0", 2, 50_000, 2048, 10, normalize=True
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
        "LunarLander-v3", 2, 200_000, 512, 5, gae_lambda=0.98, cg_damping=0.01, critic_passes=15
    ),
    "invertedpendulum-ppo": ppo(
        "InvertedPendulum-v5", 1, 1_000_000, 32, 3, discount=0.999, gae_lambda=0.9, epochs=5,
        learning_rate=2.22425e-4, entropy_weight=1.37976e-7, clip_ratio=0.4, clip_norm=0.3,
        value_weight=0.19816, normalize=True,
    ),
    "hopper-ppo": ppo(
        "Hopper-v5", 1, 1_000_000, 512, 3, discount=0.999, gae_lambda=0.99, minibatch_size=32,
        epochs=5, learning_rate=9.80828e-5, entropy_weight=0.00229519, clip_norm=0.7,
        value_weight=0.835671, **MUJOCO,
    ),
    "halfcheetah-ppo": ppo(
        "HalfCheetah-v5", 1, 1_000_000, 512, 3, discount=0.98, gae_lambda=0.92, epochs=20,
        learning_rate=2.0633e-5, entropy_weight=0.000401762, clip_ratio=0.1, clip_norm=0.8,
        value_weight=0.58096, **MUJOCO,
    ),
}  # fmt: skip


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


def append(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def wanted(only: str, seeds: int | None, libraries: list[str]) -> Iterator[tuple[str, str, int]]:
    """The runs asked for, seed by seed, libraries in turn."""
    for name, task in TASKS.items():
        if only not in name:
            continue
        yield name, "random", 0
        for seed in range(task.seeds if seeds is None else min(seeds, task.seeds)):
            for library in libraries:
                yield name, library, seed


def run_missing(only: str, seeds: int | None, libraries: list[str]) -> None:
    done = {(row["task"], row["library"], int(row["seed"])) for row in read(TABLE)}
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
        append(CURVES, CURVE_COLUMNS, curve)
        append(TABLE, COLUMNS, [row])
        print(f"{name} {library} seed {seed}: {row['return_mean']} in {row['seconds']} s")


# --- statistics --------------------------------------------------------------------------------


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half, along the last axis; fractions of a score count as such."""
    ordered = np.sort(scores, axis=-1)
    count = ordered.shape[-1]
    places = np.arange(count)
    weights = np.clip(np.minimum(places + 1, 0.75 * count) - np.maximum(places, 0.25 * count), 0, 1)
    return (ordered * weights).sum(-1) / weights.sum()


def difference_interval(
    ours: np.ndarray, theirs: np.ndarray, samples: int = 20_000
) -> tuple[float, float]:
    """The 95 % bootstrap interval of the difference of the interquartile means."""
    generator = np.random.default_rng(0)
    drawn = [
        interquartile_mean(generator.choice(scores, (samples, len(scores))))
        for scores in (ours, theirs)
    ]
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    return float(low), float(high)


def report() -> list[dict[str, Any]]:
    """A line a task for which there are rows of both libraries."""
    lines = []
    rows = read(TABLE)
    for name, task in TASKS.items():
        scores = {
            library: np.array(
                [
                    float(row["return_mean"])
                    for row in rows
                    if (row["task"], row["library"]) == (name, library)
                ]
            )
            for library in (*LIBRARIES, "random")
        }
        if not all(len(values) for values in scores.values()):
            continue
        ours, theirs = (scores[library] for library in LIBRARIES)
        low, high = difference_interval(ours, theirs)
        middle = [float(interquartile_mean(values)) for values in (ours, theirs)]
        chance = float(scores["random"].mean())
        bound = -0.1 * (middle[1] - chance)
        lines.append(
            {
                "task": name,
                "timesteps": task.timesteps,
                "seeds": f"{len(ours)}, {len(theirs)}",
                "random": chance,
                "pgest": middle[0],
                "stable-baselines3": middle[1],
                "difference": middle[0] - middle[1],
                "low": low,
                "high": high,
                "bound": bound,
                "holds": low >= bound,
            }
        )
    return lines


def print_report(lines: list[dict[str, Any]]) -> None:
    """A Markdown table, for docs."""
    print(
        "| task | timesteps | seeds | random | pgest | Stable-Baselines3 | difference (95 %) | "
        "bound | holds |\n|---|---|---|---|---|---|---|---|---|"
    )
    for line in lines:
        print(
            f"| {line['task']} | {line['timesteps']:,} | {line['seeds']} | {line['random']:.1f} | "
            f"{line['pgest']:.1f} | {line['stable-baselines3']:.1f} | {line['difference']:+.1f} "
            f"({line['low']:+.1f} to {line['high']:+.1f}) | {line['bound']:.1f} | "
            f"{'yes' if line['holds'] else 'no'} |"
        )


def plot(path: Path) -> None:
    """Learning curves: the median of the seeds, and from the lowest to the highest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in read(CURVES):
        stretch = curves.setdefault((row["task"], row["library"]), {})
        stretch.setdefault(int(row["timestep"]), []).append(float(row["return"]))
    names = [name for name in TASKS if any(task == name for task, _ in curves)]
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(4.2 * columns, 3.0 * lines), squeeze=False
    )
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for name, axis in zip(names, axes.flat, strict=False):
        for library, color in zip(LIBRARIES, ("#d1495b", "#30638e"), strict=True):
            stretch = sorted(curves.get((name, library), {}).items())
            if not stretch:
                continue
            timesteps = [timestep for timestep, _ in stretch]
            axis.plot(timesteps, [np.median(v) for _, v in stretch], color=color, label=library)
            spread = [[min(v) for _, v in stretch], [max(v) for _, v in stretch]]
            axis.fill_between(timesteps, *spread, color=color, alpha=0.2, linewidth=0)
        axis.set_title(name, fontsize=10)
        axis.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=8)
    figure.supxlabel("timesteps", fontsize=9)
    figure.supylabel("return of training episodes", fontsize=9)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="tasks whose name holds this")
    parser.add_argument("--seeds", type=int, help="the first so many seeds of each task")
    parser.add_argument("--library", choices=LIBRARIES, help="one of the two")
    parser.add_argument("--report", action="store_true", help="table and plots of what there is")
    parser.add_argument("--run", nargs=3, metavar=("TASK", "LIBRARY", "SEED"), help="one run")
    arguments = parser.parse_args()
    if arguments.run:
        name, library, seed = arguments.run
        print(json.dumps(run(name, library, int(seed))))
        return
    if not arguments.report:
        libraries = [arguments.library] if arguments.library else list(LIBRARIES)
        run_missing(arguments.only, arguments.seeds, libraries)
    print_report(report())
    if read(CURVES):
        plot(Path(__file__).parent.parent / "docs" / "algorithms" / "learning.svg")


if __name__ == "__main__":
    main()
