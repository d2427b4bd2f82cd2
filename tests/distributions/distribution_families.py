"""A distribution of every family, for tests."""

import numpy as np
import tensorflow as tf

from pgest import distributions

SEED = (3, 4)


def normal(shape, seed=0, scale=1.0):
    return tf.constant(np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32))


def every_family(batch=3, seed=0):
    """One distribution a family, with parameters drawn from the seed, by name."""
    low, high = np.array([-2.0, 0.5], np.float32), np.array([1.0, 4.0], np.float32)
    first, second = normal([batch, 2], seed), normal([batch, 2], seed + 1, 0.3)
    discrete = distributions.categorical(normal([batch, 4], seed))
    binary = distributions.bernoulli(normal([batch, 3], seed))
    squashed = distributions.squashed_gaussian(first, second, low, high)
    return {
        "categorical": discrete,
        "multi_categorical": distributions.multi_categorical(normal([batch, 6], seed), [2, 4]),
        "bernoulli": binary,
        "gaussian": distributions.gaussian(first, second),
        "squashed_gaussian": squashed,
        "beta": distributions.beta(first, second, low, high),
        "joint": distributions.JointDistribution(
            {"arm": squashed, "legs": (discrete, {"deep": binary})}
        ),
    }


def close(actual, expected, tolerance=1e-5):
    """Asserts that nests of arrays are equal within a relative and an absolute tolerance."""
    expected_parts = tf.nest.flatten(expected) if tf.nest.is_nested(actual) else [expected]
    for part, expected_part in zip(tf.nest.flatten(actual), expected_parts, strict=True):
        np.testing.assert_allclose(part, expected_part, rtol=tolerance, atol=tolerance)
