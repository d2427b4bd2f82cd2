"""Wrappers of gymnasium that keep running statistics, which no checkpoint and no export holds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

_HOLDERS = {
    gymnasium.wrappers.NormalizeObservation: "normalize_observation=True",
    gymnasium.wrappers.vector.NormalizeObservation: "normalize_observation=True",
    gymnasium.wrappers.NormalizeReward: "normalize_reward=True",
    gymnasium.wrappers.vector.NormalizeReward: "normalize_reward=True",
}


def warn_of_statistics(env: gymnasium.Env | VectorEnv) -> None:
    """Warns of a wrapper whose running mean and variance the model does not know.

    Args:
      env: an environment or a vector of them, as it was given or made.
    """
    for part in _parts(env):
        if type(part) in _HOLDERS:
            name = type(part).__name__
            warnings.warn(
                f"The environment is wrapped in {name}, whose running statistics no checkpoint "
                "holds: an evaluation environment, a run that goes on and an export see "
                f"other numbers than training did. Use pgest.models.PPO({_HOLDERS[type(part)]}) "
                "without the wrapper, or pgest.normalization in a model_fn of your own; they "
                "are saved and exported.",
                stacklevel=3,
            )


def _parts(env: Any) -> Iterator[Any]:
    """The environment, what it wraps, and the first of the environments of a vector."""
    while env is not None:
        yield env
        several = getattr(env, "envs", None)
        env = several[0] if several else getattr(env, "env", None)
