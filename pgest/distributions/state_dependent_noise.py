"""Exploration by a noise that is a function of the state for a while (Raffin et al. 2021).

Noise that is drawn for every action shakes a motor, and averages out before anything has moved.
Here a matrix is drawn once in a while, and the noise of an action is that matrix times what the
network makes of the state: the same state gets the same noise until the next matrix.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from pgest.distributions import bounded, families, noise
from pgest.specs import checks
from pgest.variables import sharing

# Under the root of the variance, as in the authors' implementation.
_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class StateDependentNoise:
    """A Gaussian whose noise is a function of the state; for `box=` of `action_head` (gSDE).

    Raffin, Kober & Stulp 2021, https://arxiv.org/abs/2005.05719. For the last hidden layer h of a
    state and a learnt matrix of standard deviations S, the action is `loc + h @ (S * E)`, where E
    are standard normal numbers. To the loss it is a Gaussian of variance `h**2 @ S**2`.

    E is a function of the run's seed and of the timestep alone: each environment has one of its
    own, for `every` timesteps. So a run that goes on has the noise that it would have had. Where
    nobody counts timesteps, as in an exported policy, actions are drawn from the Gaussian.

    Args:
        every: how many timesteps of an environment have one matrix. (Where a reset takes a step
            of its own, the next matrix may come one sooner.)
        squash: tanh into the bounds of the space, which are finite then.
        learn_features: whether the gradient of the variance goes on into the network.

    Raises:
        ValueError: `every` is not positive.
        TypeError: `every` is no integer.

    >>> StateDependentNoise(every=8).squash
    False
    """

    every: int = 4
    squash: bool = False
    learn_features: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not isinstance(self.every, int | np.integer):
            raise TypeError(f"StateDependentNoise got every={self.every!r}; expected an integer.")
        if self.every < 1:
            raise ValueError(f"StateDependentNoise got every={self.every}; expected 1 or more.")

    def distribution(
        self,
        space: gymnasium.spaces.Box,
        loc: tf.Tensor,
        features: tf.Tensor,
        log_std: tf.Tensor,
    ) -> tfd.Distribution:
        """The distribution of actions.

        Args:
            space: of the actions, `size` numbers of any shape.
            loc: float `[..., size]`, before squashing.
            features: float `[..., width]`, the last hidden layer.
            log_std: float `[width, size]`, of the matrix.

        Returns:
            A distribution of batch `[...]` and events of the space's shape.

        Raises:
            ValueError: `squash`, and a bound is not finite.
        """
        if not self.learn_features:
            features = tf.stop_gradient(features)
        std = tf.exp(tf.cast(log_std, tf.float32))
        variance = tf.linalg.matmul(tf.square(features), tf.square(std))
        seed = sharing.noise_seed(self.every)
        loc, scale = (
            checks.to_event(part, space.shape) for part in (loc, tf.sqrt(variance + _EPSILON))
        )
        bounds = (space.low, space.high) if self.squash else ()
        if self.squash:
            families.check_bounds("squash", *bounds)
        if seed is None:
            family = bounded.SquashedNormal if self.squash else tfd.Normal
            inner = family(loc, scale, *bounds)
        else:
            explored = checks.to_event(_explored(features, std, seed), space.shape)
            family = _Squashed if self.squash else _Gaussian
            inner = family(loc, scale, explored, *bounds)
        return tfd.Independent(inner, len(space.shape))


def _explored(features: tf.Tensor, std: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The noise `[B, size]` of features `[B, width]`; each row has a matrix of its own."""
    shape = [tf.shape(features)[0], *std.shape, noise.NORMAL_NOISE]
    matrices = std * noise.normal(noise.uniform(shape, seed))
    return tf.linalg.matmul(features[:, tf.newaxis], matrices)[:, 0]


class _Gaussian(tfd.Normal):
    """A Gaussian whose sample is its mean plus a noise that was drawn before."""

    def __init__(self, loc: tf.Tensor, scale: tf.Tensor, explored: tf.Tensor):
        parameters = dict(locals())
        super().__init__(loc, scale, name="StateDependentNormal")
        self._explored = explored
        self._parameters = parameters

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return _properties("loc", "scale", "explored")

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        return _repeated(self.loc + self._explored, n)


class _Squashed(bounded.SquashedNormal):
    """The same, squashed."""

    def __init__(self, loc: tf.Tensor, scale: tf.Tensor, explored: tf.Tensor, low: Any, high: Any):
        parameters = dict(locals())
        super().__init__(loc, scale, low, high, name="StateDependentSquashedNormal")
        self._explored = explored
        self._parameters = parameters

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return _properties("loc", "scale", "explored", "low", "high")

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        return _repeated(self.squash(self.loc + self._explored), n)


def _properties(*names: str) -> dict[str, Any]:
    return {name: tfp.util.ParameterProperties() for name in names}


def _repeated(action: tf.Tensor, n: Any) -> tf.Tensor:
    return tf.broadcast_to(action, tf.concat([[n], tf.shape(action)], axis=0))
