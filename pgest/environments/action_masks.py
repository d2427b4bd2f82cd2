"""Which actions an environment allows: masks of many environments in one nest of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv

from pgest.environments.spaces import Nest


def stack_masks(rows: Sequence[Any], path: str = "action_mask") -> Nest:
    """The masks of B environments as bool ``[B, n]``, or a tuple of them.

    Args:
        rows: One mask per environment; None: every action of it is allowed. A part that is None in
            all of them, as of a Box, becomes ``()``: a nest without arrays.
        path: What to call the mask in messages.

    Raises:
        ValueError: The masks of the environments differ in shape or structure.

    >>> stack_masks([[1, 0], None])
    array([[ True, False],
           [ True,  True]])
    """
    template = next((row for row in rows if row is not None), ())
    if isinstance(template, (tuple, dict)):
        keys = list(template) if isinstance(template, dict) else list(range(len(template)))
        parts = [
            stack_masks([None if row is None else row[key] for row in rows], f"{path}[{key!r}]")
            for key in keys
        ]
        return dict(zip(keys, parts, strict=True)) if isinstance(template, dict) else tuple(parts)
    mask = np.ones((len(rows), *np.shape(template)), np.bool_)
    for index, row in enumerate(rows):
        if row is not None:
            if np.shape(row) != mask.shape[1:]:
                raise ValueError(
                    f"{path} of environment {index} has shape {np.shape(row)}, "
                    f"that of another environment {mask.shape[1:]}."
                )
            mask[index] = row
    return mask


def batch_masks(masks: Any) -> Nest:
    """The masks of a vector environment as new bool arrays ``[B, n]``, or a tuple or dict of them.

    Args:
        masks: A nest of arrays, or an object array with one mask per environment (None: absent).
            A part that is None, as of a Box, becomes ``()``: a nest without arrays.
    """
    if masks is None:
        return ()
    if isinstance(masks, Mapping):
        return {key: batch_masks(mask) for key, mask in masks.items() if key[:1] != "_"}
    if isinstance(masks, tuple):
        return tuple(batch_masks(mask) for mask in masks)
    if np.asarray(masks).dtype == object:
        return stack_masks(list(masks))
    return np.array(masks, np.bool_)


def allowed_choices(space: spaces.Space | None, mask: Nest) -> Iterator[np.ndarray]:
    """Whether each choice allows an action, ``[B]`` or ``[B, choices]``, of each part of a mask."""
    if isinstance(mask, (tuple, dict)):
        parts: Any = space.spaces if isinstance(space, (spaces.Dict, spaces.Tuple)) else None
        for key, part in mask.items() if isinstance(mask, dict) else enumerate(mask):
            yield from allowed_choices(None if parts is None else parts[key], part)
    elif isinstance(space, spaces.MultiDiscrete) and mask.shape[-1] == space.nvec.sum():
        sizes = space.nvec.ravel()  # choice after choice in a row
        yield np.logical_or.reduceat(mask, np.cumsum(sizes) - sizes, axis=-1)
    else:
        yield mask.any(axis=-1)


def merge_masks(new: Nest, old: Nest, rows: np.ndarray) -> Nest:
    """The masks `new` in the rows that are True, else `old`; arrays of its own.

    Args:
        new: bool ``[B, n]``, or a tuple or dict of them.
        old: The same.
        rows: bool ``[B]``.

    Raises:
        ValueError: The two differ in shape or structure.

    >>> old = np.array([[True, False], [True, False]])
    >>> merge_masks(~old, old, np.array([False, True]))
    array([[ True, False],
           [False,  True]])
    """
    if type(new) is not type(old):
        raise ValueError(f"an action_mask is {new!r}, the one before {old!r}")
    if isinstance(old, dict):
        if new.keys() != old.keys():
            raise ValueError(f"an action_mask has the keys {list(new)}, before {list(old)}")
        return {key: merge_masks(new[key], old[key], rows) for key in old}
    if isinstance(old, tuple):
        return tuple(merge_masks(*pair, rows) for pair in zip(new, old, strict=True))
    if new.shape != old.shape:
        raise ValueError(
            f"an action_mask has the shape {new.shape[1:]}, the one before {old.shape[1:]}"
        )
    merged = old.copy()
    merged[rows] = new[rows]
    return merged


def allow_everything(masks: Nest, rows: np.ndarray) -> None:
    """Makes the masks all True in the rows, bool ``[B]``, that are True."""
    if isinstance(masks, (tuple, dict)):
        for part in masks.values() if isinstance(masks, dict) else masks:
            allow_everything(part, rows)
    else:
        masks[rows] = True


def leaves(masks: Nest) -> dict[str, np.ndarray]:
    """The arrays of masks by name, `mask/0` and so on; empty where there are none."""
    return {f"mask/{number}": mask for number, mask in enumerate(_arrays(masks))}


def fill(masks: Nest, saved: Mapping[str, np.ndarray]) -> None:
    """Writes what `leaves` gave into masks of the same structure.

    Raises:
        ValueError: They are of another shape.
        KeyError: There were fewer.
    """
    for number, mask in enumerate(_arrays(masks)):
        mask[...] = saved[f"mask/{number}"]


def _arrays(masks: Nest) -> Iterator[np.ndarray]:
    if isinstance(masks, (tuple, dict)):
        for part in masks.values() if isinstance(masks, dict) else masks:
            yield from _arrays(part)
    elif masks is not None:
        yield masks


def mask_method(env: VectorEnv) -> Callable[[], Any] | None:
    """How to call ``action_masks()``; a process cannot be asked without ending if it has none."""
    unwrapped = env.unwrapped
    if isinstance(unwrapped, SyncVectorEnv):
        if all(single.has_wrapper_attr("action_masks") for single in unwrapped.envs):
            return lambda: stack_masks(unwrapped.call("action_masks"))
        return None
    return getattr(unwrapped, "action_masks", None)
