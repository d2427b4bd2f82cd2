"""The agent's policies and exports give the action that the agent itself takes, in any space."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras
from gymnasium import spaces

import pgest
from pgest.specs import nests
from tests.models.model_environments import AnySpaces

OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (4, 3)).astype(np.float32)
SPACES = {
    "MultiDiscrete from 10": spaces.MultiDiscrete([3, 4], start=[10, 20]),
    "MultiDiscrete of two axes": spaces.MultiDiscrete([[3, 4], [2, 5]], start=[[1, 2], [3, 4]]),
    "MultiDiscrete of int8": spaces.MultiDiscrete([3, 4], dtype=np.int8),
    "MultiDiscrete of uint16": spaces.MultiDiscrete([3, 4], dtype=np.uint16, start=[1, 2]),
    "Discrete of uint8": spaces.Discrete(3, start=np.uint8(1), dtype=np.uint8),
    "Box of float64": spaces.Box(-0.5, 0.5, (2,), np.float64),
    "Box of float16": spaces.Box(-0.5, 0.5, (2,), np.float16),
    "nest": spaces.Dict(
        move=spaces.MultiDiscrete([2, 3], start=[5, 6]),
        push=spaces.Box(-0.5, 0.5, (2,), np.float64),
    ),
}


def built(action_space, model_fn=None):
    env = AnySpaces(spaces.Box(-1, 1, (3,), np.float32), action_space)
    config = pgest.RunConfig(tf_random_seed=1, jit_compile=False)
    model_fn = model_fn or pgest.models.VPG(hidden_sizes=(8,), initial_std=2.0)
    agent = pgest.PGAgent(model_fn, pgest.BatchMemory(16), config=config)
    return agent.train(env, steps=1)


def greedy_actions(agent):
    rows = [row["environment_action"] for row in agent.predict(OBSERVATIONS)]
    return tf.nest.map_structure(lambda *leaves: np.stack(leaves), *rows)


def time_step():
    return pgest.restart(tf.constant(OBSERVATIONS), batch_size=len(OBSERVATIONS))


def assert_close(actual, expected):
    # Programs round floats differently; 1 in 1000 is a unit in the last place of a float16.
    np.testing.assert_allclose(actual, expected, rtol=1e-3)


def assert_same(actual, expected):
    actual = tf.nest.map_structure(np.asarray, actual)
    tf.nest.map_structure(assert_close, actual, expected)
    dtypes = tf.nest.map_structure(lambda leaf: leaf.dtype, (actual, expected))
    assert dtypes[0] == dtypes[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_the_greedy_policy_and_the_export_act_as_the_agent_predicts(name, tmp_path):
    agent = built(SPACES[name])
    expected = greedy_actions(agent)
    assert_same(agent.policy.action(time_step()).action, expected)
    distribution = agent.policy.distribution(time_step()).action
    points = tf.nest.map_structure(lambda leaf, _: leaf.mode(), distribution, expected)
    assert_same(points, expected)
    module = tf.saved_model.load(agent.export_saved_model(tmp_path))
    served = module.signatures["serving_default"](tf.constant(OBSERVATIONS))
    for path, leaf in nests.flatten_with_paths({"action": expected}):
        assert_same(served[path], leaf)


@pytest.mark.slow
def test_the_export_rounds_floats_to_a_box_of_integers_as_the_agent_does(tmp_path):
    def model_fn(features, labels, mode):
        # About 2.6 and, beyond the bounds, 12.
        bias = tf_keras.initializers.Constant([2.6, 12.0])
        loc = tf_keras.layers.Dense(2, bias_initializer=bias)(0.0 * features["state"])
        distribution = tfp.distributions.Independent(tfp.distributions.Normal(loc, 1.0), 1)
        if mode == pgest.Modes.PREDICT:
            return pgest.EstimatorSpec(mode, distribution=distribution)
        loss = -tf.reduce_mean(distribution.log_prob(labels["action"]))
        train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(1e-6))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    agent = built(spaces.Box(0, 9, (2,), np.int32), model_fn)
    expected = greedy_actions(agent)
    assert expected.tolist() == [[3, 9]] * 4
    assert_same(agent.policy.action(time_step()).action, expected)
    module = tf.saved_model.load(agent.export_saved_model(tmp_path))
    assert_same(module.signatures["serving_default"](tf.constant(OBSERVATIONS))["action"], expected)


@pytest.mark.slow
def test_samples_of_a_multi_discrete_are_in_the_terms_of_its_space(tmp_path):
    space = SPACES["MultiDiscrete from 10"]
    agent = built(space)
    distribution = agent.raw_policy.distribution(time_step()).action
    drawn = distribution.sample(100, seed=(1, 2)).numpy().reshape(-1, 2)
    assert all(space.contains(action) for action in drawn)
    np.testing.assert_array_equal(drawn.min(axis=0), space.start)
    np.testing.assert_array_equal(drawn.max(axis=0), space.start + space.nvec - 1)
    step = agent.collect_policy.action(time_step(), seed=3)
    log_prob = distribution.log_prob(step.action)
    np.testing.assert_allclose(step.info.log_probability, log_prob, rtol=1e-5)
    module = tf.saved_model.load(agent.export_saved_model(tmp_path))
    noise = np.random.default_rng(0).random((4, 8), np.float32)
    sampled = module.signatures["sample"](
        observation=tf.constant(OBSERVATIONS), noise=tf.constant(noise)
    )
    assert all(space.contains(action) for action in sampled["action"].numpy())


def test_a_file_with_a_multi_discrete_gives_its_distribution(tmp_path):
    agent = built(SPACES["MultiDiscrete from 10"])
    pgest.PolicySaver(agent.raw_policy).save(str(tmp_path / "policy"))
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    found = loaded.distribution(time_step(), ()).action
    expected = agent.raw_policy.distribution(time_step()).action
    actions = expected.sample(seed=(1, 2))
    np.testing.assert_allclose(found.log_prob(actions), expected.log_prob(actions), rtol=1e-5)


def test_a_distribution_without_a_mode_has_no_greedy_policy():
    def model_fn(features, labels, mode):
        weights = tf.Variable(lambda: tf.zeros([3, 2]), name="weights")
        normal = tfp.distributions.Normal(features["state"] @ weights, 1.0)
        tanh = tfp.distributions.TransformedDistribution(normal, tfp.bijectors.Tanh())
        distribution = tfp.distributions.Independent(tanh, 1)
        if mode == pgest.Modes.PREDICT:
            return pgest.EstimatorSpec(mode, distribution=distribution)
        log_prob = distribution.log_prob(labels["action"])
        loss = -tf.reduce_mean(log_prob * labels["advantage"])
        train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(1e-4))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    agent = built(spaces.Box(-1, 1, (2,), np.float32), model_fn)
    with pytest.raises(ValueError, match="does not implement mode"):
        agent.policy.action(time_step())


@pytest.mark.parametrize(
    "space",
    [
        SPACES["nest"],
        spaces.Tuple((spaces.Discrete(3, start=2), spaces.Dict(push=spaces.Box(-1, 1, (2,))))),
    ],
)
def test_each_leaf_of_an_action_has_its_own_log_probability(space):
    # A Gaussian's own action may lie beyond the bounds of what the environment gets.
    agent = built(space, pgest.models.VPG(hidden_sizes=(8,), box="squashed_gaussian"))
    step = agent.collect_policy.action(time_step(), seed=3)
    parts = step.info.log_probability
    tf.nest.assert_same_structure(parts, step.action)
    distribution = agent.collect_policy.distribution(time_step()).action
    leaves = zip(*map(tf.nest.flatten, (distribution, step.action, parts)), strict=True)
    found = []
    for part, action, log_prob in leaves:
        expected = part.log_prob(tf.cast(action, part.dtype))
        np.testing.assert_allclose(log_prob, expected, rtol=1e-3)
        found.append(log_prob)
    assert not np.allclose(found[0], found[1])
