"""Preallocated arrays of timesteps, one column an environment.

Leaves are `[capacity, B, ...]`, of the names, nests, dtypes and shapes that the first timestep had.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

# Beside what a timestep holds: whether a limit, not the environment, ended the column at this row;
# and the value of the observation that follows where an episode was cut off.
CUT = "cut"
BOOTSTRAP_VALUE = "bootstrap_value"
ENDS = ("terminated", "truncated")


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
        taken = [key for key in (CUT, BOOTSTRAP_VALUE) if key in first]
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
        self.leaves = [
            np.zeros((capacity, *shape), dtype)
            for shape, dtype in zip(self._shapes, self._dtypes, strict=True)
        ]
        self.cut = np.zeros((capacity, num_envs), np.bool_)
        self.bootstrap = np.zeros((capacity, num_envs), np.float32)

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

    def grow(self) -> None:
        """Doubles the capacity."""

        def grown(array: np.ndarray) -> np.ndarray:
            return np.concatenate([array, np.zeros_like(array)])

        self.leaves = [grown(leaf) for leaf in self.leaves]
        self.cut, self.bootstrap = grown(self.cut), grown(self.bootstrap)
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

    def rows(self, count: int) -> dict[str, Any]:
        """The first rows of every column, `[count, B, ...]` by name, with CUT and the like."""
        batch = self._pack([leaf[:count].copy() for leaf in self.leaves])
        return {
            **batch,
            CUT: self.cut[:count].copy(),
            BOOTSTRAP_VALUE: self.bootstrap[:count].copy(),
        }

    def end_to_end(self, counts: np.ndarray) -> dict[str, Any]:
        """The first `counts[b]` rows of each column, `[N, ...]` by name, with CUT and the like."""
        *leaves, cut, bootstrap = self._join(counts)
        return {**self._pack(leaves), CUT: cut, BOOTSTRAP_VALUE: bootstrap}

    def remove(self, counts: np.ndarray, left: np.ndarray) -> None:
        """Drops the first `counts[b]` rows of each column; the `left[b]` behind them move up."""
        for column, (start, size) in enumerate(zip(counts.tolist(), left.tolist(), strict=True)):
            if start and size:
                for leaf in (*self.leaves, self.cut, self.bootstrap):
                    leaf[:size, column] = leaf[start : start + size, column].copy()
            self.unmark(slice(size, None), column)

    def unmark(self, rows: slice, column: int | slice) -> None:
        """Takes back that rows were cut, and their bootstrap values."""
        self.cut[rows, column] = False
        self.bootstrap[rows, column] = 0.0

    def column(self, name: str, column: int) -> np.ndarray | None:
        """The rows `[capacity, ...]` of a leaf of that name; None where there is none."""
        return self._pack(self.leaves)[name][:, column] if name in self.keys else None

    def _join(self, counts: np.ndarray) -> list[np.ndarray]:
        columns = np.flatnonzero(counts)

        def join(leaf: np.ndarray) -> np.ndarray:
            return np.concatenate([leaf[: counts[column], column] for column in columns])

        return [join(leaf) for leaf in (*self.leaves, self.cut, self.bootstrap)]

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
