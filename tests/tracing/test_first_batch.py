"""What the check of the first batch has to be given."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest
from pgest.tracing import probing
from tests.tracing.traced_models import batch, make_model, make_updater

TRAIN, PREDICT = pgest.Modes.TRAIN, pgest.Modes.PREDICT


def policy_model(logits_of):
    def model_fn(features, labels, mode):
        distribution = tfp.distributions.Categorical(logits=logits_of(features, labels))
        if mode == PREDICT:
            return pgest.EstimatorSpec(mode, distribution=distribution)
        loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
        train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(0.1))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    return model_fn


def of_states(features, labels):
    return tf_keras.layers.Dense(2)(features["state"])


def of_states_and_returns(features, labels):
    logits = of_states(features, labels)
    return logits if labels is None else logits + 0.0 * labels["discount_reward"][:, None]


@pytest.mark.parametrize(
    ("logits_of", "read"),
    [
        (of_states, {"action", "log_prob"}),
        (of_states_and_returns, {"action", "log_prob", "discount_reward"}),
    ],
)
def test_what_the_policy_reads_is_prepared_and_nothing_else(logits_of, read):
    graph = make_updater(make_model(policy_model(logits_of))).graph
    features, labels = probing.read_by_policy(graph.trained, graph.prepare, batch())
    wanted = graph.prepare(tf.nest.map_structure(tf.constant, batch()))
    np.testing.assert_array_equal(features["state"], wanted[0]["state"])
    assert {name for name, value in labels.items() if value is not None} == read
    assert labels.keys() == wanted[1].keys()
    for name in read:
        np.testing.assert_array_equal(labels[name], wanted[1][name])


def test_a_batch_of_other_names_is_refused():
    graph = make_updater(make_model(policy_model(of_states))).graph
    with pytest.raises(ValueError, match="extra"):
        probing.read_by_policy(graph.trained, graph.prepare, batch() | {"extra": np.zeros([6, 1])})


def test_two_agents_of_one_setting_share_the_preparation_and_others_do_not():
    first, second = (make_updater(make_model(policy_model(of_states))).graph for _ in range(2))
    assert first.prepare is second.prepare
    model = make_model(policy_model(of_states))
    assert make_updater(model, discount=0.9).graph.prepare is not first.prepare
    falling = pgest.schedules.linear(0.9, 0.8)
    scheduled = [make_updater(make_model(policy_model(of_states)), discount=falling) for _ in "ab"]
    assert scheduled[0].graph.prepare is not scheduled[1].graph.prepare


def test_a_model_without_a_distribution_has_no_policy_to_look_at():
    assert probing.read_by_policy(None, None, batch()) == ({}, {})
