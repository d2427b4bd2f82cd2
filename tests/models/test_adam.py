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
def test_equals_keras_but_for_how_it_rounds_one_minus_beta(jit_compile):
    ours, _ = trained(adam.Adam, jit_compile)
    theirs, _ = trained(tf_keras.optimizers.Adam, jit_compile)
    for own, other in zip(ours, theirs, strict=True):
        # 0.001 is 1.3e-5 of itself more than 1 - float32(0.999), a step half of that less.
        np.testing.assert_allclose(own, other, rtol=1.4e-5, atol=3 * 0.01 * 7e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("settings", [{"amsgrad": True}, {"adaptive_epsilon": True}])
def test_equals_keras_bit_for_bit_where_the_operation_lacks_a_setting(jit_compile, settings):
    ours, _ = trained(adam.Adam, jit_compile, **settings)
    theirs, _ = trained(tf_keras.optimizers.Adam, jit_compile, **settings)
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(own, other)


def test_each_variable_may_have_a_program_of_its_own():
    together, _ = trained(adam.Adam)
    alone, _ = trained(adam.Adam, each_alone=True)
    for own, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_three_steps_are_those_of_the_paper(dtype, jit_compile):
    gradients = np.array([[1.0, -2.0, 1e-3], [0.5, 1.0, -1e-3], [-1.0, 3.0, 0.0]])
    weights = m = v = np.zeros(3)
    # Betas are numbers of the dtype, the learning rate is float32's; all else is in float64.
    beta_1, beta_2 = float(dtype(0.9)), float(dtype(0.999))
    for step, gradient in enumerate(gradients, 1):
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        rate = float(np.float32(0.01)) * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        weights = weights - rate * m / (np.sqrt(v) + 1e-5)
    variable = tf.Variable(np.zeros(3, dtype))
    optimizer = adam.Adam(**SETTINGS)
    optimizer.build([variable])

    @tf.function(jit_compile=jit_compile)
    def step(gradient):
        optimizer.apply_gradients([(gradient, variable)])

    for gradient in gradients:
        step(tf.constant(gradient.astype(dtype)))
    np.testing.assert_allclose(variable, weights, rtol=1e-12 if dtype is np.float64 else 2e-5)


def test_the_first_step_is_the_learning_rate_whatever_the_gradient():
    variable = tf.Variable([0.0, 0.0])
    optimizer = adam.Adam(0.01, epsilon=1e-12)
    optimizer.build([variable])
    optimizer.apply_gradients([(tf.constant([7.0, -0.3]), variable)])
    np.testing.assert_allclose(variable, [-0.01, 0.01], rtol=1e-6)


def test_schedules_are_followed():
    rate = tf_keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    ours, _ = trained(adam.Adam, learning_rate=rate)
    theirs, _ = trained(tf_keras.optimizers.Adam, learning_rate=rate)
    np.testing.assert_allclose(ours[-4], theirs[-4], rtol=0, atol=0.175 * 7e-6)


def test_the_step_size_is_computed_once_for_all_dense_gradients_of_a_dtype():
    _, operations = trained(adam.Adam)
    # Two powers for float32, two for float64, and Keras's own two for the sparse gradient.
    assert sum(operation.type == "Pow" for operation in operations) == 6


def test_survives_its_own_settings():
    copy = adam.Adam.from_config(adam.Adam(**SETTINGS).get_config())
    assert copy.epsilon == SETTINGS["epsilon"]
