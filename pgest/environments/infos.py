"""The numbers in infos: of one environment, and in gymnasium's batched infos of many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def numeric_items(info: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one environment's info as floats, nested ones as ``"outer/inner"``.

    >>> numeric_items({"won": True, "name": "x", "episode": {"r": 2.0, "l": 3}})
    {'won': 1.0, 'episode/r': 2.0, 'episode/l': 3.0}
    """
    return dict(_numbers(info))


def as_number(value: Any) -> float | None:
    """A real number (Python's, numpy's, an array of one) as a float; None for anything else.

    >>> as_number(np.array([3])), as_number("3")
    (3.0, None)
    """
    if isinstance(value, (bool, int, float)):
        return float(value)
    is_array = isinstance(value, (np.generic, np.ndarray))
    if is_array and value.size == 1 and value.dtype.kind in "biuf":
        return float(value.item())
    return None


def _numbers(info: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in info.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}/{name}", number) for name, number in _numbers(value))
        elif (number := as_number(value)) is not None:
            yield str(key), number


def columns(
    infos: Mapping[Any, Any], num_envs: int, prefix: str = "", masks: tuple[Any, ...] = ()
) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """The name, the batched values and the masks of each entry of gymnasium's batched infos.

    Beside ``key`` stands a mask ``_key`` of the environments that have it, at every level. What
    does not have one value per environment is left out.
    """
    named = {str(key): values for key, values in infos.items()}
    for key, values in named.items():
        if key in ("final_obs", "final_info") or (key[:1] == "_" and key[1:] in named):
            continue
        present = (*masks, named[f"_{key}"]) if f"_{key}" in named else masks
        if isinstance(values, Mapping):
            yield from columns(values, num_envs, f"{prefix}{key}/", present)
        elif _has_rows(values, num_envs):
            yield prefix + key, values, present


def _has_rows(values: Any, num_envs: int) -> bool:
    is_sequence = isinstance(values, list) or (isinstance(values, np.ndarray) and values.ndim > 0)
    return is_sequence and len(values) == num_envs


def numbers(values: Any, rows: np.ndarray) -> list[float | None]:
    """What `as_number` gives of some rows; all at once, since hundreds may end together."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf" and values.ndim == 1:
        return values[rows].astype(np.float64).tolist()
    return [as_number(values[row]) for row in rows]
