"""`agent.check(env)`: the model and the environment, before anything is trained."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import pgest
from pgest.graph_environments import CartPole
from tests import model_fns
from tests.agents.training_agents import counters, make_agent
from tests.environments.given_environments import GivingEnv


def test_the_table_and_the_counters(capsys):
    agent = make_agent()
    report = agent.check(gymnasium.make("CartPole-v1"))
    assert capsys.readouterr().out == report + "\n"
    for name in (
        "dense/kernel",
        "observation_space",
        "reward",
        "1 to 1 in 100 timesteps",
        "seeds",
    ):
        assert name in report
    assert counters(agent) == (0, 0, 0)
    assert "reward" not in agent.check("CartPole-v1", timesteps=0)


def test_what_is_learnt_afterwards_is_what_would_have_been_learnt():
    values = []
    for checks in (0, 1):
        agent, env = make_agent(), gymnasium.make("CartPole-v1")
        for _ in range(checks):
            agent.check(env)
        agent.train(env, steps=2)
        values.append(model_fns.weights(agent))
    for name, value in values[0].items():
        np.testing.assert_array_equal(value, values[1][name])
    agent.check(env, timesteps=3)  # in the middle of an episode
    agent.train(env, steps=1)
    assert agent.global_step == 3


def test_faults_raise_after_the_table_and_doubts_warn(capsys):
    space = spaces.Box(-1, 1, (4,))
    with pytest.raises(pgest.EnvironmentFailure, match="reward of shape"):
        make_agent().check(GivingEnv(space, at=3, reward=np.ones(2)))
    assert "failed after 2" in capsys.readouterr().out
    outside = np.full(4, 2, np.float32)
    with pytest.warns(UserWarning, match="observation_space: 2.0 is outside of the bounds"):
        make_agent().check(GivingEnv(space, observation=outside))


def test_in_graph_environments_are_traced_alone():
    assert "observation_space" not in make_agent(memory=pgest.RolloutMemory(horizon=8)).check(
        CartPole(num_envs=2)
    )


@pytest.mark.parametrize("timesteps", [-1, 1.5, True])
def test_a_number_of_timesteps(timesteps):
    with pytest.raises(ValueError, match="timesteps is .*expected an integer of 0 or more"):
        make_agent().check("CartPole-v1", timesteps=timesteps)
