"""Preallocated arrays of timesteps, one column an environment.

Leaves are `[capacity, B, ...]`, of the names, nests, dtypes and shapes that the first timestep had.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

# Beside what a timestep holds: whether a limit, not the environment, ended the column at this row;
# and the value of the observation that follows where an episode was cut off.
CUT = "cut"
BOOTSTRAP_VALUE = "bootstrap_value"
# The column of a row, where columns stand end to end and the row's place no longer tells it.
ENV_INDEX = "env_index"
ENDS = ("terminated", "truncated")

# Bytes of a column up to which a copy is cheaper than memory that was never touched.
_COPIED = 2**20


class TimestepColumns:
    """See the module.

    Args:
      first: the first timestep: arrays, or nests of them, `[B, ...]` by name.
      capacity: rows to begin with.

    Raises:
      KeyError: `terminated` or `truncated` is missing, or a name is one that is written here.
    """

    def __init__(self, first: Mapping[str, Any], capacity: int):
        missing = [key for key in ENDS if key not in first]
        if missing:
            raise KeyError(
                f"A timestep lacks {', '.join(missing)}; the memory needs terminated and "
                "truncated to know where episodes end."
            )
        taken = [key for key in (CUT, BOOTSTRAP_VALUE, ENV_INDEX) if key in first]
        if taken:
            raise KeyError(
                f"A timestep holds {', '.join(taken)}, which the memory writes itself: rename it."
            )
        self.keys = tuple(first)
        self._structure = [first[key] for key in self.keys]
        specimens = [np.asarray(leaf) for leaf in tf.nest.flatten(self._structure)]
        self._flat = not any(tf.nest.is_nested(value) for value in self._structure)
        self._allocate(specimens, capacity, len(first[ENDS[0]]))

    def _allocate(self, specimens: list[np.ndarray], capacity: int, num_envs: int) -> None:
        """Makes the arrays; leaves of `specimens` are `[B, ...]` of any B."""
        self.num_envs = num_envs
        self.capacity = capacity
        self._shapes = [(num_envs, *leaf.shape[1:]) for leaf in specimens]
        self._dtypes = [leaf.dtype for leaf in specimens]
        with self._told_how_much(capacity):
            self.leaves = [
                np.zeros((capacity, *shape), dtype)
                for shape, dtype in zip(self._shapes, self._dtypes, strict=True)
            ]
            self.cut = np.zeros((capacity, num_envs), np.bool_)
            self.bootstrap = np.zeros((capacity, num_envs), np.float32)

    @contextlib.contextmanager
    def _told_how_much(self, capacity: int) -> Iterator[None]:
        """An array that finds no room says what all of them are for."""
        try:
            yield
        except MemoryError as error:
            row = sum(
                math.prod(shape) * dtype.itemsize
                for shape, dtype in zip(self._shapes, self._dtypes, strict=True)
            )
            raise MemoryError(
                f"There is no room for {capacity} timesteps of {self.num_envs} environments, "
                f"{row} bytes each, {capacity * row / 2**30:.3g} GiB in all: {error}. Collect "
                "less for an update (the memory's batch_size or horizon), in fewer environments, "
                "or give smaller observations."
            ) from error

    def flatten(self, values: Mapping[str, Any]) -> list[np.ndarray]:
        """The leaves of a timestep of these environments, checked.

        Raises:
          KeyError: names are missing or unexpected.
          ValueError: a nest or shape differs from the first timestep's, or a dtype does not fit.
        """
        leaves = list(values.values())
        if tuple(values) != self.keys:
            self.check_keys(values)
            leaves = [values[key] for key in self.keys]
        if not self._flat:
            leaves = tf.nest.flatten(leaves)
            if len(leaves) != len(self.leaves):
                self.check_nests(values)
        # The quickest way to see that all is as it was, which it is a million times over.
        for index, (leaf, shape, dtype) in enumerate(
            zip(leaves, self._shapes, self._dtypes, strict=True)
        ):
            if leaf.__class__ is not np.ndarray or leaf.shape != shape or leaf.dtype is not dtype:
                leaves[index] = self._checked_leaf(index, leaf, values)
        return leaves

    def check_keys(self, values: Mapping[str, Any]) -> None:
        """Raises `KeyError` unless a timestep has the names of the first one."""
        missing = sorted(set(self.keys) - set(values))
        unexpected = sorted(set(values) - set(self.keys))
        if missing or unexpected:
            parts = [f"lacks {', '.join(missing)}"] if missing else []
            parts += [f"has {', '.join(unexpected)}, unknown so far"] if unexpected else []
            raise KeyError(
                f"A timestep {' and '.join(parts)}; the first one held {', '.join(self.keys)}. "
                "clear() does not change the names: make a new memory."
            )

    def check_nests(self, values: Mapping[str, Any]) -> None:
        """Raises `ValueError` unless the values are nests like those of the first timestep."""
        for key, first in zip(self.keys, self._structure, strict=True):
            try:
                tf.nest.assert_same_structure(first, values[key])
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{key} is another nest than in the first timestep: {error}"
                ) from error

    def state(self, count: int) -> dict[str, np.ndarray]:
        """Numbers by name: the first `count` rows; the names, one to a line, as bytes."""
        leaves = {f"leaves/{at}": leaf[:count] for at, leaf in enumerate(self.leaves)}
        names = np.frombuffer("\n".join(self.keys).encode(), np.uint8)
        marks = {"cut": self.cut[:count], "bootstrap": self.bootstrap[:count]}
        return {**leaves, **marks, "names": names}

    def grow(self) -> None:
        """Doubles the capacity."""

        def grown(array: np.ndarray) -> np.ndarray:
            return np.concatenate([array, np.zeros_like(array)])

        with self._told_how_much(2 * self.capacity):
            leaves = [grown(leaf) for leaf in self.leaves]
            self.cut, self.bootstrap = grown(self.cut), grown(self.bootstrap)
        self.leaves = leaves
        self.capacity = len(self.cut)

    def resize(self, num_envs: int, counts: np.ndarray, capacity: int) -> None:
        """Makes columns for other environments; the present rows stand in the first of them."""
        size = int(counts.sum())
        joined = self._join(counts) if size else []
        self._allocate([leaf[0] for leaf in self.leaves], max(capacity, size + 1), num_envs)
        for leaf, held in zip((*self.leaves, self.cut, self.bootstrap), joined, strict=False):
            leaf[:size, 0] = held

    def row(self, row: int, column: int) -> dict[str, Any]:
        """One timestep of one environment."""
        return self._pack([leaf[row, column] for leaf in self.leaves])

    def take_rows(self, count: int) -> dict[str, Any]:
        """The first rows of every column, `[count, B, ...]` by name, with CUT and the like.

        The columns are free to be written again, but for the marks; see `unmark`.
        """
        batch = self._pack([self._handed_over(at, count) for at in range(len(self.leaves))])
        return {
            **batch,
            CUT: self.cut[:count].copy(),
            BOOTSTRAP_VALUE: self.bootstrap[:count].copy(),
        }

    def _handed_over(self, at: int, count: int) -> np.ndarray:
        leaf = self.leaves[at]
        if leaf.nbytes < _COPIED:
            return leaf[:count].copy()
        # The next batch of images gets memory of its own when it is written, and not before.
        self.leaves[at] = np.empty_like(leaf)
        return leaf[:count]

    def end_to_end(self, counts: np.ndarray) -> dict[str, Any]:
        """The first `counts[b]` rows of each column, `[N, ...]` by name, with CUT and the like.

        Column after column, each in the order of time; ENV_INDEX, int32 `[N]`, says which.
        """
        *leaves, cut, bootstrap = self._join(counts)
        return {
            **self._pack(leaves),
            CUT: cut,
            BOOTSTRAP_VALUE: bootstrap,
            ENV_INDEX: np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        }

    def remove(self, counts: np.ndarray, left: np.ndarray) -> None:
        """Drops the first `counts[b]` rows of each column; the `left[b]` behind them move up."""
        rows, columns = _first_rows(left)
        if rows.size:
            for leaf in (*self.leaves, self.cut, self.bootstrap):
                leaf[rows, columns] = leaf[rows + counts[columns], columns]
        behind = np.arange(int((counts + left).max(initial=0)))[:, None] >= left
        self.unmark(*np.nonzero(behind))

    def unmark(self, rows: slice | np.ndarray, columns: int | slice | np.ndarray) -> None:
        """Takes back that rows were cut, and their bootstrap values."""
        self.cut[rows, columns] = False
        self.bootstrap[rows, columns] = 0.0

    def split(self, counts: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Cuts columns of `positions[b]` rows before row `counts[b]`; what stays is of later.

        Returns:
          Where the last episode that is over ends in each column, int64 `[B]`.
        """
        columns = np.flatnonzero(counts < positions)
        before, last = counts[columns] - 1, positions[columns] - 1
        done = np.logical_or(*(self._named(name) for name in ENDS))[: int(positions.max())]
        # What was cut at its end goes on there now.
        goes_on = ~done[last, columns]
        self.unmark(last[goes_on], columns[goes_on])
        cut = (before >= 0) & ~done[before, columns]
        rows, cut_columns = before[cut], columns[cut]
        self.cut[rows, cut_columns] = True
        if "value" in self.keys:
            values = self._named("value").reshape(self.cut.shape)
            self.bootstrap[rows, cut_columns] = values[rows + 1, cut_columns]
        ends = np.where(done, np.arange(1, len(done) + 1)[:, None], 0)
        ends[np.arange(len(done))[:, None] >= positions] = 0
        ended = positions.copy()
        ended[columns] = ends.max(axis=0)[columns]
        return ended

    def _named(self, name: str) -> np.ndarray:
        return self._pack(self.leaves)[name]

    def _join(self, counts: np.ndarray) -> list[np.ndarray]:
        rows, columns = _first_rows(counts)
        return [leaf[rows, columns] for leaf in (*self.leaves, self.cut, self.bootstrap)]

    def _pack(self, leaves: list[np.ndarray]) -> dict[str, Any]:
        packed = leaves
        if not self._flat:  # tf.nest takes longer than a few timesteps
            packed = tf.nest.pack_sequence_as(self._structure, leaves)
        return dict(zip(self.keys, packed, strict=True))

    def _checked_leaf(self, index: int, leaf: Any, values: Mapping[str, Any]) -> np.ndarray:
        """The leaf as an array; raises where it would be stored as something that it is not."""
        shape, dtype = self._shapes[index], self._dtypes[index]
        if not tf.nest.is_nested(leaf):
            leaf = np.asarray(leaf)
            if leaf.shape == shape and np.can_cast(leaf.dtype, dtype, "same_kind"):
                return leaf
        self.check_nests(values)
        leaf = np.asarray(leaf)
        sizes = [len(tf.nest.flatten(part)) for part in self._structure]
        name = self.keys[int(np.searchsorted(np.cumsum(sizes), index, side="right"))]
        raise ValueError(
            f"{name} is {leaf.dtype} of shape {leaf.shape}, environments first; the first timestep "
            f"fixed {dtype} of shape {shape}. Give it that dtype and shape from the first "
            "timestep on, or make a new memory."
        )


