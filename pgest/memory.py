"""Memories hold the timesteps between two updates. They store and hand over; they compute nothing.

Leaves are preallocated arrays `[capacity, B, ...]`, one column an environment, of the dtype and
shape that the first timestep had.
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

# Written by the loop beside the values of `step`: whether a limit, not the environment, ended the
# column at this row; and the value of the observation that follows where an episode was cut off.
CUT = "cut"
BOOTSTRAP_VALUE = "bootstrap_value"
_ENDS = ("terminated", "truncated")
_FIRST_CAPACITY = 256
_ENDLESS = 100_000


class BatchMemory:
    """Whole episodes, handed over once enough of them have ended.

    An episode is never split: the batch holds every timestep of every episode that has ended, and
    an episode under way stays for the next batch.

    Args:
      batch_size: timesteps of ended episodes that make a batch; 5000 unless `episodes` is given.
      episodes: ended episodes that make a batch, instead of `batch_size`.
      max_episode_length: an episode is handed over in pieces of at most so many timesteps, each
        bootstrapped from the value of the observation that follows. The environment is not
        reset; wrap it in `gymnasium.wrappers.TimeLimit` for that.

    Raises:
      ValueError: a size is not positive, or both sizes are given.
      TypeError: a size is no integer.

    Example:

    >>> memory = BatchMemory(episodes=1)
    >>> memory.step(state=np.zeros(4), reward=1.0, terminated=True, truncated=False)
    >>> memory.can_sample()
    True
    >>> memory.sample()["state"].shape
    (1, 4)
    """

    def __init__(
        self,
        batch_size: int | None = None,
        *,
        episodes: int | None = None,
        max_episode_length: int | None = None,
    ):
        if batch_size is not None and episodes is not None:
            raise ValueError(
                f"BatchMemory got batch_size={batch_size} and episodes={episodes}; give one."
            )
        self.batch_size = check_size("batch_size", batch_size)
        self.episodes = check_size("episodes", episodes)
        self.max_episode_length = check_size("max_episode_length", max_episode_length)
        if self.batch_size is None and self.episodes is None:
            self.batch_size = 5000
        self._keys: tuple[str, ...] = ()
        self._structure: dict[str, Any] = {}
        self._leaves: list[np.ndarray] = []
        self._cut = np.zeros((0, 0), np.bool_)
        self._bootstrap = np.zeros((0, 0), np.float32)
        self._num_envs = 0
        self._warned = False
        self.clear()

    def __len__(self) -> int:
        """Timesteps held, of ended episodes and of those under way."""
        return int(self._positions.sum())

    @property
    def num_timesteps(self) -> int:
        """Timesteps of ended episodes."""
        return int(self._ended.sum())

    @property
    def num_episodes(self) -> int:
        """Ended episodes."""
        return self._num_ended

    @property
    def lengths(self) -> np.ndarray:
        """Timesteps of the episode under way, a column: int64 `[B]`."""
        return self._positions - self._ended

    def step(self, **values: Any) -> None:
        """Adds one timestep of one environment.

        Args:
          **values: arrays, scalars or nests of them by name; `terminated` and `truncated` are
            among them. The names are fixed by the first call.

        Raises:
          KeyError: names are missing, or were not there at the first call.
          ValueError: a value's shape differs from the first call's.
        """
        self.step_vector(tf.nest.map_structure(lambda value: np.asarray(value)[None], values))

    def step_vector(self, values: Mapping[str, Any], acted: np.ndarray | None = None) -> None:
        """Adds one timestep of every environment.

        Args:
          values: as in `step`, each leaf `[B, ...]`.
          acted: bool `[B]`; rows where it is False are left out. None keeps all.

        Raises:
          KeyError, ValueError: as `step`.
        """
        leaves = self._flatten(values)
        if int(self._positions.max()) >= len(self._cut):
            self._grow()
        positions = self._positions
        if self._num_envs == 1 and acted is None:
            row = int(positions[0])
            for stored, leaf in zip(self._leaves, leaves, strict=True):
                stored[row, 0] = leaf[0]
        else:
            columns = self._columns if acted is None else np.flatnonzero(acted)
            rows = positions[columns]
            for stored, leaf in zip(self._leaves, leaves, strict=True):
                stored[rows, columns] = leaf if acted is None else np.asarray(leaf)[columns]
        positions += 1 if acted is None else acted
        done = np.logical_or(values["terminated"], values["truncated"])
        if acted is not None:
            done = np.logical_and(done, acted)
        if done.any():
            self._end(np.flatnonzero(done))

    def cut(self, columns: np.ndarray) -> None:
        """Ends the episodes under way in `columns` at their last row, for this memory alone."""
        self._cut[self._positions[columns] - 1, columns] = True
        self._end(columns)

    def bootstrap(self, columns: np.ndarray, values: np.ndarray) -> None:
        """Notes the value of the observation that follows the last row of `columns`."""
        self._bootstrap[self._positions[columns] - 1, columns] = values

    def columns_to_cut(self) -> np.ndarray:
        """Columns whose episode under way is as long as a piece may be."""
        if self.max_episode_length is None:
            self._warn_of_endless_episodes()
            return np.zeros([0], np.int64)
        return np.flatnonzero(self.lengths >= self.max_episode_length)

    def can_sample(self, counter: int | None = None) -> bool:
        """Whether a batch is ready.

        Args:
          counter: judge by this number, of timesteps or episodes, instead of what is held.
        """
        if self.episodes is not None:
            return (self._num_ended if counter is None else counter) >= self.episodes
        return (self.num_timesteps if counter is None else counter) >= self.batch_size

    def sample(self) -> dict[str, Any]:
        """Hands over every ended episode and forgets it; episodes under way stay.

        Returns:
          The stored names with leaves `[N, ...]`, episodes end to end, environment by
          environment; and `cut`, bool `[N]`, and `bootstrap_value`, float32 `[N]`.

        Raises:
          ValueError: no batch is ready.
        """
        if not self.can_sample():
            raise ValueError(
                f"{self!r} holds {self.num_timesteps} timesteps of {self.num_episodes} ended "
                "episodes, too few for a batch: ask can_sample() first."
            )
        return self._take(self._ended.copy())

    def get_by_index(self, index: int) -> dict[str, Any] | None:
        """Returns timestep `index`, column after column; None where the memory is empty."""
        if len(self) == 0:
            return None
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"The memory holds {size} timesteps and was asked for {index}.")
        index %= size
        column = int(np.searchsorted(np.cumsum(self._positions), index, side="right"))
        row = index - int(self._positions[:column].sum())
        return self._pack([leaf[row, column] for leaf in self._leaves])

    def clear(self) -> None:
        """Forgets every timestep; names, dtypes and shapes stay."""
        self._positions = np.zeros([max(self._num_envs, 1)], np.int64)
        self._ended = np.zeros_like(self._positions)
        self._num_ended = 0
        self._cut[:] = False
        self._bootstrap[:] = 0.0

    def drop_unfinished(self) -> None:
        """Forgets the episodes under way, whose environment will not go on with them."""
        for column in np.flatnonzero(self.lengths):
            rows = slice(int(self._ended[column]), int(self._positions[column]))
            self._cut[rows, column] = False
            self._bootstrap[rows, column] = 0.0
        self._positions = self._ended.copy()

    def _end(self, columns: np.ndarray) -> None:
        self._ended[columns] = self._positions[columns]
        self._num_ended += len(columns)

    def _take(self, counts: np.ndarray) -> dict[str, Any]:
        """Removes the first `counts[b]` rows of each column; returns them end to end, `[N, ...]`."""
        columns = range(self._num_envs)

        def take(leaf: np.ndarray) -> np.ndarray:
            pieces = [leaf[: counts[column], column] for column in columns if counts[column]]
            return pieces[0].copy() if len(pieces) == 1 else np.concatenate(pieces)

        batch = self._pack([take(leaf) for leaf in self._leaves])
        batch[CUT], batch[BOOTSTRAP_VALUE] = take(self._cut), take(self._bootstrap)
        left = self._positions - counts
        for leaf in (*self._leaves, self._cut, self._bootstrap):
            for column in np.flatnonzero(left):
                start = counts[column]
                leaf[: left[column], column] = leaf[start : start + left[column], column].copy()
        for column in columns:
            self._cut[left[column] :, column] = False
            self._bootstrap[left[column] :, column] = 0.0
        self._positions, self._ended = left, np.maximum(self._ended - counts, 0)
        self._num_ended = 0
        return batch

    def _flatten(self, values: Mapping[str, Any]) -> list[Any]:
        if tuple(values) != self._keys:
            if self._keys:
                self._check_keys(values)
                values = {key: values[key] for key in self._keys}
            else:
                self._allocate(values)
        # Most values are arrays by themselves; flattening nests costs more than storing them.
        leaves: list[Any] = []
        for key in self._keys:
            value = values[key]
            if isinstance(value, np.ndarray):
                leaves.append(value)
            else:
                leaves.extend(tf.nest.flatten(value))
        return leaves

    def _check_keys(self, values: Mapping[str, Any]) -> None:
        missing = sorted(set(self._keys) - set(values))
        unexpected = sorted(set(values) - set(self._keys))
        if missing or unexpected:
            parts = [f"lacks {', '.join(missing)}"] if missing else []
            parts += [f"has {', '.join(unexpected)}, unknown so far"] if unexpected else []
            raise KeyError(
                f"A timestep {' and '.join(parts)}; the first one held {', '.join(self._keys)}. "
                "clear() does not change the names: make a new memory."
            )

    def _allocate(self, values: Mapping[str, Any]) -> None:
        missing = [key for key in _ENDS if key not in values]
        if missing:
            raise KeyError(
                f"A timestep lacks {', '.join(missing)}; the memory needs terminated and "
                "truncated to know where episodes end."
            )
        self._keys = tuple(values)
        self._structure = {key: values[key] for key in self._keys}
        leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(list(self._structure.values()))]
        self._num_envs = len(np.asarray(values["terminated"]))
        self._columns = np.arange(self._num_envs)
        rows = self._first_capacity()
        self._leaves = [np.zeros((rows, *leaf.shape), leaf.dtype) for leaf in leaves]
        self._cut = np.zeros((rows, self._num_envs), np.bool_)
        self._bootstrap = np.zeros((rows, self._num_envs), np.float32)
        self.clear()

    def _first_capacity(self) -> int:
        return _FIRST_CAPACITY

    def _grow(self) -> None:
        def grown(array: np.ndarray) -> np.ndarray:
            return np.concatenate([array, np.zeros_like(array)])

        self._leaves = [grown(leaf) for leaf in self._leaves]
        self._cut, self._bootstrap = grown(self._cut), grown(self._bootstrap)

    def _pack(self, leaves: list[np.ndarray]) -> dict[str, Any]:
        packed = tf.nest.pack_sequence_as(list(self._structure.values()), leaves)
        return dict(zip(self._keys, packed, strict=True))

    def _warn_of_endless_episodes(self) -> None:
        limit = max(_ENDLESS, 20 * (self.batch_size or 0))
        if not self._warned and int(self.lengths.max()) >= limit:
            self._warned = True
            warnings.warn(
                f"An episode has run for {limit} timesteps without an end, and {self!r} waits for "
                "it. If the environment is endless, give the memory a max_episode_length, or wrap "
                "the environment in gymnasium.wrappers.TimeLimit.",
                stacklevel=2,
            )

    def __repr__(self) -> str:
        size = (
            f"episodes={self.episodes}"
            if self.episodes is not None
            else f"batch_size={self.batch_size}"
        )
        return f"{type(self).__name__}({size})"


class RolloutMemory(BatchMemory):
    """A fixed number of timesteps of every environment; episodes are cut at the horizon.

    Args:
      horizon: timesteps an environment; a batch is `horizon * num_envs` timesteps. An episode
        that the horizon cuts is bootstrapped and goes on in the next batch.

    `sample` returns leaves `[horizon, B, ...]`, time first. Where a vector environment spends
    steps on resetting (NEXT_STEP autoreset), columns fill unevenly: then the batch is as large,
    but its leaves are `[horizon * B, ...]`, column after column, as a BatchMemory's.

    Example:

    >>> memory = RolloutMemory(horizon=2)
    >>> for _ in range(2):
    ...     memory.step(reward=1.0, terminated=False, truncated=False)
    >>> memory.sample()["reward"].shape
    (2, 1)
    """

    def __init__(self, horizon: int):
        super().__init__(batch_size=horizon)
        self.horizon = check_size("horizon", horizon)

    def can_sample(self, counter: int | None = None) -> bool:
        """Whether `horizon * B` timesteps are held, or `counter` is as many."""
        return (len(self) if counter is None else counter) >= self.horizon * max(self._num_envs, 1)

    def columns_to_cut(self) -> np.ndarray:
        """Columns whose episode goes on when the batch is full."""
        return np.flatnonzero(self.lengths) if self.can_sample() else np.zeros([0], np.int64)

    def sample(self) -> dict[str, Any]:
        """Hands over the batch; what overflows it stays. See the class."""
        if not self.can_sample():
            raise ValueError(
                f"{self!r} holds {len(self)} of {self.horizon * max(self._num_envs, 1)} "
                "timesteps: ask can_sample() first."
            )
        if (self._positions == self.horizon).all():
            batch = self._pack([leaf[: self.horizon].copy() for leaf in self._leaves])
            batch[CUT] = self._cut[: self.horizon].copy()
            batch[BOOTSTRAP_VALUE] = self._bootstrap[: self.horizon].copy()
            self.clear()
            return batch
        return self._take(self._shares())

    def _shares(self) -> np.ndarray:
        """How many rows of each column make up the batch, the longest columns giving way."""
        counts = self._positions.copy()
        surplus = int(counts.sum()) - self.horizon * self._num_envs
        values = self._pack(self._leaves).get("value")
        for column in np.argsort(-counts, kind="stable")[:surplus]:
            counts[column] -= 1
            last = counts[column] - 1
            if last >= 0 and not self._done(last, column):
                self._cut[last, column] = True
                if values is not None:
                    self._bootstrap[last, column] = values[last + 1, column]
        return counts

    def _done(self, row: int, column: int) -> bool:
        """Whether the environment itself ended its episode at this row."""
        step = self._pack([leaf[row, column] for leaf in self._leaves])
        return bool(step["terminated"] or step["truncated"])

    def _first_capacity(self) -> int:
        return self.horizon + 1

    def __repr__(self) -> str:
        return f"RolloutMemory(horizon={self.horizon})"


def check_size(name: str, value: Any) -> int | None:
    """Returns a positive integer or None; raises what `BatchMemory` says otherwise."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; expected a positive integer.")
    if value <= 0:
        raise ValueError(f"{name} is {value}; expected a positive integer.")
    return int(value)
