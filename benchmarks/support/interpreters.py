"""The Pythons that the peers run on; `make bench` makes those that are missing."""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent


class NotAvailableError(Exception):
    """There is no interpreter with that peer; the message says how to get one."""


def python_with(peer: str, variable: str) -> str:
    """The path of the Python that has a peer.

    Args:
      peer: the name of its virtual environment in `.venvs`.
      variable: the environment variable that names another Python.

    Raises:
      NotAvailableError: there is none.
    """
    given = os.environ.get(variable)
    path = Path(given) if given else _ROOT / ".venvs" / peer / "bin" / "python"
    if not path.exists():
        raise NotAvailableError(f"no {path}: `make bench` makes it, or set {variable}")
    return str(path)
