"""Collecting alone: act, step, store, without any update, on one CartPole-v1.

    python benchmarks/collecting.py [--quick]

The peer is `collect_rollouts` of Stable-Baselines3's A2C. Both have its net, two separate ones of
64 x 64 tanh for policy and value, and store observation, action, reward, value, log-probability
and the ends of episodes; both hand over a batch after five timesteps, or after 2048. The value
that the last observation bootstraps from is a call of its own there; pgest's update computes it.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


import gymnasium
from support import measuring

import pgest
from pgest import models
from pgest.agents import loops
from pgest.environments import making
from pgest.tracing import acting


def pgest_collector(horizon: int):
    """Fills a RolloutMemory of `horizon` timesteps and empties it."""
    config = pgest.RunConfig(tf_random_seed=0, log_step_count_steps=None)
    agent = pgest.PGAgent(models.A2C(), pgest.RolloutMemory(horizon), config=config)
    view = making.view(gymnasium.make("CartPole-v1"), seed=0)
    actor = acting.Actor(agent.model, view.observation_space, view.action_space, view.num_envs)
    memory, counters = agent.memory, agent.counters
    loop = loops.HostLoop(actor, view, memory, counters)

    def collect() -> None:
        while not memory.can_sample():
            loops.play_episode(
                loop, memory.can_sample, counters.count_episode, counters.count_timestep
            )
        memory.sample()

    return collect


def peer_collector(horizon: int):
    """`collect_rollouts` of Stable-Baselines3's A2C."""
    import stable_baselines3
    import torch

    torch.set_num_threads(1)  # its better setting for nets of this size
    model = stable_baselines3.A2C(
        "MlpPolicy", gymnasium.make("CartPole-v1"), n_steps=horizon, seed=0, device="cpu"
    )
    _, callback = model._setup_learn(total_timesteps=10**9)
    return lambda: model.collect_rollouts(model.env, callback, model.rollout_buffer, horizon)


def piece(collect, horizon: int, timesteps: int):
    """Collects again and again, `timesteps` in all."""

    def work() -> int:
        for _ in range(timesteps // horizon):
            collect()
        return timesteps // horizon * horizon

    return work


def main() -> None:
    """Measures both horizons."""
    options = measuring.arguments(__doc__)
    rounds = 5 if options.quick else 15
    rows = []
    for horizon, timesteps in ((5, 500), (2048, 2048)):
        label = f"collecting, 1 environment, horizon {horizon}"
        if options.rows not in label:
            continue
        contestants = {
            "pgest": piece(pgest_collector(horizon), horizon, timesteps),
            "stable-baselines3": piece(peer_collector(horizon), horizon, timesteps),
        }
        timings = measuring.alternate(contestants, rounds)
        rows.append(measuring.compared(label, timings, "pgest", "stable-baselines3"))
    settings = {"net": "64x64 tanh, twice", "environment": "CartPole-v1", "goal": ">= 2.5x"}
    measuring.store("collecting", rows, settings)


if __name__ == "__main__":
    main()
