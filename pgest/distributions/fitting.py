"""Whether a distribution has as many actions as an action space: told while tracing.

A distribution of too few actions would never take the others, and one of too many fails only once
the environment is given what it does not know.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium import spaces
from tensorflow_probability import distributions as tfd

from pgest.distributions import joint


def check_fits(space: gymnasium.Space, distribution: Any, path: str = "action") -> None:
    """Compares what a distribution can give with what a space takes, where both are static.

    Args:
        space: the action space of one environment.
        distribution: of its actions, counted from 0; a nest of them in a `JointDistribution`.
        path: name of the action in errors.

    Raises:
        ValueError: the distribution has fewer or more choices than the space, or lists outcomes
            that the space does not have.

    >>> check_fits(spaces.Discrete(3), tfd.Categorical(logits=[[0., 0., 0.]]))
    """
    if isinstance(distribution, joint.JointDistribution):
        _check_parts(space, distribution.distributions, path)
        return
    choices = _choices(space)
    if choices is None:
        return
    for part in _innermost(distribution):
        if isinstance(part, tfd.FiniteDiscrete):
            _check_outcomes(space, part, choices, path)
            continue
        found = _count(part)
        if found is None or found == choices:
            continue
        raise ValueError(
            f"The model's {path} is drawn from a {type(part).__name__} of {found} choices; the "
            f"action space, {space}, has {choices}: {_consequence(found, choices)}. Make the last "
            f"layer as wide as the space says, {_width(space)} of pgest.get_action_space(), or "
            "let distributions.action_head(pgest.get_action_space(), hidden) build it."
        )


def _check_parts(space: gymnasium.Space, nest: Any, path: str) -> None:
    """Part by part; another structure than the space's is told where the sample is looked at."""
    if isinstance(space, spaces.Dict) and isinstance(nest, dict):
        for key, part in space.spaces.items():
            if key in nest:
                _check_parts(part, nest[key], f"{path}/{key}")
    elif isinstance(space, spaces.Tuple) and isinstance(nest, tuple | list):
        for index, (part, child) in enumerate(zip(space.spaces, nest, strict=False)):
            _check_parts(part, child, f"{path}/{index}")
    elif isinstance(nest, tfd.Distribution):
        check_fits(space, nest, path)


def _choices(space: gymnasium.Space) -> int | None:
    """How many values a number of an action has; None where the space does not count them.

    Of a MultiDiscrete the most that a part has: `multi_categorical` masks the surplus of the rest.
    """
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(np.max(space.nvec))
    if isinstance(space, spaces.MultiBinary):
        return 2
    return None


def _innermost(distribution: Any) -> list[Any]:
    """What draws the numbers of an action: inside of Independent, Sample, mixtures and the like.

    Not of a TransformedDistribution, whose bijector may map the choices to others.
    """
    if isinstance(distribution, tfd.MixtureSameFamily):
        return _innermost(distribution.components_distribution)
    if isinstance(distribution, tfd.Mixture):
        return [part for each in distribution.components for part in _innermost(each)]
    if isinstance(distribution, tfd.TransformedDistribution):
        return []
    inner = getattr(distribution, "distribution", None)
    return [distribution] if not isinstance(inner, tfd.Distribution) else _innermost(inner)


def _count(distribution: Any) -> int | None:
    """The choices of a distribution, 0 and up; None where it does not count or is not static."""
    if isinstance(distribution, tfd.Categorical):
        logits = distribution.logits if distribution.logits is not None else distribution.probs
        return tf.TensorShape(logits.shape)[-1]
    if isinstance(distribution, tfd.Bernoulli):
        return 2
    if isinstance(distribution, tfd.Binomial):
        total = tf.get_static_value(distribution.total_count)
        return None if total is None else int(np.max(total)) + 1
    return None


def _check_outcomes(
    space: gymnasium.Space, distribution: tfd.FiniteDiscrete, choices: int, path: str
) -> None:
    """Listed outcomes may leave actions out, which is said there; they may not name others."""
    outcomes = tf.get_static_value(distribution.outcomes)
    if outcomes is None:
        return
    others = outcomes[(outcomes < 0) | (outcomes >= choices)]
    if others.size:
        raise ValueError(
            f"The model's {path} is drawn from a FiniteDiscrete with the outcomes "
            f"{others.tolist()}; expected 0 to {choices - 1}, as actions of {space} are counted "
            "from 0 and pgest adds the space's start."
        )


def _consequence(found: int, choices: int) -> str:
    if found < choices:
        return (
            f"action {found} would never be taken"
            if choices - found == 1
            else (f"actions {found} to {choices - 1} would never be taken")
        )
    return f"the environment does not know action {choices}"


def _width(space: gymnasium.Space) -> str:
    if isinstance(space, spaces.Discrete):
        return "n"
    return "sum(nvec)" if isinstance(space, spaces.MultiDiscrete) else "the shape"
