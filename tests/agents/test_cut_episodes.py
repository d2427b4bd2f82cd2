"""What training says of episodes that are cut without a value, and of batches of few episodes."""

import warnings

import pytest

import pgest
from pgest import graph_environments
from tests import model_fns
from tests.agents.training_agents import make_agent
from tests.environments.environment_fakes import CountingEnv

NO_VALUE, FEW = "The model predicts no value", "The first batch of"


def train(memory, env, model_fn=model_fns.policy_gradient, steps=3):
    return make_agent(model_fn, memory).train(env, steps=steps)


@pytest.mark.parametrize(
    ("memory", "length", "truncates", "how"),
    [
        (pgest.RolloutMemory(8), 20, False, r"RolloutMemory\(horizon=8\) cuts episodes"),
        (pgest.BatchMemory(8, max_episode_length=4), 20, False, "BatchMemory.* cuts episodes"),
        (pgest.BatchMemory(8), 4, True, "the environment truncates episodes"),
    ],
)
def test_a_model_without_a_value_is_told_of_at_the_first_cut(memory, length, truncates, how):
    with pytest.warns(UserWarning, match=f"{NO_VALUE}, and {how}.*Predict one") as caught:
        agent = train(memory, CountingEnv(length, truncates))
    assert [NO_VALUE in str(warning.message) for warning in caught].count(True) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        agent.evaluate(CountingEnv(length, truncates), episodes=2)


def test_a_graph_environment_tells_when_its_program_is_built():
    with pytest.warns(UserWarning, match=rf"{NO_VALUE}, and RolloutMemory\(horizon=4\) cuts"):
        train(pgest.RolloutMemory(4), graph_environments.CartPole(num_envs=2), steps=1)


@pytest.mark.parametrize(
    ("model_fn", "memory", "env"),
    [
        (model_fns.actor_critic, pgest.RolloutMemory(8), CountingEnv(5, truncates=True)),
        (model_fns.actor_critic, pgest.RolloutMemory(4), graph_environments.CartPole(num_envs=2)),
        # Whole episodes that the environment ends.
        (model_fns.policy_gradient, pgest.BatchMemory(8), CountingEnv(5)),
    ],
)
def test_others_are_told_nothing(model_fn, memory, env):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=NO_VALUE)
        warnings.filterwarnings("error", message=FEW)
        train(memory, env, model_fn, steps=1)


@pytest.mark.parametrize(
    ("batch_size", "num_envs", "warns"), [(15, 4, True), (40, 4, False), (40, 1, False)]
)
def test_a_batch_of_few_episodes_of_each_environment(batch_size, num_envs, warns):
    # Episodes of 5: four environments end four at once, so a batch of 15 holds 4 of them and one
    # of 40 holds 8, two of each.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pgest.make(lambda: CountingEnv(5), num_envs=num_envs) as env:
            train(pgest.BatchMemory(batch_size), env)
    told = [str(warning.message) for warning in caught if FEW in str(warning.message)]
    assert len(told) == warns
    if warns:
        assert "holds 4 episodes of 4 environments" in told[0]
        assert "batches of 40 timesteps or more" in told[0]  # 2 * 4 * 5
