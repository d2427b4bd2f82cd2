"""Parts of model functions, for the tests of what sharing variables by name breaks silently."""

import tensorflow as tf
import tf_keras

import pgest

layers = tf_keras.layers


def dense_critic(states):
    """Values of states, with layers that have no names of their own."""
    hidden = layers.Dense(2)(states)
    return tf.squeeze(layers.Dense(1)(hidden), -1)


def scoped_critic(states):
    """The same with the names of a scope."""
    with pgest.scope("critic"):
        return dense_critic(states)


def two_parts(first, second):
    """A model_fn that predicts what two functions of the states give."""

    def model_fn(features, labels, mode):
        results = tf.stack([first(features["state"]), second(features["state"])])
        return pgest.EstimatorSpec(mode, predictions={"results": results})

    return model_fn
