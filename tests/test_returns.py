"""returns.py: numbers derived by hand, relations, every way to end, and Stable-Baselines3."""

import numpy as np
import pytest
import tensorflow as tf

from pgest import returns

DISCOUNT, LAMBDA = 0.97, 0.9


def column(*values):
    return tf.constant(values, shape=[len(values), 1])


def random_rollout(length, num_envs, seed, end_probability=0.2):
    """Rewards, values and ends of every kind; ended without terminated is truncated or cut."""
    generator = np.random.default_rng(seed)
    terminated = generator.random((length, num_envs)) < end_probability / 2
    truncated = generator.random((length, num_envs)) < end_probability / 2
    return {
        "rewards": generator.normal(size=(length, num_envs)).astype(np.float32),
        "values": generator.normal(size=(length, num_envs)).astype(np.float32),
        "next_values": generator.normal(size=(length, num_envs)).astype(np.float32),
        "terminated": terminated,
        "ended": terminated | truncated,
    }


def consistent(rollout):
    """The same with the next row's value for next value within an episode, as it is in truth."""
    values, next_values = rollout["values"], rollout["next_values"].copy()
    going_on = ~rollout["ended"][:-1]
    next_values[:-1][going_on] = values[1:][going_on]
    return {**rollout, "next_values": next_values}


def gae(rollout, discount=DISCOUNT, lambda_=LAMBDA):
    return returns.gae(**rollout, discount=discount, lambda_=lambda_).numpy()


def discounted_returns(rollout, discount=DISCOUNT):
    arguments = {name: value for name, value in rollout.items() if name != "values"}
    return returns.discounted_returns(**arguments, discount=discount).numpy()


def looped_recurrence(offset, factor):
    solution, later = np.zeros_like(offset), np.zeros_like(offset[0])
    for t in reversed(range(len(offset))):
        later = solution[t] = offset[t] + factor[t] * later
    return solution


class TestDiscountedReturns:
    def test_by_hand_over_two_episodes(self):
        # discount 0.5; rows 0-2: terminated at row 2, so its next value 100 counts for nothing:
        #   G2 = 4, G1 = 2 + 0.5 * 4 = 4, G0 = 1 + 0.5 * 4 = 3.
        # Rows 3-4: truncated at row 4 with next value 6:
        #   G4 = 1 + 0.5 * 6 = 4, G3 = 2 + 0.5 * 4 = 4.
        # Row 5: cut by the end of the batch with next value 8: G5 = 1 + 0.5 * 8 = 5.
        result = returns.discounted_returns(
            column(1.0, 2.0, 4.0, 2.0, 1.0, 1.0),
            column(False, False, True, False, False, False),
            column(False, False, True, False, True, False),
            column(9.0, 9.0, 100.0, 9.0, 6.0, 8.0),
            discount=0.5,
        )
        assert result[:, 0].numpy().tolist() == [3, 4, 4, 4, 4, 5]

    def test_discount_0_is_the_reward_alone(self):
        rollout = random_rollout(7, 3, seed=0)
        np.testing.assert_array_equal(discounted_returns(rollout, 0.0), rollout["rewards"])

    def test_environments_do_not_mix(self):
        rollout = random_rollout(9, 4, seed=1)
        together = discounted_returns(rollout)
        for env in range(4):
            alone = {name: value[:, env : env + 1] for name, value in rollout.items()}
            np.testing.assert_allclose(
                together[:, env], discounted_returns(alone)[:, 0], rtol=1e-6, atol=1e-6
            )


