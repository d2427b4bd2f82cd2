"""Numbers of timesteps and episodes, checked where a user gives them."""

from __future__ import annotations

import numbers
from typing import Any


def check_size(name: str, value: Any) -> int | None:
    """Returns a positive integer or None; raises what `BatchMemory` says otherwise."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; expected a positive integer.")
    if value <= 0:
        raise ValueError(f"{name} is {value}; expected a positive integer.")
    return int(value)
