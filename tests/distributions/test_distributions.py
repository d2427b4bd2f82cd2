"""distributions: what every family does, masks, nests, and Stable-Baselines3."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from gymnasium import spaces

from pgest import distributions
from pgest.distributions import noise
from tests.distributions.distribution_families import SEED, close, every_family, normal

tfd = tfp.distributions


FAMILIES = list(every_family())
each_family = pytest.mark.parametrize("family", FAMILIES)


class TestEveryFamily:
    @each_family
    def test_has_what_a_policy_needs(self, family):
        distribution = every_family()[family]
        action = distribution.sample(seed=SEED)
        tf.nest.map_structure(
            lambda part, shape, dtype: (part.shape, part.dtype) == ([3, *shape], dtype),
            action,
            distribution.event_shape,
            distribution.dtype,
        )
        assert distribution.batch_shape == [3]
        for measure in (distribution.log_prob(action), distribution.entropy()):
            assert measure.shape == [3]
            assert np.isfinite(measure).all()
        mode = distribution.mode()
        tf.nest.map_structure(lambda a, b: a.shape.assert_is_compatible_with(b.shape), mode, action)

    @each_family
    def test_divergence_of_itself_is_zero_and_of_another_positive(self, family):
        one, other = every_family(seed=0)[family], every_family(seed=7)[family]
        close(tfd.kl_divergence(one, one), np.zeros(3), 1e-6)
        assert (one.kl_divergence(other).numpy() > 1e-3).all()

    @each_family
    def test_divergence_and_entropy_are_the_means_over_samples(self, family):
        one, other = every_family(seed=0)[family], every_family(seed=7)[family]
        samples = one.sample(20_000, seed=SEED)
        log_prob, other_log_prob = one.log_prob(samples), other.log_prob(samples)
        spread = np.std(log_prob - other_log_prob, axis=0) / math.sqrt(20_000)
        difference = np.mean(log_prob - other_log_prob, axis=0) - one.kl_divergence(other)
        assert (np.abs(difference) < 5 * spread + 1e-3).all()
        spread = np.std(log_prob, axis=0) / math.sqrt(20_000)
        assert (np.abs(np.mean(-log_prob, axis=0) - one.entropy()) < 5 * spread + 2e-3).all()

    @each_family
    def test_xla_and_graphs_give_the_same(self, family):
        def measures(seed):
            distribution = every_family()[family]
            action = distributions.sample(distribution, seed)
            return (
                action,
                distribution.mode(),
                distribution.log_prob(action),
                distribution.entropy(),
                distribution.kl_divergence(every_family(seed=7)[family]),
            )

        seed = tf.constant(SEED)
        eager = measures(seed)
        close(tf.function(measures)(seed), eager, 1e-4)
        close(tf.function(measures, jit_compile=True)(seed), eager, 1e-4)

    @each_family
    def test_leaves_a_traced_function_and_comes_back(self, family):
        distribution = every_family()[family]
        returned = tf.function(lambda: every_family()[family])()
        action = distribution.sample(seed=SEED)
        close(returned.log_prob(action), distribution.log_prob(action))
        close(returned.mode(), distribution.mode())

    @pytest.mark.parametrize(
        ("space", "sizes"),
        [
            (spaces.Discrete(4), 4),
            (spaces.MultiDiscrete([2, 4]), 6),
            (spaces.MultiBinary([2, 2]), 4),
            (spaces.Box(-1, 1, (2, 2)), (4, 4)),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("box", ["gaussian", "squashed_gaussian", "beta"])
    def test_other_leading_axes(self, space, sizes, box):
        """A batch [T, B], as recurrent models have."""
        flat = tf.nest.map_structure(lambda size: normal([6, size], seed=size), sizes)
        time_first = tf.nest.map_structure(lambda part: tf.reshape(part, [2, 3, -1]), flat)
        flat, time_first = (
            distributions.from_parameters(space, parameters, box=box)
            for parameters in (flat, time_first)
        )
        assert time_first.batch_shape == [2, 3]
        action = time_first.sample(seed=SEED)
        flat_action = tf.reshape(action, [6, *action.shape[2:]])
        close(tf.reshape(time_first.log_prob(action), [6]), flat.log_prob(flat_action))
        close(tf.reshape(time_first.entropy(), [6]), flat.entropy())


class TestCategoricalFamilies:
    def test_categorical_by_hand(self):
        # Logits log 1, log 3: probabilities 1/4, 3/4.
        distribution = distributions.categorical(tf.math.log([[1.0, 3.0]]))
        close(tf.exp(distribution.log_prob([1])), [0.75])
        close(distribution.entropy(), [-(0.25 * math.log(0.25) + 0.75 * math.log(0.75))])
        assert distribution.mode().numpy().tolist() == [1]

    def test_multi_categorical_is_its_parts(self):
        logits = normal([5, 2 + 4 + 3])
        whole = distributions.multi_categorical(logits, [2, 4, 3])
        parts = [distributions.categorical(part) for part in tf.split(logits, [2, 4, 3], axis=-1)]
        action = whole.sample(seed=SEED)
        close(whole.log_prob(action), sum(p.log_prob(action[:, i]) for i, p in enumerate(parts)))
        close(whole.entropy(), sum(part.entropy() for part in parts))
        close(whole.mode(), np.stack([part.mode() for part in parts], axis=-1))

    def test_multi_categorical_never_samples_the_padding(self):
        distribution = distributions.multi_categorical(tf.zeros([2000, 6]), [2, 4])
        for draw in (
            distribution.sample(seed=SEED),
            distributions.sample(distribution, SEED),
        ):
            assert draw.numpy().max(axis=0).tolist() == [1, 3]

    def test_multi_categorical_of_two_axes(self):
        choices = np.array([[2, 3], [4, 2]])
        distribution = distributions.multi_categorical(normal([5, 11]), choices)
        assert distribution.event_shape == [2, 2]
        assert (distribution.sample(1000, seed=SEED).numpy().max(axis=(0, 1)) == choices - 1).all()

    def test_multi_categorical_of_the_wrong_size(self):
        with pytest.raises(ValueError, match=r"choices \[2, 4\] must be 6 numbers.*\(5, 7\)"):
            distributions.multi_categorical(normal([5, 7]), [2, 4])


class TestMasks:
    MASK = np.array([[True, False, True, True], [False, False, True, False]])

    def test_masked_actions_have_probability_0_and_others_share_theirs(self):
        logits = normal([2, 4])
        distribution = distributions.categorical(logits, mask=self.MASK)
        probabilities = np.exp([distribution.log_prob([a, a]) for a in range(4)]).T
        assert (probabilities[~self.MASK] == 0).all()
        allowed = np.exp(logits) * self.MASK
        close(probabilities, allowed / allowed.sum(axis=-1, keepdims=True))

    def test_masked_logits_get_no_gradient(self):
        logits = normal([2, 4])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            distribution = distributions.categorical(logits, mask=self.MASK)
            loss = distribution.log_prob([0, 2]) + distribution.entropy()
        gradient = tape.gradient(loss, logits).numpy()
        assert (gradient[~self.MASK] == 0).all()
        assert (gradient[0][self.MASK[0]] != 0).all()

    def test_entropy_and_divergence_leave_masked_actions_out(self):
        distribution = distributions.categorical(tf.zeros([2, 4]), mask=self.MASK)
        close(distribution.entropy(), [math.log(3), 0])
        close(distribution.kl_divergence(distribution), [0, 0])

    def test_masked_actions_are_never_sampled(self):
        distribution = distributions.categorical(normal([2, 4], scale=5), mask=self.MASK)
        uniform = noise.uniform([5000, *distributions.noise_shape(distribution)], SEED)
        for draws in (
            distribution.sample(5000, seed=SEED).numpy(),
            distributions.sample_with_noise(distribution, uniform).numpy(),
        ):
            assert set(draws[:, 0]) <= {0, 2, 3}
            assert set(draws[:, 1]) == {2}

    def test_of_a_multi_discrete_in_a_row_or_in_parts(self):
        row = np.array([[True, False, False, True, True]])
        parts = (row[:, :2], row[:, 2:])
        for mask in (row, parts):
            distribution = distributions.multi_categorical(normal([1, 5]), [2, 3], mask=mask)
            draws = distribution.sample(1000, seed=SEED).numpy()[:, 0]
            assert set(draws[:, 0]) == {0}
            assert set(draws[:, 1]) == {1, 2}
            assert float(distribution.prob([[1, 1]])[0]) == 0

    def test_against_sb3_contrib(self):
        maskable = pytest.importorskip("sb3_contrib.common.maskable.distributions")
        torch = pytest.importorskip("torch")
        logits = normal([2, 4])
        theirs = maskable.MaskableCategoricalDistribution(4)
        theirs.proba_distribution(torch.as_tensor(logits.numpy()))
        theirs.apply_masking(self.MASK)
        ours = distributions.categorical(logits, mask=self.MASK)
        action = np.array([3, 2])
        close(ours.log_prob(action), theirs.log_prob(torch.as_tensor(action)).numpy())
        close(ours.entropy(), theirs.entropy().numpy())

    def test_of_the_wrong_shape(self):
        with pytest.raises(
            ValueError, match=r"mask has shape \(2, 4\) and the logits have \(2, 5\)"
        ):
            distributions.categorical(normal([2, 5]), mask=self.MASK)


class TestJoint:
    def test_is_the_sum_of_its_parts(self):
        parts = every_family()
        joint = parts["joint"]
        arm, discrete, binary = parts["squashed_gaussian"], parts["categorical"], parts["bernoulli"]
        action = joint.sample(seed=SEED)
        one, (two, deeper) = action["arm"], action["legs"]
        expected = arm.log_prob(one) + discrete.log_prob(two) + binary.log_prob(deeper["deep"])
        close(joint.log_prob(action), expected)
        close(joint.entropy(), arm.entropy() + discrete.entropy() + binary.entropy())
        close(joint.mode()["legs"][1]["deep"], binary.mode())

    def test_is_a_distribution(self):
        joint = every_family()["joint"]
        assert isinstance(joint, tfd.Distribution)
        assert joint.event_shape == {"arm": [2], "legs": ([], {"deep": [3]})}
        assert joint.dtype == {"arm": tf.float32, "legs": (tf.int64, {"deep": tf.int8})}
        assert "arm" in str(joint)

    def test_parts_are_sampled_independently(self):
        same = distributions.gaussian(tf.zeros([1, 1]), tf.zeros([1]))
        draws = distributions.JointDistribution((same, same)).sample(5000, seed=SEED)
        first, second = (np.ravel(draw) for draw in draws)
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.05

    def test_takes_lists_of_arrays_from_a_memory(self):
        joint = distributions.JointDistribution(
            (
                distributions.categorical(tf.zeros([2, 3])),
                distributions.gaussian([[0.0], [0.0]], [0.0]),
            )
        )
        log_prob = joint.log_prob((np.array([0, 2]), np.zeros([2, 1], np.float32)))
        close(log_prob, np.full(2, -math.log(3) - math.log(2 * math.pi) / 2))

    def test_batch_shapes_that_differ(self):
        with pytest.raises(ValueError, match="one batch shape.*tfd.Independent"):
            distributions.JointDistribution((tfd.Normal([0.0], 1.0), tfd.Normal([[0.0, 0.0]], 1.0)))

    def test_an_empty_nest(self):
        with pytest.raises(ValueError, match="empty nest"):
            distributions.JointDistribution({})


class TestAgainstStableBaselines3:
    """Log-probability and entropy of its distributions on the same parameters."""

    @pytest.fixture
    def sb3(self):
        return pytest.importorskip("stable_baselines3.common.distributions")

    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    def assert_equal(self, ours, theirs, action, torch):
        close(ours.log_prob(action), theirs.log_prob(torch.as_tensor(action)).numpy())
        if theirs.entropy() is not None:
            close(ours.entropy(), theirs.entropy().numpy())
        mode = ours.mode().numpy().astype(np.float32)
        np.testing.assert_allclose(mode, theirs.mode().numpy().astype(np.float32), atol=1e-6)

    def test_categorical(self, sb3, torch):
        logits = normal([64, 5])
        theirs = sb3.CategoricalDistribution(5).proba_distribution(torch.as_tensor(logits.numpy()))
        ours = distributions.categorical(logits)
        self.assert_equal(ours, theirs, ours.sample(seed=SEED).numpy(), torch)

    def test_multi_categorical(self, sb3, torch):
        logits = normal([64, 9])
        theirs = sb3.MultiCategoricalDistribution([2, 4, 3])
        theirs.proba_distribution(torch.as_tensor(logits.numpy()))
        ours = distributions.multi_categorical(logits, [2, 4, 3])
        self.assert_equal(ours, theirs, ours.sample(seed=SEED).numpy(), torch)

    def test_bernoulli(self, sb3, torch):
        logits = normal([64, 4])
        theirs = sb3.BernoulliDistribution(4).proba_distribution(torch.as_tensor(logits.numpy()))
        ours = distributions.bernoulli(logits)
        action = ours.sample(seed=SEED).numpy().astype(np.float32)
        self.assert_equal(ours, theirs, action, torch)

    def test_gaussian(self, sb3, torch):
        loc, log_std = normal([64, 3]), normal([3], 1, 0.5)
        theirs = sb3.DiagGaussianDistribution(3)
        theirs.proba_distribution(*(torch.as_tensor(x.numpy()) for x in (loc, log_std)))
        ours = distributions.gaussian(loc, log_std)
        self.assert_equal(ours, theirs, ours.sample(seed=SEED).numpy(), torch)

    def test_squashed_gaussian(self, sb3, torch):
        loc, log_std = normal([64, 3], scale=0.5), normal([3], 1, 0.3) - 1
        # By default it adds 1e-6 inside a logarithm, which shows near the bounds.
        theirs = sb3.SquashedDiagGaussianDistribution(3, epsilon=0.0)
        theirs.proba_distribution(*(torch.as_tensor(x.numpy()) for x in (loc, log_std)))
        ours = distributions.squashed_gaussian(loc, log_std, -1.0, 1.0)
        self.assert_equal(ours, theirs, ours.sample(seed=SEED).numpy(), torch)
