"""Evaluating and predicting with the greedy policy."""

import dataclasses
import glob
import os

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from gymnasium import spaces
from tensorboard.backend.event_processing import event_accumulator

import pgest
from tests import model_fns
from tests.environments.environment_fakes import PayingEnv, SpaceEnv


def make_agent(model_fn=model_fns.policy_gradient, **arguments):
    config = pgest.RunConfig(tf_random_seed=0, log_step_count_steps=None, jit_compile=False)
    return pgest.PGAgent(model_fn, pgest.BatchMemory(batch_size=64), config=config, **arguments)


def with_metrics(features, labels, mode, params):
    """Counts, in EVAL, how often the first action was taken, in both ways of writing a metric."""
    spec = model_fns.policy_gradient(features, labels, mode, params)
    if mode != pgest.Modes.EVAL:
        return spec
    first = tf.cast(tf.equal(labels["action"], 0), tf.float32)
    mean = tf_keras.metrics.Mean(name="first")
    mean.update_state(first)
    return pgest.EstimatorSpec(
        mode,
        loss=tf.reduce_mean(first),
        eval_metric_ops={"first": mean, "pair": (tf.reduce_mean(first), tf.no_op())},
    )


def test_statistics_counters_and_nothing_moves():
    agent = make_agent()
    agent.train("CartPole-v1", steps=2)
    weights = model_fns.weights(agent)
    results = agent.evaluate("CartPole-v1", episodes=3)
    assert results["episodes"] == 3
    assert results["return_min"] <= results["return_mean"] <= results["return_max"]
    assert results["length_mean"] == results["return_mean"]
    assert results["global_step"] == 2
    assert results["global_timestep"] == agent.global_timestep
    for name, value in model_fns.weights(agent).items():
        np.testing.assert_array_equal(weights[name], value, err_msg=name)


def test_evaluations_repeat_themselves_and_ignore_training_seeds():
    agent = make_agent()
    agent.train("CartPole-v1", steps=1)
    assert agent.evaluate("CartPole-v1", episodes=3) == agent.evaluate("CartPole-v1", episodes=3)


def test_eval_metric_ops_and_loss_of_the_evaluation_batch():
    agent = make_agent(with_metrics)
    agent.train("CartPole-v1", steps=1)
    results = agent.evaluate("CartPole-v1", episodes=2)
    assert 0 < results["loss"] < 1
    assert results["first"] == pytest.approx(results["loss"])
    assert results["pair"] == pytest.approx(results["loss"])
    again = agent.evaluate("CartPole-v1", episodes=2)
    assert again["first"] == pytest.approx(results["first"]), "the metric starts anew each time"


@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP"])
@pytest.mark.parametrize("episodes", [1, 2, 3])
def test_the_loss_is_of_the_episodes_that_count(mode, episodes):
    def model_fn(features, labels, mode, params):
        spec = model_fns.actor_critic(features, labels, mode, params)
        if mode != pgest.Modes.EVAL:
            return spec
        reward = tf.reshape(labels["reward"], [-1])
        mean = tf_keras.metrics.Mean(name="mean")
        mean.update_state(reward)
        loss = tf.cast(tf.size(reward), tf.float32)
        return pgest.EstimatorSpec(mode, loss=loss, eval_metric_ops={"reward": mean})

    env = gymnasium.vector.SyncVectorEnv(
        [lambda: PayingEnv([5.0] * 5), lambda: PayingEnv([1.0])],
        autoreset_mode=gymnasium.vector.AutoresetMode[mode],
    )
    results = make_agent(model_fn).evaluate(env, episodes=episodes)
    lengths = {1: [5], 2: [5, 1], 3: [5, 5, 1]}[episodes]
    assert results["loss"] == sum(lengths)
    assert results["length_mean"] == pytest.approx(np.mean(lengths))
    assert results["reward"] == pytest.approx(np.mean(np.repeat(lengths, lengths)))


