"""Trust region policy optimisation (Schulman et al. 2015) by hand, for discrete actions.

    agent = pgest.PGAgent(trpo.model_fn, pgest.RolloutMemory(horizon=1024),
                          params={"actions": 2, "learning_rate": 1e-3, "target_kl": 0.01,
                                  "cg_steps": 10})
    agent.train(pgest.make("CartPole-v1", num_envs=2), timesteps=100_000)

`pgest.models.TRPO(cg_steps=10, critic_passes=1, critic_minibatch_size=None)` is the same, for
every space.
"""

import math

import tensorflow as tf
import tf_keras
from tensorflow_probability import distributions as tfd

from pgest import EstimatorSpec, Modes, minimize


def model_fn(features, labels, mode, params):
    state = features["state"]
    policy = layers("policy", params["actions"], 0.01, "action")
    distribution = tfd.Categorical(logits=apply(policy, state))
    critic = layers("value", 1, 1.0, "value_output")
    predictions = {"value": tf.squeeze(apply(critic, state), axis=-1)}
    if mode == Modes.PREDICT:
        return EstimatorSpec(mode, predictions, distribution=distribution)

    acted = tfd.Categorical(logits=tf.stop_gradient(distribution.logits))

    def surrogate_and_divergence():  # with the policy's weights as they are now
        present = tfd.Categorical(logits=apply(policy, state))
        ratio = tf.exp(present.log_prob(labels["action"]) - labels["log_prob"])
        divergence = tf.reduce_mean(tfd.kl_divergence(acted, present))
        return -tf.reduce_mean(ratio * labels["advantage"]), divergence

    weights, (surrogate, divergence) = variables(policy), surrogate_and_divergence()
    slope = flat(tf.gradients(divergence, weights))

    def fisher(vector):
        return flat(tf.gradients(slope * tf.stop_gradient(vector), weights)) + 0.1 * vector

    gradient = flat(tf.gradients(surrogate, weights))
    direction = conjugate_gradients(fisher, -gradient, params["cg_steps"])
    curvature = tf.reduce_sum(direction * fisher(direction))
    step = tf.sqrt(2.0 * params["target_kl"] / curvature) * direction
    before = flat(weights)

    def try_shorter(tried, accepted):
        length = 0.8 ** tf.cast(tried, tf.float32)
        with tf.control_dependencies(assign(weights, before + length * step)):
            present, divergence = surrogate_and_divergence()
        return tried + 1, (divergence < params["target_kl"]) & (present < surrogate)

    _, accepted = tf.while_loop(
        lambda tried, accepted: ~accepted, try_shorter, (0, False), maximum_iterations=10
    )
    with tf.control_dependencies([accepted]):
        policy_op = assign(weights, tf.where(accepted, flat(weights), before))
    value_loss = tf.reduce_mean(tf.square(predictions["value"] - labels["value_target"]))
    optimizer = tf_keras.optimizers.Adam(params["learning_rate"], epsilon=1e-5)
    with tf.control_dependencies(policy_op):
        train_op = minimize(value_loss, optimizer, variables(critic))
    return EstimatorSpec(mode, predictions, surrogate, train_op, distribution=distribution)


def conjugate_gradients(product, target, steps):
    x, residual, direction = tf.zeros_like(target), target, target
    for _ in range(steps):
        image, norm = product(direction), tf.reduce_sum(residual**2)
        length = norm / tf.reduce_sum(direction * image)
        x, residual = x + length * direction, residual - length * image
        direction = residual + tf.reduce_sum(residual**2) / norm * direction
    return x


def layers(name, outputs, gain, output_name):
    dense, orthogonal = tf_keras.layers.Dense, tf_keras.initializers.Orthogonal
    sizes = [(64, "tanh", math.sqrt(2.0), f"{name}_{index}") for index in range(2)]
    sizes += [(outputs, None, gain, output_name)]
    return [dense(n, a, kernel_initializer=orthogonal(g), name=name) for n, a, g, name in sizes]


def apply(network, inputs):
    for layer in network:
        inputs = layer(inputs)
    return inputs


def variables(network):
    return [variable for layer in network for variable in layer.trainable_variables]


def flat(parts):
    return tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0)


def assign(weights, vector):
    parts = tf.split(vector, [weight.shape.num_elements() for weight in weights])
    pairs = zip(weights, parts, strict=True)
    return [weight.assign(tf.reshape(part, weight.shape)) for weight, part in pairs]
