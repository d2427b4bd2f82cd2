"""What a model_fn from TensorFlow 1 meets: the mode, what there is, and what to write."""

import functools
import re
import sys
import traceback

import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest
from pgest.contract import given, notes

V1 = tf.compat.v1
Modes = pgest.Modes


def model_fn(features, labels, mode, params, *, hidden=None, train_op=None, spec=None):
    """A policy of which a test replaces one part."""
    if hidden is None:
        net = tf_keras.layers.Dense(4)(features["state"])
    else:
        net = hidden(features, labels, params)
    distribution = tfp.distributions.Categorical(logits=tf_keras.layers.Dense(2)(net))
    if mode == Modes.PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution, **(spec or {}))
    loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    if train_op is None:
        op = pgest.minimize(loss, tf_keras.optimizers.Adam(0.01))
    else:
        op = train_op(loss, labels, params)
    return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=op)


def last_lines(hidden=None, train_op=None, spec=None):
    """What stands below the traceback of a training whose model_fn fails."""
    config = pgest.RunConfig(jit_compile=False, tf_random_seed=0)
    bound = functools.partial(model_fn, hidden=hidden, train_op=train_op, spec=spec)
    agent = pgest.PGAgent(bound, pgest.BatchMemory(episodes=1), config=config)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its type is TensorFlow's choice
        agent.train("CartPole-v1", steps=1)
    return "".join(traceback.format_exception_only(caught.value)).strip()


MINIMIZE = r"pgest\.minimize\(loss, tf_keras\.optimizers\.Adam\(1e-3\)\)"
STEP = r"pgest\.get_global_step\(\)"
LAYERS = r"tf_keras\.layers\.Dense\(64, activation='tanh'\)\(features\['state'\]\)"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes are of Python 3.11")
@pytest.mark.parametrize(
    ("train_op", "advice"),
    [
        (lambda loss, *_: V1.train.AdamOptimizer(0.01).minimize(loss), MINIMIZE),
        (lambda loss, *_: V1.train.GradientDescentOptimizer(0.01).minimize(loss), MINIMIZE),
        (lambda loss, *_: tf.train.AdamOptimizer(0.01).minimize(loss), MINIMIZE),
        (lambda loss, *_: tf_keras.optimizers.Adam().minimize(loss, global_step=None), MINIMIZE),
        (lambda loss, *_: tf_keras.optimizers.Adam().minimize(loss, var_list=[]), MINIMIZE),
        (lambda loss, *_: tf.train.get_global_step(), STEP),
        (lambda loss, *_: tf.train.get_or_create_global_step(), STEP),
        (lambda loss, *_: tf.train.exponential_decay(0.1, 0, 100, 0.9), "ExponentialDecay"),
        (lambda *_: tf.losses.sparse_softmax_cross_entropy(0, 0), "Write the loss as a scalar"),
    ],
)
def test_of_train(train_op, advice):
    shown = last_lines(train_op=train_op).splitlines()
    assert shown[-1].startswith("model_fn model_fn was traced in Modes.TRAIN. Write ")
    assert re.search(advice, shown[-1]), shown


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes are of Python 3.11")
@pytest.mark.parametrize(
    ("hidden", "advice"),
    [
        (lambda features, *_: tf.layers.dense(features["state"], 4), LAYERS),
        (lambda features, *_: V1.layers.dense(features["state"], 4), LAYERS),
        (lambda features, *_: V1.layers.dropout(features["state"]), r"layers\.Dropout\(\.\.\.\)"),
        (lambda features, *_: tf.contrib.layers.fully_connected(features["state"], 4), LAYERS),
        (lambda *_: tf.get_variable("w", [4, 4]), r"a layer of tf_keras, or tf\.Variable"),
        (lambda *_: V1.get_variable("w", [4, 4]), r"a layer of tf_keras, or tf\.Variable"),
        (lambda *_: tf.variable_scope("critic"), r"with pgest\.scope\('critic'\)"),
        (lambda *_: tf.estimator.ModeKeys.TRAIN, r"left TensorFlow in 2\.16.*pgest\.Modes\.TRAIN"),
        (lambda *_: tf.placeholder(tf.float32), "There is no session"),
        (lambda *_: tf.log(1.0), r"tf\.log was TensorFlow 1's: write tf\.compat\.v1\.log"),
        (lambda features, *_: features["state"].eval(), "tensors have no values yet"),
        (lambda features, *_: features["state"].numpy(), "tensors have no values yet"),
        (lambda features, *_: bool(features["state"][0, 0] > 0), r"tf\.where or tf\.cond"),
        (lambda _, labels, __: labels["action"], "labels is None in this mode.*Return before"),
    ],
)
def test_of_predict(hidden, advice):
    shown = last_lines(hidden=hidden).splitlines()
    assert shown[-1].startswith("model_fn model_fn was traced in Modes.PREDICT. ")
    assert re.search(advice, shown[-1]), shown