def test_a_fresh_process_evaluates_the_newest_checkpoint(tmp_path):
    agent = make_agent(model_dir=tmp_path)
    agent.train("CartPole-v1", max_steps=1)
    first = agent.latest_checkpoint()
    other = make_agent(model_dir=tmp_path)
    before = other.evaluate("CartPole-v1", episodes=2)
    agent.train("CartPole-v1", max_steps=30)
    after = other.evaluate("CartPole-v1", episodes=2)
    assert after["global_step"] == 30
    assert after == agent.evaluate("CartPole-v1", episodes=2)
    old = other.evaluate("CartPole-v1", episodes=2, checkpoint_path=first)
    assert old == before, "the counters are those of the weights that were evaluated"
    assert other.evaluate("CartPole-v1", episodes=2) == after, "the present weights came back"


def test_evaluating_the_training_environment_drops_its_episode():
    env = gymnasium.make("CartPole-v1")
    agent = make_agent()
    agent.train(env, timesteps=5)
    agent.evaluate(env, episodes=1)
    assert len(agent.memory) == 0
    agent.train(env, timesteps=5)
    assert agent.global_timestep == 10


def test_vector_environments_play_equal_shares():
    agent = make_agent()
    agent.train("CartPole-v1", steps=1)
    results = agent.evaluate(pgest.make("CartPole-v1", num_envs=2), episodes=5)
    assert results["episodes"] == 5


def test_predict_yields_a_row_an_observation():
    agent = make_agent(model_fns.actor_critic)
    agent.train("CartPole-v1", steps=1)
    observations = np.random.default_rng(0).normal(size=(3, 4))
    rows = list(agent.predict(observations))
    assert len(rows) == 3
    assert rows[0]["value"].shape == ()
    assert {int(row["action"]) for row in rows} <= {0, 1}


@pytest.mark.parametrize("model_fn", [model_fns.actor_critic, model_fns.recurrent])
def test_predict_is_traced_once_for_any_number_of_observations(model_fn):
    agent = make_agent(model_fn)
    observations = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    together = list(agent.predict(observations, env="CartPole-v1"))
    traces = agent.model.traces[pgest.Modes.PREDICT]
    for size in (1, 2, 5):
        rows = list(agent.predict(observations[:size]))
        assert [row["action"] for row in rows] == [row["action"] for row in together[:size]]
        found = [row["log_prob"] for row in rows]
        np.testing.assert_allclose(found, [row["log_prob"] for row in together[:size]], rtol=1e-5)
    assert agent.model.traces[pgest.Modes.PREDICT] == traces


def test_predict_with_a_model_that_has_to_know_how_many():
    def model_fn(features, labels, mode, params):
        rows = int(features["state"].shape[0])  # a TypeError where it is not known
        spec = model_fns.policy_gradient(features, labels, mode, params)
        return dataclasses.replace(spec, predictions={"rows": tf.fill([rows], rows)})

    agent = make_agent(model_fn)
    for size in (2, 3):
        found = agent.predict(np.zeros([size, 4], np.float32), env="CartPole-v1")
        assert [int(row["rows"]) for row in found] == [size] * size
    traces = agent.model.traces[pgest.Modes.PREDICT]
    list(agent.predict(np.zeros([2, 4], np.float32)))
    assert agent.model.traces[pgest.Modes.PREDICT] == traces


def test_predict_tells_the_counters_to_a_model_that_reads_them():
    def model_fn(features, labels, mode, params):
        spec = model_fns.policy_gradient(features, labels, mode, params)
        if mode != pgest.Modes.PREDICT:
            return spec
        timesteps = tf.fill(tf.shape(features["state"])[:1], pgest.get_global_timestep())
        return dataclasses.replace(spec, predictions={"timesteps": tf.identity(timesteps)})

    agent = make_agent(model_fn)
    agent.train("CartPole-v1", timesteps=37)
    [row] = agent.predict(np.zeros([1, 4], np.float32))
    assert row["timesteps"] == 37


class Moments(pgest.BaseMonitor):
    """Writes down when it was called, and what it saw."""

    def __init__(self):
        self.called = []

    def begin(self, context):
        self.called.append("begin")

    def before_run(self, context):
        self.called.append("before_run")

    def after_run(self, context):
        self.called.append("after_run")

    def after_episode(self, context):
        self.called.append(("after_episode", context.episodes[0].total))

    def end(self, context):
        self.called.append(("end", context.step, context.metrics.get("return_mean")))


