"""The entropy that `entropy_weight` rewards, where a distribution has none in closed form."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from pgest.models import policy_gradient


def squashed(scale):
    return tfd.TransformedDistribution(tfd.Normal(0.0, scale), tfb.Tanh())


def integrated(scale):
    """-integral of p log p, in x: p(a) da = N(x) dx, log p(a) = log N(x) - log(1 - tanh(x)^2)."""
    x = np.linspace(-12.0 * scale, 12.0 * scale, 200_001)
    log_normal = -0.5 * (x / scale) ** 2 - np.log(scale * np.sqrt(2.0 * np.pi))
    log_slope = 2.0 * (np.log(2.0) - x - np.logaddexp(0.0, -2.0 * x))
    return -np.sum(np.exp(log_normal) * (log_normal - log_slope)) * (x[1] - x[0])


@pytest.mark.parametrize("acted", [0.5, 0.6])
def test_its_gradient_is_that_of_numerical_integration(acted):
    actions = squashed(acted).sample(400_000, seed=(1, 2))
    labels = {"action": actions, "log_prob": squashed(acted).log_prob(actions)}
    scale = tf.constant(0.5)
    with tf.GradientTape() as tape:
        tape.watch(scale)
        entropy = tf.reduce_mean(policy_gradient._entropy(squashed(scale), labels))
    expected = (integrated(0.501) - integrated(0.499)) / 0.002
    assert float(entropy) == pytest.approx(integrated(0.5), abs=0.01)
    assert float(tape.gradient(entropy, scale)) == pytest.approx(expected, rel=0.03)
