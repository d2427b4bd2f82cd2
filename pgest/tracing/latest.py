"""What was used latest, by key."""

from __future__ import annotations

import collections
from collections.abc import Hashable
from typing import Any


class Latest:
    """Keeps the `limit` values that were used latest; a value of TensorFlow's holds its graph.

    Example:
      >>> latest = Latest(2)
      >>> latest.keep("a", 1), latest.keep("b", 2), latest.get("a"), latest.keep("c", 3)
      (None, None, 1, None)
      >>> latest.get("a"), latest.get("b"), latest.get("c")
      (1, None, 3)
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._values: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> Any:
        """The value, which is the latest now; None where there is none."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def keep(self, key: Hashable, value: Any) -> None:
        """Keeps a value, and forgets the one that was used longest ago beyond the limit."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._limit:
            self._values.popitem(last=False)
