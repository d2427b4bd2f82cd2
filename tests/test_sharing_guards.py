"""The ways in which sharing variables by name breaks silently, each with what pgest says.

Where a test shows the silent failure first, it does so with the guard out of the way: with
`PlainSharing`, or with the one call left out that guards.
"""

import warnings

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras
from traced_models import (
    STATES,
    PlainSharing,
    batch,
    call,
    labels,
    make_model,
    make_updater,
    restored,
    traced,
    values,
)

import pgest
from pgest import graph_environments
from pgest.tracing import acting, probing

layers = tf_keras.layers
tfd = tfp.distributions
TRAIN, PREDICT, EVAL = pgest.Modes.TRAIN, pgest.Modes.PREDICT, pgest.Modes.EVAL


def policy_model(actor, critic=None):
    """A model_fn of an actor (logits from states) and a critic that only TRAIN builds, first."""

    def model_fn(features, labels, mode):
        states = features["state"]
        value = critic(states) if mode == TRAIN and critic else 0.0
        distribution = tfd.Categorical(logits=actor(states, mode))
        if mode == PREDICT:
            return pgest.EstimatorSpec(mode, distribution=distribution)
        loss = tf.reduce_mean(
            tf.square(value - labels["discount_reward"])
            - distribution.log_prob(labels["action"]) * labels["advantage"]
        )
        train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(0.1))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    return model_fn


def dense_critic(states):
    hidden = layers.Dense(2)(states)
    return tf.squeeze(layers.Dense(1)(hidden), -1)


def scoped_critic(states):
    with pgest.scope("critic"):
        return dense_critic(states)


def dense_actor(states, mode):
    return layers.Dense(2)(states)


def check(model, log_prob, piece=None):
    traced(model, TRAIN)
    features = {"state": tf.constant(STATES)}
    given = tf.nest.map_structure(tf.constant, labels(log_prob=log_prob))
    return probing.check_log_probabilities(model, features, given, piece)


def probability(outputs):
    """The mean probability of the actions that were rewarded."""
    return np.exp(outputs["log_prob"]).mean()


# --- 1. a critic that only TRAIN builds, before the actor ----------------------------------------


def test_without_the_guard_a_critic_built_first_leaves_the_acting_policy_untrained():
    model = make_model(policy_model(dense_actor, dense_critic))
    call(model, PREDICT)
    updater = make_updater(model, normalize_advantage=False)
    before = probability(call(model, PREDICT)), probability(call(model, TRAIN))
    for step in range(60):
        updater(batch(), step, None)  # as if all were well: the loss falls
    after = probability(call(model, PREDICT)), probability(call(model, TRAIN))
    assert after[1] > before[1] + 0.1  # the policy that is trained has learnt the actions
    assert after[0] < before[0] + 0.05  # the one that acts has not: it has the critic's layer
    assert "dense_2/kernel" in model.used[TRAIN]
    assert model.used[PREDICT] == ("dense/kernel", "dense/bias")


def test_the_first_batch_shows_that_train_has_another_policy():
    model = make_model(policy_model(dense_actor, dense_critic))
    log_prob = call(model, PREDICT)["log_prob"]
    with pytest.raises(probing.LogProbabilityMismatchError, match="dense_2/kernel") as raised:
        check(model, log_prob)
    table = str(raised.value).splitlines()
    header = next(line for line in table if line.startswith("variable"))
    assert "TRAIN" in header and "PREDICT" in header
    row = next(line for line in table if line.startswith("dense_2/kernel"))
    assert row.split()[-2:] == ["x", "-"]  # TRAIN uses it, PREDICT does not
    row = next(line for line in table if line.startswith("dense/kernel"))
    assert row.split()[-2:] == ["x", "x"]


