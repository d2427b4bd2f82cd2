"""Environments and agents whose evaluations play copies."""

import gymnasium
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest
from tests.environments.environment_fakes import CountingEnv


class Unknown(gymnasium.Wrapper):
    """Does nothing; but of a user's wrapper nobody knows that, so it is not copied."""


def agent_of(model=None, **settings):
    settings = {"evaluate_in_copies": True, **settings}  # of the factories below too
    config = pgest.RunConfig(tf_random_seed=3, log_step_count_steps=None, **settings)
    model = model or pgest.models.PPO(hidden_sizes=(8,))
    return pgest.PGAgent(model, pgest.RolloutMemory(16), config=config)


def plain(features, labels, mode):
    """Without a loss of EVAL, so that only what was played is compared."""
    if mode == pgest.Modes.EVAL:
        raise NotImplementedError
    hidden = tf_keras.layers.Dense(8, activation="tanh")(tf.cast(features["state"], tf.float32))
    choices = int(pgest.get_action_space().n)
    distribution = tfp.distributions.Categorical(logits=tf_keras.layers.Dense(choices)(hidden))
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution)
    loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(1e-2))
    return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)


class SteadyEnv(CountingEnv):
    """Shows nothing of the episodes before."""

    def observe(self):
        return np.array([self.steps, 0], np.float32)


class Made:  # a factory that keeps what it has made
    def __init__(self, make):
        self.make, self.envs = make, []

    def __call__(self):
        self.envs.append(self.make())
        return self.envs[-1]
