"""Memories hold timesteps between two updates. They store and hand over; they compute nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.memory import sizes, timestep_columns

TimestepColumns = timestep_columns.TimestepColumns
check_size = sizes.check_size
CUT, BOOTSTRAP_VALUE = timestep_columns.CUT, timestep_columns.BOOTSTRAP_VALUE
ENV_INDEX = timestep_columns.ENV_INDEX
_FIRST_CAPACITY = 256
_ENDLESS = 100_000
_ENDLESS_CHECK = 1024  # timesteps between two looks
_NO_COLUMNS = np.zeros([0], np.int64)


class BatchMemory:
    """Whole episodes, handed over once enough of them have ended.

    An episode is never split: the batch holds every timestep of every episode that has ended, and
    an episode under way stays for the next batch. Short episodes end first: make batches several
    times as large as environments times the length of an episode, or use a `RolloutMemory`.

    Args:
      batch_size: timesteps of ended episodes that make a batch; 5000 unless `episodes` is given.
      episodes: ended episodes that make a batch, instead of `batch_size`.
      max_episode_length: an episode is handed over in pieces of at most so many timesteps, each
        bootstrapped from the `value` of the observation that follows; without one, what follows
        counts as 0. To reset the environment, wrap it in `gymnasium.wrappers.TimeLimit`.

    Raises:
      ValueError, TypeError: a size is no positive integer, or both sizes are given.

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
        self._columns: TimestepColumns | None = None
        self._longest = self._held = self._num_ended_timesteps = 0
        self._even = True
        self._calls = 0
        self._warned = False
        self._first_capacity = _FIRST_CAPACITY
        self.clear()

    def __len__(self) -> int:
        """Timesteps held, of ended episodes and of those under way."""
        return self._held

    def __bool__(self) -> bool:
        return True  # also when empty: `given or default` must not drop the one given

    @property
    def num_timesteps(self) -> int:
        """Timesteps of ended episodes."""
        return self._num_ended_timesteps

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
            among them. The names are fixed by the first call, with their dtypes and shapes.

        Raises:
          KeyError: names are missing, or were not there at the first call.
          ValueError: a value's shape differs from the first call's, or its dtype does not fit.
        """
        if self._columns is not None:
            self._columns.check_keys(values)
            self._columns.check_nests(values)
        self.step_vector(tf.nest.map_structure(lambda value: np.asarray(value)[None], values))

    def step_vector(self, values: Mapping[str, Any], acted: np.ndarray | None = None) -> None:
        """Adds one timestep of every environment.

        Args:
          values: as in `step`, each leaf `[B, ...]`. With another B than before, the episodes
            that have ended are kept and none may be under way.
          acted: bool `[B]`; rows where it is False are left out. None keeps all.
        """
        stored = self._columns_of(values)
        leaves = stored.flatten(values)
        if self._longest >= stored.capacity:
            stored.grow()
        positions = self._positions
        if acted is None:
            if self._even:  # one row of all columns
                row = self._longest
                for column, leaf in zip(stored.leaves, leaves, strict=True):
                    column[row] = leaf
            else:
                for column, leaf in zip(stored.leaves, leaves, strict=True):
                    column[positions, self._every] = leaf
            positions += 1
            self._longest += 1
            self._held += stored.num_envs
            done = np.logical_or(values["terminated"], values["truncated"])
        else:
            rows = np.flatnonzero(acted)
            for column, leaf in zip(stored.leaves, leaves, strict=True):
                column[positions[rows], rows] = leaf[rows]
            positions += acted
            self._longest = int(positions.max())
            self._held += len(rows)
            self._even = False
            done = np.logical_or(values["terminated"], values["truncated"]) & acted
        if np.count_nonzero(done):  # a tenth of the price of any()
            self._end(np.flatnonzero(done))

    def cut(self, columns: np.ndarray) -> None:
        """Ends the episodes under way in `columns` at their last row, for this memory alone."""
        self._stored.cut[self._positions[columns] - 1, columns] = True
        self._end(columns)

    def bootstrap(self, columns: np.ndarray, values: np.ndarray) -> None:
        """Notes the value of the observation that follows the last row of `columns`."""
        self._stored.bootstrap[self._positions[columns] - 1, columns] = values

    def columns_to_cut(self) -> np.ndarray:
        """Columns whose episode under way is as long as a piece may be."""
        if self.max_episode_length is not None:
            return np.flatnonzero(self.lengths >= self.max_episode_length)
        self._calls += 1
        if self._calls % _ENDLESS_CHECK == 0 and not self._warned:
            self._warn_of_endless_episodes()
        return _NO_COLUMNS

    def can_sample(self, counter: int | None = None) -> bool:
        """Whether a batch is ready.

        Args:
          counter: judge by this number, of timesteps or episodes, instead of what is held.
        """
        if self.episodes is not None:
            return (self._num_ended if counter is None else counter) >= self.episodes
        timesteps = self._num_ended_timesteps if counter is None else counter
        return timesteps >= self.batch_size  # type: ignore[operator]

    def sample(self) -> dict[str, Any]:
        """Hands over every ended episode and forgets it; episodes under way stay.

        Returns:
          The stored names with leaves `[N, ...]`, episodes end to end, environment by
          environment; and `cut`, bool `[N]`, `bootstrap_value`, float32 `[N]`, and `env_index`,
          int32 `[N]`, of the environment.

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
        size = len(self)
        if size == 0:
            return None
        if not -size <= index < size:
            raise IndexError(f"The memory holds {size} timesteps and was asked for {index}.")
        index %= size
        column = int(np.searchsorted(np.cumsum(self._positions), index, side="right"))
        return self._stored.row(index - int(self._positions[:column].sum()), column)

    def clear(self) -> None:
        """Forgets every timestep; names, dtypes and shapes stay."""
        num_envs = 1 if self._columns is None else self._columns.num_envs
        self._every = np.arange(num_envs)
        self._positions = np.zeros([num_envs], np.int64)
        self._ended = np.zeros_like(self._positions)
        self._num_ended = 0
        if self._columns is not None:
            self._columns.unmark(slice(None), slice(None))
        self._count()

    def drop_unfinished(self) -> None:
        """Forgets the episodes under way, whose environment will not go on with them."""
        for column in np.flatnonzero(self.lengths):
            self._stored.unmark(slice(int(self._ended[column]), None), int(column))
        self._positions = self._ended.copy()
        self._count()

    def state(self) -> dict[str, np.ndarray]:
        """Numbers by name: every timestep held, and where episodes ended."""
        if self._columns is None:
            return {}
        counts = {"positions": self._positions.copy(), "ended": self._ended.copy()}
        number = np.array(self._num_ended)
        return {**self._columns.state(self._longest), **counts, "num_ended": number}

    def restore(self, state: Mapping[str, np.ndarray], specs: Mapping[str, Any]) -> None:
        """Takes over what `state` gave in another process.

        Args:
          state: numbers by name.
          specs: nests of specs `[T, B, ...]` by name, of what a timestep holds now.

        Raises:
          ValueError: a timestep held something else then.
        """
        if not state:
            return
        self._columns = timestep_columns.restored(state, specs, self._first_capacity)
        self._every = np.arange(self._columns.num_envs)
        self._positions, self._ended = state["positions"].copy(), state["ended"].copy()
        self._num_ended = int(state["num_ended"])
        self._count()

    @property
    def _stored(self) -> TimestepColumns:
        if self._columns is None:
            raise ValueError(f"{self!r} holds nothing yet: give it a timestep first.")
        return self._columns

    def _columns_of(self, values: Mapping[str, Any]) -> TimestepColumns:
        """The columns that a timestep belongs to; made, or made anew, for its environments."""
        stored = self._columns
        if stored is None:
            stored = self._columns = TimestepColumns(values, self._first_capacity)
            self.clear()
        if "terminated" in values and len(values["terminated"]) != stored.num_envs:
            self._change_environments(stored, len(values["terminated"]))
        return stored

    def _change_environments(self, stored: TimestepColumns, num_envs: int) -> None:
        """Makes room for another number of environments, and keeps the episodes that ended."""
        if self.lengths.any():
            raise ValueError(
                f"A timestep is of {num_envs} environments, while episodes of {stored.num_envs} "
                "are under way: call drop_unfinished() before going on with others."
            )
        size, num_ended = self._held, self._num_ended
        stored.resize(num_envs, self._positions, self._first_capacity)
        self._every = np.arange(num_envs)
        self._positions = np.zeros([num_envs], np.int64)
        self._positions[0] = size
        self._ended, self._num_ended = self._positions.copy(), num_ended
        self._count()

    def _count(self) -> None:
        """Sums up the columns: what is asked for at every timestep is kept as a number."""
        self._held = int(self._positions.sum())
        self._longest = int(self._positions.max())
        self._even = bool((self._positions == self._longest).all())
        self._num_ended_timesteps = int(self._ended.sum())

    def _end(self, columns: np.ndarray) -> None:
        self._ended[columns] = self._positions[columns]
        self._num_ended += len(columns)
        self._num_ended_timesteps = int(self._ended.sum())

    def _take(self, counts: np.ndarray) -> dict[str, Any]:
        """Removes the first `counts[b]` rows of each column; returns them, `[N, ...]`."""
        batch = self._stored.end_to_end(counts)
        left = self._positions - counts
        self._stored.remove(counts, left)
        self._positions, self._ended = left, np.maximum(self._ended - counts, 0)
        self._num_ended = 0
        self._count()
        return batch

    def _warn_of_endless_episodes(self) -> None:
        limit = max(_ENDLESS, 20 * (self.batch_size or 0))
        if int(self.lengths.max()) >= limit:
            self._warned = True
            warnings.warn(
                f"An episode has run for {limit} timesteps without an end, and {self!r} waits for "
                "it. If the environment is endless, give the memory a max_episode_length, or wrap "
                "the environment in gymnasium.wrappers.TimeLimit.",
                stacklevel=2,
            )

    def __repr__(self) -> str:
        name = "batch_size" if self.episodes is None else "episodes"
        return f"{type(self).__name__}({name}={getattr(self, name)})"


