"""Which trainer drives which kind of environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgest.agents import graph_training, runs, trainer, training
from pgest.environments import making
from pgest.graph_environments import graph_environment


def prepared(agent: Any, env: Any, base: type) -> tuple[Any, Callable[[], trainer.Trainer]]:
    """Returns the view of `env`, and what makes the trainer for it.

    Args:
      agent: whose model trains.
      env: as `train` takes it.
      base: the agent's class whose `run_episode` a subclass may override.

    Raises:
      ValueError: an override of `run_episode` together with several environments.
    """
    if isinstance(env, graph_environment.GraphEnvironment):
        runs.check_override(type(agent), base, env.num_envs)
        return env, lambda: graph_training.GraphTrainer(agent, env)
    view = making.view(env, seed=agent.model.seed)
    if view.is_vector:
        runs.check_override(type(agent), base, view.num_envs)
    return view, lambda: training.HostTrainer(agent, view, env)