def test_log_probabilities_are_compared_where_the_names_alone_agree():
    # Both modes use dense and dense_1, with their parts exchanged.
    def model_fn(features, labels, mode):
        heads = [layers.Dense(2), layers.Dense(2)]
        if mode == TRAIN:
            heads.reverse()
        logits, other = heads[0](features["state"]), heads[1](features["state"])
        distribution = tfd.Categorical(logits=logits)
        if mode == PREDICT:
            return pgest.EstimatorSpec(
                mode, distribution=distribution, predictions={"other": other}
            )
        loss = tf.reduce_mean(other - distribution.log_prob(labels["action"])[:, None])
        train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(0.1))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    model = make_model(model_fn)
    log_prob = call(model, PREDICT)["log_prob"]
    with pytest.raises(probing.LogProbabilityMismatchError, match="differ from those of acting"):
        check(model, log_prob)


def test_heads_that_start_at_zero_are_seen_by_their_names():
    # Each gives the same log-probabilities on the first batch, whichever variable it has.
    def actor(states, mode):
        return layers.Dense(2, kernel_initializer="zeros")(states)

    def critic(states):
        return tf.squeeze(layers.Dense(1, kernel_initializer="zeros")(states), -1)

    def wide_critic(states):
        return tf.reduce_sum(layers.Dense(2, kernel_initializer="zeros")(states), -1)

    model = make_model(policy_model(actor, wide_critic))
    log_prob = call(model, PREDICT)["log_prob"]
    np.testing.assert_allclose(log_prob, call(model, TRAIN)["log_prob"], atol=1e-6)
    with pytest.raises(probing.LogProbabilityMismatchError, match="dense_1/kernel"):
        fresh = make_model(policy_model(actor, wide_critic))
        traced(fresh, PREDICT)
        check(fresh, log_prob)

    model = make_model(policy_model(actor, critic))
    call(model, PREDICT)
    with pytest.raises(ValueError, match=r"'dense/kernel' has shape \(3, 2\).*shape \(3, 1\)"):
        call(model, TRAIN)


def test_a_policy_that_trains_as_it_acts_passes_and_says_which_operations_it_has():
    model = make_model(policy_model(dense_actor, scoped_critic))
    assert "MatMul" in check(model, call(model, PREDICT)["log_prob"])
    assert model.counters.variables["global_step"].numpy() == 0  # the check took no step


def test_log_probabilities_of_another_shape_are_a_mismatch():
    model = make_model(policy_model(dense_actor, scoped_critic))
    log_prob = call(model, PREDICT)["log_prob"]
    with pytest.raises(probing.LogProbabilityMismatchError, match=r"shapes \(6,\) and \(6, 1\)"):
        check(model, log_prob[:, None])


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda: layers.Dropout(0.5), "Random"),
        (lambda: layers.BatchNormalization(), "batch_normalization"),
    ],
)
def test_dropout_and_batch_normalization_only_warn(layer, named):
    def actor(states, mode):
        hidden = layers.Dense(8, activation="tanh")(states)
        return layers.Dense(2)(layer()(hidden, training=mode == TRAIN))

    model = make_model(policy_model(actor, scoped_critic))
    log_prob = call(model, PREDICT)["log_prob"]
    with pytest.warns(UserWarning, match=f"differ from those of acting.*{named}"):
        check(model, log_prob)


def test_layer_normalization_does_not_excuse_a_mismatch():
    # It computes with the same operation as BatchNorm.
    def actor(states, mode):
        scale = 2.0 if mode == TRAIN else 1.0
        return layers.Dense(2)(layers.LayerNormalization()(states)) * scale

    model = make_model(policy_model(actor, scoped_critic))
    log_prob = call(model, PREDICT)["log_prob"]
    with pytest.raises(probing.LogProbabilityMismatchError):
        check(model, log_prob)


def test_batch_normalization_of_the_critic_does_not_excuse_the_actor():
    def critic(states):
        with pgest.scope("critic"):
            return dense_critic(layers.BatchNormalization()(states, training=True))

    def actor(states, mode):
        return layers.Dense(2)(states) * (2.0 if mode == TRAIN else 1.0)

    model = make_model(policy_model(actor, critic))
    log_prob = call(model, PREDICT)["log_prob"]
    with pytest.raises(probing.LogProbabilityMismatchError):
        check(model, log_prob)


