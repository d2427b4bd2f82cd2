"""Random values within specs: what the random policies do.

As gymnasium's spaces do: uniform between two finite bounds (inclusive for integers), exponential
from a single finite bound, normal without any; integers need both bounds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pgest import specs
from pgest.specs import nests, seeds

# Wide enough that the remainder of a division by any practical number of actions is uniform.
_INTEGER_DRAWS = 2**62


def sample_tensors(
    spec: nests.Nest, seed: tf.Tensor, outer_dims: Sequence[Any] = (), mask: nests.Nest = None
) -> nests.Nest:
    """Random tensors of a nest of tensor specs.

    Args:
      spec: nest of tensor specs.
      seed: int32 [2]; see `seeds.as_seed`.
      outer_dims: axes in front: ints or scalar tensors.
      mask: None, or bool [..., n] for each (discrete, scalar) leaf: only True actions are drawn.

    Raises:
      ValueError: for an integer leaf without bounds, or a mask for a leaf that is not discrete.
    """
    named = nests.flatten_with_paths(spec)
    masks = masks_of_leaves(spec, mask)
    leaves = []
    for (path, leaf), leaf_mask, leaf_seed in zip(
        named, masks, seeds.split_seed(seed, len(named)), strict=True
    ):
        check_sampled(path, leaf, masked=leaf_mask is not None)
        shape = [*outer_dims, *leaf.shape]
        if leaf_mask is not None:
            leaves.append(_masked_tensor(leaf, leaf_seed, shape, leaf_mask))
        elif leaf.dtype.is_floating:
            leaves.append(_float_tensor(leaf, leaf_seed, shape))
        else:
            leaves.append(_integer_tensor(leaf, leaf_seed, shape))
    return tf.nest.pack_sequence_as(spec, leaves)


def sample_arrays(
    spec: nests.Nest,
    generator: np.random.Generator,
    outer_dims: Sequence[int] = (),
    mask: nests.Nest = None,
) -> nests.Nest:
    """Random arrays of a nest of array specs; the numpy twin of `sample_tensors`.

    >>> spec = specs.BoundedArraySpec((), np.int64, 4, 4)
    >>> sample_arrays(spec, np.random.default_rng(0), (2,))
    array([4, 4])
    """
    leaves = []
    named = nests.flatten_with_paths(spec)
    for (path, leaf), leaf_mask in zip(named, masks_of_leaves(spec, mask), strict=True):
        check_sampled(path, leaf, masked=leaf_mask is not None)
        shape = (*outer_dims, *leaf.shape)
        if leaf_mask is not None:
            # The largest of exponential draws is uniform over those that the mask lets through.
            draws = np.where(leaf_mask, generator.exponential(size=np.shape(leaf_mask)), -1.0)
            value = np.argmax(draws, axis=-1) + leaf.minimum
        elif leaf.dtype.kind == "f":
            value = _float_array(leaf, generator, shape)
        elif leaf.dtype.kind == "b":
            value = generator.integers(0, 2, shape)
        else:
            value = generator.integers(leaf.minimum, leaf.maximum, shape, endpoint=True)
        leaves.append(np.asarray(value, leaf.dtype))
    return tf.nest.pack_sequence_as(spec, leaves)


def log_prob(spec: Any, mask: Any = None) -> Any:
    """The float32 log-probability of every value that is drawn within a leaf spec with two bounds.

    Args:
      spec: leaf spec with finite bounds.
      mask: None or bool [..., n].

    Returns:
      Scalar tensor, or [...] with a mask.

    Raises:
      ValueError: where a bound is missing or infinite.
    """
    if mask is not None:
        return -tf.math.log(tf.reduce_sum(tf.cast(mask, tf.float32), axis=-1))
    if not specs.is_bounded(spec) or not np.all(np.isfinite([spec.minimum, spec.maximum])):
        raise ValueError(f"log-probability of random values of {spec!r}: expected finite bounds.")
    width = np.broadcast_to(spec.maximum, spec.shape).astype(np.float64) - spec.minimum
    volume = np.log(width if spec.dtype.is_floating else width + 1)
    return tf.constant(-np.sum(volume), tf.float32)


def masks_of_leaves(spec: nests.Nest, mask: nests.Nest) -> list[Any]:
    """A mask or None for every leaf of the spec."""
    leaves = tf.nest.flatten(spec)
    if mask is None:
        return [None] * len(leaves)
    masks = tf.nest.flatten(mask)
    if len(masks) != len(leaves):
        raise ValueError(
            f"action mask: got {len(masks)} masks for {len(leaves)} action leaves; "
            "expected one for each, None where all actions are allowed."
        )
    return masks


def check_sampled(path: str, spec: Any, *, masked: bool = False) -> None:
    """Raises ValueError where random values of a leaf spec are not defined."""
    dtype = np.dtype(spec.dtype if isinstance(spec, specs.ArraySpec) else spec.dtype.as_numpy_dtype)
    where = f"random values at {path!r}" if path else "random values"
    if dtype.kind in "iu" and not specs.is_bounded(spec):
        raise ValueError(f"{where}: {spec!r} has no bounds; expected a bounded spec for integers.")
    if dtype.kind not in "iufb":
        raise ValueError(f"{where}: {spec!r} is neither of integers, floats nor booleans.")
    if masked and (dtype.kind not in "iu" or len(spec.shape) != 0):
        raise ValueError(
            f"{where}: an action mask needs a scalar integer action, but the spec is {spec!r}."
        )


def _bounds(spec: Any) -> tuple[np.ndarray, np.ndarray]:
    if specs.is_bounded(spec):
        return spec.minimum, spec.maximum
    return np.float32(-np.inf), np.float32(np.inf)


def _mix(low: np.ndarray, high: np.ndarray, uniform: Any, normal: Any, where: Any) -> Any:
    """The value of each entry from a uniform and a normal draw, by which of its bounds are finite.

    `where` is `np.where` or `tf.where`. Bounds are weighed: high - low might overflow.
    """
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    safe_low, safe_high = np.where(has_low, low, 0), np.where(has_high, high, 0)
    exponential = -(np if where is np.where else tf.math).log(1 - uniform)
    value = where(has_low, safe_low + exponential, normal)
    value = where(has_high & ~has_low, safe_high - exponential, value)
    return where(has_low & has_high, safe_low * (1 - uniform) + safe_high * uniform, value)


def _float_array(spec: Any, generator: np.random.Generator, shape: tuple) -> np.ndarray:
    low, high = _bounds(spec)
    value = _mix(low, high, generator.random(shape), generator.standard_normal(shape), np.where)
    return np.clip(np.asarray(value, spec.dtype), low, high)


def _float_tensor(spec: Any, seed: tf.Tensor, shape: list) -> tf.Tensor:
    low, high = (np.asarray(bound, spec.dtype.as_numpy_dtype) for bound in _bounds(spec))
    uniform_seed, normal_seed = seeds.split_seed(seed, 2)
    uniform = tf.random.stateless_uniform(shape, uniform_seed, dtype=spec.dtype)
    normal = tf.random.stateless_normal(shape, normal_seed, dtype=spec.dtype)
    return tf.clip_by_value(_mix(low, high, uniform, normal, tf.where), low, high)


def _integer_tensor(spec: Any, seed: tf.Tensor, shape: list) -> tf.Tensor:
    draws = tf.random.stateless_uniform(shape, seed, 0, _INTEGER_DRAWS, tf.int64)
    if spec.dtype == tf.bool:
        return draws % 2 == 1
    low, high = spec.minimum.astype(np.int64), spec.maximum.astype(np.int64)
    return tf.cast(low + draws % (high - low + 1), spec.dtype)


def _masked_tensor(spec: Any, seed: tf.Tensor, shape: list, mask: Any) -> tf.Tensor:
    draws = tf.random.stateless_uniform(tf.shape(mask), seed)
    choice = tf.argmax(tf.where(tf.cast(mask, tf.bool), draws, -1.0), axis=-1)
    return tf.reshape(tf.cast(choice + spec.minimum, spec.dtype), shape)
