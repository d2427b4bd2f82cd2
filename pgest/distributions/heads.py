"""From an action space to the distribution of its actions.

Actions are in the space's own shape, dtype and bounds, with exceptions that are for whoever talks
to the environment, so that log-probabilities belong to what was sampled: discrete actions count
from 0, whatever the space's `start`, and are int32 or int64; an unsquashed Gaussian goes
beyond the bounds of its Box.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
import tensorflow as tf
import tf_keras
from gymnasium import spaces
from tensorflow_probability import distributions as tfd

from pgest.distributions import families, joint
from pgest.distributions.state_dependent_noise import StateDependentNoise
from pgest.specs import checks

BoxFamily = Literal["gaussian", "squashed_gaussian", "beta"]

# Of a standard deviation that depends on the state, as in the implementation of Haarnoja et al.
# 2018.
MIN_LOG_STD, MAX_LOG_STD = -20.0, 2.0

# A first policy that is nearly uniform, whatever the observation (Huang et al. 2022, detail 2).
HEAD_GAIN = 0.01


def from_parameters(
    space: gymnasium.Space,
    parameters: Any,
    *,
    box: BoxFamily | StateDependentNoise = "gaussian",
    action_mask: Any = None,
) -> tfd.Distribution:
    """The distribution of a space's actions whose parameters are given.

    Args:
        space: Discrete, MultiDiscrete, MultiBinary, a Box of floats, or Dicts and Tuples of them.
        parameters: a nest like the space. Discrete: logits `[..., n]`. MultiDiscrete: logits `[...,
            sum(nvec)]`. MultiBinary: logits `[..., size]`. Box: a pair of `[..., size]`, (loc,
            log_std) of a Gaussian or the raw concentrations of a Beta; the second may lack the
            leading axes. With `StateDependentNoise` a triple: loc, features `[..., width]`, and
            log_std `[width, size]`.
        box: the family of a Box: `"gaussian"` (unbounded), `"squashed_gaussian"` or `"beta"`
            (finite bounds), or a `StateDependentNoise`.
        action_mask: bools of the logits' shapes, in a nest like the space; a part that is missing,
            None or () allows everything.

    Returns:
        A distribution; a `JointDistribution` of a Dict or Tuple.

    Raises:
        TypeError: no head is known for the space.
        ValueError: an unknown `box`, a mask for a Box, a mask of the wrong shape, or bounds that
            are not finite.

    >>> space = spaces.Dict(jump=spaces.Discrete(2), turn=spaces.Box(-1, 1, (1,)))
    >>> logits, loc, log_std = tf.constant([[0., 3.]]), tf.zeros([1, 1]), tf.zeros([1])
    >>> joint_distribution = from_parameters(space, {"jump": logits, "turn": (loc, log_std)})
    >>> joint_distribution.mode()["jump"].numpy().tolist()
    [1]
    """
    if not isinstance(box, StateDependentNoise) and box not in get_args(BoxFamily):
        raise ValueError(
            f"box must be one of {get_args(BoxFamily)}, or a StateDependentNoise; got {box!r}."
        )
    nest = _components(space, parameters, action_mask, box)
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return joint.JointDistribution(nest)
    return nest


def action_head(
    space: gymnasium.Space,
    inputs: tf.Tensor,
    *,
    box: BoxFamily | StateDependentNoise = "gaussian",
    state_dependent_std: bool = False,
    initial_std: float = 1.0,
    action_mask: Any = None,
    name: str = "action",
) -> tfd.Distribution:
    """A linear layer for each action of a space, and the distribution that they parametrise.

    Layers are orthogonally initialised with gain 0.01 and named `name` plus the action's path in
    the space.

    Args:
        space: see `from_parameters`.
        inputs: float `[..., features]`, the network's last hidden layer.
        box: see `from_parameters`.
        state_dependent_std: the standard deviation of a Gaussian is a layer's output (clipped to
            exp(-20..2)) instead of a variable of its own.
        initial_std: where the standard deviation begins; with `state_dependent_std` within the
            range that it is clipped to; with `StateDependentNoise` each number of its matrix, so
            that actions start with about `initial_std * sqrt(features)`.
        action_mask: see `from_parameters`.
        name: prefix of the layers' and variables' names.

    Returns:
        A distribution of batch `[...]`.

    Raises:
        TypeError, ValueError: see `from_parameters`.
        ValueError: `initial_std` is not positive, or not within the range.

    >>> distribution = action_head(gymnasium.spaces.Discrete(4), tf.ones([2, 8]))
    >>> distribution.batch_shape, distribution.dtype
    (TensorShape([2]), tf.int64)
    """

    def layer(path: str, size: int, bias: float = 0.0) -> tf.Tensor:
        return tf_keras.layers.Dense(
            size,
            kernel_initializer=tf_keras.initializers.Orthogonal(HEAD_GAIN),
            bias_initializer=tf_keras.initializers.Constant(bias),
            name=path,
        )(inputs)

    def parameters(part: gymnasium.Space, path: str) -> Any:
        if isinstance(part, spaces.Dict):
            return {key: parameters(child, _join(path, key)) for key, child in part.items()}
        if isinstance(part, spaces.Tuple):
            return tuple(parameters(child, _join(path, i)) for i, child in enumerate(part))
        size = parameter_size(part)
        if not isinstance(part, spaces.Box):
            return layer(path, size)
        if box == "beta":
            return layer(f"{path}_alpha", size), layer(f"{path}_beta", size)
        initial_log_std = _initial_log_std(initial_std, state_dependent_std)
        if state_dependent_std:
            log_std = layer(f"{path}_log_std", size, initial_log_std)
            return layer(path, size), tf.clip_by_value(log_std, MIN_LOG_STD, MAX_LOG_STD)
        noisy = isinstance(box, StateDependentNoise)
        shape = [inputs.shape[-1], size] if noisy else [size]
        variable = tf.Variable(np.full(shape, initial_log_std, np.float32), name=f"{path}_log_std")
        log_std = tf.convert_to_tensor(variable)
        return (layer(path, size), inputs, log_std) if noisy else (layer(path, size), log_std)

    return from_parameters(space, parameters(space, name), box=box, action_mask=action_mask)


def _initial_log_std(initial_std: float, state_dependent_std: bool) -> float:
    if not initial_std > 0:
        raise ValueError(f"initial_std is {initial_std!r}; expected a positive number.")
    log_std = math.log(initial_std)
    if state_dependent_std and not MIN_LOG_STD < log_std < MAX_LOG_STD:
        low, high = math.exp(MIN_LOG_STD), math.exp(MAX_LOG_STD)
        raise ValueError(
            f"initial_std is {initial_std!r}; with state_dependent_std it is clipped to {low:.1e} "
            f"… {high:.2f}, and from a bound on nothing would ever change it. Begin between them, "
            "or leave state_dependent_std out."
        )
    return log_std


def parameter_size(space: gymnasium.Space) -> int:
    """How many numbers a layer puts out for a space: logits, or each of a Box's two parameters.

    Args:
        space: Discrete, MultiDiscrete, MultiBinary or a Box of floats.

    Raises:
        TypeError: no head is known for the space.

    >>> parameter_size(gymnasium.spaces.MultiDiscrete([2, 3]))
    5
    """
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(np.sum(space.nvec))
    if isinstance(space, spaces.MultiBinary):
        return math.prod(space.shape)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return math.prod(space.shape)
    raise TypeError(
        f"There is no distribution for actions of {space}. Known are Discrete, MultiDiscrete, "
        "MultiBinary, Box of a float dtype, and Dict and Tuple of them; for others, give the "
        "EstimatorSpec a distribution of your own."
    )


def _components(space: gymnasium.Space, parameters: Any, mask: Any, box: Any) -> Any:
    mask = None if isinstance(mask, tuple) and not mask else mask
    if isinstance(space, spaces.Dict):
        masks = mask or {}
        unknown = sorted(set(masks) - set(space.spaces))
        if unknown:
            raise ValueError(
                f"The action mask has {unknown}, the space only {sorted(space.spaces)}."
            )
        return {
            key: _components(child, parameters[key], masks.get(key), box)
            for key, child in space.items()
        }
    if isinstance(space, spaces.Tuple):
        masks = mask if mask is not None else [None] * len(space.spaces)
        parts = zip(space.spaces, parameters, masks, strict=True)
        return tuple(_components(*part, box) for part in parts)
    return _leaf(space, parameters, mask, box)


def _leaf(space: gymnasium.Space, parameters: Any, mask: Any, box: Any) -> tfd.Distribution:
    parameter_size(space)
    dtype = tf.as_dtype(space.dtype)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        # Categorical has no log_prob of other integers.
        dtype = dtype if dtype in (tf.int32, tf.int64) else tf.int64
    if isinstance(space, spaces.Discrete):
        return families.categorical(parameters, mask=mask, dtype=dtype)
    if isinstance(space, spaces.MultiDiscrete):
        return families.multi_categorical(parameters, space.nvec, mask=mask, dtype=dtype)
    if mask is not None:
        raise ValueError(
            f"Actions of {space} cannot be masked: only Discrete and MultiDiscrete can."
        )
    if isinstance(space, spaces.Box):
        return _box(space, parameters, box)
    shape = tuple(space.shape or ())
    return families.bernoulli(
        checks.to_event(parameters, shape), event_ndims=len(shape), dtype=dtype
    )


def _box(space: spaces.Box, parameters: Any, box: Any) -> tfd.Distribution:
    if isinstance(box, StateDependentNoise):
        return box.distribution(space, *parameters)
    ndims = len(space.shape)
    first, second = (checks.to_event(parameter, space.shape) for parameter in parameters)
    if box == "gaussian":
        return families.gaussian(first, second, event_ndims=ndims)
    family = families.squashed_gaussian if box == "squashed_gaussian" else families.beta
    return family(first, second, space.low, space.high, event_ndims=ndims)


def _join(path: str, key: Any) -> str:
    # A layer's name becomes a name scope, which takes only these characters.
    return f"{path}_{re.sub('[^A-Za-z0-9_.-]', '_', str(key))}"
