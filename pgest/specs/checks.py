"""Values against specs: one check and one cast, whose errors are one line that names the leaf.

Outer axes (batch, time) stand in front of a spec's shape. `outer_dims=None` takes whatever the
first leaf has in front and asks the same of every other leaf.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pgest import specs
from pgest.specs import nests

OuterDims = Sequence[int | None] | None


def outer_shape(value: nests.Nest, spec: nests.Nest) -> tuple[Any, ...]:
    """The (static) axes that the first leaf of a value has in front of its spec's shape.

    An empty nest has none; a tensor of unknown rank counts as one batch axis.

    >>> outer_shape(np.zeros((5, 2)), tf.TensorSpec((2,), tf.float64))
    (5,)
    """
    leaves, leaf_specs = tf.nest.flatten(value), tf.nest.flatten(spec)
    if not leaves:
        return ()
    if nests.is_tensor(leaves[0]) and leaves[0].shape.rank is None:
        return (None,)
    shape = tuple(leaves[0].shape if nests.is_tensor(leaves[0]) else np.shape(leaves[0]))
    return shape[: max(0, len(shape) - len(leaf_specs[0].shape))]


def check_spec(
    value: nests.Nest, spec: nests.Nest, *, what: str = "value", outer_dims: OuterDims = None
) -> None:
    """Checks structure, dtype and shape of every leaf; values outside of bounds pass.

    Args:
      value: nest of tensors, arrays or numbers. Unknown dimensions of a traced tensor pass.
      spec: nest of tensor or array specs.
      what: the word for the value in errors.
      outer_dims: the axes expected in front of every spec, None entries for any length; None: as
          the first leaf has.

    Raises:
      ValueError: where the structure or a shape differs.
      TypeError: where a dtype differs.

    >>> check_spec({"a": np.zeros(2)}, {"a": tf.TensorSpec((2,), tf.float32)}, what="observation")
    Traceback (most recent call last):
    TypeError: observation at 'a': got float64 of shape (2,), expected float32 of shape (2,).
    """
    nests.check_same_structure(spec, value, what=what)
    outer_dims = outer_shape(value, spec) if outer_dims is None else tuple(outer_dims)
    for (path, leaf_spec), leaf in zip(
        nests.flatten_with_paths(spec), tf.nest.flatten(value), strict=True
    ):
        array = leaf if nests.is_tensor(leaf) else np.asarray(leaf)
        _check_leaf(_where(what, path), array, leaf_spec, outer_dims)


def cast_to_spec(
    value: nests.Nest, spec: nests.Nest, *, what: str = "value", outer_dims: OuterDims = None
) -> nests.Nest:
    """Makes of a value what the spec describes, or says in one line which leaf stands in the way.

    Numpy arrays, numbers and lists (where the spec has a leaf) are cast where no kind of number is
    lost: float64 to float32, int64 to int32 if every value fits, int to float, bool to either;
    never float to int. Tensors must have the dtype already.

    Args, Raises: as `check_spec`.

    Returns:
      The nest with tensors where the spec has tensor specs and arrays where it has array specs.

    >>> cast_to_spec([1, 2], specs.ArraySpec((2,), np.float32))
    array([1., 2.], dtype=float32)
    """
    value = _lists_to_arrays(spec, value)
    nests.check_same_structure(spec, value, what=what)
    outer_dims = outer_shape(value, spec) if outer_dims is None else tuple(outer_dims)
    leaves = []
    for (path, leaf_spec), leaf in zip(
        nests.flatten_with_paths(spec), tf.nest.flatten(value), strict=True
    ):
        where = _where(what, path)
        array: Any = leaf if nests.is_tensor(leaf) else _cast_array(np.asarray(leaf), leaf_spec)
        if nests.is_tensor(array) and array.shape.rank is None:
            array = tf.ensure_shape(array, [*outer_dims, *leaf_spec.shape])
        _check_leaf(where, array, leaf_spec, outer_dims)
        leaves.append(_to_kind(array, leaf_spec))
    return tf.nest.pack_sequence_as(spec, leaves)


def _where(what: str, path: str) -> str:
    return f"{what} at {path!r}" if path else what


def _lists_to_arrays(spec: nests.Nest, value: nests.Nest) -> nests.Nest:
    """Turns the lists and tuples of `value` into arrays where the spec has a leaf."""
    named_specs, named_values = nests.children(spec), nests.children(value)
    if named_specs is None:
        is_plain_sequence = isinstance(value, list | tuple) and not nests.is_namedtuple(value)
        return np.asarray(value) if is_plain_sequence else value
    if named_values is None or [name for name, _ in named_specs] != [
        name for name, _ in named_values
    ]:
        return value
    children = [
        _lists_to_arrays(child_spec, child)
        for (_, child_spec), (_, child) in zip(named_specs, named_values, strict=True)
    ]
    if isinstance(value, dict):
        return dict(zip(sorted(value), children, strict=True))
    if nests.is_namedtuple(value):
        return value.__class__(*children)
    return children if isinstance(value, list) else tuple(children)


def _numpy_dtype(spec: Any) -> np.dtype:
    return spec.dtype if isinstance(spec, specs.ArraySpec) else np.dtype(spec.dtype.as_numpy_dtype)


def _cast_array(array: np.ndarray, spec: Any) -> np.ndarray:
    """The array in the spec's dtype where that keeps every value, else the array as it was."""
    dtype = _numpy_dtype(spec)
    if array.dtype == dtype:
        return array
    if dtype.kind == "O" and array.dtype.kind in "US":
        return array.astype(object)
    if np.can_cast(array.dtype, dtype, "safe") or (array.dtype.kind != "c" and dtype.kind == "f"):
        return array.astype(dtype) if array.dtype.kind in "biuf" else array
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if array.size == 0 or (array.min() >= limits.min and array.max() <= limits.max):
            return array.astype(dtype)
    return array


