"""Libraries that are optional: imported when they are first needed."""

from __future__ import annotations

import importlib
from typing import Any


def imported(name: str, user: str, extra: str) -> Any:
    """Imports a module that one of pgest's extras brings.

    Args:
      name: of the module.
      user: what needs it, for the message.
      extra: what `pip install 'pgest[<extra>]'` calls it.

    Raises:
      ImportError: it cannot be imported; says what to install.

    Example:
      >>> imported("nowhere", "A test", "plot")
      Traceback (most recent call last):
      ImportError: A test needs nowhere, which is not installed: pip install 'pgest[plot]'
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{user} needs {package}, which is not installed: pip install 'pgest[{extra}]'"
        ) from error
    except Exception as error:  # one library does not fit another, as rliable's arch pandas 3
        raise ImportError(
            f"{user} needs {package}, which cannot be imported ({type(error).__name__}: {error}). "
            f"In an environment of its own, pip install 'pgest[{extra}]' finds versions that fit."
        ) from error
