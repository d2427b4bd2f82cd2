"""Means over the episodes that ended since one last looked."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

from pgest.contract import episodes

# Keys of an environment's info that would hide pgest's own tags.
_RESERVED = frozenset({"return", "length"})


class EpisodeMeans:
    """Sums up finished episodes in constant memory.

    Example:
      >>> means = EpisodeMeans()
      >>> means.add(episodes.EpisodeStatistics(total=10.0, length=4, max=5.0, min=0.0, avg=2.5))
      >>> means.add(episodes.EpisodeStatistics(
      ...     total=20.0, length=6, max=5.0, min=0.0, avg=3.3, info={"is_success": 1.0}))
      >>> means.take()
      {'episode/return': 15.0, 'episode/length': 5.0, 'episode/is_success': 1.0}
      >>> means.take()
      {}
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = collections.defaultdict(float)
        self._counts: dict[str, int] = collections.defaultdict(int)

    def add(self, episode: episodes.EpisodeStatistics) -> None:
        """Takes one episode in; one that was cut short (`complete=False`) does not count."""
        if not episode.complete:
            return
        self._add("episode/return", episode.total)
        self._add("episode/length", episode.length)
        for key, value in episode.info.items():
            self._add(f"episode/info/{key}" if key in _RESERVED else f"episode/{key}", value)

    def take(self) -> dict[str, float]:
        """The means by tag, each over the episodes that have it; starts afresh afterwards."""
        means = {tag: total / self._counts[tag] for tag, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means

    def state(self) -> dict[str, list[float]]:
        """Sum and count by tag."""
        return {tag: [total, self._counts[tag]] for tag, total in self._sums.items()}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Goes on with what `state` gave."""
        for tag, (total, count) in state.items():
            self._sums[tag], self._counts[tag] = total, int(count)

    def _add(self, tag: str, value: float) -> None:
        self._sums[tag] += float(value)
        self._counts[tag] += 1
