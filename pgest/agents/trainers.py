"""Which trainer drives which kind of environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgest.agents import (
    agreement,
    graph_training,
    runs,
    shared_graph_training,
    trainer,
    training,
)
from pgest.environments import making
from pgest.graph_environments import graph_environment


def prepared(agent: Any, env: Any, base: type) -> tuple[Any, Callable[[], trainer.Trainer]]:
    """Returns the view of `env`, and what makes the trainer for it.

    Args:
      agent: whose model trains.
      env: as `train` takes it.
      base: the agent's class whose `run_episode` a subclass may override.

    Raises:
      ValueError: an override of `run_episode` together with several environments, or what several
        workers cannot train on.
    """
    if isinstance(env, graph_environment.GraphEnvironment):
        runs.check_override(type(agent), base, env.num_envs)
        kind = graph_training.GraphTrainer
        if agent.model.workers is not None:
            agreement.check_trainable(agent, base)
            kind = shared_graph_training.SharedGraphTrainer
        return env, lambda: kind(agent, env)
    view = making.view(env, seed=agent.model.seed)
    if view.is_vector:
        runs.check_override(type(agent), base, view.num_envs)
    if agent.model.workers is not None:
        agreement.check_trainable(agent, base)
    return view, lambda: training.HostTrainer(agent, view, env)
