"""normalization.py: moments by hand and against NumPy and Stable-Baselines3's VecNormalize."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from pgest import normalization
from tests.distributions.distribution_families import close


class TestRunningMoments:
    @pytest.mark.parametrize("sizes", [[100], [1] * 20, [1, 50, 3, 200]])
    def test_batches_of_any_size_merge_to_the_moments_of_all_rows(self, sizes):
        rows = np.random.default_rng(0).normal(5, 3, (sum(sizes), 2)).astype(np.float32)
        moments = normalization.RunningMoments([2])
        for batch in np.split(rows, np.cumsum(sizes)[:-1]):
            moments.update(batch)
        close(moments.mean, rows.mean(axis=0), 1e-5)
        close(moments.variance, rows.var(axis=0), 1e-5)
        assert int(moments.count) == sum(sizes)

    def test_leading_axes_are_all_rows(self):
        rows = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
        moments = normalization.RunningMoments([2])
        moments.update(rows)
        close(moments.variance, rows.reshape(12, 2).var(axis=0), 1e-5)
        assert int(moments.count) == 12

    def test_a_far_mean_does_not_spoil_the_variance(self):
        # In float32 the mean of squares of 10,000 +- 1 would have an error of its own of about 10.
        rows = 10_000 + np.random.default_rng(0).normal(size=(500, 1)).astype(np.float32)
        moments = normalization.RunningMoments([1])
        for batch in np.split(rows, 50):
            moments.update(batch)
        close(moments.variance, rows.astype(np.float64).var(axis=0), 1e-2)

    def test_it_still_learns_after_a_billion_rows(self):
        moments = normalization.RunningMoments([])
        moments.count.assign(10**9)
        moments.update(tf.zeros([8]))
        assert int(moments.count) == 10**9 + 8

    def test_against_stable_baselines3(self):
        sb3 = pytest.importorskip("stable_baselines3.common.running_mean_std")
        theirs, ours = (
            sb3.RunningMeanStd(epsilon=1e-9, shape=(3,)),
            normalization.RunningMoments([3]),
        )
        generator = np.random.default_rng(0)
        for size in (5, 1, 64, 17):
            batch = generator.normal(2, 4, (size, 3)).astype(np.float32)
            theirs.update(batch)
            ours.update(batch)
        close(ours.mean, theirs.mean.astype(np.float32), 1e-5)
        close(ours.variance, theirs.var.astype(np.float32), 1e-5)

    def test_rows_of_another_shape(self):
        moments = normalization.RunningMoments([2])
        for rows in (tf.zeros([5, 3]), tf.zeros([2])):
            with pytest.raises(ValueError, match=r"rows \(2,\) got.*one leading axis"):
                moments.update(rows)


NESTED = spaces.Dict(
    {
        "at": spaces.Box(-9, 9, (2,)),
        "key": spaces.Discrete(3),
        "rest": spaces.Tuple((spaces.Box(0, 255, (4, 4), np.uint8), spaces.Box(-9, 9, ()))),
    }
)


class TestObservationNormalizer:
    def test_after_an_update_a_batch_has_mean_0_and_variance_1(self):
        observation = np.random.default_rng(0).normal(5, 3, (200, 2)).astype(np.float32)
        normalizer = normalization.ObservationNormalizer(spaces.Box(-9, 9, (2,)))
        close(normalizer(observation), np.clip(observation, -10, 10), 1e-5)
        normalizer.update(observation)
        normalized = normalizer(observation).numpy()
        close(normalized.mean(axis=0), np.zeros(2), 1e-4)
        close(normalized.var(axis=0), np.ones(2), 1e-4)

    def test_reading_changes_nothing(self):
        normalizer = normalization.ObservationNormalizer(spaces.Box(-9, 9, (2,)))
        for _ in range(3):
            normalizer(tf.fill([5, 2], 7.0))
        close(normalizer(tf.fill([5, 2], 7.0)), np.full([5, 2], 7), 0)

    def test_clip(self):
        normalizer = normalization.ObservationNormalizer(spaces.Box(-9, 9, (1,)), clip=2.0)
        assert normalizer(tf.constant([[-50.0], [1.0], [50.0]])).numpy().ravel().tolist() == [
            -2,
            1,
            2,
        ]

    def test_only_boxes_of_floats_in_a_nest(self):
        batch = tf.nest.map_structure(
            lambda *parts: np.stack(parts), *[NESTED.sample() for _ in range(50)]
        )
        normalizer = normalization.ObservationNormalizer(NESTED)
        normalizer.update(batch)
        normalized = normalizer(batch)
        close(np.var(normalized["at"], axis=0), np.ones(2), 1e-3)
        close(np.var(normalized["rest"][1]), np.ones([]), 1e-3)
        assert normalized["key"] is batch["key"]
        assert normalized["rest"][0] is batch["rest"][0]

    def test_names_follow_the_space(self):
        with tf.Graph().as_default() as graph:
            normalization.ObservationNormalizer(NESTED, name="seen")
            variables = graph.get_collection("variables")
        assert [variable.name for variable in variables if "mean" in variable.name] == [
            "seen_at_mean:0",
            "seen_at_mean_remainder:0",
            "seen_rest_1_mean:0",
            "seen_rest_1_mean_remainder:0",
        ]
        assert not any(variable.trainable for variable in variables)

    @pytest.mark.parametrize("jit_compile", [False, True])
    @pytest.mark.parametrize(
        ("dtype", "offset", "sizes"),
        [
            (np.float32, 1e6, [1, 2, 40, 100_000, 7]),
            (np.float32, -1e6, [1_000_000]),
            (np.float32, 1e4, [131_072, 131_072]),
            (np.float32, 1e6, [24] * 2000),
            (np.float64, 1e9, [1, 2, 40, 100_000, 7]),
            (np.float64, -1e9, [1_000_000]),
            (np.float64, 1e9, [24] * 2000),
        ],
    )
    def test_far_from_zero(self, dtype, offset, sizes, jit_compile):
        rows = np.random.default_rng(0).normal(offset, 1.0, (sum(sizes), 1)).astype(dtype)
        normalizer = normalization.ObservationNormalizer(spaces.Box(-np.inf, np.inf, (1,), dtype))

        @tf.function(jit_compile=jit_compile)
        def update(batch):
            normalizer.update(batch)

        for batch in np.split(rows, np.cumsum(sizes)[:-1]):
            update(tf.constant(batch))
        read = tf.function(normalizer, jit_compile=jit_compile)
        normalized = read(tf.constant(rows)).numpy()
        assert normalized.dtype == np.float32
        exact = rows.astype(np.float64)
        expected = (exact - exact.mean()) / exact.std()
        assert abs(normalized.mean(dtype=np.float64)) < 0.01
        assert abs(normalized.std(dtype=np.float64) - 1) < 0.01
        close(normalized, expected, 1e-3)

    def test_the_normal_of_float32_needs_no_float64(self):
        normalizer = normalization.ObservationNormalizer(spaces.Box(-9, 9, (2,)))
        graph = tf.function(normalizer).get_concrete_function(tf.TensorSpec([None, 2])).graph
        dtypes = {output.dtype for op in graph.get_operations() for output in op.outputs}
        assert tf.float64 not in dtypes

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_compiled(self, jit_compile):
        observation = np.random.default_rng(0).normal(5, 3, (20, 2)).astype(np.float32)
        normalizer = normalization.ObservationNormalizer(spaces.Box(-9, 9, (2,)))

        @tf.function(jit_compile=jit_compile)
        def step(batch):
            before = normalizer(batch)
            with tf.control_dependencies([before, normalizer.update(batch)]):
                return before, normalizer(batch)

        before, after = step(observation)
        close(before, observation)
        close(np.mean(after, axis=0), np.zeros(2), 1e-4)

    def test_a_clip_of_nothing(self):
        with pytest.raises(ValueError, match="clip must be positive, got 0"):
            normalization.ObservationNormalizer(spaces.Box(-1, 1, (1,)), clip=0)


class TestRewardScaler:
    def test_by_hand(self):
        # discount 0.5, ends after row 1: running returns 2, 1 + 0.5 * 2 = 2, then afresh 4.
        # Mean 8/3, variance (2 * (2/3)^2 + (4/3)^2) / 3 = 8/9; carried on: 4.
        scaler = normalization.RewardScaler(1, discount=0.5)
        scaler.update(tf.constant([[2.0], [1.0], [4.0]]), tf.constant([[False], [True], [False]]))
        close(scaler.moments.mean, np.array(8 / 3), 1e-6)
        close(scaler.moments.variance, np.array(8 / 9), 1e-6)
        assert scaler.running_return.numpy().tolist() == [4]
        close(scaler(tf.constant([2.0])), np.array([2 / np.sqrt(8 / 9)]), 1e-6)
        # The next batch goes on: 1 + 0.5 * 4 = 3, and the episode ends.
        scaler.update(tf.constant([[1.0]]), tf.constant([[True]]))
        assert scaler.running_return.numpy().tolist() == [0]
        close(scaler.moments.mean, np.array((2 + 2 + 4 + 3) / 4), 1e-6)

    def test_against_vec_normalize(self):
        """Environments with known rewards and ends; the same statistics after the same steps."""
        vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
        generator = np.random.default_rng(0)
        rewards = generator.normal(1, 2, (40, 3)).astype(np.float32)
        ended = generator.random((40, 3)) < 0.15

        class Scripted(gymnasium.Env):
            observation_space = spaces.Box(-1, 1, (1,))
            action_space = spaces.Discrete(2)

            def __init__(self, index):
                self.index, self.time = index, -1

            def reset(self, *, seed=None, options=None):
                return np.zeros(1, np.float32), {}

            def step(self, action):
                self.time += 1
                reward, end = rewards[self.time, self.index], ended[self.time, self.index]
                return np.zeros(1, np.float32), float(reward), bool(end), False, {}

        theirs = vec_env.VecNormalize(
            vec_env.DummyVecEnv([lambda index=index: Scripted(index) for index in range(3)]),
            norm_obs=False,
            gamma=0.9,
        )
        theirs.reset()
        for _ in range(40):
            theirs.step(np.zeros(3, int))
        ours = normalization.RewardScaler(3, discount=0.9)
        for part in (slice(0, 16), slice(16, 40)):
            ours.update(rewards[part], ended[part])
        # VecNormalize begins with 1e-4 imaginary rows.
        close(ours.moments.mean, np.float32(theirs.ret_rms.mean), 1e-4)
        close(ours.moments.variance, np.float32(theirs.ret_rms.var), 1e-4)
        close(ours.running_return, theirs.returns.astype(np.float32), 1e-5)
        close(ours(rewards[-1]), theirs.normalize_reward(rewards[-1]), 1e-4)
