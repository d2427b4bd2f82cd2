"""What ``reset()`` and ``step()`` have to give, and one sentence for what they give instead.

gymnasium's API: ``reset()`` gives ``(observation, info)``, ``step()`` gives ``(observation, reward,
terminated, truncated, info)``; a reward is one number, the flags are bools, an info is a dict.

Imports numpy and gymnasium alone: it is sent by value to the processes of asynchronous
environments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pgest.environments.spaces import Misfit


class WrongResult(Misfit):
    """What ``reset()`` or ``step()`` gave is not what gymnasium says; the message says what."""


FLOAT32_MAX = float(np.finfo(np.float32).max)
_STEP = "step() gives five values: observation, reward, terminated, truncated, info"
_RESET = "reset() gives two values: observation, info"
_OLD = " (wrap one of the old API in shimmy's GymV21CompatibilityV0)"


def reset_values(result: Any) -> tuple[Any, Any]:
    """The observation and the info that ``reset()`` gave.

    Raises:
        WrongResult: It gave something else.
    """
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise WrongResult(f"gave {_shown(result)} from reset(), gymnasium's {_RESET}")
    observation, info = result
    if info.__class__ is not dict:
        _expect_mapping(info, "reset")
    return observation, info


def step_values(result: Any) -> tuple[Any, float, bool, bool, Any]:
    """What ``step()`` gave: observation, reward, terminated, truncated and info.

    Raises:
        WrongResult: It gave something else.

    >>> step_values((np.zeros(2), np.array([1]), np.bool_(False), 1, {}))[1:4]
    (1.0, False, True)
    """
    if not isinstance(result, (tuple, list)) or len(result) != 5:
        raise WrongResult(f"gave {_shown(result)} from step(), gymnasium's {_STEP}{_hint(result)}")
    observation, reward, terminated, truncated, info = result
    if reward.__class__ is not float or not -FLOAT32_MAX <= reward <= FLOAT32_MAX:
        reward = number(reward)
    if terminated.__class__ is not bool:
        terminated = flag("terminated", terminated)
    if truncated.__class__ is not bool:
        truncated = flag("truncated", truncated)
    if info.__class__ is not dict:
        _expect_mapping(info, "step")
    return observation, reward, terminated, truncated, info


def number(reward: Any) -> float:
    """A reward as a float.

    Raises:
        WrongResult: It is not one number, or float32 cannot hold it.

    >>> number(np.array([2]))
    2.0
    """
    if not isinstance(reward, (int, float)):
        array = _array(reward)
        if array.dtype.kind not in "biuf":
            raise WrongResult(f"gave the reward {reward!r}, expected one number")
        if array.size != 1:
            raise WrongResult(
                f"gave a reward of shape {array.shape}, expected one number (of several "
                "objectives: gymnasium.Wrapper, or mo-gymnasium's LinearReward, makes one)"
            )
        reward = array.item()
    try:
        value = float(reward)
    except OverflowError:  # of Python's integers
        value = math.inf if reward > 0 else -math.inf
    if not -FLOAT32_MAX <= value <= FLOAT32_MAX:
        shown = value if isinstance(reward, int) else reward
        raise WrongResult(f"gave the reward {shown}{'' if _is_special(reward) else _TOO_LARGE}")
    return value


def flag(name: str, value: Any) -> bool:
    """A done flag as a bool; 0 and 1 are taken, as old environments give them.

    Args:
        name: ``"terminated"`` or ``"truncated"``.
        value: What the environment gave.

    Raises:
        WrongResult: It is no bool.
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    array = _array(value)
    if array.size == 1 and array.dtype.kind in "biuf" and array.item() in (0, 1):
        return bool(array.item())
    raise WrongResult(f"gave {name}={value!r}, expected a bool")


def rewards(raw: Any, num_envs: int) -> np.ndarray:
    """The rewards of a vector environment as new float32 ``[B]``; not yet checked to be finite.

    Raises:
        WrongResult: There is not one number for each environment.
    """
    if raw.__class__ is np.ndarray and raw.dtype == np.float32 and raw.shape == (num_envs,):
        return raw.copy()
    array = _array(raw)
    if array.dtype.kind not in "biuf":
        raise WrongResult(f"gave the rewards {raw!r}, expected one number for each environment")
    if array.size != num_envs:
        shape = array.shape[1:] if array.shape[:1] == (num_envs,) else array.shape
        raise WrongResult(f"gave a reward of shape {shape}, expected one number")
    with np.errstate(over="ignore"):  # what is too large is infinite, and told apart later
        return np.array(array, np.float32).reshape(num_envs)


def flags(name: str, raw: Any, num_envs: int) -> np.ndarray:
    """The done flags of a vector environment as new bool ``[B]``.

    Raises:
        WrongResult: There is not one bool for each environment.
    """
    if raw.__class__ is np.ndarray and raw.dtype == np.bool_ and raw.shape == (num_envs,):
        return raw.copy()
    array = _array(raw)
    if array.dtype.kind != "b":
        is_number = array.dtype.kind in "iuf"
        wrong = ~((array == 0) | (array == 1)) if is_number else np.ones(array.shape, np.bool_)
        if wrong.any():
            found = array[wrong].ravel()[:1].tolist()[0]
            raise WrongResult(f"gave {name}={found!r}, expected a bool for each environment")
    if array.size != num_envs:
        raise WrongResult(f"gave {name} of shape {array.shape}, expected {(num_envs,)}")
    return np.array(array, np.bool_).reshape(num_envs)


def batch_values(
    result: Any, num_envs: int
) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Mapping[str, Any]]:
    """What ``step()`` of a vector environment gave: `step_values` of B.

    Args:
        result: What it gave.
        num_envs: B.

    Raises:
        WrongResult: It gave something else.
    """
    if not isinstance(result, (tuple, list)) or len(result) != 5:
        raise WrongResult(f"gave {_shown(result)} from step(), gymnasium's {_STEP}{_hint(result)}")
    observation, reward, terminated, truncated, infos = result
    if infos.__class__ is not dict:
        _expect_mapping(infos, "step")
    return (
        observation,
        rewards(reward, num_envs),
        flags("terminated", terminated, num_envs),
        flags("truncated", truncated, num_envs),
        infos,
    )


def too_large(raw: Any, index: int) -> str:
    """What to say of a reward that is not finite in float32: as it was given, and why.

    >>> too_large(np.array([1.0, 1e39]), 1)
    '1e+39, which float32 cannot hold: scale the rewards'
    """
    value = _array(raw).reshape(-1)[index].item()
    return f"{value}{'' if _is_special(value) else _TOO_LARGE}"


_TOO_LARGE = ", which float32 cannot hold: scale the rewards"


def _is_special(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _array(value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError):  # of several lengths, or with a mind of its own
        return np.asarray(None)


def _expect_mapping(info: Any, method: str) -> None:
    if not isinstance(info, Mapping):
        raise WrongResult(f"gave the info {info!r} from {method}(), expected a dict")


def _shown(result: Any) -> str:
    if isinstance(result, (tuple, list)):
        return f"{len(result)} values"
    return f"one {type(result).__name__}"


def _hint(result: Any) -> str:
    if isinstance(result, (tuple, list)) and len(result) == 4:
        return _OLD
    if isinstance(result, (tuple, list)) and len(result) == 6:
        return " (a cost beside the reward belongs into info)"
    return ""
