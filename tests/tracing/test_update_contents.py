"""What an update reports and asks of a TRAIN spec."""

import warnings

import pytest
import tensorflow as tf
import tf_keras
from tensorflow_probability import distributions as tfd

import pgest
from pgest import graph_environments, returns
from tests import model_fns
from tests.environments.environment_fakes import CountingEnv

CONFIG = pgest.RunConfig(tf_random_seed=0, jit_compile=False)


class Last(pgest.BaseMonitor):
    def after_run(self, context):
        self.metrics = dict(context.metrics)


def test_metrics_of_the_user_keep_their_names():
    given = {"gradient_norm": 77.0, "learning_rate": 78.0, "value/explained_variance": 79.0}

    def model_fn(features, labels, mode, params):
        spec = model_fns.actor_critic(features, labels, mode, params)
        if mode == pgest.Modes.TRAIN:
            spec.metrics.update({name: tf.constant(value) for name, value in given.items()})
        return spec

    last = Last()
    agent = pgest.PGAgent(model_fn, pgest.BatchMemory(batch_size=32), config=CONFIG)
    agent.train("CartPole-v1", steps=1, hooks=[last])
    assert {name: last.metrics[name] for name in given} == given


def test_returns_and_advantages_are_traced_once(monkeypatch):
    traced, gae = [], returns.gae

    def counted(*args, **kwargs):
        traced.append(args)
        return gae(*args, **kwargs)

    monkeypatch.setattr(returns, "gae", counted)
    agent = pgest.PGAgent(model_fns.actor_critic, pgest.RolloutMemory(horizon=8), config=CONFIG)
    agent.train("CartPole-v1", steps=2)
    assert len(traced) == 1


def test_target_kl_needs_the_distribution():
    def model_fn(features, labels, mode, params):
        spec = model_fns.policy_gradient(features, labels, mode, params)
        if mode != pgest.Modes.TRAIN:
            return spec
        return pgest.EstimatorSpec(mode, loss=spec.loss, train_op=spec.train_op)

    for target_kl, steps in ((None, 2), (0.01, 0)):
        agent = pgest.PGAgent(
            model_fn,
            pgest.BatchMemory(batch_size=32),
            optimizer_params={"epochs": 2, "target_kl": target_kl},
            config=CONFIG,
        )
        if steps:
            agent.train("CartPole-v1", steps=steps)
        else:
            with pytest.raises(ValueError, match="target_kl needs the policy's distribution"):
                agent.train("CartPole-v1", steps=1)
        assert agent.global_step == steps


@pytest.mark.parametrize("held", [True, False])
def test_a_distribution_that_holds_a_variable_warns(held):
    def model_fn(features, labels, mode, params):
        scale = tf.Variable([1.0], name="scale")
        loc = tf_keras.layers.Dense(1)(features["state"])
        scale = scale if held else tf.convert_to_tensor(scale)
        distribution = tfd.Independent(tfd.Normal(loc, scale), 1)
        if mode == pgest.Modes.PREDICT:
            return pgest.EstimatorSpec(mode, distribution=distribution)
        loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
        train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(1e-1))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    last = Last()
    agent = pgest.PGAgent(model_fn, pgest.BatchMemory(batch_size=32), config=CONFIG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agent.train("Pendulum-v1", steps=1, hooks=[last])
    told = [w for w in caught if "holds the variables scale" in str(w.message)]
    assert bool(told) == held
    assert held or last.metrics["policy/kl"] == pytest.approx(0.0, abs=1e-6)


def test_summaries_of_a_model_that_trains_in_the_graph_warn(tmp_path):
    def model_fn(features, labels, mode, params):
        if mode == pgest.Modes.TRAIN:
            tf.summary.scalar("mine", tf.reduce_mean(labels["advantage"]))
        return model_fns.actor_critic(features, labels, mode, params)

    agent = pgest.PGAgent(
        model_fn, pgest.RolloutMemory(horizon=4), model_dir=tmp_path, config=CONFIG
    )
    with pytest.warns(UserWarning, match="tf.summary calls of model_fn write nothing"):
        agent.train(graph_environments.CartPole(num_envs=2), steps=1)


def test_an_agent_does_not_go_on_with_the_episode_of_another():
    memory = pgest.BatchMemory(episodes=1)
    for timesteps in (3, 4):
        agent = pgest.PGAgent(model_fns.policy_gradient, memory, config=CONFIG)
        agent.train(CountingEnv(length=6), timesteps=timesteps)
        assert len(memory) == timesteps


@pytest.mark.slow
def test_the_critic_of_trpo_with_a_recurrent_network_of_the_users():
    class Own(pgest.models.TRPO):
        def network(self, features):
            layer = tf_keras.layers.GRUCell(4, name="own")
            return pgest.networks.unroll(layer, features["state"], features)

    agent = pgest.PGAgent(
        Own(share_network=True, critic_passes=1, critic_minibatch_size=4),
        pgest.RolloutMemory(horizon=6),
        config=CONFIG,
    )
    agent.train(pgest.make("CartPole-v1", num_envs=4), steps=2)
    assert agent.global_step == 2
