"""Checks of what `PolicySaver` is given."""

from __future__ import annotations

import inspect
import numbers
import operator
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from pgest.policies.tf_policies import TFPolicy


def checked_batch_size(batch_size: Any) -> int | None:
    """The batch size as a Python int, or None; ValueError for anything else."""
    if batch_size is None:
        return None
    try:
        size = 0 if isinstance(batch_size, bool) else operator.index(batch_size)
    except TypeError:
        size = 0
    if size <= 0:
        raise ValueError(f"Expected batch_size == None or python int > 0, saw: {batch_size!r}")
    return size


def checked_seed(seed: Any) -> int | None:
    """The seed as a Python int, or None; TypeError for anything else."""
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(f"seed: got {seed!r}, expected None or an int.")
    return int(seed)


def checked_metadata(metadata: Any) -> dict[str, tf.Variable]:
    """The metadata as a dict of its own; TypeError for anything but variables by name."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise TypeError(
            f"metadata must be a dictionary of tf.Variable: got a {type(metadata).__name__}."
        )
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise TypeError(f"Keys of metadata must be strings: {key!r}")
        if not isinstance(value, tf.Variable):
            raise TypeError(f"Values of metadata must be tf.Variable: {value!r}")
    return dict(metadata)


def checked_train_step(train_step: Any) -> tf.Variable:
    """The train step, or one that holds -1; ValueError for anything but a variable."""
    if train_step is None:
        return tf.Variable(
            -1,
            dtype=tf.int64,
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            name="train_step",
        )
    if not isinstance(train_step, tf.Variable):
        raise ValueError(
            f"train_step must be a TensorFlow variable: {train_step!r}; give "
            "tf.Variable(0, dtype=tf.int64) and assign to it."
        )
    return train_step


def variables_in_reach(function: Callable[..., Any]) -> list[tf.Variable]:
    """The variables that a Python function finds by its closure, its globals or its object."""
    values: list[Any] = [getattr(function, "__self__", None)]
    try:
        reached = inspect.getclosurevars(inspect.unwrap(getattr(function, "__func__", function)))
    except TypeError:
        return []
    values += [*reached.nonlocals.values(), *reached.globals.values()]
    found: dict[int, tf.Variable] = {}
    for value in values:
        for leaf in tf.nest.flatten(value):
            if isinstance(leaf, tf.Variable):
                found[id(leaf)] = leaf
            elif isinstance(leaf, TFPolicy):
                found |= {id(variable): variable for variable in leaf.variables()}
            elif isinstance(leaf, tf.Module):
                found |= {id(variable): variable for variable in leaf.variables}
    return list(found.values())
