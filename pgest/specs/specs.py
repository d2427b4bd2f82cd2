"""Specs: the shape, dtype, bounds and name of every leaf of a nest of tensors or arrays.

`tf.TensorSpec` and `BoundedTensorSpec` describe tensors, `ArraySpec` and `BoundedArraySpec` arrays.
Specs never hold a batch axis unless `add_outer_dims` put one there. Everything here takes nests
(see `pgest.specs.nests`).
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pgest.specs import nests


def _bounds(
    shape: Sequence[int | None],
    dtype: np.dtype,
    minimum: npt.ArrayLike,
    maximum: npt.ArrayLike,
    name: str | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Read-only bounds of the dtype, checked to broadcast to the shape."""
    arrays = tuple(np.array(bound, dtype=dtype) for bound in (minimum, maximum))
    for word, array in zip(("minimum", "maximum"), arrays, strict=True):
        known = [1 if size is None else size for size in shape]
        if array.ndim > len(known) or any(
            size not in (1, wanted)
            for size, wanted in zip(array.shape[::-1], known[::-1], strict=False)
        ):
            raise ValueError(
                f"spec {name!r}: {word} has shape {array.shape}, expected one that broadcasts to "
                f"{tuple(shape)}."
            )
        array.setflags(write=False)
    low, high = arrays
    if np.any(low > high):
        raise ValueError(f"spec {name!r}: minimum {low} is above maximum {high}; swap them.")
    return low, high


class BoundedTensorSpec(tf.TensorSpec):
    """A `tf.TensorSpec` with inclusive bounds, good wherever one is, input signatures included.

    Args:
      shape: the shape; entries may be None.
      dtype: the dtype.
      minimum: inclusive lower bound that broadcasts to `shape`; -inf means none.
      maximum: inclusive upper bound, likewise.
      name: the name of the leaf, or None.

    Raises:
      ValueError: where bounds do not broadcast to the shape or a minimum is above its maximum.

    >>> spec = BoundedTensorSpec((2,), tf.float32, -1, [1, 2], name="torque")
    >>> spec.maximum
    array([1., 2.], dtype=float32)
    """

    def __init__(
        self,
        shape: Any,
        dtype: Any,
        minimum: npt.ArrayLike,
        maximum: npt.ArrayLike,
        name: str | None = None,
    ) -> None:
        super().__init__(shape, dtype, name)
        self._minimum, self._maximum = _bounds(
            self.shape.as_list(), np.dtype(self.dtype.as_numpy_dtype), minimum, maximum, name
        )

    @property
    def minimum(self) -> np.ndarray:
        """The inclusive lower bound: a read-only array that broadcasts to the shape."""
        return self._minimum

    @property
    def maximum(self) -> np.ndarray:
        """The inclusive upper bound: a read-only array that broadcasts to the shape."""
        return self._maximum

    @classmethod
    def from_spec(cls, spec: Any, name: str | None = None) -> "BoundedTensorSpec":
        """The spec with the shape, dtype and bounds of `spec`, a bounded tensor or array spec."""
        return cls(spec.shape, spec.dtype, spec.minimum, spec.maximum, name or spec.name)

    def __repr__(self) -> str:
        return (
            f"BoundedTensorSpec(shape={tuple(self.shape)}, dtype={self.dtype!r}, "
            f"name={self.name!r}, "
            f"minimum={self.minimum.tolist()}, maximum={self.maximum.tolist()})"
        )

    def __eq__(self, other: object) -> bool:
        return bool(super().__eq__(other)) and _same_bounds(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype, self.minimum.tobytes(), self.maximum.tobytes()))

    def __reduce__(self) -> tuple:
        return BoundedTensorSpec, (self.shape, self.dtype, self.minimum, self.maximum, self.name)


def _same_bounds(first: Any, second: Any) -> bool:
    return np.array_equal(first.minimum, second.minimum) and np.array_equal(
        first.maximum, second.maximum
    )


