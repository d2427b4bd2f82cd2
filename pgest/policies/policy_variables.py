"""The variables of a policy: named after it, and copied from one policy to another."""

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf


def named_after(policy: tf.Module) -> AbstractContextManager:
    """Variables created inside get the policy's name in front of theirs: "my_policy/dense/kernel".

    A name scope alone does not do it: Keras drops the scope while it builds a `Sequential` or a
    functional model.
    """
    return tf.variable_creator_scope(functools.partial(_create_below, policy))


def _create_below(
    policy: tf.Module, next_creator: Callable[..., tf.Variable], **arguments: Any
) -> tf.Variable:
    # Until `TFPolicy.__init__` has run, a policy has no name.
    prefix = vars(policy).get("_variable_prefix")
    scope = tf.get_current_name_scope()
    if prefix is None or f"{scope}/".startswith(f"{prefix}/"):
        return next_creator(**arguments)
    # The slash at the end makes the scope absolute.
    with tf.name_scope(f"{prefix}/{scope}/" if scope else f"{prefix}/"):
        return next_creator(**arguments)


class NamesVariables(type(tf.Module)):  # type: ignore[misc]
    """Metaclass: what a subclass creates in its `__init__` is named after the policy."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Makes the policy with `named_after` around its `__init__`."""
        policy: Any = cls.__new__(cls, *args, **kwargs)
        with named_after(policy):
            policy.__init__(*args, **kwargs)
        return policy


def soft_update(
    sources: Sequence[tf.Variable],
    targets: Sequence[tf.Variable],
    *,
    tau: float,
    tau_non_trainable: float,
    sort_variables_by_name: bool,
) -> Any:
    """Moves each target towards its source: target = (1 - tau) * target + tau * source.

    Variables that are not of floats (counts) cannot be mixed: they are copied unless tau is 0.

    Returns:
      An op inside a graph, None in eager mode.

    Raises:
      ValueError: for a tau outside of [0, 1], or variables that do not pair; nothing has changed.
    """
    for word, value in (("tau", tau), ("tau_non_trainable", tau_non_trainable)):
        if not 0 <= value <= 1:
            raise ValueError(f"{word}: got {value}, expected a number in [0, 1].")
    if len(sources) != len(targets):
        raise ValueError(
            f"policy update: got {len(sources)} variables to copy to {len(targets)}, expected "
            "the same number; are both policies built (have both acted once)?"
        )
    if sort_variables_by_name:
        sources = sorted(sources, key=lambda variable: variable.name)
        targets = sorted(targets, key=lambda variable: variable.name)
    pairs = list(zip(sources, targets, strict=True))
    for source, target in pairs:
        if source.shape != target.shape or source.dtype != target.dtype:
            raise ValueError(
                f"policy update: got {source.name} ({source.dtype.name} {source.shape}) for "
                f"{target.name} ({target.dtype.name} {target.shape}), expected the same shape "
                "and dtype; sort_variables_by_name=True pairs by name."
            )
    updates = []
    for source, target in pairs:
        weight = tau if target.trainable else tau_non_trainable
        if weight == 0:
            continue
        mixes = weight < 1 and target.dtype.is_floating
        value = target + weight * (source - target) if mixes else source
        updates.append(target.assign(value, read_value=False))
    return tf.group(*updates)
