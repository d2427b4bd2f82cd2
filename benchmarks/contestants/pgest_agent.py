"""pgest, in the loop that the work asks for."""

from __future__ import annotations

import collections
import statistics
from typing import Any

import gymnasium
import tensorflow as tf
import tf_keras
from support import serving

import pgest
from pgest import graph_environments, models, networks

tf.zeros([1])  # TensorFlow is up before any clock runs


class Returns(pgest.BaseMonitor):
    """Keeps the returns of the latest hundred training episodes."""

    def __init__(self) -> None:
        self.latest: collections.deque[float] = collections.deque(maxlen=100)

    def after_run(self, context) -> None:
        """Notes the episodes that ended since the update before."""
        self.latest.extend(episode.total for episode in context.episodes[-100:])


class Looking(pgest.BaseMonitor):
    """Looks after each update and each episode whether there is something to do."""

    def begin(self, context) -> None:
        """Starts the clock."""
        self._timer = pgest.Every(steps=1000).timer(context)

    def after_run(self, context) -> None:
        """Now and then there is."""
        if self._timer.due(context):
            self.seen = context.timestep

    def after_episode(self, context) -> None:
        """The same."""
        self.after_run(context)


class Trainer:
    """A `PGAgent` that goes on training.

    Args:
      work: what to do.
      **settings: further ones of the `RunConfig`.

    Attributes:
      hooks: of each piece of training.
    """

    def __init__(self, work: serving.Work, **settings):
        config = pgest.RunConfig(
            tf_random_seed=0,
            log_step_count_steps=None,
            iterations_per_loop=work.iterations,
            **settings,
        )
        self._agent = pgest.PGAgent(
            model(work), memory(work), optimizer_params=update(work), config=config
        )
        self._env = environment(work)
        self._returns = Returns()
        self.hooks: list[pgest.BaseMonitor] = [
            self._returns,
            *(Looking() for _ in range(work.hooks)),
        ]

    @property
    def timesteps(self) -> int:
        """Taken so far."""
        return self._agent.global_timestep

    def train(self, timesteps: int) -> None:
        """Takes so many more."""
        self._agent.train(self._env, timesteps=timesteps, hooks=self.hooks)

    def recent_return(self) -> float | None:
        """The mean of the latest hundred episodes."""
        return statistics.fmean(self._returns.latest) if self._returns.latest else None


class TwoCells(models.PPO):
    """PPO with a cell for the policy and one for the value, as sb3-contrib's.

    Both go into one last layer side by side, the policy's half first.
    """

    def network(self, features):
        """Encoding, cell and hidden layers, of the policy and of the value."""
        encoded = self.encode(features, "encoder")
        halves, states = [], {}
        for part in ("policy", "value"):
            cell = tf_keras.layers.LSTMCell(self.cell_size, name=f"{part}_cell")
            hidden, states[part] = networks.unroll(cell, encoded, features, state_key=part)
            halves.append(networks.mlp(hidden, self.hidden_sizes, self.activation, name=part))
        return tf.concat(halves, axis=-1), states

    def distribution(self, hidden, features):
        """Of the policy's half."""
        return super().distribution(tf.split(hidden, 2, axis=-1)[0], features)

    def value(self, hidden, features):
        """Of the value's half."""
        return super().value(tf.split(hidden, 2, axis=-1)[1], features)


def model(work: serving.Work):
    """The ready-made model with the work's settings."""
    if work.algorithm == "REINFORCE":
        return models.VPG(baseline=False, learning_rate=work.learning_rate, clip_norm=None)
    if work.algorithm == "TRPO":
        return models.TRPO(
            learning_rate=work.learning_rate,
            critic_passes=work.epochs,
            critic_minibatch_size=work.minibatch_size,
        )
    kind = {"A2C": models.A2C, "PPO": models.PPO, "MaskablePPO": models.PPO}[work.algorithm]
    network: dict[str, Any] = {"hidden_sizes": (work.width, work.width)}
    if work.cell_size:
        kind = TwoCells
        network |= {"cell": "lstm", "cell_size": work.cell_size}
    if work.images:
        network = {"hidden_sizes": (), "share_network": True}
    return kind(
        learning_rate=work.learning_rate,
        entropy_weight=work.entropy_weight,
        value_weight=work.value_weight,
        value_clip_range=work.value_clip_range,
        **network,
    )


def memory(work: serving.Work):
    """Whole episodes, or a fixed horizon."""
    return pgest.RolloutMemory(work.horizon) if work.horizon else pgest.BatchMemory(
        episodes=work.episodes
    )  # fmt: skip


def update(work: serving.Work) -> dict:
    """What the agent does around the loss."""
    settings = {"discount": work.discount, "gae_lambda": work.gae_lambda}
    if work.algorithm == "A2C":
        return {**settings, "normalize_advantage": False}
    if work.algorithm == "TRPO":
        return settings  # epochs and minibatches are the model's, of the value alone
    return {**settings, "epochs": work.epochs, "minibatch_size": work.minibatch_size}


def environment(work: serving.Work):
    """The environments: on the host one, in a loop, native or EnvPool's; or in the graph."""
    if work.vectorization == "graph":
        return graph_environments.CartPole(num_envs=work.num_envs)
    if work.vectorization == "envpool":
        import envpool

        return envpool.make_gymnasium(work.environment, num_envs=work.num_envs, seed=0)
    if work.num_envs == 1:
        return gymnasium.make(work.environment)
    return pgest.make(work.environment, num_envs=work.num_envs, vectorization=work.vectorization)


if __name__ == "__main__":
    serving.serve(Trainer)