def test_the_guard_knows_recurrent_models():
    time, envs, units = 4, 2, 5
    states = np.random.default_rng(1).normal(size=[time, envs, 3]).astype(np.float32)
    reset = np.zeros([time, envs], np.bool_)
    reset[2, 0] = True
    state = tf.random.stateless_normal([envs, units], [1, 2])

    def model_fn(features, labels, mode, params):
        cell = layers.GRUCell(units)
        with pgest.scope("actor"):
            head = layers.Dense(2)
        hidden, steps = features["policy_state"], []
        for inputs, starts in zip(
            tf.unstack(features["state"]), tf.unstack(features["reset"]), strict=True
        ):
            hidden = tf.where(starts[:, None], tf.zeros_like(hidden), hidden)
            output, hidden = cell(inputs, hidden)
            steps.append(output)
        scale = params["scale"] if mode == TRAIN else 1.0
        distribution = tfd.Categorical(logits=head(tf.stack(steps)) * scale)
        spec = {"distribution": distribution, "policy_state": hidden}
        if mode == PREDICT:
            return pgest.EstimatorSpec(mode, **spec)
        loss = -tf.reduce_mean(distribution.log_prob(labels["action"]))
        train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(0.1))
        return pgest.EstimatorSpec(mode, loss=loss, train_op=train_op, **spec)

    def features_of(given):
        return {"state": given, "reset": tf.constant(reset), "policy_state": state}

    actions = tf.constant(np.random.default_rng(2).integers(2, size=[time, envs]), tf.int32)
    for scale in (1.0, 3.0):
        model = make_model(model_fn, {"scale": scale})

        @tf.function(autograph=False)
        def act(given, model=model):
            spec, _ = model.call(features_of(given), None, PREDICT)
            return spec.distribution.log_prob(actions)

        given = {"action": actions, "log_prob": act(tf.constant(states))}
        features = features_of(tf.constant(states))
        if scale == 1.0:
            probing.check_log_probabilities(model, features, given)
            continue
        with pytest.raises(probing.LogProbabilityMismatchError, match=r"shapes \(4, 2\)"):
            probing.check_log_probabilities(model, features, given)


def test_the_guard_knows_nested_actions():
    def model_fn(features, labels, mode, params):
        logits = layers.Dense(3)(features["state"])
        mean = layers.Dense(2)(features["state"])
        if mode == TRAIN:
            mean = mean + params["shift"]
        distribution = tfd.JointDistributionNamed(
            {
                "gear": tfd.Categorical(logits=logits),
                "wheel": tfd.MultivariateNormalDiag(mean, tf.ones([2])),
            }
        )
        if mode == PREDICT:
            return pgest.EstimatorSpec(mode, distribution=distribution)
        loss = -tf.reduce_mean(distribution.log_prob(labels["action"]))
        train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(0.1))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    action = {"gear": labels()["action"], "wheel": np.ones([6, 2], np.float32)}
    for shift in (0.0, 1.0):
        model = make_model(model_fn, {"shift": shift})
        log_prob = call(model, PREDICT, action=action)["log_prob"]
        given = tf.nest.map_structure(tf.constant, labels(action=action, log_prob=log_prob))
        features = {"state": tf.constant(STATES)}
        if shift == 0.0:
            probing.check_log_probabilities(model, features, given)
            continue
        with pytest.raises(probing.LogProbabilityMismatchError):
            probing.check_log_probabilities(model, features, given)


@pytest.mark.parametrize("piece", [None, 1, 2, 4, 5, 6, 7])
@pytest.mark.parametrize("wrong", [None, *range(len(STATES))])
def test_all_pieces_of_a_batch_are_looked_at(piece, wrong):
    model = make_model(policy_model(dense_actor))
    log_prob = call(model, PREDICT)["log_prob"].copy()
    if wrong is None:
        check(model, log_prob, piece)
        return
    log_prob[wrong] += 0.01
    with pytest.raises(probing.LogProbabilityMismatchError):
        check(model, log_prob, piece)


