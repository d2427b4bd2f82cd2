"""A cache of the values that were used most recently."""

from __future__ import annotations

import collections
from collections.abc import Hashable
from typing import Any


class LRUCache:
    """Forgets the least recently used value beyond `size`: those of TensorFlow hold their graphs.

    Example:
      >>> cache = LRUCache(2)
      >>> cache.put("a", 1), cache.put("b", 2), cache.get("a"), cache.put("c", 3)
      (None, None, 1, None)
      >>> cache.get("a"), cache.get("b"), cache.get("c")
      (1, None, 3)
    """

    def __init__(self, size: int):
        self._size = size
        self._values: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> Any:
        """The value, which is the most recent now; None where there is none."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: Hashable, value: Any) -> None:
        """Keeps a value."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)
