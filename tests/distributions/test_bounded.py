"""Squashed Gaussians and Betas: numbers by hand and by integration, and the bounds themselves."""

import math

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from gymnasium import spaces

from pgest import distributions
from tests.distributions.distribution_families import SEED, close, normal
from tests.environments.environment_fakes import CountingEnv

tfd = tfp.distributions


def integral(distribution, low, high, points=200_001):
    """Of the density, by the midpoint rule: the ends themselves may be steep."""
    width = (high - low) / points
    middles = (low + width * (np.arange(points) + 0.5)).astype(np.float32)
    log_prob = distribution.log_prob(middles[:, None])[:, 0]
    return np.sum(np.exp(log_prob, dtype=np.float64)) * width


class TestBoundedFamilies:
    @pytest.mark.parametrize(("loc", "scale"), [(0, 1), (0.7, 0.3), (-1.5, 2), (3, 1)])
    def test_the_squashed_density_integrates_to_1(self, loc, scale):
        distribution = distributions.SquashedNormal([float(loc)], [float(scale)], -2.0, 3.0)
        assert integral(distribution, -2, 3) == pytest.approx(1, abs=2e-3)

    @pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (2, 5), (30, 20), (1.1, 1.3)])
    def test_the_beta_density_integrates_to_1(self, alpha, beta):
        distribution = distributions.BoundedBeta([float(alpha)], [float(beta)], -1.0, 4.0)
        assert integral(distribution, -1, 4) == pytest.approx(1, abs=2e-3)

    def test_the_squashed_density_by_hand(self):
        # At x = 0 on [-1, 1]: tanh'(0) = 1, so the density is the Gaussian's, 1 / sqrt(2 pi). On
        # [-3, 3] it is a third of that.
        for half_width in (1.0, 3.0):
            distribution = distributions.SquashedNormal([0.0], [1.0], -half_width, half_width)
            expected = 1 / math.sqrt(2 * math.pi) / half_width
            close(distribution.prob([0.0]), [expected])

    def test_the_squashed_log_prob_agrees_with_tfps_where_that_is_exact(self):
        loc, scale = normal([50]), tf.exp(normal([50], 1, 0.3))
        ours = distributions.SquashedNormal(loc, scale, -2.0, 2.0)
        bijector = tfp.bijectors.Chain([tfp.bijectors.Scale(2.0), tfp.bijectors.Tanh()])
        theirs = tfd.TransformedDistribution(tfd.Normal(loc, scale), bijector)
        action = 2 * np.tanh(np.linspace(-2, 2, 50)).astype(np.float32)
        close(ours.log_prob(action), theirs.log_prob(action), 1e-4)

    @pytest.mark.parametrize("family", ["squashed_gaussian", "beta"])
    @pytest.mark.parametrize(
        ("low", "high"), [(-1, 1), (-2, 2), (0, 1e-3), (100, 101), (-1e4, 1e4)]
    )
    def test_the_bounds_themselves_are_finite(self, family, low, high):
        first, second = tf.constant([[0.0], [9.0], [-9.0]]), tf.constant([[0.0], [0.0], [0.0]])
        for bound in (low, high):
            with tf.GradientTape() as tape:
                tape.watch([first, second])
                build = getattr(distributions, family)
                log_prob = build(first, second, low, high).log_prob(tf.fill([3, 1], float(bound)))
            assert np.isfinite(log_prob).all()
            for gradient in tape.gradient(log_prob, [first, second]):
                assert np.isfinite(gradient).all()

    @pytest.mark.parametrize("family", ["squashed_gaussian", "beta"])
    def test_samples_and_modes_stay_within_the_bounds(self, family):
        low, high = np.array([-0.3, 100.1], np.float32), np.array([0.7, 100.7], np.float32)
        first, second = normal([2000, 2], scale=8), normal([2000, 2], seed=1, scale=2)
        distribution = getattr(distributions, family)(first, second, low, high)
        for action in (distribution.sample(seed=SEED).numpy(), distribution.mode().numpy()):
            assert (action >= low).all()
            assert (action <= high).all()

    @pytest.mark.parametrize(("loc", "scale"), [(0, 0.1), (0, 1), (2, 1), (0.5, 3), (-1, 5)])
    def test_the_squashed_entropy_is_the_integral(self, loc, scale):
        distribution = distributions.SquashedNormal([float(loc)], [float(scale)], -2.0, 2.0)
        # E[-log p(y)] over the unsquashed Gaussian, in float64, where
        # log p(y) = log N(x) - log(2 (1 - tanh^2 x)).
        x = loc + scale * np.linspace(-10, 10, 100_001)
        weight = np.exp(-(((x - loc) / scale) ** 2) / 2)
        log_normal = -(((x - loc) / scale) ** 2) / 2 - math.log(scale * math.sqrt(2 * math.pi))
        log_slope = 2 * (math.log(2) - x - np.logaddexp(0, -2 * x)) + math.log(2)
        expected = np.sum(weight * (log_slope - log_normal)) / np.sum(weight)
        tolerance = 1e-3 if scale <= 1 else 2e-2
        assert float(distribution.entropy()[0]) == pytest.approx(expected, abs=tolerance)

    def test_the_beta_mode_by_hand(self):
        # (3 - 1) / (3 + 2 - 2) = 2/3 of the way; with concentrations of 1 all points are as
        # good, and it is the middle.
        distribution = distributions.BoundedBeta([3.0, 1.0], [2.0, 1.0], -1.0, 1.0)
        close(distribution.mode(), [1 / 3, 0])

    def test_the_beta_mode_moves_to_the_bound_where_a_concentration_rounds_to_1(self):
        # With a = 1 + s and b = 1.5: (a - 1) / (a + b - 2) = s / (s + 0.5), and s = softplus(raw)
        # is 0.0067, 3e-7 and, beside the 1, nothing. The mean would be 0.4, -0.2 on [-1, 1].
        half = math.log(math.expm1(0.5))
        raw = tf.constant([-5.0, -15.0, -20.0, -90.0])
        modes = distributions.beta(raw, tf.fill([4], half), -1.0, 1.0, event_ndims=0).mode()
        softplus = np.array([math.log1p(math.exp(-5)), math.log1p(math.exp(-15)), 0.0, 0.0])
        close(modes, 2 * softplus / (softplus + 0.5) - 1, 2e-6)
        mirrored = distributions.beta(tf.fill([4], half), raw, -1.0, 1.0, event_ndims=0).mode()
        close(mirrored, -np.asarray(modes), 1e-6)

    @pytest.mark.parametrize("family", ["squashed_gaussian", "beta"])
    @pytest.mark.parametrize(("low", "high"), [(-np.inf, 1), (0, np.inf), (1, 1), (2, 1)])
    def test_bounds_that_are_none(self, family, low, high):
        with pytest.raises(ValueError, match=f"{family} needs finite bounds.*TransformAction"):
            getattr(distributions, family)(tf.zeros([1, 1]), tf.zeros([1, 1]), low, high)

    @pytest.mark.parametrize("family", ["squashed_gaussian", "beta"])
    @pytest.mark.parametrize(
        ("low", "high"), [(-3e38, 3e38), (-1e300, 1e300), (-1.7e308, 1.7e308), (0, 1e39)]
    )
    def test_widths_beyond_float32(self, family, low, high):
        with pytest.raises(ValueError, match=f"{family} needs finite bounds.*3.4e\\+38"):
            getattr(distributions, family)(tf.zeros([1, 1]), tf.zeros([1, 1]), low, high)
        build = getattr(distributions, family)
        largest = build(tf.zeros([1, 1]), tf.zeros([1, 1]), -1.7e38, 1.7e38)
        assert np.isfinite(largest.log_prob(largest.sample(seed=SEED))).all()

    @pytest.mark.parametrize("family", ["squashed_gaussian", "beta"])
    @pytest.mark.parametrize(("low", "high"), [(1000, 1001), (-1001, -1000), (1e9, 1e9 + 1)])
    def test_boxes_too_narrow_for_their_distance_from_0(self, family, low, high):
        # Between 512 and 1024 floats are 2^-14 apart; at 1e9 they are 64.
        with pytest.raises(ValueError, match="65,536 steps.*RescaleAction"):
            getattr(distributions, family)(tf.zeros([1, 1]), tf.zeros([1, 1]), low, high)

    @pytest.mark.parametrize(("low", "high"), [(-3e38, 3e38), (-np.inf, np.inf), (1000, 1001)])
    def test_the_hints_work(self, low, high):
        env = CountingEnv()
        env.action_space = spaces.Box(low, high, (1,))
        if low == 1000:
            env = gymnasium.wrappers.RescaleAction(env, np.float32(-1.0), np.float32(1.0))
        else:
            box = spaces.Box(-1.0, 1.0, env.action_space.shape)
            env = gymnasium.wrappers.TransformAction(env, lambda action: 10.0 * action, box)
        parameters = (tf.zeros([1, 1]), tf.zeros([1]))
        distribution = distributions.from_parameters(
            env.action_space, parameters, box="squashed_gaussian"
        )
        env.reset()
        env.step(distribution.mode()[0].numpy())
        expected = 1000.5 if low == 1000 else 0.0
        assert env.unwrapped.actions[0].tolist() == [expected]
