"""Minibatches of recurrent models, whatever their policy state is."""

import pytest
import tensorflow as tf
import tf_keras
from tensorflow_probability import distributions as tfd

import pgest


def counting(features, labels, mode):
    """Counts the timesteps of an episode in a policy state of one number an environment."""
    state = features["state"]
    counted = features.get("policy_state")
    counted = tf.zeros(tf.shape(state)[-2:-1]) if counted is None else counted
    counted = tf.ensure_shape(counted, state.shape[-2:-1])
    distribution = tfd.Categorical(logits=tf_keras.layers.Dense(2)(state), dtype=tf.int64)
    spec = {"distribution": distribution, "policy_state": counted + 1.0}
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, **spec)
    loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(1e-3))
    # The rows of state that belong to the environments of the minibatch.
    metrics = {"rows": tf.cast(tf.size(counted), tf.float32)}
    return pgest.EstimatorSpec(mode, loss=loss, train_op=train_op, metrics=metrics, **spec)


@pytest.mark.parametrize(("minibatch_size", "rows"), [(None, 4), (8, 2), (4, 1)])
def test_a_policy_state_of_one_number_an_environment(minibatch_size, rows):
    metrics = []

    class Look(pgest.hooks.BaseMonitor):
        def after_run(self, context):
            metrics.append(context.metrics)

    agent = pgest.PGAgent(
        counting,
        pgest.RolloutMemory(horizon=4),
        optimizer_params={"epochs": 2, "minibatch_size": minibatch_size},
        config=pgest.RunConfig(tf_random_seed=1),
    )
    steps = 2 * 4 // rows
    agent.train(pgest.make("CartPole-v1", num_envs=4), steps=2 * steps, hooks=[Look()])
    assert [update["rows"] for update in metrics] == [rows, rows]