class TestGae:
    def test_by_hand(self):
        # discount 0.5, lambda 0.5, so a row passes on a quarter of the next row's advantage.
        # Row 2 is truncated with next value 4: delta2 = 1 + 0.5 * 4 - 2 = 1, A2 = 1.
        # Row 1 goes on, next value 2: delta1 = 3 + 0.5 * 2 - 1 = 3, A1 = 3 + 1 / 4 = 3.25.
        # Row 0 terminated, next value ignored: delta0 = 2 - 1 = 1, A0 = 1.
        result = returns.gae(
            column(2.0, 3.0, 1.0),
            column(1.0, 1.0, 2.0),
            column(50.0, 2.0, 4.0),
            column(True, False, False),
            column(True, False, True),
            discount=0.5,
            lambda_=0.5,
        )
        assert result[:, 0].numpy().tolist() == [1, 3.25, 1]

    @pytest.mark.parametrize("seed", range(5))
    def test_lambda_1_is_the_return_minus_the_value(self, seed):
        rollout = consistent(random_rollout(33, 5, seed))
        np.testing.assert_allclose(
            gae(rollout, lambda_=1.0),
            discounted_returns(rollout) - rollout["values"],
            rtol=1e-5,
            atol=1e-5,
        )

    def test_lambda_0_is_the_td_error(self):
        rollout = random_rollout(33, 5, seed=2)
        bootstrap = np.where(rollout["terminated"], 0, rollout["next_values"])
        td_error = rollout["rewards"] + DISCOUNT * bootstrap - rollout["values"]
        np.testing.assert_allclose(gae(rollout, lambda_=0.0), td_error, rtol=1e-6, atol=1e-6)

    def test_what_follows_an_end_does_not_leak_back(self):
        rollout = random_rollout(20, 3, seed=3)
        rollout["ended"][10] = True
        before = gae(rollout)
        rollout["rewards"][11:] += 100
        np.testing.assert_array_equal(gae(rollout)[:11], before[:11])

    def test_the_value_after_a_termination_does_not_count_and_after_a_truncation_does(self):
        rollout = random_rollout(6, 2, seed=4)
        rollout["terminated"][:] = False
        rollout["terminated"][5, 0] = rollout["ended"][5] = True
        before = gae(rollout)
        rollout["next_values"][5] += 1
        change = gae(rollout)[5] - before[5]
        np.testing.assert_allclose(change, [0, DISCOUNT], rtol=1e-5)

    def test_schedules_may_pass_tensors(self):
        rollout = random_rollout(6, 2, seed=5)
        np.testing.assert_array_equal(
            gae(rollout, tf.constant(DISCOUNT, tf.float64), tf.constant(LAMBDA)), gae(rollout)
        )


