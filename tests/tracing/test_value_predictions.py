"""The value that a model_fn predicts: one float32 an environment."""

import pytest
import tensorflow as tf
import tf_keras
from tensorflow_probability import distributions as tfd

import pgest


@pytest.mark.parametrize("memory", [pgest.BatchMemory(20), pgest.RolloutMemory(horizon=8)])
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda value: value,
            r"is float32 of shape \(1, 1\); expected float32, .*, \(1,\).*squeeze",
        ),
        (lambda value: tf.cast(value[..., 0], tf.float64), r"is float64 of shape \(1,\)"),
    ],
)
def test_another_shape_or_dtype_is_an_error(memory, change, found):
    def model_fn(features, labels, mode):
        logits = tf_keras.layers.Dense(2)(features["state"])
        value = tf_keras.layers.Dense(1)(features["state"])
        predictions = {"value": change(value)}
        distribution = tfd.Categorical(logits=logits)
        return pgest.EstimatorSpec(mode, predictions, distribution=distribution)

    agent = pgest.PGAgent(model_fn, memory, config=pgest.RunConfig(tf_random_seed=1))
    with pytest.raises(ValueError, match=found):
        agent.train("CartPole-v1", steps=1)
