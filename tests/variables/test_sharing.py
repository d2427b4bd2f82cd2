"""The variable store: where values come from, what is saved, and what is left as it was."""

import random

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import pgest
from pgest.variables import initial_values
from tests.tracing.traced_models import STATES, call, make_model, restored, traced, values

layers = tf_keras.layers
TRAIN, PREDICT, EVAL = pgest.Modes.TRAIN, pgest.Modes.PREDICT, pgest.Modes.EVAL


def layered(order, made=None):
    """A model_fn that makes a layer of each kind, in the order given."""
    made = {
        "dense": lambda x: layers.Dense(3, name="a")(x),
        "orthogonal": lambda x: layers.Dense(3, name="b", kernel_initializer="orthogonal")(x),
        "lstm": lambda x: layers.LSTM(3, name="c")(x[:, None]),
        "drawn": lambda x: x * tf.Variable(lambda: tf.random.normal([3]), name="d"),
        "numpy": lambda x: x * tf.Variable(lambda: np.random.rand(3).astype("f4"), name="e"),
        "python": lambda x: x * tf.Variable(lambda: [random.random()] * 3, name="f"),
        "hosted": lambda x: x * tf.Variable(lambda: tf.random.normal([3]).numpy(), name="g"),
        "v1": lambda x: layers.Dense(
            3, name="h", kernel_initializer=tf.compat.v1.truncated_normal_initializer()
        )(x),
        **(made or {}),
    }

    def model_fn(features, labels, mode):
        results = sum(made[kind](features["state"]) for kind in order)
        return pgest.EstimatorSpec(mode, predictions={"results": results}, loss=0.0, train_op=0)

    return model_fn


KINDS = ["dense", "orthogonal", "drawn", "numpy", "python", "hosted", "v1"]


def initial(order, seed=0):
    model = make_model(layered(order), seed=seed)
    traced(model, PREDICT)
    return {name: v.numpy() for name, v in model.store.variables.items()}


# --- initial values ------------------------------------------------------------------------------


def test_initial_values_are_a_function_of_seed_and_name():
    forwards, backwards = initial([*KINDS, "lstm"]), initial(["lstm", *KINDS[::-1]])
    assert set(forwards) == set(backwards)
    for name, value in forwards.items():
        np.testing.assert_array_equal(value, backwards[name], err_msg=name)
    alone = initial(["drawn"])  # with nothing made before it
    np.testing.assert_array_equal(alone["d"], forwards["d"])
    other = initial(KINDS, seed=1)
    same = [name for name in other if np.array_equal(other[name], forwards[name])]
    assert all("bias" in name for name in same)


def test_two_layers_of_one_kind_start_apart():
    def model_fn(features, labels, mode):
        results = layers.Dense(3)(features["state"]) + layers.Dense(3)(features["state"])
        return pgest.EstimatorSpec(mode, predictions={"results": results})

    model = make_model(model_fn)
    traced(model, PREDICT)
    kernels = [v.numpy() for name, v in model.store.variables.items() if name.endswith("kernel")]
    assert np.abs(kernels[0] - kernels[1]).min() > 1e-4


def test_the_processes_random_state_is_put_back():
    def draw():
        return [
            random.random(),
            np.random.rand(),
            float(tf.random.normal([])),
            layers.Dense(1)(tf.ones([1, 1])).numpy().item(),
        ]

    def state(between):
        tf_keras.utils.set_random_seed(3)  # Python, NumPy, TensorFlow and Keras
        tf_keras.backend.clear_session()
        first = draw()
        between()
        return first + draw()

    order = [kind for kind in KINDS if kind != "hosted"]
    undisturbed = state(lambda: None)
    assert state(lambda: initial(order)) == undisturbed
    assert state(lambda: call(make_model(layered(order)), TRAIN)) == undisturbed


def test_a_value_that_is_only_known_on_the_host_costs_tensorflows_eager_state_alone():
    # Its seed comes back; how far it had got does not.
    random.seed(1)
    tf.random.set_seed(3)
    expected = float(tf.random.normal([]))
    initial(["hosted"])
    assert float(tf.random.normal([])) == expected
    random.seed(1)
    following = random.random()
    random.seed(1)
    initial(["hosted"])
    assert random.random() == following


def test_what_a_model_draws_with_tensorflows_generator_is_a_function_of_the_seed():
    def model_fn(features, labels, mode):
        dropped = layers.Dropout(0.5)(tf.ones([64]), training=True)
        results = tf.concat([dropped, tf.random.normal([3])], 0)
        return pgest.EstimatorSpec(mode, predictions={"results": results})

    def draws(seed):
        run = traced(make_model(model_fn, seed=seed), PREDICT)
        return [run()["results"] for _ in range(2)]

    first, again, other = draws(0), draws(0), draws(1)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first[0] - first[1]).max() > 0.1  # and each execution draws anew
    assert np.abs(first[0] - other[0]).max() > 0.1