class TestAgainstStableBaselines3:
    """Its buffer wants the value after a truncation in the reward; ours takes both as they are."""

    @staticmethod
    def sb3_buffer(rollout, episode_starts, last_values, dones, gae_lambda):
        buffers = pytest.importorskip("stable_baselines3.common.buffers")
        spaces = pytest.importorskip("gymnasium").spaces
        torch = pytest.importorskip("torch")
        length, num_envs = rollout["rewards"].shape
        buffer = buffers.RolloutBuffer(
            length,
            spaces.Box(-1, 1, (1,)),
            spaces.Discrete(2),
            gae_lambda=gae_lambda,
            gamma=DISCOUNT,
            n_envs=num_envs,
        )
        truncated = rollout["ended"] & ~rollout["terminated"]
        # OnPolicyAlgorithm.collect_rollouts: rewards[idx] += self.gamma * terminal_value
        rewards = rollout["rewards"] + DISCOUNT * truncated * rollout["next_values"]
        for t in range(length):
            buffer.add(
                np.zeros((num_envs, 1)),
                np.zeros((num_envs, 1)),
                rewards[t],
                episode_starts[t],
                torch.as_tensor(rollout["values"][t]),
                torch.zeros(num_envs),
            )
        buffer.compute_returns_and_advantage(torch.as_tensor(last_values), dones)
        return buffer

    @pytest.mark.parametrize("seed", range(12))
    @pytest.mark.parametrize("last_row", ["as it falls", "cut off", "truncated", "terminated"])
    @pytest.mark.parametrize("gae_lambda", [0.95, 1.0])
    def test_random_episodes(self, seed, last_row, gae_lambda):
        rollout = random_rollout(24, 4, seed, end_probability=[0.0, 0.1, 0.5][seed % 3])
        if last_row != "as it falls":
            rollout["terminated"][-1] = last_row == "terminated"
            rollout["ended"][-1] = last_row != "cut off"
        rollout = consistent(rollout)
        starts = np.concatenate([np.zeros((1, 4), bool), rollout["ended"][:-1]])
        buffer = self.sb3_buffer(
            rollout, starts, rollout["next_values"][-1], rollout["ended"][-1], gae_lambda
        )
        advantages = gae(rollout, lambda_=gae_lambda)
        np.testing.assert_allclose(advantages, buffer.advantages, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(
            advantages + rollout["values"], buffer.returns, rtol=1e-6, atol=1e-6
        )
        if gae_lambda == 1.0:
            # Without values of their own, returns are what TD(1) targets telescope to.
            np.testing.assert_allclose(
                discounted_returns(rollout), buffer.returns, rtol=1e-6, atol=2e-6
            )

    def test_normalize_is_ppos(self):
        torch = pytest.importorskip("torch")
        advantages = np.random.default_rng(0).normal(2, 3, 64).astype(np.float32)
        tensor = torch.as_tensor(advantages)
        # stable_baselines3/ppo/ppo.py: (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        expected = (tensor - tensor.mean()) / (tensor.std() + 1e-8)
        result = returns.normalize(advantages)
        np.testing.assert_allclose(result, expected.numpy(), rtol=1e-5, atol=1e-6)

    def test_explained_variance(self):
        sb3 = pytest.importorskip("stable_baselines3.common.utils")
        generator = np.random.default_rng(0)
        target = generator.normal(size=50).astype(np.float32)
        prediction = target + generator.normal(size=50).astype(np.float32)
        expected = sb3.explained_variance(prediction, target)
        assert float(returns.explained_variance(prediction, target)) == pytest.approx(
            expected, rel=1e-5
        )


class TestLinearRecurrence:
    @pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 7, 8, 9, 64, 100])
    @pytest.mark.parametrize("compiled", ["eager", "static", "dynamic", "xla"])
    def test_equals_the_loop(self, length, compiled):
        generator = np.random.default_rng(length)
        offset = generator.normal(size=(length, 3)).astype(np.float32)
        factor = generator.uniform(-1, 1, size=(length, 3)).astype(np.float32)
        function = returns.linear_recurrence
        if compiled != "eager":
            spec = tf.TensorSpec([None if compiled == "dynamic" else length, 3], tf.float32)
            function = tf.function(
                function, input_signature=[spec, spec], jit_compile=compiled == "xla"
            )
        expected = looped_recurrence(offset, factor) if length else offset
        np.testing.assert_allclose(function(offset, factor), expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("length", [9, 16, 37, 100])
    def test_a_loop_of_one_body_rounds_as_the_reduction_of_each_length(self, length, monkeypatch):
        generator = np.random.default_rng(length)
        offset = tf.constant(generator.normal(size=(length, 3)).astype(np.float32))
        factor = tf.constant(generator.uniform(-1, 1, size=(length, 3)).astype(np.float32))
        looped = returns.linear_recurrence(offset, factor)
        monkeypatch.setattr(returns, "_FEW_ROWS", length)
        np.testing.assert_array_equal(looped, returns.linear_recurrence(offset, factor))

    def test_xla_differentiates_a_long_one(self):
        @tf.function(jit_compile=True)
        def slopes(offset, factor):
            return tf.gradients(returns.linear_recurrence(offset, factor)[0], [offset])

        # x[0] = sum of offset[t] * 0.5**t
        (slope,) = slopes(tf.ones([20, 1]), tf.fill([20, 1], 0.5))
        np.testing.assert_allclose(slope[:, 0], 0.5 ** np.arange(20), rtol=1e-6)

    def test_forward_is_the_mirror_image(self):
        generator = np.random.default_rng(0)
        offset = generator.normal(size=(13, 2)).astype(np.float32)
        factor = generator.uniform(size=(13, 2)).astype(np.float32)
        np.testing.assert_allclose(
            returns.linear_recurrence(offset, factor, reverse=False),
            looped_recurrence(offset[::-1], factor[::-1])[::-1],
            rtol=1e-5,
            atol=1e-6,
        )

    def test_a_long_undiscounted_sum_stays_exact(self):
        # 5,000 rewards of 1 without discount: float32 holds every partial sum.
        ones = tf.ones([5000, 1])
        result = returns.linear_recurrence(ones, ones)
        np.testing.assert_array_equal(result[:, 0], np.arange(5000, 0, -1))


class TestCompiled:
    @pytest.mark.parametrize("length", [1, 6, 16])
    @pytest.mark.parametrize("static", [True, False])
    @pytest.mark.parametrize("jit_compile", [True, False])
    def test_gae_and_returns_are_the_same_however_compiled(self, length, static, jit_compile):
        rollout = random_rollout(length, 2, seed=length)
        names = list(rollout)

        def both(*arrays):
            arguments = dict(zip(names, arrays, strict=True))
            advantages = returns.gae(**arguments, discount=DISCOUNT, lambda_=LAMBDA)
            arguments.pop("values")
            return advantages, returns.discounted_returns(**arguments, discount=DISCOUNT)

        signature = [
            tf.TensorSpec([length if static else None, 2], tf.as_dtype(rollout[name].dtype))
            for name in names
        ]
        compiled = tf.function(both, input_signature=signature, jit_compile=jit_compile)
        advantages, reward_to_go = compiled(*rollout.values())
        np.testing.assert_allclose(advantages, gae(rollout), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(reward_to_go, discounted_returns(rollout), rtol=1e-5, atol=1e-6)


class TestErrors:
    def test_rewards_of_another_rank(self):
        rollout = {name: value[:, 0] for name, value in random_rollout(4, 1, 0).items()}
        with pytest.raises(ValueError, match=r"rewards must be \[T, B\].*\(4,\).*tf.newaxis"):
            gae(rollout)

    def test_a_shape_that_differs(self):
        rollout = random_rollout(4, 2, 0)
        with pytest.raises(
            ValueError, match=r"next_values must have the shape of rewards, \(4, 2\)"
        ):
            gae({**rollout, "next_values": rollout["next_values"][:3]})

    def test_at_trace_time(self):
        traced = tf.function(
            lambda rewards, other: returns.discounted_returns(
                rewards, other, other, other, discount=0.9
            )
        )
        with pytest.raises(ValueError, match="terminated must have the shape of rewards"):
            traced.get_concrete_function(tf.TensorSpec([None, 2]), tf.TensorSpec([None, 3]))


class TestNormalize:
    def test_by_hand(self):
        # Mean 3, unbiased variance (4 + 0 + 4) / 2 = 4, so std 2.
        assert returns.normalize(tf.constant([1.0, 3.0, 5.0])).numpy().tolist() == [-1, 0, 1]

    def test_one_element_is_left_alone(self):
        assert returns.normalize(tf.constant([7.0])).numpy().tolist() == [7]

    def test_equal_elements_become_zero_not_nan(self):
        assert returns.normalize(tf.constant([2.0, 2.0, 2.0])).numpy().tolist() == [0, 0, 0]


class TestExplainedVariance:
    def test_by_hand(self):
        target = tf.constant([0.0, 2.0])
        assert float(returns.explained_variance(tf.constant([1.0, 1.0]), target)) == 0
        # Residuals -2 and 2 have variance 4, the target has 1: 1 - 4 / 1.
        assert float(returns.explained_variance(tf.constant([2.0, 0.0]), target)) == -3

    def test_of_a_constant_target_nothing_is_explained(self):
        prediction, target = tf.constant([1.0, 2.0]), tf.constant([3.0, 3.0])
        assert float(returns.explained_variance(prediction, target)) == 0