def test_hooks_of_the_specs_of_eval_and_predict():
    evaluation, prediction = Moments(), Moments()

    def model_fn(features, labels, mode, params):
        spec = model_fns.policy_gradient(features, labels, mode, params)
        return dataclasses.replace(
            spec, evaluation_hooks=[evaluation], prediction_hooks=[prediction]
        )

    agent = make_agent(model_fn)
    agent.train("CartPole-v1", steps=1)
    assert not evaluation.called and not prediction.called, "they are not of training"
    results = agent.evaluate("CartPole-v1", episodes=2)
    begin, first, second, end = evaluation.called
    assert begin == "begin" and end == ("end", 1, results["return_mean"])
    assert [first[0], second[0]] == ["after_episode"] * 2
    assert (first[1] + second[1]) / 2 == results["return_mean"]
    assert not prediction.called
    list(agent.predict(np.zeros([1, 4], np.float32)))
    assert prediction.called == ["begin", ("end", 1, None)]


def test_predict_needs_to_know_the_spaces():
    with pytest.raises(ValueError, match="env="):
        list(make_agent().predict(np.zeros([1, 4], np.float32)))


@pytest.mark.parametrize(
    ("observations", "said"),
    [
        (np.zeros([4]), r"shape \(4,\); expected \(None, 4\).*observation\[None\]"),
        (np.zeros([2, 5]), r"shape \(2, 5\); expected \(None, 4\)"),
        (3.0, r"shape \(\); expected \(None, 4\)"),
        ({"state": np.zeros([2, 4])}, r"takes a nest of shapes \(None, 4\)"),
    ],
)
def test_predict_says_what_it_takes(observations, said):
    with pytest.raises(ValueError, match=said):
        list(make_agent().predict(observations, env="CartPole-v1"))


def test_predict_takes_as_many_rows_of_each_part():
    env = SpaceEnv(spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(0, 1, (2,))), spaces.Discrete(2))
    observations = {"a": np.zeros([3], np.int64), "b": np.zeros([4, 2], np.float32)}
    with pytest.raises(ValueError, match=r"'b': \(4, 2\).*the same size everywhere"):
        list(make_agent().predict(observations, env=env))


@pytest.mark.parametrize(
    ("space", "observations", "said"),
    [
        (spaces.Box(0, 255, (2,), np.uint8), [[0.5, 1]], "0.5 of dtype float64.*uint8"),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([[-1, 1]]), "-1 of dtype int64.*uint8"),
        (spaces.Discrete(3), np.array([0, 7]), r"7 in row 1, .*Discrete\(3\)"),
        (spaces.Discrete(3), np.array([np.nan]), "nan of dtype float64"),
        (spaces.Box(0, 1, (2,)), [[0, 1], [np.inf, 0]], r"\[inf  ?0.\] in row 1 of.*finite"),
        (spaces.Box(0, 1, (2,)), [[0, 1], [0]], r"is no array.*part\.$"),
    ],
)
def test_predict_changes_no_observation_in_silence(space, observations, said):
    env = SpaceEnv(space, spaces.Discrete(2))
    with pytest.raises(pgest.EnvironmentFailure, match=said) as caught:
        list(make_agent().predict(observations, env=env))
    assert isinstance(caught.value, ValueError)


def test_results_are_on_tensorboard_beside_the_training_curves(tmp_path):
    agent = make_agent(model_dir=tmp_path)
    agent.train("CartPole-v1", steps=2)
    results = agent.evaluate("CartPole-v1", episodes=2)
    agent.evaluate("CartPole-v1", episodes=2, name="long")
    assert os.path.isdir(tmp_path / "eval_long")
    (file,) = glob.glob(str(tmp_path / "eval" / "events*"))
    events = event_accumulator.EventAccumulator(file).Reload()
    (point,) = events.Tensors("episode/return")
    assert point.step == agent.global_timestep
    assert tf.make_ndarray(point.tensor_proto) == pytest.approx(results["return_mean"])


def test_a_prediction_may_not_be_called_like_a_label():
    def model_fn(features, labels, mode, params):
        spec = model_fns.policy_gradient(features, labels, mode, params)
        if mode != pgest.Modes.PREDICT:
            return spec
        advantage = tf.zeros(tf.shape(features["state"])[:1])
        return pgest.EstimatorSpec(mode, {"advantage": advantage}, distribution=spec.distribution)

    with pytest.raises(ValueError, match="predicts 'advantage'.*rename it"):
        make_agent(model_fn).train("CartPole-v1", steps=1)
