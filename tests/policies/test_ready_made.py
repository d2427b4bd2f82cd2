"""GreedyPolicy and RandomTFPolicy."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from pgest import specs
from pgest.policies import ready_made, time_steps
from pgest.policies.time_steps import PolicyStep
from pgest.specs import sampling, seeds
from tests.policies.policy_fakes import (
    BOX,
    DISCRETE,
    OBSERVATION,
    TIME_STEP,
    CategoricalPolicy,
    CountingPolicy,
    NormalPolicy,
    restart,
)

tfd = tfp.distributions


def test_greedy_takes_the_mode():
    policy = CategoricalPolicy([0.0, 5.0, 1.0])
    greedy = ready_made.GreedyPolicy(policy)
    assert greedy.action(restart(4)).action.numpy().tolist() == [1, 1, 1, 1]
    assert greedy.variables() == policy.variables() and greedy.wrapped_policy is policy
    assert greedy.policy_step_spec == policy.policy_step_spec
    assert greedy.name == "greedy_policy"
    policy.logits.assign([9.0, 5.0, 1.0])
    assert greedy.action(restart(1)).action.numpy().tolist() == [0]


def test_a_greedy_graph_draws_no_random_numbers():
    greedy = ready_made.GreedyPolicy(NormalPolicy(emit_log_probability=True))
    signature = [specs.add_outer_dims(TIME_STEP)]
    traced = tf.function(greedy.action, input_signature=signature).get_concrete_function()
    operations = {operation.type for operation in traced.graph.get_operations()}
    assert "MatMul" in operations and not any("Random" in kind for kind in operations)


def test_greedy_keeps_the_event_shape():
    policy = NormalPolicy()
    greedy = ready_made.GreedyPolicy(policy, name="best")
    distribution = greedy.distribution(restart(2, 0.1)).action
    assert distribution.event_shape == (2,) and distribution.batch_shape == (2,)
    np.testing.assert_allclose(distribution.mode(), policy.network(tf.fill((2, 4), 0.1)))
    assert greedy.name == "best"


def test_greedy_clips_as_its_policy_does():
    class Far(ready_made.TFPolicy):
        def _distribution(self, time_step, policy_state):
            return PolicyStep(tfd.Deterministic(tf.fill((3, 2), 9.0)), policy_state)

    for clip, expected in ((True, 1.0), (False, 9.0)):
        greedy = ready_made.GreedyPolicy(Far(TIME_STEP, BOX, clip=clip))
        np.testing.assert_array_equal(greedy.action(restart()).action, np.full((3, 2), expected))


def test_greedy_needs_a_mode():
    class Modeless(ready_made.TFPolicy):
        def _distribution(self, time_step, policy_state):
            components = tfd.Normal(tf.zeros((3, 2)), 1.0)
            weights = tfd.Categorical(logits=tf.zeros((3, 2)))
            return PolicyStep(tfd.MixtureSameFamily(weights, components), policy_state)

    greedy = ready_made.GreedyPolicy(Modeless(TIME_STEP, tf.TensorSpec((), tf.float32)))
    with pytest.raises(ValueError, match="does not implement mode making it incompatible"):
        greedy.action(restart())
    with pytest.raises(TypeError, match="expected a TFPolicy"):
        ready_made.GreedyPolicy(lambda: 0)


def test_greedy_of_a_recurrent_policy_starts_where_it_does():
    class Recurrent(CountingPolicy):
        def _distribution(self, time_step, policy_state):
            return PolicyStep(tfd.Deterministic(policy_state[0]), policy_state)

    greedy = ready_made.GreedyPolicy(Recurrent())
    assert greedy.get_initial_state(2)[0].numpy().tolist() == [10, 10]
    step = greedy.action(restart(2), specs.zero_spec_nest(greedy.policy_state_spec, (2,)))
    assert step.action.numpy().tolist() == [10, 10]


def test_random_actions_fill_their_bounds():
    action_spec = {
        "discrete": specs.BoundedTensorSpec((), tf.int64, 2, 4),
        "many": specs.BoundedTensorSpec((2,), tf.int32, [0, 10], [1, 12]),
        "box": specs.BoundedTensorSpec((2,), tf.float32, [-1, 5], [1, 7]),
        "half": specs.BoundedTensorSpec((2,), tf.float32, [3, -np.inf], [np.inf, -3]),
        "free": tf.TensorSpec((3,), tf.float32),
        "bytes": specs.BoundedTensorSpec((), tf.uint8, 0, 255),
        "yes": tf.TensorSpec((), tf.bool),
    }
    policy = ready_made.RandomTFPolicy(TIME_STEP, action_spec)
    action = tf.nest.map_structure(lambda leaf: leaf.numpy(), policy.action(restart(4000)).action)
    assert set(action["discrete"]) == {2, 3, 4}
    counts = np.bincount(action["discrete"])[2:]
    # Binomial with p = 1/3: 4000 / 3 = 1333, standard deviation 30.
    assert np.all(np.abs(counts - 4000 / 3) < 150)
    assert set(action["many"][:, 0]) == {0, 1} and set(action["many"][:, 1]) == {10, 11, 12}
    assert np.all(action["box"].min(0) < [-0.95, 5.05]) and np.all(action["box"].min(0) >= [-1, 5])
    assert np.all(action["box"].max(0) > [0.95, 6.95]) and np.all(action["box"].max(0) <= [1, 7])
    assert action["half"][:, 0].min() >= 3 and action["half"][:, 1].max() <= -3
    assert np.all(np.abs(action["half"].mean(0) - [4, -4]) < 0.15)
    assert abs(action["free"].mean()) < 0.1 and abs(action["free"].std() - 1) < 0.1
    assert action["bytes"].min() < 10 and action["bytes"].max() > 245
    assert 0.4 < action["yes"].mean() < 0.6
    assert not np.array_equal(action["box"][:, 0], action["box"][:, 1] - 6)


def test_a_random_policy_respects_masks():
    spec = time_steps.time_step_spec({"x": OBSERVATION, "mask": tf.TensorSpec((3,), tf.bool)})
    policy = ready_made.RandomTFPolicy(
        spec,
        specs.BoundedTensorSpec((), tf.int64, 5, 7),
        emit_log_probability=True,
        observation_and_action_constraint_splitter=lambda obs: (obs["x"], obs["mask"]),
    )
    mask = np.tile([[True, False, True], [False, True, False]], (500, 1))
    observation = {"x": tf.zeros((1000, 4)), "mask": tf.constant(mask)}
    step = policy.action(time_steps.restart(observation, 1000))
    assert set(step.action.numpy()[::2]) == {5, 7} and set(step.action.numpy()[1::2]) == {6}
    np.testing.assert_allclose(step.info.log_probability[:2], [-np.log(2), 0], atol=1e-6)


def test_a_random_policy_knows_its_log_probability():
    for spec, expected in ((DISCRETE, -np.log(3)), (BOX, -2 * np.log(2))):
        policy = ready_made.RandomTFPolicy(TIME_STEP, spec, emit_log_probability=True)
        log_prob = policy.action(restart(2)).info.log_probability
        np.testing.assert_allclose(log_prob, [expected] * 2, rtol=1e-6)
    with pytest.raises(ValueError, match="expected finite bounds"):
        ready_made.RandomTFPolicy(
            TIME_STEP, tf.TensorSpec((), tf.float32), emit_log_probability=True
        )


def test_a_random_policy_needs_bounds_for_integers():
    with pytest.raises(ValueError, match="random values at 'a': .*has no bounds"):
        ready_made.RandomTFPolicy(TIME_STEP, {"a": tf.TensorSpec((), tf.int32)})
    with pytest.raises(ValueError, match="an action mask needs a scalar integer action"):
        sampling.sample_tensors(BOX, seeds.as_seed(0), (2,), tf.ones((2, 2), tf.bool))


def test_random_actions_in_a_graph_and_with_a_seed():
    policy = ready_made.RandomTFPolicy(TIME_STEP, BOX)
    act = tf.function(policy.action, input_signature=[specs.add_outer_dims(TIME_STEP)])
    first, second = act(restart(2)).action, act(restart(2)).action
    assert first.shape == (2, 2) and not np.allclose(first, second)
    np.testing.assert_array_equal(
        policy.action(restart(2), seed=5).action, policy.action(restart(2), seed=5).action
    )