def _check_leaf(where: str, array: Any, spec: Any, outer_dims: Sequence[int | None]) -> None:
    dtype = array.dtype.as_numpy_dtype if nests.is_tensor(array) else array.dtype
    wanted = (*outer_dims, *spec.shape)
    shape_known = not nests.is_tensor(array) or array.shape.rank is not None
    if dtype == _numpy_dtype(spec) and (not shape_known or specs.fits(tuple(array.shape), wanted)):
        return
    shape = _shape_text(tuple(array.shape)) if shape_known else "<unknown>"
    message = (
        f"{where}: got {np.dtype(dtype).name} of shape {shape}, "
        f"expected {_numpy_dtype(spec).name} of shape {_shape_text(wanted)}."
    )
    raise TypeError(message) if dtype != _numpy_dtype(spec) else ValueError(message)


def _shape_text(shape: Sequence[int | None]) -> str:
    """A shape with "?" for any length: "(?, 4)"."""
    sizes = ["?" if size is None else str(size) for size in shape]
    return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"


def _to_kind(array: Any, spec: Any) -> Any:
    if isinstance(spec, specs.ArraySpec):
        return array.numpy() if nests.is_tensor(array) else array
    return tf.convert_to_tensor(array)


def with_static_shape(tensor: tf.Tensor, shape: Sequence[int | None]) -> tf.Tensor:
    """The tensor with what is known of its shape noted, and no op for it.

    `tf.ensure_shape` would do as well, but TFLite has no such op.

    Args:
      tensor: eager or symbolic.
      shape: None where a dimension is not known.

    Raises:
      ValueError: the shape is known to be another one.
    """
    tensor.set_shape(shape)
    return tensor


def to_event(parameter: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """`[..., size]` to `[..., *shape]`.

    >>> to_event(tf.zeros([5, 6]), (2, 3)).shape
    TensorShape([5, 2, 3])
    """
    parameter = tf.convert_to_tensor(parameter)
    if len(shape) == 1:
        return parameter
    leading = parameter.shape[:-1]
    reshaped = tf.reshape(parameter, tf.concat([tf.shape(parameter)[:-1], shape], axis=0))
    return with_static_shape(reshaped, [*leading, *shape])
