"""What is known of an episode once it has ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class EpisodeStatistics:
    """Statistics of one episode, or of the part of it that was played.

    Attributes:
      total: the undiscounted sum of its rewards (the return).
      length: its timesteps.
      max: its largest reward; NaN of in-graph environments, which do not keep it.
      min: its smallest reward; NaN likewise.
      avg: its mean reward a timestep.
      rewards: every reward in order; only `PGAgent.run_episode` fills it, elsewhere empty. Of an
        episode under way it is the list that grows with it.
      loss: the loss of the last update before it ended; None before the first.
      complete: False where a limit, or a full memory, cut it before the environment ended it.
      terminated: the environment reached a terminal state.
      truncated: a time limit ended it.
      env_index: which of the environments played it.
      info: the numeric entries of the environment's last `info`.
    """

    total: float
    length: int
    max: float
    min: float
    avg: float
    rewards: Sequence[float] = ()
    loss: float | None = None
    complete: bool = True
    terminated: bool = False
    truncated: bool = False
    env_index: int = 0
    info: Mapping[str, float] = dataclasses.field(default_factory=dict)