class ArraySpec:
    """The shape, dtype and name of a numpy array.

    >>> ArraySpec((2,), np.float32, name="position")
    ArraySpec(shape=(2,), dtype=dtype('float32'), name='position')
    """

    def __init__(
        self, shape: Sequence[int | None], dtype: npt.DTypeLike, name: str | None = None
    ) -> None:
        self._shape = tuple(shape)
        self._dtype = np.dtype(dtype)
        self._name = name

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape; None where any length will do."""
        return self._shape

    @property
    def dtype(self) -> np.dtype:
        """The numpy dtype."""
        return self._dtype

    @property
    def name(self) -> str | None:
        """The name of the leaf, or None."""
        return self._name

    def check_array(self, array: Any) -> bool:
        """Whether `array` has this shape and dtype (and keeps the bounds, where there are any)."""
        return (
            isinstance(array, np.ndarray | np.generic)
            and array.dtype == self.dtype
            and fits(array.shape, self.shape)
        )

    def __repr__(self) -> str:
        return f"ArraySpec(shape={self.shape}, dtype={self.dtype!r}, name={self.name!r})"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, ArraySpec):
            return NotImplemented
        return (self.shape, self.dtype, self.name) == (other.shape, other.dtype, other.name)

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype))


class BoundedArraySpec(ArraySpec):
    """An `ArraySpec` with inclusive bounds; the numpy twin of `BoundedTensorSpec`.

    >>> BoundedArraySpec((), np.int64, 0, 3).check_array(np.int64(4))
    False
    """

    def __init__(
        self,
        shape: Sequence[int | None],
        dtype: npt.DTypeLike,
        minimum: npt.ArrayLike,
        maximum: npt.ArrayLike,
        name: str | None = None,
    ) -> None:
        super().__init__(shape, dtype, name)
        self._minimum, self._maximum = _bounds(self.shape, self.dtype, minimum, maximum, name)

    @property
    def minimum(self) -> np.ndarray:
        """The inclusive lower bound: a read-only array that broadcasts to the shape."""
        return self._minimum

    @property
    def maximum(self) -> np.ndarray:
        """The inclusive upper bound: a read-only array that broadcasts to the shape."""
        return self._maximum

    def check_array(self, array: Any) -> bool:
        """See `ArraySpec.check_array`."""
        return super().check_array(array) and bool(
            np.all((array >= self.minimum) & (array <= self.maximum))
        )

    def __repr__(self) -> str:
        return (
            f"BoundedArraySpec(shape={self.shape}, dtype={self.dtype!r}, name={self.name!r}, "
            f"minimum={self.minimum.tolist()}, maximum={self.maximum.tolist()})"
        )

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) is True and _same_bounds(self, other)

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype, self.minimum.tobytes(), self.maximum.tobytes()))


def fits(shape: Sequence[int | None], wanted: Sequence[int | None]) -> bool:
    """Whether two shapes can be the same; None stands for any length."""
    return len(shape) == len(wanted) and all(
        None in (size, expected) or size == expected
        for size, expected in zip(shape, wanted, strict=True)
    )


def is_bounded(spec: Any) -> bool:
    """Whether a leaf spec has `minimum` and `maximum`."""
    return isinstance(spec, BoundedTensorSpec | BoundedArraySpec)


def from_spec(specs: nests.Nest) -> nests.Nest:
    """Turns array specs into tensor specs, bounds and names kept; any `tf.TypeSpec` stays as it is.

    Raises:
      ValueError: naming the leaf that is no spec.

    >>> from_spec({"a": ArraySpec((2,), np.float32)})
    {'a': TensorSpec(shape=(2,), dtype=tf.float32, name=None)}
    """

    def convert(path: str, spec: Any) -> tf.TypeSpec:
        if isinstance(spec, tf.TypeSpec):
            return spec
        if isinstance(spec, BoundedArraySpec):
            return BoundedTensorSpec.from_spec(spec)
        if isinstance(spec, ArraySpec):
            return tf.TensorSpec(spec.shape, spec.dtype, spec.name)
        raise ValueError(_no_spec(path, spec))

    return nests.map_with_paths(convert, specs)


def to_array_spec(specs: nests.Nest) -> nests.Nest:
    """Turns tensor specs into array specs, bounds and names kept; array specs stay as they are.

    Raises:
      ValueError: naming the leaf that is neither a `tf.TensorSpec` nor an `ArraySpec`.

    >>> to_array_spec(BoundedTensorSpec((), tf.int64, 0, 1, "action"))
    BoundedArraySpec(shape=(), dtype=dtype('int64'), name='action', minimum=0, maximum=1)
    """

    def convert(path: str, spec: Any) -> ArraySpec:
        if isinstance(spec, ArraySpec):
            return spec
        if not isinstance(spec, tf.TensorSpec):
            raise ValueError(_no_spec(path, spec))
        shape, dtype = spec.shape.as_list(), spec.dtype.as_numpy_dtype
        if isinstance(spec, BoundedTensorSpec):
            return BoundedArraySpec(shape, dtype, spec.minimum, spec.maximum, spec.name)
        return ArraySpec(shape, dtype, spec.name)

    return nests.map_with_paths(convert, specs)


def _no_spec(path: str, spec: Any) -> str:
    return (
        f"spec at {path!r}: got {spec!r} of type {type(spec).__name__}, expected a tf.TensorSpec, "
        "BoundedTensorSpec, ArraySpec or BoundedArraySpec."
    )


def replace_spec(
    spec: Any, *, shape: Sequence[int | None] | None = None, name: str | None = None
) -> Any:
    """The same leaf spec, bounds kept, with another shape or name."""
    arguments: list[Any] = [spec.shape if shape is None else shape, spec.dtype]
    if is_bounded(spec):
        arguments += [spec.minimum, spec.maximum]
    return type(spec)(*arguments, name=name or spec.name)


def add_outer_dims(specs: nests.Nest, outer_dims: Sequence[int | None] = (None,)) -> nests.Nest:
    """Puts outer axes in front of every spec; `(None,)` is a batch of any size.

    >>> add_outer_dims(ArraySpec((2,), np.float32), (5,)).shape
    (5, 2)
    """
    return tf.nest.map_structure(
        lambda spec: replace_spec(spec, shape=(*outer_dims, *spec.shape)), specs
    )


def with_path_names(specs: nests.Nest, prefix: str = "") -> nests.Nest:
    """Names every spec by its path in the nest, after `prefix`.

    >>> with_path_names({"left arm": ArraySpec((), np.int64, "b")}, "action")["left arm"].name
    'action/left_arm'
    """
    return nests.map_with_paths(
        lambda path, spec: replace_spec(spec, name=nests.signature_name(prefix, path)), specs
    )


def zero_spec_nest(specs: nests.Nest, outer_dims: Any = ()) -> nests.Nest:
    """Zeros of every spec: tensors for tensor specs, arrays for array specs.

    Args:
      specs: nest of specs.
      outer_dims: axes in front: ints, or scalar int tensors for tensor specs.

    Raises:
      NotImplementedError: for a `tf.TypeSpec` that is no `tf.TensorSpec` (sparse, ragged).
      ValueError: where a spec's own shape is not fully known.
    """

    def zeros(path: str, spec: Any) -> Any:
        if not isinstance(spec, tf.TensorSpec | ArraySpec):
            raise NotImplementedError(f"zeros at {path!r}: got {spec!r}, expected a dense spec.")
        if None in tuple(spec.shape):
            raise ValueError(
                f"zeros at {path!r}: the shape {tuple(spec.shape)} is not fully known."
            )
        if isinstance(spec, ArraySpec):
            return np.zeros((*outer_dims, *spec.shape), spec.dtype)
        return tf.zeros([*outer_dims, *spec.shape], spec.dtype)

    return nests.map_with_paths(zeros, specs)


def observation_spec(space: gymnasium.Space) -> nests.Nest:
    """The tensor specs of a gymnasium observation space, named "observation" and by path.

    See `space_spec`.

    >>> observation_spec(gymnasium.spaces.Box(-1, 1, (3,), np.float32)).shape
    TensorShape([3])
    """
    return space_spec(space, "observation")


def action_spec(space: gymnasium.Space) -> nests.Nest:
    """The tensor specs of a gymnasium action space, named "action" and by path.

    See `space_spec`.

    >>> action_spec(gymnasium.spaces.Discrete(3, start=1)).maximum
    array(3)
    """
    return space_spec(space, "action")


def space_spec(space: gymnasium.Space, name: str) -> nests.Nest:
    """The tensor specs of one sample of a gymnasium space, bounds kept.

    `to_array_spec` makes array specs of them.

    Box, Discrete (with its start), MultiDiscrete and MultiBinary are leaves; Dict becomes a dict,
    Tuple a tuple.

    Args:
      space: a single space, not the batched one of a vector environment.
      name: the name of a bare leaf and the first part of the names in a nest.

    Raises:
      TypeError: for any other space; wrap the environment so that it gives one of these.
    """
    spaces = gymnasium.spaces
    if isinstance(space, spaces.Dict):
        return {
            key: space_spec(child, nests.join_path(name, key))
            for key, child in space.spaces.items()
        }
    if isinstance(space, spaces.Tuple):
        return tuple(
            space_spec(child, nests.join_path(name, at)) for at, child in enumerate(space.spaces)
        )
    if isinstance(space, spaces.Box):
        return BoundedTensorSpec(space.shape, space.dtype, space.low, space.high, name)
    if isinstance(space, spaces.Discrete):
        return BoundedTensorSpec((), space.dtype, space.start, space.start + space.n - 1, name)
    if isinstance(space, spaces.MultiDiscrete):
        return BoundedTensorSpec(
            space.shape, space.dtype, space.start, space.start + space.nvec - 1, name
        )
    if isinstance(space, spaces.MultiBinary):
        return BoundedTensorSpec(space.shape, space.dtype, 0, 1, name)
    raise TypeError(
        f"{name}: got the space {space!r}, expected Box, Discrete, MultiDiscrete, "
        "MultiBinary, or a Dict or Tuple of them; "
        "wrap the environment to turn the space into one of these."
    )
