"""What a run is made of, by name, for those who compare runs."""

from __future__ import annotations

from typing import Any

from pgest.contract import reports
from pgest.environments import view
from pgest.memory import memory as memory_lib


def hyperparameters(agent: Any, environment: Any = None) -> dict[str, Any]:
    """What a sweep may vary, by name.

    Args:
      agent: a `PGAgent`.
      environment: what a run trains in; None: there is no run.

    Returns:
      The model's name, the seed, the memory and its size; of a run the environment and how many
      there are; the update's settings, the fields of a ready-made model, and the user's params,
      which nothing hides.
    """
    model_fn = agent.model.model_fn
    found = {
        "algorithm": model_fn.name,
        "seed": agent.model.seed,
        "memory": type(agent.memory).__name__,
        **_size(agent.memory),
    }
    if environment is not None:
        given = environment.env if isinstance(environment, view.EnvironmentView) else environment
        found["environment"] = view.describe(given)
        found["num_envs"] = int(getattr(environment, "num_envs", 1))
    return {**found, **vars(agent.update_config), **model_fn.hyperparameters, **agent.params}


def _size(memory: memory_lib.BatchMemory) -> dict[str, int]:
    """When a memory is full, by the name of its argument."""
    for name in ("horizon", "episodes", "batch_size"):
        size = getattr(memory, name, None)
        if size is not None:
            return {name: size}
    return {}


def _settings(agent: Any) -> dict[str, Any]:
    return {
        "model_fn": agent.model.model_fn,
        "params": agent.params,
        "memory": agent.memory,
        "optimizer_params": agent.update_config,
        "model_dir": agent.model_dir,
        "tf_random_seed": agent.model.seed,
    }


def described(agent: Any) -> str:
    """The settings of an agent, a line each; nothing is built or read for it."""
    lines = (f"  {name}: {value}" for name, value in _settings(agent).items())
    return "\n".join([type(agent).__name__, *lines])


def described_html(agent: Any) -> str:
    """The same as a table for notebooks."""
    return reports.settings_table(type(agent).__name__, _settings(agent))
