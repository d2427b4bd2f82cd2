"""The joint distribution of a nest of independent actions."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from pgest.distributions import noise


class JointDistribution(tfd.AutoCompositeTensorDistribution):
    """Independent distributions in a nest, as one distribution of nested actions.

    Samples, modes and values have the nest's structure; `log_prob`, `entropy` and `kl_divergence`
    are sums over the nest, one number a batch row. TFP's `JointDistributionNamed` has the sum of
    neither modes' nor nested components' measures, which a policy needs.

    Args:
        distributions: a nest (dict, tuple, list) of TFP distributions of one batch shape.
            Components of more than a scalar need `tfd.Independent`, so that their `log_prob` is one
            number a batch row.

    Raises:
        ValueError: an empty nest, or batch shapes that differ.

    >>> move, speed = tfd.Categorical(logits=[[0., 9.]]), tfd.Normal([1.], 1.)
    >>> joint = JointDistribution({"move": move, "speed": speed})
    >>> {name: value.numpy().tolist() for name, value in joint.mode().items()}
    {'move': [1], 'speed': [1.0]}
    >>> joint.log_prob(joint.sample(seed=(1, 2))).shape
    TensorShape([1])
    """

    def __init__(
        self,
        distributions: Any,
        *,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "JointDistribution",
    ):
        parameters = dict(locals())
        flat = tf.nest.flatten(distributions)
        if not flat:
            raise ValueError(
                "JointDistribution got an empty nest; expected at least one TFP distribution."
            )
        shapes = [component.batch_shape for component in flat]
        if not all(shape.is_compatible_with(shapes[0]) for shape in shapes):
            raise ValueError(
                f"The components of a JointDistribution must have one batch shape, got {shapes}. "
                "Wrap a component whose event is not a scalar in tfd.Independent."
            )
        with tf.name_scope(name) as name:
            # A plain assignment wraps containers for tracking, and a wrapped tuple is no tuple to
            # tf.nest.
            object.__setattr__(self, "_distributions", distributions)
            super().__init__(
                dtype=None,
                reparameterization_type=tfd.NOT_REPARAMETERIZED,
                validate_args=validate_args,
                allow_nan_stats=allow_nan_stats,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"distributions": tfp.util.BatchedComponentProperties()}

    @property
    def distributions(self) -> Any:
        """The nest of components."""
        return self._distributions

    @property
    def dtype(self) -> Any:
        """The nest of the components' dtypes."""
        return self._map(lambda component: component.dtype)

    def _map(self, function: Any) -> Any:
        return tf.nest.map_structure(function, self._distributions)

    def _sum(self, measures: list[tf.Tensor]) -> tf.Tensor:
        return functools.reduce(tf.add, measures)

    def _batch_shape(self) -> tf.TensorShape:
        shapes = [component.batch_shape for component in tf.nest.flatten(self._distributions)]
        return functools.reduce(lambda shape, other: shape.merge_with(other), shapes)

    def _batch_shape_tensor(self) -> tf.Tensor:
        return tf.nest.flatten(self._distributions)[0].batch_shape_tensor()

    def _event_shape(self) -> Any:
        return self._map(lambda component: component.event_shape)

    def _event_shape_tensor(self) -> Any:
        return self._map(lambda component: component.event_shape_tensor())

    def _sample_n(self, n: Any, seed: Any = None) -> Any:
        flat = tf.nest.flatten(self._distributions)
        seeds = noise.split_seed(tfp.random.sanitize_seed(seed), len(flat))
        draws = [
            component.sample(n, seed=component_seed)
            for component, component_seed in zip(flat, tf.unstack(seeds), strict=True)
        ]
        return tf.nest.pack_sequence_as(self._distributions, draws)

    def log_prob_parts(self, value: Any) -> Any:
        """The log-probability of each component, of which `log_prob` is the sum.

        Args:
            value: a nest like the distributions.

        Returns:
            The nest, each leaf of the batch's shape.
        """
        tf.nest.assert_same_structure(self._distributions, value, check_types=False)
        flat = zip(tf.nest.flatten(self._distributions), tf.nest.flatten(value), strict=True)
        parts = [component.log_prob(part) for component, part in flat]
        return tf.nest.pack_sequence_as(self._distributions, parts)

    def _log_prob(self, value: Any) -> tf.Tensor:
        return self._sum(tf.nest.flatten(self.log_prob_parts(value)))

    def _entropy(self) -> tf.Tensor:
        return self._sum(
            [component.entropy() for component in tf.nest.flatten(self._distributions)]
        )

    def _mode(self) -> Any:
        return self._map(lambda component: component.mode())


@tfd.RegisterKL(JointDistribution, JointDistribution)
def _kl_joint(p: JointDistribution, q: JointDistribution, name: str | None = None) -> tf.Tensor:
    """Independent parts: the divergence of the whole is the sum of the parts'."""
    with tf.name_scope(name or "kl_joint"):
        tf.nest.assert_same_structure(p.distributions, q.distributions)
        pairs = zip(tf.nest.flatten(p.distributions), tf.nest.flatten(q.distributions), strict=True)
        return functools.reduce(tf.add, [tfd.kl_divergence(left, right) for left, right in pairs])
