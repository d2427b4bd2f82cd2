"""What gymnasium's spaces mean to pgest: which it takes, their arrays, actions in their terms.

Everywhere in pgest the values of B environments are one nest of arrays ``[B, …]`` in the space's
own dtype: an array for Box, Discrete, MultiDiscrete and MultiBinary, a dict (keys in the space's
order) for Dict, a tuple for Tuple.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces

Nest: TypeAlias = Any  # an array, or a dict or tuple of nests

ARRAY_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class BatchedArray:
    """The array work for one Box, Discrete, MultiDiscrete or MultiBinary, times ``num_envs``.

    The methods that run at every timestep are numpy's own functions, bound here once.

    Args:
        space: The space of one environment.
        num_envs: B.
        path: Where the space stands within the whole one, for messages.
    """

    def __init__(self, space: spaces.Space, num_envs: int, path: str) -> None:
        if space.shape is None or space.dtype is None:
            raise ValueError(f"{path} is {space}, which has no shape or dtype of its own.")
        self.path = path
        self.shape = tuple(space.shape)
        self.batch_shape = (num_envs, *self.shape)
        self.dtype = np.dtype(space.dtype)
        self.is_float = self.dtype.kind == "f"
        self.empty: Callable[[], Nest] = functools.partial(np.empty, self.batch_shape, self.dtype)
        self.write: Callable[[Nest, int, Any], None] = operator.setitem
        self.row: Callable[[Nest, int], Any] = operator.getitem

    def copy(self, batch: Any) -> Nest:
        """A new ``[B, …]`` array in the space's dtype; ValueError where the shape differs."""
        return self._expect_shape(np.array(batch, self.dtype, order="C"))

    def detach(self, batch: Any) -> Nest:
        """`copy`, but for arrays that fit and whose rows are scalars, which nobody can change."""
        if self.shape:
            return self.copy(batch)
        return self._expect_shape(np.asarray(batch, self.dtype))

    def leaves(self, nest: Nest) -> Iterator[tuple[BatchedArray, np.ndarray]]:
        """Each array of a nest with what is known of it."""
        yield self, nest

    def check(self, value: Any) -> None:
        """Raises ValueError unless `value`, of one environment, has the space's shape."""
        if np.shape(value) != self.shape:
            raise ValueError(f"{self.path} has shape {np.shape(value)}, expected {self.shape}")

    def _expect_shape(self, array: np.ndarray) -> np.ndarray:
        if array.shape != self.batch_shape:
            raise ValueError(f"{self.path} has shape {array.shape}, expected {self.batch_shape}")
        return array


class BatchedNest:
    """The array work for a Dict or Tuple space: that of `BatchedArray`, for every part.

    Args:
        parts: The parts by key (Dict) or by position (Tuple).
        is_dict: Whether the space is a Dict.
        path: Where the space stands within the whole one, for messages.
    """

    is_float = False

    def __init__(
        self, parts: dict[Any, BatchedArray | BatchedNest], is_dict: bool, path: str
    ) -> None:
        self.path = path
        self._parts = tuple(parts.items())
        self._is_dict = is_dict

    def empty(self) -> Nest:
        """A nest of uninitialised arrays ``[B, …]``."""
        return self._build([part.empty() for _, part in self._parts])

    def write(self, nest: Nest, index: int, value: Any) -> None:
        """Writes one environment's value into its row of every array."""
        for key, part in self._parts:
            part.write(nest[key], index, value[key])

    def row(self, nest: Nest, index: int) -> Any:
        """One environment's value: a dict or tuple."""
        return self._build([part.row(nest[key], index) for key, part in self._parts])

    def copy(self, batch: Any) -> Nest:
        """A new nest in the space's structure and dtypes; ValueError where it does not fit."""
        self._check_structure(batch)
        return self._build([part.copy(batch[key]) for key, part in self._parts])

    def detach(self, batch: Any) -> Nest:
        """See `BatchedArray.detach`."""
        self._check_structure(batch)
        return self._build([part.detach(batch[key]) for key, part in self._parts])

    def leaves(self, nest: Nest) -> Iterator[tuple[BatchedArray, np.ndarray]]:
        """Each array of a nest with what is known of it."""
        for key, part in self._parts:
            yield from part.leaves(nest[key])

    def check(self, value: Any) -> None:
        """Raises ValueError unless `value`, of one environment, has the structure and shapes."""
        self._check_structure(value)
        for key, part in self._parts:
            part.check(value[key])

    def _build(self, values: list[Any]) -> Nest:
        if self._is_dict:
            return {key: value for (key, _), value in zip(self._parts, values, strict=True)}
        return tuple(values)

    def _check_structure(self, value: Any) -> None:
        keys = [key for key, _ in self._parts]
        if self._is_dict:
            if not isinstance(value, dict) or set(value) != set(keys):
                got = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
                expected = sorted(map(str, keys))
                raise ValueError(f"{self.path} has {got}, expected a dict of {expected}")
        elif not isinstance(value, (tuple, list)) or len(value) != len(keys):
            size = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
            raise ValueError(
                f"{self.path} has a {type(value).__name__}{size}, expected a tuple of {len(keys)}"
            )


def batched(space: spaces.Space, num_envs: int, path: str) -> BatchedArray | BatchedNest:
    """The array work for `space` and `num_envs` environments.

    Args:
        space: The space of one environment.
        num_envs: B.
        path: What to call the space in messages, for example ``"observation_space"``.

    Raises:
        ValueError: Where the space, or a part of it, is of a kind that pgest does not take.

    >>> pair = batched(spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 1, (2,))]), 4, "example")
    >>> [leaf.shape for leaf in pair.empty()]
    [(4,), (4, 2)]
    """
    if isinstance(space, ARRAY_SPACES):
        return BatchedArray(space, num_envs, path)
    items: Iterable[tuple[Any, spaces.Space]] = ()
    if isinstance(space, spaces.Dict):
        items = space.items()
    elif isinstance(space, spaces.Tuple):
        items = enumerate(space)
    parts = {key: batched(part, num_envs, f"{path}[{key!r}]") for key, part in items}
    if parts:
        return BatchedNest(parts, isinstance(space, spaces.Dict), path)
    raise ValueError(
        f"{path} is {space}, a space that pgest does not support: expected Box, Discrete, "
        "MultiDiscrete, MultiBinary, or a non-empty Dict or Tuple of these. Wrap the environment "
        "(gymnasium.ObservationWrapper, gymnasium.ActionWrapper) to turn it into one of them."
    )
