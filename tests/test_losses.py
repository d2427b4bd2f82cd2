"""losses.py: numbers derived by hand, relations, and the formulas of Stable-Baselines3."""

import math

import numpy as np
import pytest
import tensorflow as tf

from pgest import losses


def batch(seed=0, size=32):
    generator = np.random.default_rng(seed)
    log_prob = generator.normal(-1, 0.5, size).astype(np.float32)
    old_log_prob = (log_prob + generator.normal(0, 0.3, size)).astype(np.float32)
    advantage = generator.normal(size=size).astype(np.float32)
    return tf.constant(log_prob), tf.constant(old_log_prob), tf.constant(advantage)


def gradient(function, *inputs):
    """Of a scalar function by each of its inputs, None where nothing flows."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        result = function(*inputs)
    return tape.gradient(result, inputs)


class TestPolicyGradientLoss:
    def test_by_hand(self):
        # -((-1) * 2 + (-3) * 4) / 2 = 7
        loss = losses.policy_gradient_loss(tf.constant([-1.0, -3.0]), tf.constant([2.0, 4.0]))
        assert float(loss) == 7

    def test_its_gradient_is_minus_the_advantage_over_n(self):
        log_prob, _, advantage = batch()
        by_log_prob, by_advantage = gradient(losses.policy_gradient_loss, log_prob, advantage)
        np.testing.assert_allclose(by_log_prob, -advantage / 32, rtol=1e-6)
        assert by_advantage is None


class TestSurrogateLoss:
    def test_by_hand(self):
        # Ratio 2 and 1/2: -(2 * 3 + 0.5 * 4) / 2 = -4
        loss = losses.surrogate_loss(
            tf.math.log([2.0, 0.5]), tf.zeros([2]), tf.constant([3.0, 4.0])
        )
        assert float(loss) == pytest.approx(-4)

    def test_only_the_new_policy_gets_a_gradient(self):
        by_log_prob, by_old, by_advantage = gradient(losses.surrogate_loss, *batch())
        assert by_log_prob is not None
        assert by_old is None
        assert by_advantage is None


def clipped(log_prob, old_log_prob, advantage):
    return losses.clipped_surrogate_loss(log_prob, old_log_prob, advantage, clip_ratio=0.2)


class TestClippedSurrogateLoss:
    # With clip_ratio 0.2 the four corners of the paper's figure 1, and the inside:
    #   ratio 1.5, A +2: min(3, 1.2 * 2) = 2.4, clipped: no gradient
    #   ratio 0.5, A +2: min(1, 0.8 * 2) = 1, not clipped: gradient -ratio * A = -1
    #   ratio 1.5, A -2: min(-3, -2.4) = -3, not clipped: gradient 3
    #   ratio 0.5, A -2: min(-1, -1.6) = -1.6, clipped: no gradient
    #   ratio 1.1, A +2: 2.2, gradient -2.2
    @pytest.mark.parametrize(
        ("ratio", "advantage", "objective", "expected_gradient"),
        [
            (1.5, 2, 2.4, 0),
            (0.5, 2, 1, -1),
            (1.5, -2, -3, 3),
            (0.5, -2, -1.6, 0),
            (1.1, 2, 2.2, -2.2),
        ],
    )
    def test_corners_by_hand(self, ratio, advantage, objective, expected_gradient):
        log_prob = tf.constant([math.log(ratio)])
        inputs = log_prob, tf.zeros([1]), tf.constant([float(advantage)])
        assert float(clipped(*inputs)) == pytest.approx(-objective)
        assert float(gradient(clipped, *inputs)[0][0]) == pytest.approx(expected_gradient)

    def test_at_ratio_1_its_gradient_is_the_policy_gradients(self):
        log_prob, _, advantage = batch()
        ppo, _, _ = gradient(clipped, log_prob, log_prob, advantage)
        trpo, _, _ = gradient(losses.surrogate_loss, log_prob, log_prob, advantage)
        vpg, _ = gradient(losses.policy_gradient_loss, log_prob, advantage)
        np.testing.assert_allclose(ppo, vpg, rtol=1e-6)
        np.testing.assert_allclose(trpo, vpg, rtol=1e-6)

    def test_a_wide_clip_is_no_clip(self):
        inputs = batch()
        wide = losses.clipped_surrogate_loss(*inputs, clip_ratio=1e6)
        assert float(wide) == pytest.approx(float(losses.surrogate_loss(*inputs)), rel=1e-6)

    def test_it_never_promises_more_than_the_surrogate(self):
        for seed in range(20):
            inputs = batch(seed)
            assert float(clipped(*inputs)) >= float(losses.surrogate_loss(*inputs)) - 1e-6


class TestValueLoss:
    def test_by_hand_without_clipping(self):
        # (1 - 3)^2 = 4 and (2 - 2)^2 = 0: mean 2
        loss = losses.value_loss(tf.constant([1.0, 2.0]), tf.constant([3.0, 2.0]))
        assert float(loss) == 2

    # value 3, old value 1, clip range 0.5: the clipped prediction is 1.5.
    #   target 0: errors 9 and 2.25; the larger is the unclipped 9
    #   target 4: errors 1 and 6.25; the larger is the clipped 6.25
    @pytest.mark.parametrize(
        ("target", "pessimistic", "expected"),
        [(0, True, 9), (4, True, 6.25), (0, False, 2.25), (4, False, 6.25)],
    )
    def test_by_hand_with_clipping(self, target, pessimistic, expected):
        loss = losses.value_loss(
            tf.constant([3.0]),
            tf.constant([float(target)]),
            old_value=tf.constant([1.0]),
            clip_range=0.5,
            pessimistic=pessimistic,
        )
        assert float(loss) == pytest.approx(expected)

    def test_a_prediction_within_the_range_is_not_clipped(self):
        value, target = tf.constant([1.2]), tf.constant([5.0])
        clipped_loss = losses.value_loss(
            value, target, old_value=tf.constant([1.0]), clip_range=0.5
        )
        assert float(clipped_loss) == pytest.approx(float(losses.value_loss(value, target)))

    def test_target_and_old_value_get_no_gradient(self):
        def loss(value, target, old_value):
            return losses.value_loss(value, target, old_value=old_value, clip_range=0.1)

        by_value, by_target, by_old = gradient(loss, *batch())
        assert by_value is not None
        assert by_target is None
        assert by_old is None

    def test_clipping_without_an_old_value(self):
        with pytest.raises(
            ValueError, match=r"clip_range=0.2 without old_value.*labels\['value'\]"
        ):
            losses.value_loss(tf.zeros([1]), tf.zeros([1]), clip_range=0.2)


class TestEntropyLoss:
    def test_by_hand(self):
        assert float(losses.entropy_loss(tf.constant([1.0, 3.0]))) == -2


class TestApproxKl:
    def test_by_hand(self):
        # r = log 2: k1 = -0.6931, k3 = 2 - 1 - 0.6931 = 0.3069
        log_prob, old_log_prob = tf.constant([math.log(2.0)]), tf.zeros([1])
        k1 = losses.approx_kl(log_prob, old_log_prob, estimator="k1")
        assert float(k1) == pytest.approx(-math.log(2.0))
        assert float(losses.approx_kl(log_prob, old_log_prob)) == pytest.approx(1 - math.log(2.0))

    @pytest.mark.parametrize("estimator", ["k1", "k3"])
    def test_both_estimate_the_divergence(self, estimator):
        # Old N(0, 1), new N(0.3, 1): KL = 0.3^2 / 2 = 0.045.
        x = np.random.default_rng(0).normal(size=200_000)
        old, new = -(x**2) / 2, -((x - 0.3) ** 2) / 2
        assert float(losses.approx_kl(new, old, estimator=estimator)) == pytest.approx(
            0.045, abs=0.003
        )

    def test_k3_is_never_negative(self):
        for seed in range(20):
            log_prob, old_log_prob, _ = batch(seed, size=2)
            assert float(losses.approx_kl(log_prob, old_log_prob)) >= 0

    def test_zero_for_equal_policies(self):
        log_prob, _, _ = batch()
        assert float(losses.approx_kl(log_prob, log_prob)) == 0

    def test_an_unknown_estimator(self):
        with pytest.raises(ValueError, match="'k1' or 'k3', got 'k2'"):
            losses.approx_kl(tf.zeros([1]), tf.zeros([1]), estimator="k2")


def test_clip_fraction_by_hand():
    # Ratios 1.5 and 0.7 are outside 0.8 to 1.2, 1.1 and 0.9 are inside.
    log_prob = tf.math.log([1.5, 0.7, 1.1, 0.9])
    assert float(losses.clip_fraction(log_prob, tf.zeros([4]), clip_ratio=0.2)) == 0.5


@pytest.mark.parametrize(
    "call",
    [
        lambda n, n1: losses.policy_gradient_loss(n, n1),
        lambda n, n1: losses.surrogate_loss(n, n, n1),
        lambda n, n1: losses.clipped_surrogate_loss(n, n1, n, clip_ratio=0.2),
        lambda n, n1: losses.value_loss(n1, n),
        lambda n, n1: losses.value_loss(n, n, old_value=n1, clip_range=0.2),
        lambda n, n1: losses.approx_kl(n, n1),
        lambda n, n1: losses.clip_fraction(n, n1, clip_ratio=0.2),
    ],
)
def test_shapes_that_would_broadcast_are_refused(call):
    with pytest.raises(ValueError, match=r"must have one shape.*tf.squeeze\(value, axis=-1\)"):
        call(tf.zeros([4]), tf.zeros([4, 1]))


class TestAgainstStableBaselines3:
    """Its PPO.train has these formulas inline; here they are in torch, as written there (2.9)."""

    @pytest.fixture
    def torch(self):
        pytest.importorskip("stable_baselines3")
        return pytest.importorskip("torch")

    def test_ppo_terms(self, torch):
        log_prob, old_log_prob, advantage = (torch.as_tensor(x.numpy()) for x in batch())
        ratio = torch.exp(log_prob - old_log_prob)
        policy_loss_1 = advantage * ratio
        policy_loss_2 = advantage * torch.clamp(ratio, 1 - 0.2, 1 + 0.2)
        policy_loss = -torch.min(policy_loss_1, policy_loss_2).mean()
        clip_fraction = torch.mean((torch.abs(ratio - 1) > 0.2).float())
        log_ratio = log_prob - old_log_prob
        kl = torch.mean((torch.exp(log_ratio) - 1) - log_ratio)
        inputs = batch()
        assert float(clipped(*inputs)) == pytest.approx(float(policy_loss), rel=1e-5)
        fraction = losses.clip_fraction(*inputs[:2], clip_ratio=0.2)
        assert float(fraction) == pytest.approx(float(clip_fraction))
        assert float(losses.approx_kl(*inputs[:2])) == pytest.approx(float(kl), rel=1e-5)

    def test_value_terms(self, torch):
        value, old_value, target = (torch.as_tensor(x.numpy()) for x in batch())
        clipped_value = old_value + torch.clamp(value - old_value, -0.1, 0.1)
        mse_loss = torch.nn.functional.mse_loss
        inputs = batch()
        plain = losses.value_loss(inputs[0], inputs[2])
        assert float(plain) == pytest.approx(float(mse_loss(target, value)), rel=1e-5)
        loss = losses.value_loss(
            inputs[0], inputs[2], old_value=inputs[1], clip_range=0.1, pessimistic=False
        )
        assert float(loss) == pytest.approx(float(mse_loss(target, clipped_value)), rel=1e-5)
