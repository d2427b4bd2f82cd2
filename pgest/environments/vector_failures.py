"""Which environment of gymnasium's vector environments failed, and what gymnasium hides of it."""

from __future__ import annotations

import traceback
from types import FrameType
from typing import Any

from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from pgest.environments.spaces import BatchedArray, BatchedNest, Misfit

# What Python and numpy say of a result that is not as gymnasium's vector environments take it.
_STUMBLES = (
    "values to unpack",
    "cannot unpack",
    "setting an array element",
    "0-dimensional arrays",
    "float() argument must be",
    "could not convert string to float",
    "int too large to convert to float",
)


def failed_index(env: VectorEnv, error: Exception) -> int | None:
    """Which environment raised, as far as gymnasium lets one know."""
    unwrapped = env.unwrapped
    if isinstance(unwrapped, AsyncVectorEnv):  # it drops the pipes of those that failed
        failed = [index for index, pipe in enumerate(unwrapped.parent_pipes) if pipe is None]
        return failed[0] if failed else None
    frames = _frames_from(unwrapped, error)
    if not frames or "i" not in frames[0].f_locals or is_after_the_loop(env, error):
        return None
    return int(frames[0].f_locals["i"])  # SyncVectorEnv loops over them with the index `i`


def is_after_the_loop(env: VectorEnv, error: Exception) -> bool:
    """Whether a SyncVectorEnv failed when it put the observations of all into one array."""
    return any(
        frame.f_code.co_name.startswith("_concatenate")
        and frame.f_globals.get("__name__", "").startswith("gymnasium.vector.utils")
        for frame in _frames_from(env.unwrapped, error)[1:4]
    )


def hint(env: VectorEnv, error: Exception) -> str:
    """What gymnasium's API gives, where SyncVectorEnv itself stumbled over what came instead."""
    frames = _frames_from(env.unwrapped, error)
    if not frames:
        return ""
    if frames[-1].f_code.co_name == "_add_info" and "'items'" in str(error):
        return " (in gymnasium's API the info, the last value of reset() and step(), is a dict)"
    if len(frames) != 1 or not any(words in str(error) for words in _STUMBLES):
        return ""
    if frames[0].f_code.co_name == "reset":
        return " (in gymnasium's API reset() gives two values: observation, info)"
    return (
        " (in gymnasium's API step() gives five values: observation, reward, terminated, "
        "truncated, info; the reward is one number, the flags are bools)"
    )


def misfit(env: VectorEnv, observations: BatchedArray | BatchedNest) -> Misfit | None:
    """What does not fit of the first observation of a SyncVectorEnv that does not fit its space.

    The environments' own observations are still there after they were put into one array, which
    wraps integers round in silence.

    Args:
        env: The vector environment.
        observations: The array work for its observation space.
    """
    if not isinstance(env.unwrapped, SyncVectorEnv):
        return None
    given: Any = getattr(env.unwrapped, "_env_obs", ())
    for index, observation in enumerate(given):
        if observation is None:  # it was not its turn yet
            continue
        try:
            observations.check(observation)
        except Misfit as error:
            error.index = index
            return error
    return None


def _frames_from(env: Any, error: Exception) -> list[FrameType]:
    """The frames of the traceback from the first one within a SyncVectorEnv's own method."""
    if not isinstance(env, SyncVectorEnv):
        return []
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for place, frame in enumerate(frames):
        if frame.f_locals.get("self") is env:
            return frames[place:]
    return []
