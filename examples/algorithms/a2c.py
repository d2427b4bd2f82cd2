"""Advantage actor-critic (Mnih et al. 2016) by hand, for discrete actions.

    agent = pgest.PGAgent(a2c.model_fn, pgest.RolloutMemory(horizon=5),
                          optimizer_params={"gae_lambda": 1.0, "normalize_advantage": False},
                          params={"actions": 2, "learning_rate": 7e-4})
    agent.train(pgest.make("CartPole-v1", num_envs=8), timesteps=500_000)

`pgest.models.A2C()` is the same, for every space.
"""

import math

import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

from pgest import EstimatorSpec, Modes, minimize


def model_fn(features, labels, mode, params):
    # Networks
    hidden = mlp(features["state"], "policy")
    value = tf.squeeze(dense(mlp(features["state"], "value"), 1, None, 1.0, "value_output"), -1)
    # Distribution
    logits = dense(hidden, params["actions"], None, 0.01, "action")
    distribution = tfp.distributions.Categorical(logits=logits)
    # Predictions
    predictions = {"value": value}
    if mode == Modes.PREDICT:
        return EstimatorSpec(mode, predictions, distribution=distribution)
    # Loss
    log_prob = distribution.log_prob(labels["action"])
    policy_loss = -tf.reduce_mean(log_prob * labels["advantage"])
    value_loss = tf.reduce_mean(tf.square(value - labels["value_target"]))
    entropy = tf.reduce_mean(distribution.entropy())
    loss = policy_loss + 0.5 * value_loss - params.get("entropy_weight", 0.0) * entropy
    # train_op
    optimizer = tf_keras.optimizers.RMSprop(params["learning_rate"], rho=0.99, epsilon=1e-5)
    train_op = minimize(loss, optimizer, clip_norm=0.5)
    metrics = {"loss/policy": policy_loss, "loss/value": value_loss}
    return EstimatorSpec(
        mode, predictions, loss, train_op, distribution=distribution, metrics=metrics
    )


def mlp(hidden, name):
    for index in range(2):
        hidden = dense(hidden, 64, "tanh", math.sqrt(2.0), f"{name}_{index}")
    return hidden


def dense(inputs, size, activation, gain, name):
    initializer = tf_keras.initializers.Orthogonal(gain)
    layer = tf_keras.layers.Dense(size, activation, kernel_initializer=initializer, name=name)
    return layer(inputs)