def test_derived_seeds_are_spread():
    seeds = {initial_values.derived_seed(s, f"dense_{n}") for s in range(30) for n in range(30)}
    assert len(seeds) == 900 and all(0 <= seed < 2**31 for seed in seeds)


# --- sharing -------------------------------------------------------------------------------------


def test_every_call_finds_the_variables_of_the_first():
    model = make_model(layered([*KINDS, "lstm"]))
    first = call(model, PREDICT)["results"]
    variables = dict(model.store.variables)
    np.testing.assert_array_equal(call(model, PREDICT)["results"], first)
    call(model, TRAIN)
    assert model.store.variables == variables
    assert model.used[TRAIN] == model.used[PREDICT]


def test_models_do_not_share():
    one, two = make_model(layered(["dense"])), make_model(layered(["dense"]))
    traced(one, PREDICT), traced(two, PREDICT)
    assert one.store.variables["a/kernel"] is not two.store.variables["a/kernel"]


def test_a_layer_first_called_in_a_loop_is_shared_too():
    def model_fn(features, labels, mode):
        layer = layers.Dense(3, name="inner")
        _, results = tf.while_loop(
            lambda i, x: i < 3, lambda i, x: (i + 1, layer(x)), (0, features["state"])
        )
        return pgest.EstimatorSpec(mode, predictions={"results": results})

    model = make_model(model_fn)
    first = call(model, PREDICT)["results"]
    assert set(model.store.variables) == {"while/inner/kernel", "while/inner/bias"}
    np.testing.assert_array_equal(call(model, PREDICT)["results"], first)


def test_two_calls_in_one_graph_use_the_same_names():
    # As when a model without a distribution is asked in PREDICT and then in COLLECT.
    model = make_model(layered(["dense", "drawn"]))

    @tf.function(autograph=False)
    def both(states):
        calls = [model.call({"state": states}, None, PREDICT)[0] for _ in range(2)]
        return [spec.predictions["results"] for spec in calls]

    first, second = both(tf.constant(STATES))
    np.testing.assert_array_equal(first, second)
    assert set(model.store.variables) == {"a/kernel", "a/bias", "d"}


def test_names_of_the_process_are_not_used_up():
    before = layers.Dense(1).name
    traced(make_model(layered(["dense", "lstm"])), PREDICT)
    after = layers.Dense(1).name
    number = int(before.partition("_")[2] or 0)
    assert after == f"dense_{number + 1}"


# --- what is saved -------------------------------------------------------------------------------


def test_variables_start_from_the_checkpoint():
    model = make_model(layered(KINDS))
    traced(model, PREDICT)
    saved = {name: value + 1 for name, value in values(model).items()}
    other = restored(layered(KINDS), saved, seed=5)
    traced(other, PREDICT)
    found = values(other)
    assert found.pop("random_seed") == 5, "given, so not the checkpoint's"
    for name, value in found.items():
        np.testing.assert_array_equal(value, saved[name], err_msg=name)


def test_a_checkpoint_of_another_shape_is_an_error():
    model = make_model(layered(["dense"]))
    traced(model, PREDICT)
    saved = values(model)
    saved["a/kernel"] = np.zeros([3, 7], np.float32)
    with pytest.raises(ValueError, match=r"'a/kernel' with shape \(3, 7\); the model wants \(3, 3"):
        traced(restored(layered(["dense"]), saved), PREDICT)


def test_a_variable_that_a_user_calls_learning_rate_is_saved():
    def rate(states):
        return states * tf.Variable(0.5, trainable=False, name="learning_rate")

    def step(states):
        return states * tf.Variable(2.0, trainable=False, name="iteration")

    model = make_model(layered(["rate", "step"], {"rate": rate, "step": step}))
    traced(model, PREDICT)
    assert set(model.store.variables) == {"learning_rate", "iteration"}


# --- evaluation ----------------------------------------------------------------------------------


def evaluated(features, labels, mode):
    """Has a metric, a BatchNorm and a train_op in every mode."""
    hidden = layers.BatchNormalization(name="norm")(features["state"], training=mode == TRAIN)
    results = layers.Dense(2, name="out")(hidden)
    metrics = {name: tf_keras.metrics.Mean(name=name) for name in ("mean", "twice")}
    metrics["mean"].update_state(features["state"])
    metrics["twice"].update_state(features["state"] * 2.0)
    if mode == PREDICT:
        return pgest.EstimatorSpec(mode, predictions={"results": results})
    loss = tf.reduce_mean(tf.square(results))
    return pgest.EstimatorSpec(
        mode,
        predictions={"results": results},
        loss=loss,
        train_op=pgest.minimize(loss, tf_keras.optimizers.Adam(0.1)),
        eval_metric_ops=metrics,
    )