def restored(
    state: Mapping[str, np.ndarray], specs: Mapping[str, Any], capacity: int
) -> TimestepColumns:
    """Columns with the rows of a `TimestepColumns.state`.

    Args:
      state: numbers by name.
      specs: nests of specs `[T, B, ...]` by name, of what a timestep holds now.
      capacity: rows that there is room for at least.

    Raises:
      ValueError: a timestep held something else then.
    """
    names = state["names"].tobytes().decode().split("\n")
    if set(names) != set(specs):
        raise ValueError(
            f"a timestep held {', '.join(sorted(names))}, now it holds {', '.join(sorted(specs))}"
        )
    structure = [specs[name] for name in names]
    wanted = tf.nest.flatten(structure)
    saved = [state[name] for name in (f"leaves/{at}" for at in range(len(wanted))) if name in state]
    shapes = [tuple(leaf.shape[2:]) for leaf in wanted]
    if [leaf.shape[2:] for leaf in saved] != shapes or f"leaves/{len(wanted)}" in state:
        raise ValueError(f"the arrays of a timestep had other shapes than now, {shapes}")
    count, num_envs = state["cut"].shape
    rows = [np.zeros((num_envs, *leaf.shape[2:]), leaf.dtype) for leaf in saved]
    first = dict(zip(names, tf.nest.pack_sequence_as(structure, rows), strict=True))
    columns = TimestepColumns(first, max(capacity, count + 1))
    for leaf, given in zip(columns.leaves, saved, strict=True):
        leaf[:count] = given
    columns.cut[:count], columns.bootstrap[:count] = state["cut"], state["bootstrap"]
    return columns


def _first_rows(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each of the first `counts[b]` rows, column after column: int64 `[N]`."""
    columns = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    return np.arange(len(columns)) - starts[columns], columns
