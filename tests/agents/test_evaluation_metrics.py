"""`eval_metric_ops` and the loss of an evaluation."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import pgest
from tests import model_fns
from tests.environments.environment_fakes import PayingEnv


def evaluate(make_metrics, **arguments):
    def model_fn(features, labels, mode, params):
        spec = model_fns.policy_gradient(features, labels, mode, params)
        if mode != pgest.Modes.EVAL:
            return spec
        metrics = make_metrics(labels)
        return pgest.EstimatorSpec(
            mode, loss=tf.reduce_mean(labels["advantage"]), eval_metric_ops=metrics
        )

    agent = pgest.PGAgent(
        model_fn,
        pgest.BatchMemory(episodes=1),
        config=pgest.RunConfig(tf_random_seed=0, jit_compile=False),
        **arguments,
    )
    return [agent.evaluate(PayingEnv([1.0, 2.0, 3.0]), episodes=2) for _ in range(2)]


def pair(update_first):
    """A mean as users of Estimator wrote it: what it is, and what brings it up to date."""

    def make(labels):
        reward = tf.reshape(labels["reward"], [-1])
        total, count = tf.Variable(0.0, name="total"), tf.Variable(0.0, name="count")
        value = None if update_first else total / count
        adds = [total.assign_add(tf.reduce_sum(reward)), count.assign_add(6.0)]
        value = total / count if update_first else value
        return {
            "mean": (value, tf.group(adds)),
            "count": (count.read_value(), adds[1]),
        }

    return make


@pytest.mark.parametrize("update_first", [False, True])
def test_a_pair_reports_its_value_after_its_update(update_first):
    for results in evaluate(pair(update_first)):
        assert results["mean"] == 2.0 and results["count"] == 6.0


@pytest.mark.parametrize("name", ["return_mean", "length_max", "loss", "episodes", "global_step"])
def test_names_of_evaluate_itself_are_refused(name):
    with pytest.raises(ValueError, match=f"eval_metric_ops has {name}, which evaluate.. reports"):
        evaluate(lambda labels: {name: (tf.constant(1.0), tf.no_op())})


def test_a_metric_is_a_number():
    def make(labels):
        metric = tf_keras.metrics.MeanTensor()
        metric.update_state(tf.zeros([2]))
        return {"both": metric}

    with pytest.raises(ValueError, match=r"eval_metric_ops\['both'\]: got shape \(2,\), expected"):
        evaluate(make)
    results, _ = evaluate(lambda labels: {"one": (tf.constant([4.0]), tf.no_op())})
    assert results["one"] == 4.0


@pytest.mark.parametrize("normalize", [True, False])
def test_the_advantage_is_that_of_training(normalize):
    def metrics(labels):
        return {"std": (tf.math.reduce_std(labels["advantage"]), tf.no_op())}

    arguments = {"optimizer_params": {"normalize_advantage": normalize, "discount": 1.0}}
    results, _ = evaluate(metrics, **arguments)
    # Rewards to go 6, 5, 3, twice; the standard deviation of training is that of a sample.
    advantage = np.array([6.0, 5.0, 3.0] * 2)
    expected = (advantage - advantage.mean()) / advantage.std(ddof=1) if normalize else advantage
    assert results["loss"] == pytest.approx(expected.mean(), abs=1e-5)
    assert results["std"] == pytest.approx(expected.std(), rel=1e-5)


def v1_metrics(features, labels, mode, params):
    """Metrics made before the mode is asked for, as in TensorFlow's guide to custom Estimators."""
    spec = model_fns.policy_gradient(features, labels, mode, params)
    if mode == pgest.Modes.PREDICT:
        return spec
    local = [tf.compat.v1.GraphKeys.LOCAL_VARIABLES]
    batches = tf.compat.v1.Variable(0.0, trainable=False, name="batches", collections=local)
    metrics = {
        "accuracy": tf.compat.v1.metrics.accuracy(labels["action"], spec.distribution.mode()),
        "rows": tf.compat.v1.metrics.mean(labels["reward"], name="mean_op"),
        "batches": (batches.read_value(), batches.assign_add(1.0)),
    }
    if mode == pgest.Modes.EVAL:
        return pgest.EstimatorSpec(mode, loss=spec.loss, eval_metric_ops=metrics)
    return spec


def test_metrics_of_tensorflow_1_made_in_every_mode_belong_to_one_evaluation(tmp_path):
    agent = pgest.PGAgent(
        v1_metrics,
        pgest.BatchMemory(episodes=2),
        model_dir=tmp_path,
        params={"learning_rate": 0.1},
        config=pgest.RunConfig(tf_random_seed=0, jit_compile=False),
    )
    for _ in range(2):
        agent.train("CartPole-v1", steps=3)  # samples that are not the modes are not counted
        results = agent.evaluate("CartPole-v1", episodes=2)
        assert (results["accuracy"], results["rows"], results["batches"]) == (1.0, 1.0, 1.0)
    names = " ".join(agent.get_variable_names())
    assert not [name for name in ("total", "count", "batches") if name in names]
