"""Model functions that the tests train: small, and written as a user writes them."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest

tfd = tfp.distributions


def policy_gradient(features, labels, mode, params):
    """REINFORCE with one hidden layer, as in the README."""
    hidden = tf_keras.layers.Dense(params.get("units", 16), activation="tanh")(features["state"])
    logits = tf_keras.layers.Dense(params.get("actions", 2))(hidden)
    distribution = tfd.Categorical(logits=logits)
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution)
    loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(params.get("learning_rate", 1e-2)))
    return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)


def actor_critic(features, labels, mode, params):
    """Predicts a value, so that advantages are GAE and truncations are bootstrapped."""
    hidden = tf_keras.layers.Dense(16, activation="tanh")(features["state"])
    logits = tf_keras.layers.Dense(params.get("actions", 2))(hidden)
    value = tf.squeeze(tf_keras.layers.Dense(1)(hidden), -1)
    distribution = tfd.Categorical(logits=logits)
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, {"value": value}, distribution=distribution)
    policy_loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    value_loss = tf.reduce_mean(tf.square(value - labels["value_target"]))
    loss = policy_loss + 0.5 * value_loss
    kind = params.get("optimizer", tf_keras.optimizers.Adam)
    train_op = pgest.minimize(loss, kind(params.get("learning_rate", 1e-2)))
    return pgest.EstimatorSpec(
        mode,
        distribution=distribution,
        loss=loss,
        train_op=train_op,
        metrics={"loss/policy": policy_loss, "loss/value": value_loss},
    )


def gaussian(features, labels, mode, params):
    """A Gaussian over a Box of one number."""
    hidden = tf_keras.layers.Dense(16, activation="tanh")(features["state"])
    loc = tf_keras.layers.Dense(1)(hidden)
    log_scale = tf.Variable(tf.zeros([1]), name="log_scale")
    distribution = tfd.MultivariateNormalDiag(loc, tf.ones_like(loc) * tf.exp(log_scale))
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution)
    loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(1e-3))
    return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)


def recurrent(features, labels, mode, params):
    """A GRU policy."""
    from pgest import networks

    cell = tf_keras.layers.GRUCell(8)
    output, state = networks.unroll(cell, features["state"], features)
    distribution = tfd.Categorical(logits=tf_keras.layers.Dense(2)(output))
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution, policy_state=state)
    loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(1e-2))
    return pgest.EstimatorSpec(
        mode, distribution=distribution, loss=loss, train_op=train_op, policy_state=state
    )


def weights(agent):
    """Every variable's value, by name."""
    return {name: agent.get_variable_value(name) for name in agent.get_variable_names()}
