"""Specs: the shape, dtype, bounds and name of every leaf of a nest of tensors or arrays."""

from pgest.specs.specs import (
    ArraySpec,
    BoundedArraySpec,
    BoundedTensorSpec,
    action_spec,
    add_outer_dims,
    fits,
    from_spec,
    is_bounded,
    observation_spec,
    replace_spec,
    space_spec,
    to_array_spec,
    with_path_names,
    zero_spec_nest,
)

__all__ = [
    "ArraySpec",
    "BoundedArraySpec",
    "BoundedTensorSpec",
    "action_spec",
    "add_outer_dims",
    "fits",
    "from_spec",
    "is_bounded",
    "observation_spec",
    "replace_spec",
    "space_spec",
    "to_array_spec",
    "with_path_names",
    "zero_spec_nest",
]
