"""Proximal policy optimisation (Schulman et al. 2017) by hand, for actions in a Box.

    agent = pgest.PGAgent(ppo.model_fn, pgest.RolloutMemory(horizon=1024),
                          optimizer_params={"epochs": 10, "minibatch_size": 64, "discount": 0.9},
                          params={"actions": 1, "learning_rate": 1e-3, "clip_ratio": 0.2})
    agent.train(pgest.make("Pendulum-v1", num_envs=4), timesteps=100_000)

`pgest.models.PPO()` is the same, for every space.
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
    mean = dense(hidden, params["actions"], None, 0.01, "action")
    std = tf.exp(tf.Variable(tf.zeros([params["actions"]]), name="action_log_std"))
    distribution = tfp.distributions.MultivariateNormalDiag(mean, std * tf.ones_like(mean))
    # Predictions
    predictions = {"value": value}
    if mode == Modes.PREDICT:
        return EstimatorSpec(mode, predictions, distribution=distribution)
    # Loss
    ratio = tf.exp(distribution.log_prob(labels["action"]) - labels["log_prob"])
    clipped = tf.clip_by_value(ratio, 1.0 - params["clip_ratio"], 1.0 + params["clip_ratio"])
    advantage = labels["advantage"]
    policy_loss = -tf.reduce_mean(tf.minimum(ratio * advantage, clipped * advantage))
    value_loss = tf.reduce_mean(tf.square(value - labels["value_target"]))
    loss = policy_loss + 0.5 * value_loss
    # train_op
    optimizer = tf_keras.optimizers.Adam(params["learning_rate"], epsilon=1e-5)
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
