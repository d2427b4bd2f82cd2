"""The ready-made models' Adam beside Keras's."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from pgest.models import adam

SETTINGS = {"learning_rate": 0.01, "epsilon": 1e-5}


def trained(kind, jit_compile=False, each_alone=False, **settings):
    """The variables after three steps on a dense and a sparse gradient, and the traced step."""
    generator = np.random.default_rng(0)
    dense = tf.Variable(generator.normal(size=[4, 3]).astype(np.float32))
    table = tf.Variable(generator.normal(size=[5, 2]).astype(np.float32))
    bias = tf.Variable(generator.normal(size=[3]).astype(np.float32))
    double = tf.Variable(generator.normal(size=[2]))
    variables = [dense, bias, double, table]
    optimizer = kind(**SETTINGS | settings)
    optimizer.build(variables)
    if each_alone:  # as Keras steps variables where there is a GPU: each in a program of its own
        optimizer.jit_compile = True

    @tf.function(jit_compile=jit_compile)
    def step(inputs):
        with tf.GradientTape() as tape:
            outputs = tf.reduce_sum(tf.square(inputs @ dense))
            loss = outputs + tf.reduce_sum(tf.square(tf.gather(table, [1, 1, 3])))
            loss += tf.reduce_sum(tf.square(bias)) + tf.cast(
                tf.reduce_sum(tf.square(double)), tf.float32
            )
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for _ in range(3):
        step(tf.constant(generator.normal(size=[6, 4]).astype(np.float32)))
    operations = step.get_concrete_function(tf.TensorSpec([6, 4])).graph.get_operations()
    return [v.numpy() for v in (*optimizer.variables, *variables)], operations


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("settings", [{}, {"amsgrad": True}, {"adaptive_epsilon": True}])
def test_equals_keras_bit_for_bit(jit_compile, settings):
    ours, _ = trained(adam.Adam, jit_compile, **settings)
    theirs, _ = trained(tf_keras.optimizers.Adam, jit_compile, **settings)
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(own, other)


def test_equals_keras_where_each_variable_has_a_program_of_its_own():
    ours, _ = trained(adam.Adam, each_alone=True)
    theirs, _ = trained(tf_keras.optimizers.Adam, each_alone=True)
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(own, other)


def test_schedules_are_followed():
    rate = tf_keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    ours, _ = trained(adam.Adam, learning_rate=rate)
    theirs, _ = trained(tf_keras.optimizers.Adam, learning_rate=rate)
    np.testing.assert_array_equal(ours[-4], theirs[-4])


def test_the_step_size_is_computed_once_for_all_dense_gradients_of_a_dtype():
    _, operations = trained(adam.Adam)
    # Two powers for float32, two for float64, and Keras's own two for the sparse gradient.
    assert sum(operation.type == "Pow" for operation in operations) == 6


def test_survives_its_own_settings():
    copy = adam.Adam.from_config(adam.Adam(**SETTINGS).get_config())
    assert copy.epsilon == SETTINGS["epsilon"]
