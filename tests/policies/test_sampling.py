"""Seeds, samples and log-probabilities of policies."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from pgest.policies import ready_made, time_steps
from pgest.policies.time_steps import PolicyInfo, PolicyStep
from pgest.specs import seeds
from tests.policies.policy_fakes import (
    OBSERVATION,
    TIME_STEP,
    CategoricalPolicy,
    NormalPolicy,
    restart,
)

tfd = tfp.distributions


def test_the_same_seed_draws_the_same_action():
    policy = NormalPolicy()
    for seed in (7, [3, 4], tf.constant([3, 4]), np.int64(7)):
        first, second = (policy.action(restart(), seed=seed).action for _ in range(2))
        np.testing.assert_array_equal(first, second)
    assert not np.allclose(
        policy.action(restart(), seed=7).action, policy.action(restart(), seed=8).action
    )


def test_a_seed_samples_as_the_distribution_does_with_it():
    policy = CategoricalPolicy()
    seed = tf.constant([1, 2])
    action = policy.action(restart(20), seed=seed).action
    sample = policy.distribution(restart(20)).action.sample(seed=seed)
    np.testing.assert_array_equal(action, sample)
    assert action.dtype == tf.int64


@pytest.mark.parametrize("seed", [1.5, True, [1, 2, 3], "7", 2**64])
def test_other_seeds_are_refused(seed):
    with pytest.raises(TypeError, match="seed: got .*expected"):
        CategoricalPolicy().action(restart(), seed=seed)


def test_seeds_of_64_bits_come_back_as_they_were():
    for seed in (0, 1, 2**31, 2**40 + 3, 2**64 - 1):
        assert seeds.as_int(seeds.as_seed(seed).numpy()) == seed


@pytest.mark.parametrize("jit_compile", [False, True])
def test_sampling_without_a_seed_is_never_frozen(jit_compile):
    policy = NormalPolicy()
    policy.action(restart())

    def trace():
        tf.random.set_seed(3)
        return tf.function(
            lambda step: policy.action(step).action, jit_compile=jit_compile, autograph=False
        )

    first, second = trace(), trace()
    drawn = [act(restart()).numpy().tobytes() for act in (first, first, first, second, second)]
    assert len(set(drawn)) == 5


def test_sampling_without_a_seed_is_not_frozen_in_a_file(tmp_path):
    policy = NormalPolicy()
    tf.random.set_seed(3)
    module = tf.Module()
    module.policy = policy
    module.act = tf.function(
        lambda x: policy.action(time_steps.restart(x, tf.shape(x)[0])).action,
        input_signature=[tf.TensorSpec((None, 4))],
    )
    tf.saved_model.save(module, str(tmp_path / "policy"))
    drawn = []
    for _ in range(2):
        tf.random.set_seed(3)
        loaded = tf.saved_model.load(str(tmp_path / "policy"))
        drawn += [loaded.act(tf.zeros((2, 4))).numpy().tobytes() for _ in range(2)]
    assert len(set(drawn)) == 4


def test_every_leaf_of_an_action_has_a_seed_of_its_own():
    class Two(ready_made.TFPolicy):
        def _distribution(self, time_step, policy_state):
            normal = tfd.Normal(tf.zeros(tf.shape(time_step.step_type)), 1.0)
            return PolicyStep({"a": normal, "b": (normal,)}, policy_state)

    spec = tf.TensorSpec((), tf.float32)
    action = Two(TIME_STEP, {"a": spec, "b": (spec,)}).action(restart(), seed=1).action
    assert not np.allclose(action["a"], action["b"][0])


def test_log_probabilities_on_request():
    policy = CategoricalPolicy(emit_log_probability=True)
    step = policy.action(restart(5))
    assert isinstance(step.info, PolicyInfo)
    expected = policy.distribution(restart(5)).action.log_prob(tf.cast(step.action, tf.int32))
    np.testing.assert_allclose(step.info.log_probability, expected, rtol=1e-6)
    assert policy.info_spec.log_probability.dtype == tf.float32
    assert policy.trajectory_spec.policy_info == policy.info_spec


def test_log_probabilities_join_the_info_that_is_there():
    class Valued(CategoricalPolicy):
        def _distribution(self, time_step, policy_state):
            step = super()._distribution(time_step, policy_state)
            return step._replace(info={"value": tf.ones(tf.shape(time_step.step_type))})

    policy = Valued(info_spec={"value": tf.TensorSpec((), tf.float32)}, emit_log_probability=True)
    assert set(policy.action(restart()).info) == {"value", "log_probability"}
    assert set(policy.distribution(restart()).info) == {"value"}
    greedy = ready_made.GreedyPolicy(policy)
    assert set(greedy.action(restart()).info) == {"value", "log_probability"}
    with pytest.raises(ValueError, match="emit_log_probability: got an info of type TensorSpec"):
        CategoricalPolicy(info_spec=OBSERVATION, emit_log_probability=True)


def test_a_log_probability_is_that_of_the_action_before_clipping():
    policy = NormalPolicy(scale=50.0, emit_log_probability=True)
    step = policy.action(restart(), seed=1)
    sample = policy.distribution(restart()).action.sample(seed=seeds.as_seed(1))
    assert np.all(np.abs(step.action) <= 1) and np.any(np.abs(sample) > 1)
    expected = policy.distribution(restart()).action.log_prob(sample)
    np.testing.assert_allclose(step.info.log_probability, expected, rtol=1e-5)
