"""Warnings that point at the line of the user's that called, however deep they arise."""

from __future__ import annotations

import inspect
import warnings


def warn(message: str) -> None:
    """A `UserWarning` at the newest line outside of pgest, which may be in a hook or a model_fn.

    A fixed `stacklevel` would point elsewhere as soon as a function on the way is wrapped.
    """
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == "pgest":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
