"""What gymnasium's spaces mean to pgest: which it takes, their arrays, actions in their terms.

Everywhere in pgest the values of B environments are one nest of arrays ``[B, …]`` in the space's
own dtype: an array for Box, Discrete, MultiDiscrete and MultiBinary, a dict (keys in the space's
order) for Dict, a tuple for Tuple.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces

Nest: TypeAlias = Any  # an array, or a dict or tuple of nests

ARRAY_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class Misfit(ValueError):
    """A value is not what its space holds; the message is a sentence without its end.

    Attributes:
        index: Of which environment, where it is known.
    """

    index: int | None = None


class BatchedArray:
    """The array work for one Box, Discrete, MultiDiscrete or MultiBinary, times ``num_envs``.

    The methods that run at every timestep compare shape and dtype first, which is all there is to
    do for most environments, and convert only what differs: nothing is rounded, wrapped or spread
    over a row in silence.

    Args:
        space: The space of one environment.
        num_envs: B.
        path: Where the space stands within the whole one, for messages.
    """

    def __init__(self, space: spaces.Space, num_envs: int, path: str) -> None:
        if space.shape is None or space.dtype is None:
            raise ValueError(f"{path} is {space}, which has no shape or dtype of its own.")
        self.path = path
        self.space = space
        self.shape = tuple(space.shape)
        self.batch_shape = (num_envs, *self.shape)
        self.dtype = np.dtype(space.dtype)
        self.is_float = self.dtype.kind == "f"
        self.is_narrow: bool = self.dtype.kind in "iu" and self.dtype != np.int64
        self.bounds = _bounds(space)
        self._counts_one = isinstance(space, spaces.Discrete)
        self._range = range(0)
        if self._counts_one and self.bounds is not None:
            self._range = range(self.bounds[0], self.bounds[1] + 1)
        self.empty: Callable[[], Nest] = functools.partial(np.empty, self.batch_shape, self.dtype)
        self.row: Callable[[Nest, int], Any] = operator.getitem

    def write(self, batch: np.ndarray, index: int, value: Any) -> None:
        """Writes one environment's value into its row; `Misfit` where it does not fit."""
        if value.__class__ is int and self._counts_one and value in self._range:
            batch[index] = value  # as most environments give a Discrete
            return
        if getattr(value, "dtype", None) != self.dtype:
            value = self._converted(value)
        if value.shape != self.shape:
            raise self._wrong_shape(value.shape, self.shape)
        batch[index] = value

    def copy(self, batch: Any) -> Nest:
        """A new ``[B, …]`` array in the space's dtype; `Misfit` where the values do not fit."""
        if getattr(batch, "dtype", None) == self.dtype:
            return self._expect_shape(np.array(batch, order="C"))
        return self._expect_shape(np.array(self._converted(batch), order="C"))

    def detach(self, batch: Any) -> Nest:
        """`copy`, but for arrays that fit and whose rows are scalars, which nobody can change."""
        if self.shape:
            return self.copy(batch)
        if getattr(batch, "dtype", None) == self.dtype:
            return self._expect_shape(np.asarray(batch))
        return self._expect_shape(self._converted(batch))

    def convert(self, value: Any) -> Nest:
        """An array of any shape in the space's dtype; `Misfit` where that cannot hold it."""
        return value if getattr(value, "dtype", None) == self.dtype else self._converted(value)

    def leaves(self, nest: Nest) -> Iterator[tuple[BatchedArray, np.ndarray]]:
        """Each array of a nest with what is known of it."""
        yield self, nest

    def check(self, value: Any) -> None:
        """Raises `Misfit` unless `value`, of one environment, has the shape and fits the dtype."""
        if getattr(value, "dtype", None) != self.dtype:
            value = self._converted(value)
        if value.shape != self.shape:
            raise self._wrong_shape(value.shape, self.shape)

    def outside(self, batch: np.ndarray) -> tuple[int, Any] | None:
        """The first row, and its value, that a space of counted values does not have.

        None where there is none, and for a Box, whose bounds many environments take lightly.
        """
        if self.bounds is None:
            return None
        low, high = self.bounds
        if len(batch) == 1 and self._counts_one:
            return None if int(batch[0]) in self._range else (0, batch[0])
        wrong = (batch < low) | (batch > high)
        if not wrong.any():
            return None
        index = int(wrong.reshape(len(batch), -1).any(axis=1).argmax())
        return index, batch[index]

    def _converted(self, value: Any) -> np.ndarray:
        """`value` in the space's dtype, if that holds it: numpy's rule ``same_kind``.

        Integers of every size are one kind here, since their values tell whether they fit.
        """
        try:
            array = np.asarray(value)
        except ValueError as error:  # lists of several lengths
            raise Misfit(f"the {self._name} is no array: {error}") from error
        kind = array.dtype.kind
        if kind in "biu" and self.dtype.kind in "iu":
            if not np.can_cast(array.dtype, self.dtype, "safe"):
                limits = np.iinfo(self.dtype)
                wrong = (array < limits.min) | (array > limits.max)
                if wrong.any():
                    raise self._wrong_dtype(array, wrong)
        elif not np.can_cast(array.dtype, self.dtype, "same_kind"):
            # The value to show is one that would change, if any is of the kind at all.
            wrong = array != np.floor(array) if kind == "f" else np.ones(array.shape, np.bool_)
            raise self._wrong_dtype(array, wrong)
        with np.errstate(over="ignore"):
            converted = array.astype(self.dtype)
        if kind == "f" and array.dtype.itemsize > self.dtype.itemsize:
            wrong = np.isinf(converted) & np.isfinite(array)
            if wrong.any():
                raise self._wrong_dtype(array, wrong)
        return converted

    def _wrong_dtype(self, array: np.ndarray, wrong: np.ndarray) -> Misfit:
        first = [*(array[wrong] if wrong.any() else array.ravel())[:1].tolist(), array.tolist()][0]
        return Misfit(
            f"the {self._name} holds {first!r} of dtype {array.dtype}, which {self.path} "
            f"{self.space} of dtype {self.dtype} cannot hold"
        )

    def _wrong_shape(self, found: tuple[int, ...], expected: tuple[int, ...]) -> Misfit:
        return Misfit(f"the {self._name} has shape {found}, {self.path} says {expected}")

    @property
    def _name(self) -> str:
        return self.path.partition("_space")[0]

    def _expect_shape(self, array: np.ndarray) -> np.ndarray:
        if array.shape != self.batch_shape:
            raise self._wrong_shape(array.shape, self.batch_shape)
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
        self.is_narrow: bool = any(part.is_narrow for part in parts.values())

    def empty(self) -> Nest:
        """A nest of uninitialised arrays ``[B, …]``."""
        return self._build([part.empty() for _, part in self._parts])

    def write(self, nest: Nest, index: int, value: Any) -> None:
        """Writes one environment's value into its row of every array."""
        self._check_structure(value)
        for key, part in self._parts:
            part.write(nest[key], index, value[key])

    def row(self, nest: Nest, index: int) -> Any:
        """One environment's value: a dict or tuple."""
        return self._build([part.row(nest[key], index) for key, part in self._parts])

    def copy(self, batch: Any) -> Nest:
        """A new nest in the space's structure and dtypes; `Misfit` where it does not fit."""
        self._check_structure(batch)
        return self._build([part.copy(batch[key]) for key, part in self._parts])

    def detach(self, batch: Any) -> Nest:
        """See `BatchedArray.detach`."""
        self._check_structure(batch)
        return self._build([part.detach(batch[key]) for key, part in self._parts])

    def convert(self, value: Any) -> Nest:
        """See `BatchedArray.convert`."""
        self._check_structure(value)
        return self._build([part.convert(value[key]) for key, part in self._parts])

    def leaves(self, nest: Nest) -> Iterator[tuple[BatchedArray, np.ndarray]]:
        """Each array of a nest with what is known of it."""
        for key, part in self._parts:
            yield from part.leaves(nest[key])

    def check(self, value: Any) -> None:
        """Raises `Misfit` unless `value`, of one environment, is as the space says."""
        self._check_structure(value)
        for key, part in self._parts:
            part.check(value[key])

    def _build(self, values: list[Any]) -> Nest:
        if self._is_dict:
            return {key: value for (key, _), value in zip(self._parts, values, strict=True)}
        return tuple(values)

    def _check_structure(self, value: Any) -> None:
        if value.__class__ is (dict if self._is_dict else tuple) and len(value) == len(self._parts):
            if not self._is_dict or all(key in value for key, _ in self._parts):
                return
        keys = [key for key, _ in self._parts]
        name = self.path.partition("_space")[0]
        if self._is_dict:
            if not isinstance(value, dict) or set(value) != set(keys):
                got = (
                    sorted(map(str, value))
                    if isinstance(value, dict)
                    else f"a {type(value).__name__}"
                )
                raise Misfit(
                    f"the {name} is {got}, {self.path} says a dict of {sorted(map(str, keys))}"
                )
        elif not isinstance(value, (tuple, list)) or len(value) != len(keys):
            size = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
            raise Misfit(
                f"the {name} is a {type(value).__name__}{size}, {self.path} says a tuple of "
                f"{len(keys)}"
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


def counts(space: spaces.Space) -> bool:
    """Whether a space, or a part of it, has counted values: all but Box.

    >>> counts(spaces.Dict(a=spaces.Box(0, 1), b=spaces.Discrete(2))), counts(spaces.Box(0, 1))
    (True, False)
    """
    if isinstance(space, spaces.Dict):
        return any(counts(part) for part in space.values())
    if isinstance(space, spaces.Tuple):
        return any(counts(part) for part in space)
    return not isinstance(space, spaces.Box)


def _bounds(space: spaces.Space) -> tuple[Any, Any] | None:
    """The least and the greatest value of a space that counts; None for a Box."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start) + int(space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + (space.nvec - 1)
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    return None


def row_of(values: Any, row: int | np.ndarray) -> Any:
    """The part of one environment, or of several, of batched arrays, dicts or tuples of them."""
    if isinstance(values, Mapping):
        return {key: row_of(value, row) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(row_of(value, row) for value in values)
    return values[row]
