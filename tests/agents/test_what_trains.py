"""What the agent trains: optimizers, recurrence, actions, vector environments, horizons."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest
from tests import model_fns
from tests.agents.training_agents import counters, make_agent


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP", "DISABLED"])
@pytest.mark.parametrize("memory", ["batch", "rollout"])
def test_vector_environments_in_every_autoreset_mode(mode, memory):
    env = gymnasium.make_vec(
        "CartPole-v1",
        num_envs=3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode[mode]},
    )
    memory = pgest.BatchMemory(64) if memory == "batch" else pgest.RolloutMemory(horizon=16)
    agent = make_agent(model_fns.actor_critic, memory)
    agent.train(env, steps=3)
    assert agent.global_step == 3
    if isinstance(memory, pgest.RolloutMemory):
        assert 3 * 16 * 3 <= agent.global_timestep < 3 * 16 * 3 + 3
    env.close()


def sequential_actor_and_critic(features, labels, mode):
    """Two Sequentials that say themselves which variables each of two optimizers trains."""
    dense = tf_keras.layers.Dense
    actor = tf_keras.Sequential([dense(4, "tanh", name="hidden"), dense(2, name="logits")])
    critic = tf_keras.Sequential([dense(4, "tanh", name="seen"), dense(1, name="value")])
    distribution = tfp.distributions.Categorical(logits=actor(features["state"]))
    predictions = {"value": tf.squeeze(critic(features["state"]), -1)}
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, predictions, distribution=distribution)
    log_prob = distribution.log_prob(labels["action"])
    losses = [
        -tf.reduce_mean(log_prob * labels["advantage"]),
        tf.reduce_mean(tf.square(predictions["value"] - labels["value_target"])),
    ]
    optimizers = [tf_keras.optimizers.Adam(1e-2), tf_keras.optimizers.Adam(1e-3)]
    trained = [actor.trainable_variables, critic.trainable_variables]
    assert [len(variables) for variables in trained] == [4, 4]
    train_op = pgest.minimize(list(zip(losses, optimizers, trained, strict=True)))
    return pgest.EstimatorSpec(mode, distribution=distribution, loss=losses[0], train_op=train_op)


def test_a_sequential_knows_its_variables_in_every_trace():
    """Of the update, of the check of the first batch, and of an evaluation that trains nothing."""
    agent = make_agent(sequential_actor_and_critic)
    agent.train("CartPole-v1", steps=2)
    before = model_fns.weights(agent)
    assert np.isfinite(agent.evaluate("CartPole-v1", episodes=1)["loss"])
    for name, value in model_fns.weights(agent).items():
        np.testing.assert_array_equal(before[name], value, err_msg=name)


@pytest.mark.parametrize("way", ["tape", "gradients"])
def test_a_train_op_by_hand_is_counted_by_the_agent(way):
    def model_fn(features, labels, mode):
        layer = tf_keras.layers.Dense(2, name="logits")
        optimizer = None if mode == pgest.Modes.PREDICT else tf_keras.optimizers.SGD(0.1)
        with tf.GradientTape() as tape:
            distribution = tfp.distributions.Categorical(logits=layer(features["state"]))
            if mode == pgest.Modes.PREDICT:
                return pgest.EstimatorSpec(mode, distribution=distribution)
            log_prob = distribution.log_prob(labels["action"])
            loss = -tf.reduce_mean(log_prob * labels["advantage"])
        variables = layer.trainable_variables
        differentiate = tape.gradient if way == "tape" else tf.gradients
        pairs = zip(differentiate(loss, variables), variables, strict=True)
        train_op = optimizer.apply_gradients(pairs)
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    agent = make_agent(model_fn)
    agent.check("CartPole-v1")
    before = agent.get_variable_value("logits/kernel")
    agent.train("CartPole-v1", steps=3)
    assert agent.global_step == agent.get_variable_value("global_step") == 3
    assert np.abs(agent.get_variable_value("logits/kernel") - before).max() > 1e-4


@pytest.mark.slow
def test_recurrent_models_train_on_episodes_and_on_rollouts():
    agent = make_agent(model_fns.recurrent)
    agent.train(gymnasium.make("CartPole-v1"), steps=2)
    assert agent.global_step == 2
    rollouts = make_agent(model_fns.recurrent, pgest.RolloutMemory(horizon=8))
    rollouts.train(pgest.make("CartPole-v1", num_envs=2), steps=3)
    assert rollouts.global_timestep == 3 * 8 * 2


def test_an_action_of_several_distributions_is_refused():
    """Its log_prob [B, 1] times advantages [B] would be [B, B], and nothing would be learnt."""

    def model_fn(features, labels, mode):
        loc = tf_keras.layers.Dense(1)(features["state"])
        distribution = tfp.distributions.Normal(loc, 1.0)
        return pgest.EstimatorSpec(mode, distribution=distribution)

    with pytest.raises(ValueError, match=r"shape \(1, 1\).*reinterpreted_batch_ndims=1"):
        make_agent(model_fn).train("Pendulum-v1", steps=1)


def test_params_are_a_dict():
    with pytest.raises(TypeError, match="params is list; expected a dict"):
        make_agent(params=[1])


@pytest.mark.slow
def test_continuous_actions():
    agent = make_agent(model_fns.gaussian, pgest.RolloutMemory(horizon=32), jit_compile="auto")
    agent.train(gymnasium.make("Pendulum-v1"), steps=2)
    assert counters(agent)[:2] == (2, 64)


class Clock(gymnasium.Env):
    """Shows how often it was stepped; every fifth step ends its episode. Each step earns 1."""

    observation_space = gymnasium.spaces.Box(0, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self._time = 0
        return np.zeros([1], np.float32), {}

    def step(self, action):
        self._time += 1
        return np.array([self._time], np.float32), 1.0, self._time == 5, False, {}


def values_the_time(features, labels, mode):
    """Its value of an observation is the time that it shows."""
    bias = tf.Variable([0.0, 0.0], name="bias")
    distribution = tfp.distributions.Categorical(logits=bias + 0.0 * features["state"])
    predictions = {"value": features["state"][:, 0]}
    if mode is pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, predictions=predictions, distribution=distribution)
    loss = tf.reduce_mean(distribution.log_prob(labels["action"]))
    return pgest.EstimatorSpec(
        mode,
        predictions=predictions,
        distribution=distribution,
        loss=loss,
        train_op=pgest.minimize(loss, tf_keras.optimizers.SGD(0.1)),
        metrics={f"target/{row}": labels["value_target"][row] for row in range(6)},
    )


@pytest.mark.parametrize("vectorization", ["sync", "next step"])
def test_a_cut_at_the_horizon_is_bootstrapped_from_what_follows(vectorization):
    """With discount 1/2, from times 0 1 2 | 3, then 3 4 end 0 | 1, by hand."""
    made = []

    class Targets(pgest.BaseMonitor):
        def after_run(self, context):
            made.append([context.metrics[f"target/{row}"] for row in range(6)])

    envs = [Clock, Clock]
    vector = gymnasium.vector.SyncVectorEnv(envs)
    env = vector if vectorization == "next step" else pgest.make(Clock, num_envs=2)
    agent = make_agent(
        values_the_time, pgest.RolloutMemory(3), optimizer_params={"discount": 0.5, "gae_lambda": 1}
    )
    agent.train(env, steps=2, hooks=[Targets()])
    first, second = [2.125, 2.25, 2.5], [1.5, 1.0, 1.5]
    if vectorization == "sync":  # time first: both environments at a time
        first, second = np.repeat(first, 2), np.repeat(second, 2)
    else:  # column after column
        first, second = first * 2, second * 2
    np.testing.assert_allclose(made, [first, second])
