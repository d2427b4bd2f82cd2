"""The contract: how a model_fn is called, and what its EstimatorSpec must hold."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest
from pgest.contract import model_fn as model_fn_lib
from tests.tracing.traced_models import (
    STATES,
    batch,
    call,
    make_model,
    make_updater,
    restored,
    values,
)

Modes, EstimatorSpec, ModelFn = pgest.Modes, pgest.EstimatorSpec, model_fn_lib.ModelFn
CONTEXT = {"params": {"a": 1}, "config": "the config", "model_dir": "the directory"}


def spec(mode=Modes.PREDICT):
    return EstimatorSpec(mode, predictions={"results": tf.zeros([2])})


# --- modes ---------------------------------------------------------------------------------------


def test_modes_are_estimators():
    assert [Modes.TRAIN, Modes.EVAL, Modes.PREDICT] == ["train", "eval", "infer"]
    assert f"{Modes.TRAIN}" == "TRAIN"


# --- signatures ----------------------------------------------------------------------------------


class Recorded:
    """Model functions of every kind that note what they were called with."""

    def two(self, features, labels):
        return self._note(features=features, labels=labels)

    def three(self, features, labels, mode):
        return self._note(features=features, labels=labels, mode=mode)

    def four(self, features, labels, mode, params):
        return self._note(features=features, labels=labels, mode=mode, params=params)

    def five(self, features, labels, mode, params, config):
        return self._note(**{k: v for k, v in locals().items() if k != "self"})

    def six(self, features, labels, mode, params, config, model_dir):
        return self._note(**{k: v for k, v in locals().items() if k != "self"})

    def shuffled(self, model_dir, labels, *, config=None, features):
        return self._note(**{k: v for k, v in locals().items() if k != "self"})

    def anything(self, **arguments):
        return self._note(**arguments)

    def __call__(self, features, labels, params):
        return self._note(features=features, labels=labels, params=params)

    def _note(self, **arguments):
        self.arguments = arguments
        return spec()


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("two", []),
        ("three", ["mode"]),
        ("four", ["mode", "params"]),
        ("five", ["mode", "params", "config"]),
        ("six", ["mode", "params", "config", "model_dir"]),
        ("shuffled", ["model_dir", "config"]),
        ("anything", ["mode", "params", "config", "model_dir"]),
        ("__call__", ["params"]),
    ],
)
@pytest.mark.parametrize("kind", ["method", "function", "partial", "wrapped"])
def test_arguments_are_found_by_name(method, names, kind):
    recorded = Recorded()
    bound = getattr(recorded, method)
    if kind == "method":
        function = recorded if method == "__call__" else bound
    elif kind == "partial":
        function = functools.partial(getattr(Recorded, method), recorded)
    else:

        @functools.wraps(bound)
        def function(*args, **kwargs):
            return bound(*args, **kwargs)

        if kind == "function":
            function = {"two": lambda features, labels: bound(features, labels)}.get(
                method, function
            )
    given = {"mode": Modes.PREDICT, **CONTEXT}
    ModelFn(function, CONTEXT["params"] if "params" in names else None)(
        "features", "labels", **given
    )
    expected = {"features": "features", "labels": "labels", **{name: given[name] for name in names}}
    assert recorded.arguments == expected


def test_what_a_partial_binds_is_its_own():
    def model_fn(features, labels, mode, params, units):
        assert (params, units) == ({"b": 2}, 64)
        return spec(mode)

    function = functools.partial(functools.partial(model_fn, units=64), params={"b": 2})
    ModelFn(function, None)("f", "l", Modes.PREDICT, **CONTEXT)
    with pytest.raises(ValueError, match=r"params \['a'\] were given, but .* `params` bound"):
        ModelFn(function, {"a": 1})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda labels, mode: None, r"\(labels, mode\) lacks `features`; expected model_fn\("),
        (lambda features: None, "lacks `labels`"),
        (lambda: None, "lacks `features`, `labels`"),
        (lambda features, labels, param: None, "takes `param`, which the agent does not know"),
        (lambda features, labels, modes=None: None, "takes `modes`, which the agent does not"),
        (lambda features, labels, /: None, "takes `features`, `labels` by position alone"),
        (functools.partial(lambda features, labels: None, labels=1), "lacks `labels`"),
        (functools.partial(lambda features, labels: None, 1), "lacks `features`"),
    ],
)
def test_an_argument_that_is_missing_or_unknown_is_an_error(function, message):
    with pytest.raises(ValueError, match=message):
        ModelFn(function, None)


def test_params_that_nobody_takes_are_an_error():
    with pytest.raises(ValueError, match=r"params \['a', 'b'\] were given, .*does not take"):
        ModelFn(lambda features, labels, mode: None, {"b": 1, "a": 2})
    ModelFn(lambda features, labels, mode: None, {})
    ModelFn(lambda features, labels, params: None, None)


def test_what_cannot_be_called_is_an_error():
    with pytest.raises(TypeError, match="model_fn is str, which cannot be called"):
        ModelFn("model_fn", None)


@pytest.mark.parametrize("result", [None, tf.zeros([]), {"loss": 1.0}])
def test_what_is_no_spec_is_an_error(result):
    def my_model(features, labels):
        return result

    with pytest.raises(TypeError, match="my_model returned .* for Modes.TRAIN; expected an Est"):
        ModelFn(my_model, None)("f", "l", Modes.TRAIN)


def test_the_spec_is_of_the_mode_that_was_asked_for():
    with pytest.raises(ValueError, match="called with Modes.TRAIN and returned .* Modes.PREDICT"):
        ModelFn(lambda features, labels: spec(), None)("f", "l", Modes.TRAIN)


@pytest.mark.parametrize("nested", [False, True])
def test_features_are_a_tensor_or_a_nest(nested):
    def model_fn(features, labels, mode):
        state = features["state"]["eye"] if nested else features
        return EstimatorSpec(mode, predictions=tf.reduce_sum(state, -1))

    model = make_model(model_fn)

    @tf.function(autograph=False)
    def act(states):
        given = {"state": {"eye": states}} if nested else states
        return model.call(given, None, Modes.PREDICT)[0].predictions["results"]

    np.testing.assert_allclose(act(tf.constant(STATES)), STATES.sum(-1), rtol=1e-5)


# --- the spec ------------------------------------------------------------------------------------


def test_a_spec_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec().loss = 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": Modes.TRAIN, "loss": 1.0}, "for Modes.TRAIN lacks train_op: pass it"),
        ({"mode": Modes.TRAIN, "train_op": 1}, "lacks loss"),
        ({"mode": Modes.TRAIN}, "lacks loss and train_op: pass them"),
        ({"mode": Modes.EVAL}, "for Modes.EVAL lacks loss"),
        ({"mode": Modes.PREDICT}, r"for Modes.PREDICT lacks distribution \(or predictions"),
        ({"mode": Modes.COLLECT, "predictions": {"value": 1.0}}, "for Modes.COLLECT lacks distr"),
        ({"mode": "training"}, "mode='training'; expected one of Modes.TRAIN, Modes.EVAL"),
        ({"mode": None}, "mode=None"),
    ],
)
def test_a_spec_has_what_its_mode_needs(fields, message):
    with pytest.raises(ValueError, match=message):
        EstimatorSpec(**fields)


@pytest.mark.parametrize("mode", [Modes.TRAIN, Modes.EVAL])
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (tf.zeros([3]), r"loss has shape \(3,\); expected a scalar. Reduce it"),
        (tf.zeros([1, 2]), r"loss has shape \(1, 2\)"),
        (tf.constant(1), "loss is int32; expected a float"),
    ],
)
def test_a_loss_is_a_float_scalar(mode, loss, message):
    with pytest.raises(ValueError, match=message):
        EstimatorSpec(mode, loss=loss, train_op=1)


@pytest.mark.parametrize("loss", [1.5, np.float32(1.5), tf.constant([[1.5]])])
def test_a_loss_of_one_number_is_a_scalar(loss):
    made = EstimatorSpec("eval", loss=loss)
    assert made.mode is Modes.EVAL and made.loss.shape == [] and float(made.loss) == 1.5


def test_a_single_prediction_is_the_result():
    tensor = tf.zeros([2])
    assert EstimatorSpec(Modes.PREDICT, predictions=tensor).predictions == {"results": tensor}


def test_fields_that_are_left_out_are_empty():
    made = spec()
    assert made.metrics == made.eval_metric_ops == made.export_outputs == {}
    assert made.training_hooks == made.extra_ops == ()


@pytest.mark.parametrize("name", ["metrics", "eval_metric_ops", "export_outputs"])
def test_fields_by_name_are_dicts(name):
    with pytest.raises(TypeError, match=f"EstimatorSpec.{name} is float; expected a dict"):
        EstimatorSpec(Modes.EVAL, loss=1.0, **{name: 1.0})


def test_a_distribution_is_one():
    with pytest.raises(TypeError, match="distribution is .*Tensor, which has no `sample`"):
        EstimatorSpec(Modes.PREDICT, distribution=tf.zeros([2]))
    distribution = tfp.distributions.Normal(0.0, 1.0)
    assert EstimatorSpec(Modes.PREDICT, distribution=distribution).distribution is distribution


def test_eval_metrics_are_metrics_or_pairs():
    metric = tf_keras.metrics.Mean()
    pair = (tf.constant(1.0), tf.constant(1.0))
    made = EstimatorSpec(Modes.EVAL, loss=1.0, eval_metric_ops={"a": metric, "b": pair})
    assert made.eval_metric_ops == {"a": metric, "b": pair}
    with pytest.raises(TypeError, match=r"eval_metric_ops\['a'\] is float; expected a tf_keras"):
        EstimatorSpec(Modes.EVAL, loss=1.0, eval_metric_ops={"a": 1.0})
    with pytest.raises(TypeError, match=r"eval_metric_ops\['a'\] is .*Mean.* of Keras 3"):
        EstimatorSpec(Modes.EVAL, loss=1.0, eval_metric_ops={"a": keras.metrics.Mean()})


# --- train_op and global_step --------------------------------------------------------------------


def trained(make_train_op):
    """A model_fn with one weight whose train_op is `make_train_op(loss, weight)`."""

    def model_fn(features, labels, mode):
        weight = tf.Variable([0.0, 0.0], name="weight")
        logits = features["state"][..., :2] * weight
        distribution = tfp.distributions.Categorical(logits=logits)
        if mode == Modes.PREDICT:
            return EstimatorSpec(mode, distribution=distribution)
        loss = -tf.reduce_mean(distribution.log_prob(labels["action"]))
        train_op = make_train_op(loss, weight)
        return EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    return model_fn


def with_tape(loss, weight):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(weight - 1.0))
    optimizer = tf_keras.optimizers.SGD(0.1)
    return optimizer.apply_gradients([(tape.gradient(loss, weight), weight)])


def with_gradients(loss, weight):
    optimizer = tf_keras.optimizers.Adam(0.1)
    return optimizer.apply_gradients([(tf.gradients(loss, weight)[0], weight)])


def with_legacy(loss, weight):
    optimizer = tf_keras.optimizers.legacy.Adam(0.1)
    return optimizer.apply_gradients([(tf.gradients(loss, weight)[0], weight)])


def with_iterations(loss, weight):
    optimizer = tf_keras.optimizers.Adam(0.1)
    optimizer.iterations = pgest.get_global_step()
    return optimizer.apply_gradients([(tf.gradients(loss, weight)[0], weight)])


TRAIN_OPS = {
    "GradientTape": with_tape,
    "tf.gradients": with_gradients,
    "legacy optimizer": with_legacy,
    "iterations set to global_step": with_iterations,
    "assignment": lambda loss, w: w.assign_sub(0.1 * tf.gradients(loss, w)[0]),
    "group": lambda loss, w: tf.group(w.assign_sub(0.1 * tf.gradients(loss, w)[0])),
    "variable": lambda loss, w: (w.assign_sub(0.1 * tf.gradients(loss, w)[0]), w)[1],
    "minimize": lambda loss, w: pgest.minimize(loss, tf_keras.optimizers.SGD(0.1)),
    "own count": lambda loss, w: tf.group(
        w.assign_sub(0.1 * tf.gradients(loss, w)[0]), pgest.get_global_step().assign_add(1)
    ),
}


@pytest.mark.parametrize("name", TRAIN_OPS)
def test_a_train_op_of_any_kind_is_executed_and_counted_once_a_step(name):
    model = make_model(trained(TRAIN_OPS[name]))
    call(model, Modes.PREDICT)
    weight = model.store.variables["weight"]
    updater = make_updater(model, epochs=3)
    for update in range(2):
        before = weight.numpy()
        assert updater(batch(), 3 * update, None).steps == 3
        assert model.counters.variables["global_step"].numpy() == 3 * (update + 1)
        assert np.abs(weight.numpy() - before).max() > 1e-4


def test_a_train_op_that_moves_global_step_twice_is_an_error():
    def twice(loss, weight):
        first = pgest.minimize(loss, tf_keras.optimizers.SGD(0.1))
        with tf.control_dependencies([first]):
            return pgest.minimize(loss, tf_keras.optimizers.SGD(0.1))

    updater = make_updater(make_model(trained(twice)))
    with pytest.raises(ValueError, match=r"moved global_step by 2.*minimize\(\[\(loss, optimizer"):
        updater(batch(), 0, None)


def test_hand_written_optimizers_go_on_from_a_checkpoint():
    model = make_model(trained(with_gradients))
    call(model, Modes.PREDICT)
    updater = make_updater(model)
    for step in range(3):
        updater(batch(), step, None)
    saved = values(model)
    assert saved["iteration"] == 3 and "learning_rate" not in saved
    continued = restored(trained(with_gradients), saved)
    call(continued, Modes.PREDICT)
    other = make_updater(continued)
    for one in (updater, other):
        one(batch(), 3, None)
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, values(continued)[name], err_msg=name)


def test_counters_are_readable_inside_alone():
    def model_fn(features, labels, mode):
        seen = [
            pgest.get_global_step(),
            pgest.get_global_timestep(),
            pgest.get_global_episode(),
        ]
        assert all(variable.dtype == tf.int64 for variable in seen)
        ones = tf.ones_like(features["state"][:, 0], tf.int64)
        return EstimatorSpec(mode, predictions=sum(s * 10**i for i, s in enumerate(seen)) * ones)

    model = make_model(model_fn)
    model.counters.variables["global_step"].assign(1)
    model.counters.timestep, model.counters.episode = 2, 3
    model.counters.publish()
    assert set(call(model, Modes.PREDICT)["results"]) == {321}
    for reader in (pgest.get_global_step, pgest.get_global_timestep, pgest.get_global_episode):
        with pytest.raises(RuntimeError, match="only inside a model_fn"):
            reader()


def test_the_error_of_a_model_fn_is_its_own():
    def model_fn(features, labels, mode):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        call(make_model(model_fn), Modes.PREDICT)
    with pytest.raises(RuntimeError, match="only inside"):
        pgest.get_global_step()  # the failed call is over