@pytest.mark.parametrize("minibatch_size", [None, 64, 1000])
def test_an_agent_looks_at_all_of_the_first_batch(minibatch_size):
    def model_fn(features, labels, mode):
        states = features["state"]
        logits = layers.Dense(3)(states[:, :2])
        if mode == TRAIN:
            late = tf.cast(states[:, -1:] >= 270, tf.float32)  # the last thirty timesteps
            logits += late * [[1.0, 0.0, 0.0]]
        distribution = tfd.Categorical(logits=logits)
        if mode == PREDICT:
            return pgest.EstimatorSpec(mode, distribution=distribution)
        loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
        train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(0.1))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    env = gymnasium.make("MountainCar-v0", max_episode_steps=400)
    env = gymnasium.wrappers.TimeAwareObservation(env, normalize_time=False)
    memory = pgest.RolloutMemory(horizon=300)
    agent = pgest.PGAgent(model_fn, memory, {"minibatch_size": minibatch_size})
    with pytest.raises(probing.LogProbabilityMismatchError):
        agent.train(env, steps=1)


# --- 2. only pgest.scope separates names ---------------------------------------------------------


def two_parts(first, second):
    def model_fn(features, labels, mode):
        results = tf.stack([first(features["state"]), second(features["state"])])
        return pgest.EstimatorSpec(mode, predictions={"results": results})

    return model_fn


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


# --- 3. one name twice ---------------------------------------------------------------------------


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


# --- 4. another shape or dtype under one name -----------------------------------------------------


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


# --- 5. variables from outside -------------------------------------------------------------------


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


# --- 6. initial values that are tensors -----------------------------------------------------------


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


# --- 7. things that are not of tf_keras -----------------------------------------------------------


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
    from pgest import variables

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


def test_no_guard_speaks_where_nothing_is_wrong():
    model = make_model(policy_model(dense_actor, scoped_critic))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log_prob = call(model, PREDICT)["log_prob"]
        check(model, log_prob)
        call(model, EVAL)


def test_a_squashed_policy_that_saturates_is_no_mismatch():
    # Near its bounds the inverse of tanh rounds by more than the tolerance.
    def model_fn(features, labels, mode):
        mean = 2.0 + layers.Dense(1)(features["state"])
        normal = tfd.MultivariateNormalDiag(mean, tf.ones([1]))
        distribution = tfd.TransformedDistribution(normal, tfp.bijectors.Tanh())
        if mode == PREDICT:
            return pgest.EstimatorSpec(mode, distribution=distribution)
        loss = -tf.reduce_mean(distribution.log_prob(labels["action"]))
        train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(0.1))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    size = 2000
    states = np.random.default_rng(0).normal(size=[size, 3]).astype(np.float32)
    model = make_model(model_fn)
    spaces = gymnasium.spaces.Box(-9, 9, [3]), gymnasium.spaces.Box(-1, 1, [1])
    acted = acting.Actor(model, *spaces, size)(states, 0)
    given = {"action": acted.action, "log_prob": acted.predictions["log_prob"]}
    traced_labels = tf.nest.map_structure(tf.constant, given)
    probing.check_log_probabilities(model, {"state": tf.constant(states)}, traced_labels)


def critic_first(features, labels, mode):
    if mode == TRAIN:
        value = dense_critic(features["state"])
    distribution = tfd.Categorical(logits=layers.Dense(2)(features["state"]))
    if mode == PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution)
    loss = tf.reduce_mean(value - distribution.log_prob(labels["action"]) * labels["advantage"])
    train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(0.1))
    return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)


@pytest.mark.parametrize("in_graph", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_training_stops_before_the_first_update(in_graph):
    config = pgest.RunConfig(tf_random_seed=0, jit_compile=False)
    agent = pgest.PGAgent(critic_first, pgest.RolloutMemory(horizon=8), config=config)
    env = graph_environments.CartPole(num_envs=2) if in_graph else "CartPole-v1"
    with pytest.raises(probing.LogProbabilityMismatchError, match="dense_2/kernel"):
        agent.train(env, steps=1)
    assert agent.global_step == 0
