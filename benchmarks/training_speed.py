"""Training, updates and all, beside the peers.

    python benchmarks/training_speed.py [--quick] [--rows "8 environments"]

Host loops: Stable-Baselines3 with the same algorithm, net (64 x 64 tanh, twice), horizon and
hyper-parameters on the same environments. In the graph: PPO with PureJaxRL's settings, by itself.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses

import gymnasium
from support import measuring

import pgest
from pgest import graph_environments, models

_ID = "CartPole-v1"


@dataclasses.dataclass(frozen=True)
class Work:
    """One row: an algorithm on so many environments."""

    algorithm: str
    num_envs: int
    horizon: int
    timesteps: int
    native: bool = False

    @property
    def label(self) -> str:
        """What the table calls it."""
        kind = " (gymnasium's native vector)" if self.native else ""
        return f"{self.algorithm}, {self.horizon} steps, {self.num_envs} environments{kind}"


HOST = (
    Work("A2C", 1, 5, 500),
    Work("A2C", 8, 5, 4000),
    Work("PPO", 8, 32, 2560),
    Work("A2C", 256, 5, 12800),
    Work("A2C", 256, 5, 25600, native=True),
)
IN_GRAPH = (4, 64, 512, 2048)


def pgest_trainer(work: Work):
    """An agent that goes on training, `work.timesteps` at a time."""
    config = pgest.RunConfig(tf_random_seed=0, log_step_count_steps=None)
    memory = pgest.RolloutMemory(work.horizon)
    if work.algorithm == "A2C":
        settings = {"discount": 0.99, "gae_lambda": 1.0, "normalize_advantage": False}
        agent = pgest.PGAgent(
            models.A2C(entropy_weight=0.0), memory, optimizer_params=settings, config=config
        )
    else:
        settings = {"discount": 0.98, "gae_lambda": 0.8, "epochs": 20, "minibatch_size": 256}
        model = models.PPO(learning_rate=1e-3, entropy_weight=0.0)
        agent = pgest.PGAgent(model, memory, optimizer_params=settings, config=config)
    return training(agent, host_environment(work), work.timesteps)


def host_environment(work: Work):
    """CartPole-v1: one, one after the other in this process, or gymnasium's own vector of it."""
    if work.num_envs == 1:
        return gymnasium.make(_ID)
    return pgest.make(
        _ID, num_envs=work.num_envs, vectorization="native" if work.native else "sync"
    )


def training(agent: pgest.PGAgent, env, timesteps: int):
    """A piece of training; returns how many timesteps it took."""

    def piece() -> int:
        before = agent.global_timestep
        agent.train(env, timesteps=timesteps)
        return agent.global_timestep - before

    return piece


def peer_trainer(work: Work):
    """Stable-Baselines3's learner of the same; its environments are always Python's."""
    import stable_baselines3
    from stable_baselines3.common import env_util

    env = env_util.make_vec_env(_ID, n_envs=work.num_envs, seed=0)
    settings = {"n_steps": work.horizon, "seed": 0, "device": "cpu"}
    if work.algorithm == "A2C":
        model = stable_baselines3.A2C("MlpPolicy", env, **settings)
    else:
        model = stable_baselines3.PPO(
            "MlpPolicy", env, learning_rate=1e-3, batch_size=256, n_epochs=20, gamma=0.98,
            gae_lambda=0.8, **settings
        )  # fmt: skip

    def piece() -> int:
        before = model.num_timesteps
        model.learn(work.timesteps, reset_num_timesteps=False)
        return model.num_timesteps - before

    return piece


def graph_trainer(num_envs: int, updates: int):
    """PPO whose environments are in the graph; PureJaxRL's settings."""
    config = pgest.RunConfig(
        tf_random_seed=0, log_step_count_steps=None, iterations_per_loop=updates
    )
    settings = {
        "discount": 0.99, "gae_lambda": 0.95, "epochs": 4, "minibatch_size": num_envs * 128 // 4
    }  # fmt: skip
    model = models.PPO(learning_rate=2.5e-4, entropy_weight=0.01)
    memory = pgest.RolloutMemory(128)
    agent = pgest.PGAgent(model, memory, optimizer_params=settings, config=config)
    env = graph_environments.CartPole(num_envs=num_envs)
    return training(agent, env, num_envs * 128 * updates)


def main() -> None:
    """Measures the rows that were asked for."""
    options = measuring.arguments(__doc__)
    rounds = 3 if options.quick else 9
    rows = []
    for work in HOST:
        if options.rows in work.label:
            contestants = {"pgest": pgest_trainer(work), "stable-baselines3": peer_trainer(work)}
            timings = measuring.alternate(contestants, rounds)
            rows.append(measuring.compared(work.label, timings, "pgest", "stable-baselines3"))
    for num_envs in IN_GRAPH:
        label = f"PPO in the graph, {num_envs} environments"
        if options.rows in label:
            updates = max(1, (20_000 if options.quick else 100_000) // (num_envs * 128))
            timing = measuring.alternate({"pgest": graph_trainer(num_envs, updates)}, rounds)
            rate = round(timing["pgest"].rate)
            rows.append({"work": label, "pgest timesteps/s": rate, "pieces": rounds})
    measuring.store("training_speed", rows, {"net": "64x64 tanh, twice", "environment": _ID})


if __name__ == "__main__":
    main()
