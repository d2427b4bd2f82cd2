"""A warm start takes over weights; the episodes of in-graph environments begin anew."""

import warnings

import numpy as np
import pytest

import pgest
from pgest.graph_environments import CartPole


def make_agent(seed, **arguments):
    config = pgest.RunConfig(tf_random_seed=seed, jit_compile=False)
    model = pgest.models.A2C(hidden_sizes=(4,), normalize_reward=True)
    return pgest.PGAgent(model, pgest.RolloutMemory(horizon=5), config=config, **arguments)


def environment(agent):
    return {
        name: agent.get_variable_value(name)
        for name in agent.get_variable_names()
        if name.startswith("environment/")
    }


@pytest.mark.slow
def test_no_episode_of_the_other_run_goes_on(tmp_path):
    first = make_agent(1, model_dir=tmp_path).train(CartPole(num_envs=2), steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is reported: nothing is missing
        warm = make_agent(2, warm_start_from=tmp_path)
        warm.check(CartPole(num_envs=2))
    new = make_agent(2)
    new.check(CartPole(num_envs=2))
    assert environment(warm).keys() == environment(new).keys() == environment(first).keys()
    for name, value in environment(warm).items():
        np.testing.assert_array_equal(value, environment(new)[name])
    kernel = "policy_0/kernel"
    np.testing.assert_array_equal(warm.get_variable_value(kernel), first.get_variable_value(kernel))