class RolloutMemory(BatchMemory):
    """A fixed number of timesteps of every environment; episodes are cut at the horizon.

    Args:
      horizon: timesteps an environment; a batch is `horizon * num_envs` timesteps. An episode
        that the horizon cuts goes on in the next batch. It is bootstrapped from the model's
        `value`; without one, what follows the horizon counts as 0.

    `sample` returns leaves `[horizon, B, ...]`, time first. Where a vector environment spends
    steps on resetting (NEXT_STEP autoreset), columns fill unevenly: then the batch is as large,
    but its leaves are `[horizon * B, ...]`, column after column, as a BatchMemory's.

    Raises:
      ValueError: the horizon is not positive.
      TypeError: it is no integer.

    Example:

    >>> memory = RolloutMemory(horizon=2)
    >>> for _ in range(2):
    ...     memory.step(reward=1.0, terminated=False, truncated=False)
    >>> memory.sample()["reward"].shape
    (2, 1)
    """

    def __init__(self, horizon: int):
        super().__init__(batch_size=horizon)
        self.horizon = int(horizon)
        self._first_capacity = self.horizon + 1

    def can_sample(self, counter: int | None = None) -> bool:
        """Whether `horizon * B` timesteps are held, or `counter` is as many."""
        return (self._held if counter is None else counter) >= self._wanted

    def columns_to_cut(self) -> np.ndarray:
        """Columns whose episode goes on when the batch is full."""
        return np.flatnonzero(self.lengths) if self._held >= self._wanted else _NO_COLUMNS

    def sample(self, *, end_to_end: bool = False) -> dict[str, Any]:
        """Hands over the batch; what overflows it stays. See the class.

        Args:
          end_to_end: leaves `[horizon * B, ...]`, column after column, even where the columns
            are as long as each other.

        Raises:
          ValueError: no batch is ready.
        """
        if not self.can_sample():
            raise ValueError(f"{self!r} holds {len(self)} of {self._wanted} timesteps, too few.")
        if end_to_end or (self._positions != self.horizon).any():
            return self._take(self._shares())
        batch = self._stored.take_rows(self.horizon)
        self._stored.unmark(slice(0, self.horizon), slice(None))
        self._positions[:] = self._ended[:] = 0
        self._longest = self._held = self._num_ended = self._num_ended_timesteps = 0
        return batch

    def drop_unfinished(self) -> None:
        """Forgets everything: columns that have lost an episode would no longer be even."""
        self.clear()

    def _count(self) -> None:
        super()._count()
        self._wanted = self.batch_size * len(self._positions)  # type: ignore[operator]

    def _shares(self) -> np.ndarray:
        """How many rows of each column make up the batch, the longest columns giving way."""
        counts = self._positions.copy()
        surplus = self._held - self._wanted
        while surplus:
            longest = np.flatnonzero(counts == counts.max())[:surplus]
            counts[longest] -= 1
            surplus -= len(longest)
        self._ended = self._stored.split(counts, self._positions)
        return counts

    def __repr__(self) -> str:
        return f"RolloutMemory(horizon={self.horizon})"
