"""Steps of several workers: what they exchange, and what is traced in two halves."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow_probability import distributions as tfd

import pgest
from pgest.variables import workers as workers_lib
from tests.tracing import traced_models

EPOCHS = 3


class Alike(workers_lib.Workers):
    """The first of two workers that have the same batches; counts what they exchange."""

    def __init__(self):
        self.rank, self.count = 0, 2
        self.exchanges = tf.Variable(0, trainable=False)

    def sums(self, tensors):
        self.exchanges.assign_add(len({tensor.dtype for tensor in tensors}))
        return [2 * tensor for tensor in tensors]


def model_fn(features, labels, mode, params):
    """Counts its calls in a variable where `counts` asks for it; looks at the weight it made."""
    dense = tf_keras.layers.Dense(2, kernel_initializer="ones", name="policy")
    distribution = tfd.Categorical(logits=dense(features["state"]))
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution)
    loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    metrics = {}
    if params.get("counts"):
        tf.Variable(0, trainable=False, name="calls").assign_add(1)
    if params.get("averages"):
        metrics["average"] = pgest.mean_over_workers(loss)
    train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(0.1), clip_norm=0.5)
    if params.get("looks"):
        metrics["kernel"] = tf.reduce_sum(dense.kernel)
    if params.get("waits"):
        metrics["step"] = tf.cast(train_op, tf.float32)
    return pgest.EstimatorSpec(
        mode, distribution=distribution, loss=loss, train_op=train_op, metrics=metrics
    )


def updated(workers, params=None, **config):
    """What an update gave, its variables, and how many exchanges it took."""
    model = traced_models.make_model(model_fn, params)
    model.workers = workers
    settings = {"epochs": EPOCHS, "normalize_advantage": False, **config}
    updater = traced_models.make_updater(model, **settings)
    given = updater(traced_models.batch(), 0, None)
    exchanges = 0 if workers is None else int(workers.exchanges)
    return given, traced_models.values(model), exchanges


def compare(params=None, **config):
    """Two workers with the same batch come to what one comes to; gives how many exchanges."""
    alone, wanted, _ = updated(None, params, **config)
    shared, found, exchanges = updated(Alike(), params, **config)
    assert shared.steps == alone.steps
    assert shared.metrics == pytest.approx(alone.metrics, abs=1e-6)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-6, err_msg=name)
    return exchanges


@pytest.mark.parametrize("target_kl", [None, 1e9])
def test_a_step_takes_one_exchange(target_kl):
    assert compare(target_kl=target_kl) == EPOCHS


def test_advantages_take_one_exchange_an_update():
    assert updated(Alike(), normalize_advantage=True)[2] == EPOCHS + 1


def test_target_kl_ends_an_update_at_the_same_step():
    kept, _, _ = updated(None, target_kl=1e-6)
    assert kept.steps < EPOCHS
    assert compare(target_kl=1e-6) == kept.steps


@pytest.mark.parametrize(("asks", "of_a_step"), [("counts", 1), ("averages", 2)])
def test_a_step_with_effects_of_its_own_has_them_once(asks, of_a_step):
    # Metrics after the steps.
    assert compare({asks: True}) == EPOCHS * of_a_step + 1


@pytest.mark.parametrize("params", [{"looks": True}, {"waits": True}])
def test_a_metric_sees_what_the_step_has_done(params):
    compare(params)
