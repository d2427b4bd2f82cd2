"""Trust region policy optimisation (Schulman et al. 2015) by hand, for discrete actions.

    agent = pgest.PGAgent(trpo.model_fn, pgest.RolloutMemory(horizon=1024),
                          params={"actions": 2, "learning_rate": 1e-3, "target_kl": 0.01,
                                  "cg_steps": 10})
    agent.train(pgest.make("CartPole-v1", num_envs=2), timesteps=100_000)

`pgest.models.TRPO(cg_steps=10, critic_passes=1, critic_minibatch_size=None)` is the same, for
every space.
"""

import tensorflow as tf
import tf_keras
from tensorflow_probability import distributions as tfd

from pgest import EstimatorSpec, Modes, minimize


def model_fn(features, labels, mode, params):
    # Networks, distribution, predictions
    policy = mlp("policy", params["actions"], 0.01, "action")
    critic = mlp("value", 1, 1.0, "value_output")
    distribution = tfd.Categorical(logits=policy(features["state"]))
    predictions = {"value": tf.squeeze(critic(features["state"]), axis=-1)}
    if mode == Modes.PREDICT:
        return EstimatorSpec(mode, predictions, distribution=distribution)
    weights = policy.trainable_variables
    acted = tfd.Categorical(logits=tf.stop_gradient(distribution.logits))

    # Loss: the surrogate, and the divergence, of the weights as they are when it is called
    def surrogate_and_divergence():
        present = tfd.Categorical(logits=policy(features["state"]))
        ratio = tf.exp(present.log_prob(labels["action"]) - labels["log_prob"])
        divergence = tf.reduce_mean(tfd.kl_divergence(acted, present))
        return -tf.reduce_mean(ratio * labels["advantage"]), divergence

    surrogate, divergence = surrogate_and_divergence()
    gradient, slope = (flat(tf.gradients(y, weights)) for y in (surrogate, divergence))

    # Direction: the natural gradient, as far as the quadratic model of the divergence allows
    def fisher(vector):
        return flat(tf.gradients(slope, weights, vector)) + 0.1 * vector

    direction = conjugate_gradients(fisher, -gradient, params["cg_steps"])
    curvature = tf.reduce_sum(direction * fisher(direction))
    longest = tf.sqrt(2.0 * params["target_kl"] / curvature) * direction
    before = flat(weights)

    # train_op: a line search along it, then the critic
    def search(tried, accepted):
        with tf.control_dependencies(assign(weights, before + 0.8**tried * longest)):
            present, divergence = surrogate_and_divergence()
        return tried + 1, (divergence < params["target_kl"]) & (present < surrogate)

    _, accepted = tf.while_loop(lambda i, accepted: (i < 10) & ~accepted, search, (0.0, False))
    with tf.control_dependencies([accepted]):
        stepped = assign(weights, tf.where(accepted, flat(weights), before))
    optimizer = tf_keras.optimizers.Adam(params["learning_rate"], epsilon=1e-5)
    error = tf.reduce_mean(tf.square(predictions["value"] - labels["value_target"]))
    train_op = tf.group(minimize(error, optimizer, critic.trainable_variables), *stepped)
    return EstimatorSpec(mode, predictions, surrogate, train_op, distribution=distribution)


def conjugate_gradients(product, target, steps):
    x, residual, direction = tf.zeros_like(target), target, target
    for _ in range(steps):
        image, norm = product(direction), tf.reduce_sum(residual**2)
        length = norm / tf.reduce_sum(direction * image)
        x, residual = x + length * direction, residual - length * image
        direction = residual + tf.reduce_sum(residual**2) / norm * direction
    return x


def mlp(name, outputs, gain, output_name):
    def dense(size, activation, gain, name):
        initializer = tf_keras.initializers.Orthogonal(gain)
        return tf_keras.layers.Dense(size, activation, kernel_initializer=initializer, name=name)

    hidden = [dense(64, "tanh", 2.0**0.5, f"{name}_{index}") for index in range(2)]
    return tf_keras.Sequential([*hidden, dense(outputs, None, gain, output_name)])


def flat(parts):
    return tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0)


def assign(weights, vector):
    parts = tf.split(vector, [weight.shape.num_elements() for weight in weights])
    return [w.assign(tf.reshape(part, w.shape)) for w, part in zip(weights, parts, strict=True)]
