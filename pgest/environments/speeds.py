"""Which way of stepping many environments is the fastest here: measured, not guessed."""

from __future__ import annotations

import dataclasses
import numbers
import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from pgest.environments import making
from pgest.environments.view import EnvironmentFailure, EnvironmentView

_VECTORIZATIONS: tuple[making.Vectorization, ...] = ("sync", "async", "native")
_ACTIONS = 64  # different batches of random actions, drawn beforehand


@dataclasses.dataclass(frozen=True)
class EnvironmentSpeed:
    """How fast one way of stepping environments is, without any policy.

    Attributes:
      vectorization: as `pgest.make` takes it.
      timesteps_per_second: of all environments together; 0 where there is no such way.
      failure: why there is none, else None.
    """

    vectorization: making.Vectorization
    timesteps_per_second: float
    failure: str | None = None

    def __str__(self) -> str:
        if self.failure is not None:
            return f"{self.vectorization:<8} {self.failure}"
        return f"{self.vectorization:<8} {self.timesteps_per_second:>12,.0f} timesteps/s"


def measure_environments(
    env_or_factory: str | making.Factory,
    num_envs: int,
    *,
    vectorizations: Sequence[making.Vectorization] = _VECTORIZATIONS,
    seconds: float = 1.0,
    **kwargs: Any,
) -> list[EnvironmentSpeed]:
    """Steps environments with random actions in each way that `pgest.make` has.

    Which way is the fastest depends on the environment and on the machine: processes pay where a
    step takes long and there are cores, an environment's own vector form nearly always. Where
    other work runs beside it, what is measured is that machine. A script needs the usual `if
    __name__ == "__main__":` around it, as "async" starts processes.

    Args:
      env_or_factory: an id, or what makes one environment.
      num_envs: how many at once.
      vectorizations: the ways to try.
      seconds: how long each is stepped.
      **kwargs: for `gymnasium.make`, or for the factory.

    Returns:
      The fastest first; those that the environment does not have last, with the reason.

    Raises:
      ValueError: `seconds` is not positive, `num_envs` is below 1, or a way is unknown.
      TypeError: `env_or_factory` is neither an id nor callable.

    Example:

    >>> speeds = measure_environments("CartPole-v1", 4, vectorizations=["sync"], seconds=0.01)
    >>> speeds[0].vectorization, speeds[0].timesteps_per_second > 0
    ('sync', True)
    """
    if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real) or not seconds > 0:
        raise ValueError(f"seconds is {seconds!r}, expected a positive number.")
    unknown = [way for way in vectorizations if way not in _VECTORIZATIONS]
    if unknown:
        raise ValueError(f"vectorizations has {unknown}, expected any of {list(_VECTORIZATIONS)}.")
    found = [
        _measured(env_or_factory, num_envs, vectorization, float(seconds), kwargs)
        for vectorization in vectorizations
    ]
    return sorted(found, key=lambda speed: -speed.timesteps_per_second)


def _measured(
    env_or_factory: str | making.Factory,
    num_envs: int,
    vectorization: making.Vectorization,
    seconds: float,
    kwargs: dict[str, Any],
) -> EnvironmentSpeed:
    if vectorization == "native" and not isinstance(env_or_factory, str):
        return EnvironmentSpeed(vectorization, 0.0, "of an id only, and a factory was given")
    try:
        with making.make(
            env_or_factory, num_envs, vectorization=vectorization, seed=0, **kwargs
        ) as view:
            return EnvironmentSpeed(vectorization, _speed(view, seconds))
    except (gymnasium.error.Error, EnvironmentFailure) as error:
        return EnvironmentSpeed(vectorization, 0.0, str(error))


def _speed(view: EnvironmentView, seconds: float) -> float:
    """Timesteps a second; what draws actions that a mask allows is not timed."""
    space = batch_space(view.action_space, view.num_envs)
    space.seed(0)
    drawn = [space.sample() for _ in range(_ACTIONS)]
    view.observe()
    before, stepping, calls = view.timestep, 0.0, 0
    while stepping < seconds:
        action = _allowed(view, drawn[calls % _ACTIONS])
        started = time.perf_counter()
        view.step(action)
        view.observe()  # starts the next episode where the step has not
        stepping += time.perf_counter() - started
        calls += 1
    return (view.timestep - before) / stepping


def _allowed(view: EnvironmentView, drawn: Any) -> Any:
    """Random actions `[B, ...]`: `drawn`, or others where masks say what is allowed."""
    if view.action_mask is None:
        return drawn
    rows = [
        view.action_space.sample(mask=_row(view.action_mask, index))
        for index in range(view.num_envs)
    ]
    empty: Any = create_empty_array(view.action_space, view.num_envs)
    return concatenate(view.action_space, rows, empty)


def _row(mask: Any, index: int) -> Any:
    """One environment's mask in gymnasium's terms."""
    if isinstance(mask, dict):
        return {key: _row(part, index) for key, part in mask.items()}
    if isinstance(mask, tuple):
        return tuple(_row(part, index) for part in mask)
    return mask[index].astype(np.int8)
