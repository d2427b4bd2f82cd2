"""Environments that give their whole state, and take it: `get_state()` and `set_state(state)`.

Runs in the processes of environments too: it imports numpy alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_NUMBERS = "biufc"  # kinds of arrays


def offers(env: Any) -> bool:
    """Whether an environment, its outermost wrapper that is, offers both.

    Methods of these names that want other arguments, or give something else than arrays or bytes,
    are others.

    Args:
        env: An environment that was reset.
    """
    return are_offered(env) and _is_state(env.get_state())


def are_offered(env: Any) -> bool:
    """Whether there are two methods of these names, and of these arguments."""
    get, take = getattr(env, "get_state", None), getattr(env, "set_state", None)
    return _takes(get, 0) and _takes(take, 1)


def _takes(method: Any, count: int) -> bool:
    try:
        inspect.signature(method).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def _is_state(state: Any) -> bool:
    if isinstance(state, Mapping) and state:
        parts = all(isinstance(key, str) for key in state) and state.values()
        return (
            bool(parts)
            and not any(isinstance(part, Mapping) for part in state.values())
            and all(map(_is_state, state.values()))
        )
    return isinstance(state, bytes) or (
        isinstance(state, (np.ndarray, np.generic)) and state.dtype.kind in _NUMBERS
    )


def leaves(states: Sequence[Any]) -> dict[str, np.ndarray]:
    """The states of B environments as numbers by name, ``own/<index>/…``."""
    found = {}
    for index, state in enumerate(states):
        if not _is_state(state):
            raise TypeError(
                f"get_state() of environment {index} gave {state!r:.200}, expected a numpy array, "
                "bytes, or a dict of these by strings, as it gave before."
            )
        parts = state if isinstance(state, Mapping) else {"": state}
        for name, part in parts.items():
            kind = "bytes" if isinstance(part, bytes) else "array"
            value = np.frombuffer(part, np.uint8) if isinstance(part, bytes) else np.array(part)
            found[f"own/{index}/{kind}/{name}"] = value
    return found


def of(saved: Mapping[str, np.ndarray], count: int) -> list[Any]:
    """The states of `count` environments that `leaves` took apart; empty where there are none."""
    states: list[dict[str, Any]] = [{} for _ in range(count)]
    for key, value in saved.items():
        if key.startswith("own/"):
            _, index, kind, name = key.split("/", 3)
            states[int(index)][name] = value.tobytes() if kind == "bytes" else value
    if not all(states):
        return []
    return [state.get("", state) for state in states]


def bring_back(env: Any, state: Any) -> tuple[str | None, Any]:
    """Gives an environment its state, and compares what it gives itself afterwards.

    Returns:
        None, or a clause that says what went wrong; and the observation that `set_state` returned,
        None if it returned none.
    """
    try:
        shown = env.set_state(state)
        again = env.get_state()
    except Exception as error:
        return f"it did not take its state back ({type(error).__name__}: {error})", None
    if not _same(state, again):
        return "after set_state(), get_state() gives another state", None
    return None, shown


def _same(first: Any, second: Any) -> bool:
    first, second = leaves([first]), leaves([second])
    return first.keys() == second.keys() and all(
        (value.dtype, value.shape) == (second[name].dtype, second[name].shape)
        and value.tobytes() == second[name].tobytes()
        for name, value in first.items()
    )
