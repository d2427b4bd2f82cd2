"""A recurrent policy solves a task of memory that a feed-forward one cannot."""

import pytest

import pgest
from pgest import models
from tests.models.model_environments import Recall


def accuracy(cell):
    agent = pgest.PGAgent(
        models.PPO(cell=cell, cell_size=16, hidden_sizes=(16,), learning_rate=1e-2),
        pgest.RolloutMemory(horizon=32),
        optimizer_params={"epochs": 4, "minibatch_size": 128},
        config=pgest.RunConfig(tf_random_seed=0),
    )
    agent.train(pgest.make(Recall, num_envs=16), timesteps=32 * 16 * 40)
    return (agent.evaluate(Recall, episodes=100)["return_mean"] + 1) / 2


@pytest.mark.slow
@pytest.mark.learning
def test_only_a_policy_with_a_memory_recalls():
    assert accuracy("gru") >= 0.95
    assert accuracy("lstm") >= 0.95
    assert 0.3 <= accuracy(None) <= 0.7
