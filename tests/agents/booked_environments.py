"""An environment that keeps a book of what was done to it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SPACES = {
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "double": spaces.Box(-2.0, 3.0, (1,), np.float64),
    "bytes": spaces.Box(0, 255, (3,), np.uint8),
    "discrete": spaces.Discrete(3),
    "switches": spaces.MultiBinary(2),
    "several": spaces.MultiDiscrete([2, 3]),
    "nest": spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1.0, 1.0, (1,), np.float32)}),
}
ACTIONS = ("box", "double", "discrete", "switches", "several")


class BookedEnv(gymnasium.Env):
    """Writes down every timestep: its reward, whether it ended the episode, and how.

    All that it gives is a function of the seeds of its resets and of its actions.
    """

    def __init__(self, observation_space, action_space, episodes):
        self.observation_space, self.action_space = observation_space, action_space
        self.episodes = episodes  # (length, truncates), drawn from
        self.book: list[tuple[float, bool, bool]] = []
        self.actions: list[Any] = []
        self.episode, self.offset, self.steps = episodes[0], 0, 0

    def observe(self):
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode = self.episodes[int(self.np_random.integers(len(self.episodes)))]
        self.offset, self.steps = int(self.np_random.integers(101)), 0
        return self.observe(), {}

    def step(self, action):
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.steps += 1
        length, truncates = self.episode
        ended = self.steps >= length
        # Float32 holds each of them exactly.
        of_action = int(np.sum(np.asarray(action, np.float64)) * 10) % 7
        reward = float((self.offset + self.steps * 37 + of_action) % 101 - 50)
        self.book.append((reward, ended and not truncates, ended and truncates))
        self.actions.append(np.asarray(action).tolist())
        return self.observe(), reward, *self.book[-1][1:], {"steps": self.steps}


def episodes_of(book, begun_anew=()):
    """(return, length, terminated, truncated) of the episodes of a book that ended.

    Args:
      book: of one environment.
      begun_anew: before which timesteps an episode was dropped.
    """
    found, total, length = [], 0.0, 0
    for at, (reward, terminated, truncated) in enumerate(book):
        if at in begun_anew:
            total, length = 0.0, 0
        total, length = total + reward, length + 1
        if terminated or truncated:
            found.append((total, length, terminated, truncated))
            total, length = 0.0, 0
    return found


def since_reset(book):
    """How many timesteps of a book were taken since the last reset, that after an end apart."""
    ends = [at for at, (_, *ended) in enumerate(book[:-1]) if any(ended)]
    return len(book) - (ends[-1] + 1 if ends else 0)


def follows(rows, book, begun_anew):
    """Whether rows are those of a book from its beginning, without what was dropped.

    Dropped is the end of what comes before an episode that was begun anew; where equal rows leave
    open which, any will do.
    """
    reached = {0}
    for start, end in zip([0, *begun_anew], [*begun_anew, len(book)], strict=True):
        for at in list(reached):
            for row in book[start:end]:
                if at >= len(rows) or rows[at] != row:
                    break
                at += 1
                reached.add(at)
    return len(rows) in reached
