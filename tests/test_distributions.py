"""distributions: numbers by hand and by integration, masks, nests, and Stable-Baselines3."""

import math

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from distribution_families import SEED, close, every_family, normal
from gymnasium import spaces

from pgest import distributions
from pgest.distributions import noise

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


def integral(density, low, high, points=200_001):
    """By the midpoint rule: the ends themselves may be steep."""
    width = (high - low) / points
    middles = low + width * (np.arange(points) + 0.5)
    return np.sum(density(middles)) * width


class TestBoundedFamilies:
    @pytest.mark.parametrize(("loc", "scale"), [(0, 1), (0.7, 0.3), (-1.5, 2), (3, 1)])
    def test_the_squashed_density_integrates_to_1(self, loc, scale):
        distribution = distributions.SquashedNormal([float(loc)], [float(scale)], -2.0, 3.0)

        def density(x):
            return np.exp(
                distribution.log_prob(x[:, None].astype(np.float32))[:, 0], dtype=np.float64
            )

        assert integral(density, -2, 3) == pytest.approx(1, abs=2e-3)

    @pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (2, 5), (30, 20), (1.1, 1.3)])
    def test_the_beta_density_integrates_to_1(self, alpha, beta):
        distribution = distributions.BoundedBeta([float(alpha)], [float(beta)], -1.0, 4.0)

        def density(x):
            return np.exp(
                distribution.log_prob(x[:, None].astype(np.float32))[:, 0], dtype=np.float64
            )

        assert integral(density, -1, 4) == pytest.approx(1, abs=2e-3)

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
        low, high = np.array([-0.3, 100.1], np.float32), np.array([0.7, 100.2], np.float32)
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

    @pytest.mark.parametrize("family", ["squashed_gaussian", "beta"])
    @pytest.mark.parametrize(("low", "high"), [(-np.inf, 1), (0, np.inf), (1, 1), (2, 1)])
    def test_bounds_that_are_none(self, family, low, high):
        with pytest.raises(ValueError, match=f"{family} needs finite bounds.*RescaleAction"):
            getattr(distributions, family)(tf.zeros([1, 1]), tf.zeros([1, 1]), low, high)


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


NESTED = spaces.Dict(
    {
        "jump": spaces.Discrete(3, start=5),
        "keys": spaces.MultiBinary([2, 2]),
        "move": spaces.Tuple(
            (
                spaces.MultiDiscrete([2, 3]),
                spaces.Box(-2, np.array([[1.0], [3.0]], np.float32), (2, 1), np.float32),
            )
        ),
    }
)
ACTION_SPACES = [
    spaces.Discrete(4),
    spaces.MultiDiscrete([3, 2, 5]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 2]])),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Box(-1, 1, (3,)),
    spaces.Box(-1, 1, ()),
    spaces.Box(0, 2, (2, 3)),
    NESTED,
]


def without_starts(space, action):
    """Actions that count from 0 to what the space counts."""
    if isinstance(space, spaces.Dict):
        return {key: without_starts(child, action[key]) for key, child in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(without_starts(*pair) for pair in zip(space.spaces, action, strict=True))
    return action + space.start if isinstance(space, spaces.Discrete) else action


class TestActionHead:
    @pytest.mark.parametrize("space", ACTION_SPACES, ids=str)
    @pytest.mark.parametrize("box", ["squashed_gaussian", "beta"])
    def test_actions_are_elements_of_the_space(self, space, box):
        distribution = distributions.action_head(space, normal([7, 5]), box=box)
        assert distribution.batch_shape == [7]
        for action in (distribution.sample(seed=SEED), distribution.mode()):
            for row in range(7):
                one = tf.nest.map_structure(lambda part, row=row: part.numpy()[row], action)
                assert space.contains(without_starts(space, one))

    def test_a_gaussian_has_one_variable_of_its_own(self):
        space = spaces.Box(-1, 1, (3,))
        distribution = distributions.action_head(space, normal([7, 5]), initial_std=0.5)
        close(distribution.stddev(), np.full([7, 3], 0.5))

    def test_a_state_dependent_deviation_begins_where_told(self):
        space = spaces.Box(-1, 1, (3,))
        distribution = distributions.action_head(
            space, tf.zeros([7, 5]), state_dependent_std=True, initial_std=0.5
        )
        close(distribution.stddev(), np.full([7, 3], 0.5))

    def test_the_first_policy_is_nearly_uniform(self):
        distribution = distributions.action_head(spaces.Discrete(4), normal([50, 64]))
        assert (distribution.entropy().numpy() > 0.99 * math.log(4)).all()

    def test_names_follow_the_space(self):
        with tf.Graph().as_default() as graph:
            distributions.action_head(NESTED, tf.zeros([1, 4]), name="pi")
            names = {variable.name for variable in graph.get_collection("trainable_variables")}
        assert {"pi_jump/kernel:0", "pi_move_1_log_std:0", "pi_move_0/bias:0"} <= names

    def test_masks_of_a_nest(self):
        mask = {
            "jump": np.array([[False, True, False]]),
            "move": (np.array([[1, 0, 0, 0, 1]]), None),
        }
        distribution = distributions.action_head(NESTED, normal([1, 4]), action_mask=mask)
        draws = distribution.sample(100, seed=SEED)
        assert set(draws["jump"].numpy().ravel()) == {1}
        assert {tuple(row) for row in draws["move"][0].numpy()[:, 0]} == {(0, 2)}

    def test_a_mask_for_what_cannot_be_masked(self):
        with pytest.raises(ValueError, match="Box.* cannot be masked"):
            distributions.action_head(
                spaces.Box(-1, 1, (2,)), normal([1, 4]), action_mask=np.ones([1, 2], bool)
            )

    def test_a_mask_for_an_unknown_part(self):
        with pytest.raises(ValueError, match=r"mask has \['jmp'\]"):
            distributions.action_head(NESTED, normal([1, 4]), action_mask={"jmp": None})

    @pytest.mark.parametrize(
        "space",
        [spaces.Text(3), spaces.Box(0, 255, (2,), np.uint8), spaces.Sequence(spaces.Discrete(2))],
    )
    def test_a_space_without_a_head(self, space):
        with pytest.raises(TypeError, match="no distribution for actions of.*Known are Discrete"):
            distributions.action_head(space, normal([1, 4]))

    def test_an_unknown_family(self):
        with pytest.raises(ValueError, match="box must be one of.*'beta'.*got 'normal'"):
            distributions.action_head(spaces.Box(-1, 1, (2,)), normal([1, 4]), box="normal")


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


def test_a_real_environments_action_is_accepted():
    env = gymnasium.make("Pendulum-v1")
    observation, _ = env.reset(seed=0)
    distribution = distributions.action_head(
        env.action_space, tf.constant(observation[None]), box="squashed_gaussian"
    )
    env.step(distribution.sample(seed=SEED).numpy()[0])
    env.close()
