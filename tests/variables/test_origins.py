"""Variables of layers from outside, initial values that are tensors, parts of other libraries."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import pgest
from tests.tracing.traced_models import STATES, PlainSharing, call, make_model, restored, values
from tests.variables.sharing_models import two_parts

layers = tf_keras.layers
TRAIN, PREDICT, EVAL = pgest.Modes.TRAIN, pgest.Modes.PREDICT, pgest.Modes.EVAL


# --- variables from outside ----------------------------------------------------------------------


def outside_model(layer):
    def model_fn(features, labels, mode):
        results = layer(features["state"])
        if mode == PREDICT:
            return pgest.EstimatorSpec(mode, predictions={"results": results})
        loss = tf.reduce_mean(tf.square(results))
        train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(0.1))
        return pgest.EstimatorSpec(mode, loss=loss, train_op=train_op)

    return model_fn


def built_dense():
    layer = layers.Dense(2, name="before")
    layer(STATES)
    return layer


def test_without_the_guard_a_layer_from_outside_is_missing_from_what_is_saved():
    sharing = PlainSharing()
    sharing.trace(built_dense(), tf.constant(STATES))
    assert sharing.variables == {}


def test_a_layer_from_outside_is_saved_trained_and_restored():
    layer = built_dense()
    model = make_model(outside_model(layer))
    before = call(model, PREDICT)["results"]
    assert {"outside/before/kernel", "outside/before/bias"} == set(model.store.variables)
    assert model.store.adopted == set(model.store.variables)
    call(model, TRAIN)  # the default variables of minimize include it
    after = call(model, PREDICT)["results"]
    assert np.abs(after - before).max() > 1e-3

    other = built_dense()  # as a process that continues the run makes it: with other weights
    np.testing.assert_allclose(
        call(restored(outside_model(other), values(model)), PREDICT)["results"], after, rtol=1e-5
    )


def test_a_layer_made_outside_and_built_inside_is_trained():
    # A model object keeps its layers; from its second call on it asks the store for nothing.
    layer = layers.Dense(2, name="kept")
    model = make_model(outside_model(layer))
    before = call(model, PREDICT)["results"]
    call(model, TRAIN)
    assert np.abs(call(model, PREDICT)["results"] - before).max() > 1e-3
    assert set(model.used[PREDICT]) == {"kept/kernel", "kept/bias"}


def test_a_layer_from_outside_and_one_from_inside_may_have_one_name():
    layer = built_dense()

    def model_fn(features, labels, mode):
        results = layer(features["state"])
        if mode == TRAIN:
            results = results + layers.Dense(2, name="before")(features["state"])
        loss = tf.reduce_mean(tf.square(results))
        train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(0.0)) if mode == TRAIN else None
        return pgest.EstimatorSpec(
            mode, predictions={"results": results}, loss=loss, train_op=train_op
        )

    model = make_model(model_fn)
    call(model, PREDICT)
    call(model, TRAIN)
    assert {"outside/before/kernel", "before/kernel"} <= set(model.store.variables)
    assert model.store.variables["before/kernel"] is not layer.kernel


def adapted(scale):
    layer = layers.Normalization(name="scaled")
    layer.adapt(STATES * scale + 1.0)
    return layer


def test_without_the_guard_an_adapted_normalization_is_a_constant_of_the_trace():
    layer = adapted(5.0)
    traced = tf.function(layer, autograph=False).get_concrete_function(tf.constant(STATES))
    before = traced(tf.constant(STATES)).numpy()
    assert not traced.variables  # nothing that a checkpoint could hold
    layer.adapt_mean.assign([9.0, 9.0, 9.0])
    np.testing.assert_array_equal(traced(tf.constant(STATES)), before)


def test_an_adapted_normalization_is_saved_and_restored():
    layer = adapted(5.0)
    model = make_model(two_parts(layer, tf.identity))
    before = call(model, PREDICT)["results"]
    np.testing.assert_allclose(before[0], layer(STATES), rtol=1e-5)
    saved = values(model)
    np.testing.assert_allclose(saved["outside/mean"], layer.adapt_mean, rtol=1e-6)
    other = adapted(0.5)
    assert np.abs(other(STATES) - before[0]).max() > 0.1
    continued = restored(two_parts(other, tf.identity), saved)
    np.testing.assert_allclose(call(continued, PREDICT)["results"], before, rtol=1e-5)
    assert tf_keras.layers.Layer.__call__.__module__.startswith("tf_keras")  # put back


def test_an_adapted_normalization_inside_a_functional_model_is_saved():
    inputs = tf_keras.Input([3])
    network = tf_keras.Model(inputs, layers.Dense(2, name="out")(adapted(3.0)(inputs)))
    model = make_model(outside_model(network))
    np.testing.assert_allclose(call(model, PREDICT)["results"], network(STATES), rtol=1e-5)
    assert sorted(name.rpartition("/")[2] for name in model.store.variables) == [
        "bias",
        "kernel",
        "mean",
        "variance",
    ]


def test_a_metric_from_outside_is_not_saved():
    metric = tf_keras.metrics.Mean(name="outside_mean")

    def model_fn(features, labels, mode):
        metric.update_state(features["state"])
        return pgest.EstimatorSpec(mode, loss=0.0, eval_metric_ops={"mean": metric})

    model = make_model(model_fn)
    call(model, EVAL)
    assert not model.store.variables
    assert set(model.store.local) == {"outside/total", "outside/count"}


# --- initial values that are tensors -------------------------------------------------------------


def variable_model(make):
    def model_fn(features, labels, mode):
        weight = make(features["state"])
        return pgest.EstimatorSpec(mode, predictions={"results": weight * features["state"]})

    return model_fn


def test_without_the_guard_a_tensor_as_initial_value_fails_obscurely():
    with pytest.raises(TypeError, match="out of scope"):
        PlainSharing().trace(
            lambda states: tf.Variable(tf.zeros([3]), name="w") + states, tf.constant(STATES)
        )


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda states: tf.Variable(tf.zeros([3])), [0, 0, 0]),
        (lambda states: tf.Variable(tf.zeros(states.shape[-1])), [0, 0, 0]),
        (lambda states: tf.Variable(-0.5 * tf.ones([3])), [-0.5, -0.5, -0.5]),
        (lambda states: tf.Variable(tf.math.log(tf.constant([1.0, 1.0, 1.0]))), [0, 0, 0]),
        (lambda states: tf.Variable(np.ones(3, np.float32)), [1, 1, 1]),
        (lambda states: tf.Variable([1.0, 2.0, 3.0]), [1, 2, 3]),
        (lambda states: tf.Variable(lambda: tf.ones([3])), [1, 1, 1]),
    ],
)
def test_static_initial_values_work(make, expected):
    model = make_model(variable_model(make))
    call(model, PREDICT)
    np.testing.assert_allclose(model.store.variables["Variable"].numpy(), expected)
    call(model, PREDICT)  # the second call finds it


@pytest.mark.parametrize(
    "make",
    [
        lambda states: tf.Variable(tf.reduce_mean(states, 0), name="w"),
        lambda states: tf.Variable(tf.random.normal([3]), name="w"),
        lambda states: tf.Variable(tf.zeros([3]) + tf.random.uniform([]), name="w"),
    ],
)
def test_initial_values_that_are_not_static_say_what_to_do(make):
    with pytest.raises(ValueError, match=r"of the variable 'w' .*pass a callable"):
        call(make_model(variable_model(make)), PREDICT)


# --- things that are not of tf_keras -------------------------------------------------------------


def test_without_the_guard_keras_3_fails_obscurely():
    with pytest.raises(ValueError, match="singleton tf.Variables"):
        PlainSharing().trace(lambda states: keras.layers.Dense(2)(states), tf.constant(STATES))


@pytest.mark.parametrize("module", [keras, tf.keras], ids=["keras", "tf.keras"])
def test_keras_3_layers_and_metrics_say_what_to_use(module):
    part = lambda states: module.layers.Dense(2)(states)  # noqa: E731
    with pytest.raises(TypeError, match="made by Keras 3.*`import tf_keras`"):
        call(make_model(two_parts(part, tf.identity)), PREDICT)
    part = lambda states: module.metrics.Mean()(states)  # noqa: E731
    with pytest.raises(TypeError, match="made by Keras 3.*`import tf_keras`"):
        call(make_model(two_parts(part, tf.identity)), PREDICT)


def train_model(train):
    """A model_fn whose train_op is `train(loss, variables)`."""

    def model_fn(features, labels, mode):
        loss = tf.reduce_mean(tf.square(layers.Dense(2)(features["state"])))
        train_op = train(loss, pgest_variables())
        return pgest.EstimatorSpec(mode, loss=loss, train_op=train_op)

    return model_fn


def pgest_variables():
    from pgest.variables import sharing as variables

    return variables.current().trainable_variables


@pytest.mark.parametrize(
    ("optimizer", "named"),
    [
        (keras.optimizers.Adam, "keras"),
        (tf.keras.optimizers.SGD, "keras"),
        (tf.compat.v1.train.AdamOptimizer, "AdamOptimizer"),
    ],
)
def test_minimize_says_which_optimizers_it_takes(optimizer, named):
    def train(loss, variables):
        return pgest.minimize(loss, optimizer(0.1))

    with pytest.raises(TypeError, match=f"{named}.*(tf_keras.optimizers|import tf_keras)"):
        call(make_model(train_model(train)), TRAIN)


def test_the_other_optimizers_applied_by_hand_say_what_to_use():
    def v1(loss, variables):
        return tf.compat.v1.train.AdamOptimizer(0.1).minimize(loss, var_list=variables)

    with pytest.raises(TypeError, match=r"tf.compat.v1.train: use pgest.minimize"):
        call(make_model(train_model(v1)), TRAIN)

    def keras_3(loss, variables):
        optimizer = keras.optimizers.Adam(0.1)
        return optimizer.apply_gradients(zip(tf.gradients(loss, variables), variables, strict=True))

    with pytest.raises(TypeError, match="made by Keras 3.*`import tf_keras`"):
        call(make_model(train_model(keras_3)), TRAIN)


# --- optimizers from outside ---------------------------------------------------------------------


def test_without_the_guard_an_optimizer_from_outside_is_missing_from_what_is_saved():
    sharing = PlainSharing()
    optimizer = tf_keras.optimizers.Adam(0.1)

    def train(states):
        weight = tf.Variable(lambda: tf.ones([2]), name="w", shape=[2])
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(weight))
        optimizer.apply_gradients([(tape.gradient(loss, weight), weight)])
        return loss

    sharing.trace(train, tf.constant(STATES))(tf.constant(STATES))
    assert optimizer.iterations.numpy() == 1
    assert not [name for name in sharing.variables if "iteration" in name]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("by_hand", [False, True])
def test_an_optimizer_from_outside_is_an_error(legacy, by_hand):
    module = tf_keras.optimizers.legacy if legacy else tf_keras.optimizers
    optimizer = module.Adam(0.1)
    if legacy:  # it makes its variables when it is first applied
        weight = tf.Variable([1.0])
        optimizer.apply_gradients([(tf.constant([1.0]), weight)])

    def train(loss, variables):
        if not by_hand:
            return pgest.minimize(loss, optimizer)
        gradients = tf.gradients(loss, variables)
        return optimizer.apply_gradients(zip(gradients, variables, strict=True))

    with pytest.raises(ValueError, match="optimizer was made outside.*make it inside"):
        call(make_model(train_model(train)), TRAIN)