@pytest.mark.parametrize("first", [EVAL, TRAIN, PREDICT])
def test_what_is_saved_does_not_depend_on_the_mode_that_came_first(first):
    model = make_model(evaluated)
    for mode in (first, PREDICT, TRAIN, EVAL):
        traced(model, mode)
    names = {name for name in model.store.variables if not name.startswith("optimizer")}
    assert names == {
        f"norm/{part}" for part in ("gamma", "beta", "moving_mean", "moving_variance")
    } | {"out/kernel", "out/bias"}
    assert len(model.store.variables) == 6 + 2 * 4  # and Adam's slots of the trainable ones
    assert set(model.store.local) == {"total", "count", "total_1", "count_1"}


def test_statistics_born_in_evaluation_are_those_that_training_moves():
    model = make_model(evaluated)
    evaluate = traced(model, EVAL)
    train = traced(model, TRAIN)
    before = evaluate()["results"]
    mean = model.store.variables["norm/moving_mean"]
    model.store.variables["norm/moving_mean"].assign(mean + 1.0)
    assert np.abs(evaluate()["results"] - before).max() > 1e-3
    train()
    assert "norm/moving_mean" not in model.store.local


def test_metrics_start_from_what_local_says():
    model = make_model(evaluated)
    evaluate = traced(model, EVAL)
    evaluate()
    for name, factor in (("total", 1.0), ("total_1", 2.0)):  # each metric has variables of its own
        total, start = model.store.local[name]
        assert start == 0.0 and abs(float(total) - factor * STATES.sum()) < 1e-4


def test_a_metric_of_training_is_not_saved_either():
    model = make_model(evaluated)
    call(model, TRAIN)
    assert not [name for name in model.saved_variables() if "total" in name]
    assert not model.store.local


# --- names ---------------------------------------------------------------------------------------


def own_global_step():
    return tf.compat.v1.train.get_or_create_global_step()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (own_global_step, "global_step"),
        (lambda: tf.Variable(0, name="global_timestep"), "global_timestep"),
        (lambda: tf.Variable(0.0, name="global_episode"), "global_episode"),
        (lambda: tf.Variable([1.0, 2.0], name="random_seed"), "random_seed"),
    ],
)
@pytest.mark.parametrize("mode", [TRAIN, PREDICT])
def test_names_that_checkpoints_hold_already_are_refused(make, name, mode):
    def model_fn(features, labels, mode):
        results = features["state"] * tf.cast(tf.reduce_sum(make()), tf.float32)
        return pgest.EstimatorSpec(mode, predictions={"results": results}, loss=0.0, train_op=0)

    with pytest.raises(ValueError, match=f"called '{name}', a name that pgest keeps.*another one"):
        traced(make_model(model_fn), mode)


def test_below_a_scope_they_are_free():
    def model_fn(features, labels, mode):
        with pgest.scope("mine"):
            results = features["state"] * tf.Variable(2.0, name="global_step")
        return pgest.EstimatorSpec(mode, predictions={"results": results}, loss=0.0, train_op=0)

    model = make_model(model_fn)
    traced(model, PREDICT)
    assert set(model.saved_variables()) >= {"mine/global_step", "global_step", "random_seed"}


def test_get_variable_is_refused_in_the_first_call_unless_it_asks_for_reuse():
    def by_get_variable(reuse):
        def model_fn(features, labels, mode):
            with tf.compat.v1.variable_scope(f"scope_{reuse}", reuse=reuse):
                weight = tf.compat.v1.get_variable("weight", [1])
            predictions = {"results": features["state"] * weight}
            return pgest.EstimatorSpec(mode, predictions=predictions, loss=0.0, train_op=0)

        return make_model(model_fn)

    with pytest.raises(ValueError, match="'scope_False/weight' with get_variable"):
        call(by_get_variable(False), PREDICT)
    reusing = by_get_variable(tf.compat.v1.AUTO_REUSE)
    first, second = (call(reusing, mode)["results"] for mode in (PREDICT, EVAL))
    np.testing.assert_array_equal(first, second)


def test_a_call_that_makes_variables_is_traced_once():
    model = make_model(layered(["dense", "drawn", "v1"]))
    call(model, PREDICT)
    assert model.traces[PREDICT] == 1
    assert set(model.store.variables) == {"a/bias", "a/kernel", "d", "h/bias", "h/kernel"}
