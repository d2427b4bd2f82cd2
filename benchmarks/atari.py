"""Learning from images: PPO with the network of Mnih et al. 2015 on ALE/Breakout-v5.

    pip install "pgest[atari]"
    python benchmarks/atari.py             # one run, then full games; rows in results/atari.csv
    python benchmarks/atari.py --report    # only writes docs/algorithms/learning.md

Settings are RL Zoo's (`hyperparams/ppo.yml`, `atari`), but for the budget: it has 10 million
timesteps, this 400,000, enough to see that learning has begun. A training episode is a life, its
rewards are signs. A game has five lives and the game's own score; its actions are sampled, as the
Zoo's are on Atari. Random actions play both as well.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import ale_py
import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium import wrappers
from support import tables

import pgest
from pgest import models, schedules

gymnasium.register_envs(ale_py)

TABLE = Path(__file__).parent / "results" / "atari.csv"
COLUMNS = ("policy", "episode", "timestep", "count", "return_mean", "low", "high")
SEED = 0
TIMESTEPS = 400_000
STRETCH = 10_000
RANDOM_LIVES, GAMES = 1_000, 50


def life() -> gymnasium.Env:
    """An environment whose episode is one life, with clipped rewards."""
    return wrappers.TransformReward(game(terminal_on_life_loss=True), lambda r: float(np.sign(r)))


def game(terminal_on_life_loss: bool = False) -> gymnasium.Env:
    """An environment of whole games: observations uint8 `[4, 84, 84]`."""
    env = gymnasium.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.0)
    env = wrappers.AtariPreprocessing(env, terminal_on_life_loss=terminal_on_life_loss)
    return wrappers.FrameStackObservation(env, 4)


def new_agent(model_dir: str | None) -> pgest.PGAgent:
    """PPO; policy and value stand on one convolutional network, as in the Zoo."""
    model = models.PPO(
        learning_rate=schedules.linear(2.5e-4, 0.0),
        clip_ratio=schedules.linear(0.1, 0.0),
        entropy_weight=0.01,
        hidden_sizes=(),
        share_network=True,
    )
    # XLA's convolutions are several times slower on a CPU than TensorFlow's own.
    config = pgest.RunConfig(tf_random_seed=SEED, jit_compile=False, log_step_count_steps=None)
    update = {"epochs": 4, "minibatch_size": 256}
    return pgest.PGAgent(model, pgest.RolloutMemory(128), update, model_dir, config)


class Stretches(pgest.BaseMonitor):
    """Appends a row for every stretch of timesteps: the lives that ended in it."""

    def __init__(self) -> None:
        self._returns: list[float] = []
        self._due = STRETCH

    def after_episode(self, context: pgest.RunContext) -> None:
        """Takes the lives in."""
        if context.timestep > self._due:
            append("pgest", "life", self._due, self._returns)
            self._returns, self._due = [], self._due + STRETCH
        self._returns += [episode.total for episode in context.episodes]

    def end(self, context: pgest.RunContext) -> None:
        """The last stretch."""
        append("pgest", "life", context.timestep, self._returns)


def play(
    make: Callable[[], gymnasium.Env], act: Callable[[gymnasium.Env, Any], Any], episodes: int
) -> list[float]:
    """Returns of episodes that `act(env, observation)` plays."""
    env = make()
    env.action_space.seed(SEED)
    returns = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=10_000 + episode)
        total, ended = 0.0, False
        while not ended:
            observation, reward, terminated, truncated, _ = env.step(act(env, observation))
            total += float(reward)
            ended = terminated or truncated
        returns.append(total)
    env.close()
    return returns


def sampler(agent: pgest.PGAgent) -> Callable[[gymnasium.Env, Any], Any]:
    """Acts as training does: with a sample of the distribution."""
    policy = agent.collect_policy
    action = tf.function(lambda image: policy.action(pgest.restart(image, batch_size=1)).action)
    return lambda env, observation: int(action(tf.constant(observation[np.newaxis]))[0])


def append(policy: str, episode: str, timestep: int, returns: list[float]) -> None:
    """Appends a row: the mean return and its 95 % bootstrap interval."""
    if not returns:
        return
    drawn = np.random.default_rng(0).choice(returns, (2_000, len(returns))).mean(axis=1)
    figures = [np.mean(returns), *np.quantile(drawn, [0.025, 0.975])]
    row = [policy, episode, timestep, len(returns), *(round(float(f), 4) for f in figures)]
    tables.append(TABLE, COLUMNS, [dict(zip(COLUMNS, row, strict=True))])


def run(model_dir: str | None) -> None:
    """The whole benchmark; rows of an earlier one are removed."""
    TABLE.unlink(missing_ok=True)
    chance = lambda env, _: env.action_space.sample()  # noqa: E731
    append("random", "life", 0, play(life, chance, RANDOM_LIVES))
    append("random", "game", 0, play(game, chance, GAMES))
    agent = new_agent(model_dir)
    agent.train(pgest.make(life, num_envs=8), timesteps=TIMESTEPS, hooks=[Stretches()])
    append("pgest", "game", agent.global_timestep, play(game, sampler(agent), GAMES))


def report() -> None:
    """Writes the table and the plot of what there is."""
    lines, lives, chance = [], [], None
    for row in tables.read(TABLE):
        figures = [float(row[name]) for name in ("return_mean", "low", "high")]
        if row["episode"] == "game" or row["policy"] == "random":
            lines.append((row, figures))
        if row["episode"] == "life" and row["policy"] == "random":
            chance = figures
        elif row["episode"] == "life":
            lives.append((int(row["timestep"]), *figures, row))
    policies = {"random": "random actions", "pgest": "pgest, {:,} timesteps"}
    lines.insert(1, (lives[-1][-1], list(lives[-1][1:4])))
    table = tables.markdown(
        [
            {
                "policy": policies[row["policy"]].format(int(row["timestep"])),
                "episode": "a life, clipped" if row["episode"] == "life" else "a game",
                "episodes": row["count"],
                "mean return (95 %)": f"{mean:.2f} ({low:.2f} to {high:.2f})",
            }
            for row, (mean, low, high) in lines
        ]
    )
    print(table)
    tables.put(tables.DOCS / "algorithms" / "learning.md", "atari", table)
    plot(tables.DOCS / "algorithms" / "atari.svg", lives, chance)


def plot(path: Path, lives: list[Any], chance: list[float] | None) -> None:
    """The return of a life while training, with its interval, above that of random actions."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6.0, 3.2))
    timesteps, means, lows, highs = zip(*(point[:4] for point in lives), strict=True)
    axis.plot(timesteps, means, color="#d1495b", label="pgest")
    axis.fill_between(timesteps, lows, highs, color="#d1495b", alpha=0.2, linewidth=0)
    if chance is not None:
        axis.axhline(chance[0], color="#666666", linestyle="--", label="random actions")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("timesteps")
    axis.set_ylabel("clipped return of a life")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Runs, then reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir", help="where checkpoints go; by default nowhere")
    parser.add_argument("--report", action="store_true", help="table and plot of what there is")
    arguments = parser.parse_args()
    if not arguments.report:
        run(arguments.model_dir)
    report()


if __name__ == "__main__":
    main()
