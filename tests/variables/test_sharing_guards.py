"""The first batch of a run shows whether the policy that trains is the one that acts."""

import warnings

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest
from pgest import graph_environments
from pgest.tracing import acting, probing
from tests.tracing.traced_models import (
    STATES,
    batch,
    call,
    check_on,
    labels,
    make_model,
    make_updater,
    traced,
    values,
)
from tests.variables.sharing_models import dense_critic, scoped_critic

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


def dense_actor(states, mode):
    return layers.Dense(2)(states)


def check(model, log_prob, size=None):
    features = {"state": tf.constant(STATES)}
    given = tf.nest.map_structure(tf.constant, labels(log_prob=log_prob))
    check_on(model, features, given, size=size)


def probability(outputs):
    """The mean probability of the actions that were rewarded."""
    return np.exp(outputs["log_prob"]).mean()


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


def test_a_policy_that_trains_as_it_acts_passes_and_nothing_is_trained():
    model = make_model(policy_model(dense_actor, scoped_critic))
    log_prob = call(model, PREDICT)["log_prob"]
    before = values(model)
    check(model, log_prob)
    after = values(model)
    assert after["global_step"] == 0
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_what_a_step_changes_before_its_policy_is_not_changed_by_the_check():
    def actor(states, mode):
        with pgest.scope("seen"):
            count = tf.Variable(0.0, trainable=False, name="count")
        if mode == TRAIN:
            count.assign_add(1.0)  # the graph of a step has the policy wait for it
        return layers.Dense(2)(states) + 0.0 * count

    model = make_model(policy_model(actor, scoped_critic))
    check(model, call(model, PREDICT)["log_prob"])
    assert values(model)["seen/count"] == 0


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
            check_on(model, features, given, recurrent=True)
            check_on(model, features, given, recurrent=True, size=envs)
            continue
        with pytest.raises(probing.LogProbabilityMismatchError, match=r"shapes \(4, 2\)"):
            check_on(model, features, given, recurrent=True)


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
            check_on(model, features, given)
            continue
        with pytest.raises(probing.LogProbabilityMismatchError):
            check_on(model, features, given)


@pytest.mark.parametrize("size", [None, 1, 2, 4, 5, 6, 7])
@pytest.mark.parametrize("wrong", [None, *range(len(STATES))])
def test_all_pieces_of_a_batch_are_looked_at(size, wrong):
    model = make_model(policy_model(dense_actor))
    log_prob = call(model, PREDICT)["log_prob"].copy()
    if wrong is None:
        check(model, log_prob, size)
        return
    log_prob[wrong] += 0.01
    with pytest.raises(probing.LogProbabilityMismatchError):
        check(model, log_prob, size)


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
    check_on(model, {"state": tf.constant(states)}, traced_labels)


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
