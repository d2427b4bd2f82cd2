"""minimize: any optimizer of tf_keras does what it does by itself, and global_step moves once."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import pgest
from pgest.variables import sharing
from tests.tracing.traced_models import STATES, call, make_model, restored, traced, values

layers = tf_keras.layers
optimizers, legacy = tf_keras.optimizers, tf_keras.optimizers.legacy
schedules = optimizers.schedules
TRAIN, EVAL = pgest.Modes.TRAIN, pgest.Modes.EVAL

START = np.array([[0.5, -1.0], [2.0, 0.1], [-0.3, 0.7]], np.float32)
BIAS = np.array([0.1, -0.2], np.float32)


def schedule():
    return schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.05, 0.01])


OPTIMIZERS = {
    "Adadelta": lambda: optimizers.Adadelta(schedule()),
    "Adafactor": lambda: optimizers.Adafactor(schedule()),
    "Adagrad": lambda: optimizers.Adagrad(schedule()),
    "Adam": lambda: optimizers.Adam(schedule()),
    "Adam constant": lambda: optimizers.Adam(0.1),
    "Adam amsgrad": lambda: optimizers.Adam(0.1, amsgrad=True),
    "Adam clipnorm": lambda: optimizers.Adam(0.1, clipnorm=0.1),
    "Adam ema": lambda: optimizers.Adam(0.1, use_ema=True, ema_overwrite_frequency=2),
    "AdamW": lambda: optimizers.AdamW(schedule(), weight_decay=0.01),
    "Adamax": lambda: optimizers.Adamax(schedule()),
    "Ftrl": lambda: optimizers.Ftrl(schedule()),
    "Lion": lambda: optimizers.Lion(schedule()),
    "Nadam": lambda: optimizers.Nadam(schedule()),
    "RMSprop": lambda: optimizers.RMSprop(schedule(), momentum=0.9, centered=True),
    "SGD": lambda: optimizers.SGD(schedule(), momentum=0.9, nesterov=True),
    "legacy Adadelta": lambda: legacy.Adadelta(schedule()),
    "legacy Adagrad": lambda: legacy.Adagrad(schedule()),
    "legacy Adam": lambda: legacy.Adam(schedule()),
    "legacy Adamax": lambda: legacy.Adamax(schedule()),
    "legacy Ftrl": lambda: legacy.Ftrl(schedule()),
    "legacy Nadam": lambda: legacy.Nadam(0.1),
    "legacy RMSprop": lambda: legacy.RMSprop(schedule(), momentum=0.9),
    "legacy SGD": lambda: legacy.SGD(schedule(), momentum=0.9),
}

CONTINUED = {"Adam", "Adafactor", "RMSprop", "legacy SGD", "legacy RMSprop", "legacy Nadam"}


def test_every_optimizer_of_keras_is_listed():
    for module, prefix in ((optimizers, ""), (legacy, "legacy ")):
        classes = {name for name in dir(module) if name[0].isupper()} - {"Optimizer"}
        assert classes <= {
            name.removeprefix(prefix).split()[0] for name in OPTIMIZERS if prefix in name
        }


def loss_of(kernel, bias):
    return tf.reduce_mean(tf.square(tf.constant(STATES) @ kernel + bias - 1.0))


def weights():
    return tf.Variable(START, name="kernel"), tf.Variable(BIAS, name="bias")


def minimizing(make_train_op):
    def model_fn(features, labels, mode):
        loss = loss_of(*weights())
        return pgest.EstimatorSpec(mode, loss=loss, train_op=make_train_op(loss))

    return model_fn


def by_itself(optimizer, steps):
    """What the optimizer does without pgest."""
    kernel, bias = weights()
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = loss_of(kernel, bias)
        gradients = tape.gradient(loss, [kernel, bias])
        optimizer.apply_gradients(zip(gradients, [kernel, bias], strict=True))
    return kernel.numpy()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_does_what_it_does_by_itself_and_goes_on_from_a_checkpoint(name):
    model_fn = minimizing(lambda loss: pgest.minimize(loss, OPTIMIZERS[name]()))
    model = make_model(model_fn)
    step = traced(model, TRAIN)
    for _ in range(2):
        step()
    if name in CONTINUED:  # a new process: slots, schedules and bias corrections come back
        model = restored(model_fn, values(model))
        step = traced(model, TRAIN)
    for _ in range(2):
        step()
    assert model.counters.variables["global_step"].numpy() == 4
    if name == "Nadam":  # counts in Python, so in any graph it does something else than eagerly
        return
    np.testing.assert_allclose(
        model.store.variables["kernel"].numpy(),
        by_itself(OPTIMIZERS[name](), 4),
        rtol=2e-4,
        atol=1e-6,
    )


# --- learning rates ------------------------------------------------------------------------------


def test_a_schedule_follows_global_step():
    model = make_model(minimizing(lambda loss: pgest.minimize(loss, optimizers.SGD(schedule()))))
    step = traced(model, TRAIN)
    rates = [float(step()["metrics/learning_rate"]) for _ in range(4)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.05, 0.01])  # that of steps 0, 1, 2, 3


def test_a_constant_learning_rate_is_what_is_passed_now():
    def model_fn(features, labels, mode, params):
        loss = loss_of(*weights())
        train_op = pgest.minimize(loss, params["optimizer"](params["rate"]))
        return pgest.EstimatorSpec(mode, loss=loss, train_op=train_op)

    for optimizer in (optimizers.Adam, legacy.Adam):
        model = make_model(model_fn, {"rate": 0.1, "optimizer": optimizer})
        call(model, TRAIN)
        saved = values(model)
        assert not [name for name in saved if "learning_rate" in name or "beta" in name]
        other = restored(model_fn, saved, params={"rate": 0.0, "optimizer": optimizer})
        call(other, TRAIN)
        np.testing.assert_array_equal(values(other)["kernel"], saved["kernel"])


# --- several losses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kinds", [(optimizers, optimizers), (legacy, legacy), (legacy, optimizers)]
)
def test_a_list_moves_global_step_once_and_each_optimizer_its_variables(kinds):
    def model_fn(features, labels, mode):
        kernel, bias = weights()
        loss = loss_of(kernel, bias)
        parts = [
            (loss, kinds[0].SGD(schedule()), [kernel]),
            (2.0 * loss, kinds[1].Adam(schedule()), [bias]),
            (loss, optimizers.Adam(schedule()), [bias]),
        ]
        return pgest.EstimatorSpec(mode, loss=loss, train_op=pgest.minimize(parts))

    model = make_model(model_fn)
    step = traced(model, TRAIN)
    kernel, bias = weights()
    others = [kinds[0].SGD(schedule()), kinds[1].Adam(schedule()), optimizers.Adam(schedule())]
    for number in range(1, 5):
        if number == 3:  # in a new process every schedule and bias correction goes on
            model = restored(model_fn, values(model))
            step = traced(model, TRAIN)
        outputs = step()
        assert model.counters.variables["global_step"].numpy() == number
        with tf.GradientTape() as tape:
            loss = loss_of(kernel, bias)
        # Every gradient is of the weights that the step started from.
        of_kernel, of_bias = tape.gradient(loss, [kernel, bias])
        for other, pair in zip(
            others, [(of_kernel, kernel), (2 * of_bias, bias), (of_bias, bias)], strict=True
        ):
            other.apply_gradients([pair])
    np.testing.assert_allclose(values(model)["kernel"], kernel.numpy(), rtol=1e-4)
    np.testing.assert_allclose(values(model)["bias"], bias.numpy(), rtol=1e-4, atol=1e-6)
    assert {"metrics/gradient_norm", "metrics/gradient_norm_1"} <= set(outputs)
    ratio = outputs["metrics/gradient_norm_1"] / outputs["metrics/gradient_norm_2"]
    assert ratio == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize(
    ("parts", "more", "message"),
    [
        ([], {}, r"expected minimize\(\[\(loss, optimizer, variables\)"),
        ([(1.0, None)], {}, "a list of 1 that are not all triples"),
        ([1.0, 2.0], {}, "a list of 2 that are not all triples"),
        ([(1.0, None, None)], {"optimizer": 1}, "put them into the list"),
        ([(1.0, None, None)], {"var_list": []}, "put them into the list"),
        ([(1.0, 7, None), (1.0, 7, None)], {}, "one optimizer object for several losses"),
    ],
)
def test_a_list_is_of_triples(parts, more, message):
    with pytest.raises(ValueError, match=message):
        call(make_model(minimizing(lambda loss: pgest.minimize(parts, **more))), TRAIN)


# --- variables and gradients ---------------------------------------------------------------------


def test_the_default_variables_are_the_trainable_ones_of_this_call():
    def model_fn(features, labels, mode):
        with pgest.scope("mine"):
            kernel, bias = weights()
        frozen = tf.Variable([1.0, 1.0], trainable=False, name="frozen")
        if mode == EVAL:
            tf.Variable([1.0], name="of_another_mode")
        loss = loss_of(kernel * frozen, bias)
        found = sharing.current().trainable_variables
        assert [v.name for v in found] == ["mine/kernel:0", "mine/bias:0"]
        train_op = pgest.minimize(loss, optimizers.Nadam(0.1))
        # Nadam makes a trainable variable; it is not one to train.
        assert len(sharing.current().trainable_variables) == 2
        return pgest.EstimatorSpec(mode, loss=loss, train_op=train_op)

    def evaluated(features, labels, mode):
        tf.Variable([1.0], name="of_another_mode")
        return pgest.EstimatorSpec(mode, loss=0.0)

    model = make_model(lambda features, labels, mode: {EVAL: evaluated, TRAIN: model_fn}[mode](
        features, labels, mode
    ))  # fmt: skip
    traced(model, EVAL)
    call(model, TRAIN)
    assert values(model)["frozen"].tolist() == [1.0, 1.0]
    assert np.abs(values(model)["mine/kernel"] - START).min() > 0.01


@pytest.mark.parametrize("outside", [False, True])
def test_frozen_layers_are_not_trained(outside):
    def make():
        layer = tf_keras.Sequential([layers.Dense(2, name="frozen")])
        layer.trainable = False
        return layer

    kept = make()
    if outside:
        kept(STATES)

    def model_fn(features, labels, mode):
        hidden = (kept if outside else make())(features["state"])
        loss = tf.reduce_mean(tf.square(layers.Dense(2, name="trained")(hidden) - 1.0))
        train_op = pgest.minimize(loss, optimizers.SGD(0.1))
        return pgest.EstimatorSpec(mode, loss=loss, train_op=train_op)

    model = make_model(model_fn)
    step = traced(model, TRAIN)
    before = values(model)
    step()
    moved = {
        name for name, value in values(model).items() if not np.array_equal(value, before[name])
    }
    weights = {name for name in moved if not name.startswith("optimizer")}
    assert weights == {"global_step", "trained/kernel", "trained/bias"}


def test_var_list_says_what_changes():
    def model_fn(features, labels, mode):
        kernel, bias = weights()
        loss = loss_of(kernel, bias)
        train_op = pgest.minimize(loss, optimizers.SGD(0.1), var_list=[bias])
        return pgest.EstimatorSpec(mode, loss=loss, train_op=train_op)

    model = make_model(model_fn)
    call(model, TRAIN)
    np.testing.assert_array_equal(values(model)["kernel"], START)
    assert np.abs(values(model)["bias"] - BIAS).min() > 1e-3


def test_a_loss_that_does_not_reach_a_variable_names_it():
    def model_fn(features, labels, mode):
        kernel, bias = weights()
        with pgest.scope("critic"):
            layers.Dense(2)(features["state"])
        loss = loss_of(tf.stop_gradient(kernel), bias)
        return pgest.EstimatorSpec(
            mode, loss=loss, train_op=pgest.minimize(loss, optimizers.SGD(0.1))
        )

    with pytest.raises(
        ValueError, match="does not depend on kernel, critic/dense/kernel, critic/dense/bias"
    ):
        call(make_model(model_fn), TRAIN)


@pytest.mark.parametrize("empty", [None, []])
def test_nothing_to_train_is_an_error(empty):
    def model_fn(features, labels, mode):
        loss = tf.reduce_sum(features["state"])
        train_op = pgest.minimize(loss, optimizers.SGD(0.1), var_list=empty)
        return pgest.EstimatorSpec(mode, loss=loss, train_op=train_op)

    with pytest.raises(ValueError, match="found no trainable variables"):
        call(make_model(model_fn), TRAIN)


def test_embeddings_train_with_their_sparse_gradients():
    def model_fn(features, labels, mode):
        hidden = layers.Embedding(2, 3)(labels["action"])
        loss = tf.reduce_mean(tf.square(hidden - 1.0))
        train_op = pgest.minimize(loss, optimizers.Adam(0.1), clip_norm=0.5)
        return pgest.EstimatorSpec(mode, loss=loss, train_op=train_op)

    model = make_model(model_fn)
    step = traced(model, TRAIN)
    losses = [float(step()["loss"]) for _ in range(10)]
    assert losses[-1] < losses[0] - 0.3


# --- clipping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_norm", [0.5, 100.0, None])
def test_clip_norm_is_the_largest_global_norm(clip_norm):
    def train(loss):
        return pgest.minimize(loss, optimizers.SGD(1.0), clip_norm=clip_norm)

    model = make_model(minimizing(train))
    norm = float(call(model, TRAIN)["metrics/gradient_norm"])
    with tf.GradientTape() as tape:
        kernel, bias = weights()
        loss = loss_of(kernel, bias)
    gradients = [g.numpy() for g in tape.gradient(loss, [kernel, bias])]
    # sqrt of the sum of squares over both gradients, before clipping
    expected = np.sqrt(sum((g**2).sum() for g in gradients))
    assert norm == pytest.approx(expected, rel=1e-5)
    factor = 1.0 if clip_norm is None else min(1.0, clip_norm / expected)
    np.testing.assert_allclose(
        values(model)["kernel"], START - factor * gradients[0], rtol=1e-4, atol=1e-6
    )


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [None, "adam", optimizers.Adam, object()])
def test_what_is_no_optimizer_is_an_error(optimizer):
    model = make_model(minimizing(lambda loss: pgest.minimize(loss, optimizer)))
    with pytest.raises(TypeError, match="minimize got (no|the) optimizer"):
        call(model, TRAIN)


def test_a_loss_that_is_no_scalar_is_an_error():
    train = lambda loss: pgest.minimize(loss * tf.ones([3]), optimizers.SGD(0.1))  # noqa: E731
    with pytest.raises(ValueError, match=r"a loss of shape \(3,\); expected a scalar"):
        call(make_model(minimizing(train)), TRAIN)


def test_outside_of_a_model_fn_it_says_so():
    with pytest.raises(RuntimeError, match="only inside a model_fn"):
        pgest.minimize(1.0, optimizers.SGD(0.1))


def test_one_optimizer_kept_between_calls_is_an_error():
    kept = []

    def train(loss):
        kept.append(kept[0] if kept else optimizers.Adam(0.1))
        return pgest.minimize(loss, kept[0])

    model = make_model(minimizing(train))
    call(model, TRAIN)
    with pytest.raises(ValueError, match="made outside of this call of the model_fn"):
        call(model, TRAIN)  # an agent has TRAIN traced twice before its first update


def test_a_minimize_in_every_mode_leaves_the_slots_of_evaluation_out():
    model = make_model(minimizing(lambda loss: pgest.minimize(loss, optimizers.Nadam(0.1))))
    traced(model, EVAL)
    assert not model.store.variables, "what nobody but EVAL has asked for is not saved"
    call(model, TRAIN)
    assert len(model.store.variables) == 2 + 5
