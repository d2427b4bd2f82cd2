"""What a model_fn reads of the run while it acts is what holds then."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow_probability import distributions as tfd

import pgest
from tests.environments.environment_fakes import CountingEnv


def noting(features, labels, mode):
    """Predicts the counters and the run's progress as acting finds them; TRAIN reads none."""
    state = features["state"]
    distribution = tfd.Categorical(logits=tf_keras.layers.Dense(2)(state), dtype=tf.int64)
    if mode == pgest.Modes.PREDICT:
        progress = pgest.schedules.value(pgest.schedules.linear(0.0, 1.0))
        episode = tf.cast(pgest.get_global_episode(), tf.float32)
        rows = tf.ones_like(state[:, 0])
        predictions = {"episode": episode * rows, "progress": progress * rows}
        return pgest.EstimatorSpec(mode, distribution=distribution, predictions=predictions)
    loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(1e-3))
    return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)


class Batches(pgest.BatchMemory):
    """Keeps what it hands over."""

    def __init__(self, batch_size):
        super().__init__(batch_size)
        self.handed_over = []

    def sample(self):
        self.handed_over.append(super().sample())
        return self.handed_over[-1]


@pytest.mark.parametrize("jit_compile", [False, "auto"])
def test_the_episode_and_the_progress(jit_compile):
    memory = Batches(10)
    config = pgest.RunConfig(tf_random_seed=1, jit_compile=jit_compile)
    agent = pgest.PGAgent(noting, memory, config=config)

    class Evaluate(pgest.hooks.BaseMonitor):
        def after_run(self, context):
            context.evaluate(CountingEnv(length=5), episodes=1)

    agent.train(CountingEnv(length=5), steps=4, hooks=[Evaluate()])
    episodes = np.concatenate([batch["episode"] for batch in memory.handed_over])
    np.testing.assert_array_equal(episodes, np.arange(40) // 5)
    # As the last update before found it.
    progress = [batch["progress"].tolist() for batch in memory.handed_over]
    assert progress == [[0.0] * 10, [0.0] * 10, [0.25] * 10, [0.5] * 10]


class Payment(gymnasium.Env):
    """Pays the number of the action; four timesteps an episode."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(100)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._left = 4
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self._left -= 1
        return np.zeros(1, np.float32), float(action), self._left == 0, False, {}


def choosing_the_timestep(features, labels, mode):
    """Its action is the global_timestep that it finds."""
    state = features["state"]
    bias = tf.Variable(tf.zeros([]), name="bias")
    timestep = tf.fill([tf.shape(state)[0]], pgest.get_global_timestep())
    if labels is not None:
        timestep = labels["timestep"]
    logits = 1e3 * tf.one_hot(timestep, 100) + 0.0 * (state + bias)
    distribution = tfd.Categorical(logits=logits, dtype=tf.int64)
    if mode == pgest.Modes.PREDICT:
        predictions = {"timestep": timestep}
        return pgest.EstimatorSpec(mode, distribution=distribution, predictions=predictions)
    train_op = pgest.minimize(bias**2, tf_keras.optimizers.SGD(1e-3))
    return pgest.EstimatorSpec(mode, distribution=distribution, loss=bias**2, train_op=train_op)


def test_no_evaluation_moves_the_timestep_that_a_model_reads():
    agent = pgest.PGAgent(choosing_the_timestep, pgest.BatchMemory(4))
    agent.train(Payment(), timesteps=8)
    for greedy in (True, False, True):
        results = agent.evaluate(Payment(), 2, greedy=greedy)
        assert results["return_min"] == results["return_max"] == 4 * 8
        assert agent.get_variable_value("global_timestep") == 8
    finished = []

    class Note(pgest.BaseMonitor):
        def after_episode(self, context):
            finished.extend(episode.total for episode in context.episodes)

    agent.train(Payment(), timesteps=4, hooks=[Note()])
    assert finished == [8 + 9 + 10 + 11]
