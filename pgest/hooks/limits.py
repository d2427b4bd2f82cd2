"""Where a run ends."""

from __future__ import annotations

import dataclasses

from pgest.hooks import intervals


@dataclasses.dataclass(frozen=True)
class Limits:
    """Counts at which a run ends; absolute, None where there is no limit.

    Args:
      max_steps: the run ends when `global_step` has reached this.
      max_timesteps: the run ends when `global_timestep` has reached this.
      max_episodes: the run ends when `global_episode` has reached this.

    Example:
      >>> Limits(max_steps=100).tightened(max_steps=50, max_episodes=7)
      Limits(max_steps=50, max_timesteps=None, max_episodes=7)
    """

    max_steps: int | None = None
    max_timesteps: int | None = None
    max_episodes: int | None = None

    def tightened(
        self,
        *,
        max_steps: int | None = None,
        max_timesteps: int | None = None,
        max_episodes: int | None = None,
    ) -> Limits:
        """These limits and the given ones together: the smaller of each kind."""
        return Limits(
            max_steps=_smaller(self.max_steps, max_steps),
            max_timesteps=_smaller(self.max_timesteps, max_timesteps),
            max_episodes=_smaller(self.max_episodes, max_episodes),
        )

    def reached(self, context: intervals.Clocks) -> bool:
        """Whether any of the context's counters has come to its limit."""
        return (
            (self.max_steps is not None and context.step >= self.max_steps)
            or (self.max_timesteps is not None and context.timestep >= self.max_timesteps)
            or (self.max_episodes is not None and context.episode >= self.max_episodes)
        )


def _smaller(first: int | None, second: int | None) -> int | None:
    given = [limit for limit in (first, second) if limit is not None]
    return min(given) if given else None
