"""Names: pgest.scope alone keeps them apart, and one that stands for two variables is an error."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest
from tests.tracing.traced_models import STATES, PlainSharing, call, make_model
from tests.variables.sharing_models import dense_critic, scoped_critic, two_parts

layers = tf_keras.layers
tfd = tfp.distributions
TRAIN, PREDICT = pgest.Modes.TRAIN, pgest.Modes.PREDICT


# --- only pgest.scope separates names ------------------------------------------------------------


def test_without_the_guard_a_sequentials_name_does_not_keep_its_layers_apart():
    sharing = PlainSharing()

    def both(states):
        actor = tf_keras.Sequential([layers.Dense(2, name="out")], name="actor")
        critic = tf_keras.Sequential([layers.Dense(2, name="out")], name="critic")
        return actor(states), critic(states)

    actor, critic = sharing.trace(both, tf.constant(STATES))(tf.constant(STATES))
    assert list(sharing.variables) == ["out/kernel", "out/bias"]
    np.testing.assert_array_equal(actor, critic)  # one set of weights for both


def test_layers_of_two_sequentials_share_no_name_unnoticed():
    def part(states):
        return tf_keras.Sequential([layers.Dense(2, name="out")], name="anything")(states)

    with pytest.raises(ValueError, match=r"asked for the variable 'out/kernel' twice.*scope"):
        call(make_model(two_parts(part, part)), PREDICT)


def small_model(kind):
    """Each returns [N, 2] from [N, 3]."""
    if kind == "sequential":
        return tf_keras.Sequential([layers.Dense(4, activation="tanh"), layers.Dense(2)])
    if kind == "functional":
        inputs = tf_keras.Input([3])
        return tf_keras.Model(inputs, layers.Dense(2)(layers.Dense(4)(inputs)))
    if kind == "lstm":
        return tf_keras.Sequential([layers.Reshape([3, 1]), layers.LSTM(2)])

    class Subclassed(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = layers.Dense(4), layers.Dense(2)

        def call(self, states):
            return self.out(self.hidden(states))

    return Subclassed()


@pytest.mark.parametrize("kind", ["sequential", "functional", "subclassed", "lstm"])
def test_a_scope_gives_every_kind_of_model_the_same_names_in_every_mode(kind):
    def model_fn(features, labels, mode):
        if mode == TRAIN:  # first, as the critic that spoils the names
            with pgest.scope("critic"):
                critic = small_model(kind)(features["state"])
        with pgest.scope("actor"):
            logits = small_model(kind)(features["state"])
        distribution = tfd.Categorical(logits=logits)
        if mode == PREDICT:
            return pgest.EstimatorSpec(mode, distribution=distribution)
        loss = tf.reduce_mean(tf.square(critic)) - tf.reduce_mean(
            distribution.log_prob(labels["action"])
        )
        train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(0.1))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    model = make_model(model_fn)
    acting = call(model, PREDICT)["log_prob"]
    names = set(model.store.variables)
    assert names and all(name.startswith("actor/") for name in names)
    np.testing.assert_allclose(acting, call(model, TRAIN)["log_prob"], rtol=1e-5)
    actor, critic = (
        {name[len(part) :] for name in model.store.variables if name.startswith(part)}
        for part in ("actor/", "critic/")
    )
    assert actor == critic  # names are counted from the start inside each scope
    assert np.abs(call(model, PREDICT)["log_prob"] - acting).max() > 1e-6  # it was trained


def test_scopes_nest_and_layers_count_from_the_start_in_each():
    def model_fn(features, labels, mode):
        states = features["state"]
        results = layers.Dense(2)(states)
        with pgest.scope("outer"):
            results += layers.Dense(2)(states)
            with pgest.scope("inner"):
                results += layers.Dense(2)(states) + layers.Dense(2)(states)
            results += layers.Dense(2)(states)
        results += layers.Dense(2)(states)
        return pgest.EstimatorSpec(mode, predictions={"results": results})

    model = make_model(model_fn)
    call(model, PREDICT)
    kernels = [name for name in model.store.variables if name.endswith("kernel")]
    assert kernels == [
        "dense/kernel",
        "outer/dense/kernel",
        "outer/inner/dense/kernel",
        "outer/inner/dense_1/kernel",
        "outer/dense_1/kernel",
        "dense_1/kernel",
    ]
    for name in kernels:
        assert model.store.variables[name].name == f"{name}:0"


def test_a_scope_opened_again_holds_other_names_or_says_so():
    def part(name):
        def build(states):
            with pgest.scope("part"):
                return layers.Dense(2, name=name)(states)

        return build

    model = make_model(two_parts(part("a"), part("b")))
    call(model, PREDICT)
    assert {"part/a/kernel", "part/b/kernel"} <= set(model.store.variables)
    with pytest.raises(ValueError, match="'part/dense/kernel' twice"):
        call(make_model(two_parts(part(None), part(None))), PREDICT)


def test_a_scope_opened_again_by_another_mode_finds_its_variables():
    model = make_model(two_parts(scoped_critic, lambda states: scoped_other(states)))

    def scoped_other(states):
        with pgest.scope("other"):
            return dense_critic(states)

    first = call(model, PREDICT)["results"]
    before = set(model.store.variables)
    np.testing.assert_array_equal(first, call(model, PREDICT)["results"])
    assert set(model.store.variables) == before


@pytest.mark.parametrize("name", ["", None, 3, "/"])
def test_a_scope_needs_a_name(name):
    with pytest.raises(ValueError, match="expected a non-empty string"), pgest.scope(name):
        pass


def test_a_scope_outside_of_a_model_fn_says_so():
    with pytest.raises(RuntimeError, match="only inside a model_fn"), pgest.scope("critic"):
        pass


# --- one name twice ------------------------------------------------------------------------------


def test_without_the_guard_two_layers_of_one_name_are_one():
    sharing = PlainSharing()

    def both(states):
        return layers.Dense(2, name="out")(states), layers.Dense(2, name="out")(states)

    first, second = sharing.trace(both, tf.constant(STATES))(tf.constant(STATES))
    np.testing.assert_array_equal(first, second)


def test_two_layers_of_one_name_are_an_error():
    part = lambda states: layers.Dense(2, name="out")(states)  # noqa: E731
    with pytest.raises(ValueError, match=r"'out/kernel' twice in one call \(Modes.PREDICT\)"):
        call(make_model(two_parts(part, part)), PREDICT)


def test_one_layer_called_twice_is_fine():
    def model_fn(features, labels, mode):
        layer = layers.Dense(2, name="out")
        results = layer(features["state"]) + layer(features["state"])
        return pgest.EstimatorSpec(mode, predictions={"results": results})

    model = make_model(model_fn)
    call(model, PREDICT)
    assert list(model.store.variables) == ["out/kernel", "out/bias"]


def hand_written(scopes=False):
    """Two optimizers applied by hand, each over a variable of its own."""

    def model_fn(features, labels, mode):
        applied = []
        losses = 0.0
        for name in ("left", "right"):
            weight = tf.Variable([1.0, 1.0], name=name)
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(weight))
            gradients = tape.gradient(loss, [weight])
            if scopes:
                with pgest.scope(f"optimize_{name}"):
                    optimizer = tf_keras.optimizers.Adam(0.1)
            else:
                optimizer = tf_keras.optimizers.Adam(0.1)
            applied.append(optimizer.apply_gradients(zip(gradients, [weight], strict=True)))
            losses += loss
        return pgest.EstimatorSpec(mode, loss=losses, train_op=tf.group(applied))

    return model_fn


def test_without_the_guard_two_optimizers_share_their_step_count():
    sharing = PlainSharing()

    def both(states):
        for name in ("left", "right"):
            weight = tf.Variable(lambda: tf.ones([2]), name=name, shape=[2])
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(weight))
            optimizer = tf_keras.optimizers.SGD(0.1)
            optimizer.apply_gradients([(tape.gradient(loss, weight), weight)])
        return loss

    traced = sharing.trace(both, tf.constant(STATES))
    for _ in range(5):
        traced(tf.constant(STATES))
    assert sharing.variables["iteration"].numpy() == 10  # each counts the other's steps too


def test_two_optimizers_applied_by_hand_are_an_error_and_a_scope_helps():
    with pytest.raises(ValueError, match="'iteration' twice.*through pgest.minimize"):
        call(make_model(hand_written()), TRAIN)
    model = make_model(hand_written(scopes=True))
    call(model, TRAIN)
    steps = [name for name in model.store.variables if name.endswith("iteration")]
    assert steps == ["optimize_left/iteration", "optimize_right/iteration"]


def test_minimize_gives_each_optimizer_a_namespace_and_saves_no_learning_rate():
    def model_fn(features, labels, mode):
        value = layers.Dense(1)(features["state"])
        loss = tf.reduce_mean(tf.square(value))
        adam = tf_keras.optimizers.Adam
        train_op = pgest.minimize([(loss, adam(0.1), None), (loss, adam(0.2), None)])
        return pgest.EstimatorSpec(mode, loss=loss, train_op=train_op)

    model = make_model(model_fn)
    call(model, TRAIN)
    slots = [name for name in model.saved_variables() if "optimizer" in name]
    assert "optimizer/Adam/m/dense/kernel" in slots
    assert "optimizer_1/Adam/m/dense/kernel" in slots
    assert not [n for n in model.saved_variables() if "learning_rate" in n or "iteration" in n]


# --- another shape or dtype under one name -------------------------------------------------------


def test_without_the_guard_a_sequential_swallows_the_error_and_makes_another_variable():
    sharing = PlainSharing(checked=True)
    for size in (2, 3):
        sharing.trace(
            lambda states, size=size: tf_keras.Sequential([layers.Dense(size, name="a")])(states),
            tf.constant(STATES),
        )
    # The second model trains in private: no other mode will ever ask for this name.
    assert sharing.variables["sequential/a/kernel"].shape == [3, 3]


@pytest.mark.parametrize("sequential", [False, True])
def test_another_shape_under_one_name_is_an_error_that_survives_sequential(sequential):
    def model_fn(features, labels, mode):
        layer = layers.Dense(2 if mode == PREDICT else 3, name="a")
        network = tf_keras.Sequential([layer]) if sequential else layer
        results = network(features["state"])
        return pgest.EstimatorSpec(mode, predictions={"results": results}, loss=0.0, train_op=0)

    model = make_model(model_fn)
    call(model, PREDICT)
    with pytest.raises(ValueError, match=r"'a/kernel' has shape \(3, 2\) .* shape \(3, 3\)"):
        call(model, TRAIN)


def test_another_dtype_under_one_name_is_an_error():
    def model_fn(features, labels, mode):
        dtype = tf.float32 if mode == PREDICT else tf.float64
        weight = tf.Variable(tf.ones([2], dtype), name="w")
        results = tf.cast(weight, tf.float32) * features["state"][:, :2]
        return pgest.EstimatorSpec(mode, predictions={"results": results}, loss=0.0, train_op=0)

    model = make_model(model_fn)
    call(model, PREDICT)
    with pytest.raises(ValueError, match="'w' is float32 and is asked for as float64"):
        call(model, TRAIN)


def test_trainable_in_one_mode_alone_is_an_error():
    def model_fn(features, labels, mode):
        weight = tf.Variable([1.0, 1.0], name="w", trainable=mode == TRAIN)
        results = weight * features["state"][:, :2]
        return pgest.EstimatorSpec(mode, predictions={"results": results}, loss=0.0, train_op=0)

    model = make_model(model_fn)
    call(model, PREDICT)
    with pytest.raises(ValueError, match="'w' was made with trainable=False"):
        call(model, TRAIN)
