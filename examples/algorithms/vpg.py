"""REINFORCE (Williams 1992) by hand, for discrete actions.

    agent = pgest.PGAgent(vpg.model_fn, pgest.BatchMemory(batch_size=2000),
                          params={"actions": 2, "learning_rate": 1e-2})
    agent.train("CartPole-v1", timesteps=100_000)

`pgest.models.VPG(baseline=False)` is the same, for every space.
"""

import math

import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

from pgest import EstimatorSpec, Modes, minimize


def model_fn(features, labels, mode, params):
    # Network
    hidden = features["state"]
    for index in range(2):
        hidden = dense(hidden, 64, "tanh", math.sqrt(2.0), f"policy_{index}")
    # Distribution
    logits = dense(hidden, params["actions"], None, 0.01, "action")
    distribution = tfp.distributions.Categorical(logits=logits)
    if mode == Modes.PREDICT:
        return EstimatorSpec(mode, distribution=distribution)
    # Loss
    log_prob = distribution.log_prob(labels["action"])
    loss = -tf.reduce_mean(log_prob * labels["advantage"])
    # train_op
    optimizer = tf_keras.optimizers.Adam(params["learning_rate"], epsilon=1e-5)
    train_op = minimize(loss, optimizer, clip_norm=0.5)
    return EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)


def dense(inputs, size, activation, gain, name):
    initializer = tf_keras.initializers.Orthogonal(gain)
    layer = tf_keras.layers.Dense(size, activation, kernel_initializer=initializer, name=name)
    return layer(inputs)