def test_a_feature_that_is_not_there():
    for read in (lambda features, *_: features["x"], lambda features, *_: features.x):
        shown = last_lines(hidden=read)
        assert "features has no 'x' in Modes.PREDICT; it has state (float32 [1, 4])." in shown
        assert "Write features['state']" in shown
    shown = last_lines(hidden=lambda features, *_: features["action_mask"])
    assert "offers no action mask: read features.get('action_mask')" in shown


def test_a_label_that_is_not_there():
    shown = last_lines(train_op=lambda _, labels, __: labels["actions"])
    assert "labels has no 'actions' in Modes.TRAIN; it has " in shown
    assert "action (int32 [?])" in shown and shown.endswith("Write labels['action'].")
    shown = last_lines(train_op=lambda _, labels, __: labels["baseline"])
    assert shown.endswith("EstimatorSpec(predictions={'baseline': ...}).")


def test_params_that_were_not_passed():
    for read in (lambda *args: args[2]["learning_rate"], lambda *args: args[2].learning_rate):
        shown = last_lines(train_op=read)
        assert "params has no 'learning_rate' in Modes.TRAIN; it has nothing." in shown
        assert "Pass PGAgent(..., params={'learning_rate': ...})." in shown


@pytest.mark.parametrize("name", ["scaffold", "export_output"])
def test_an_argument_that_the_spec_has_not(name):
    shown = last_lines(spec={name: None})
    assert f"TypeError: EstimatorSpec has no {name}; it takes " in shown
    assert ("warm_start_from" in shown) == (name == "scaffold")
    if sys.version_info >= (3, 11):
        assert shown.endswith("model_fn model_fn was traced in Modes.PREDICT.")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes are of Python 3.11")
def test_any_other_error_is_told_with_what_there_is():
    shown = last_lines(hidden=lambda features, *_: tf_keras.layers.Dense(4)(features))
    assert shown.endswith(
        "traced in Modes.PREDICT. features: a dict of state (float32 [1, 4]). labels: None. "
        "params: an empty dict."
    )


def test_without_notes_the_text_ends_with_it():
    """What Python 3.10 does."""
    error = ValueError("No variables to optimize.")
    notes.extend(error, "Write pgest.minimize.")
    assert str(error) == "No variables to optimize.\nWrite pgest.minimize."


def test_an_error_without_a_text_of_its_own_is_logged(caplog):
    error = tf.errors.InvalidArgumentError(None, None, "no value")
    notes.extend(error, "Tensors have no values.")
    assert caplog.messages == ["InvalidArgumentError: Tensors have no values."]
    assert str(error) == "no value"


def test_what_model_fn_is_given_is_a_dict():
    features = given.Given({"state": tf.zeros([1])}, "features", "TRAIN")
    assert features == {"state": features["state"]} and features.get("x") is None
    assert {**features, "y": 1}.keys() == {"state", "y"}
    copied = tf.nest.map_structure(tf.identity, features)
    assert isinstance(copied, dict) and "state" in copied
    with pytest.raises(KeyError, match="'x'"):
        copied["x"]

    @tf.function
    def inside(nest):
        return nest["state"] + 1.0

    assert float(inside(features)[0]) == 1.0
