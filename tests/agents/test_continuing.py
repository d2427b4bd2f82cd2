"""Training goes on: in the same environment, in another process, to the same weights."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

import pgest
from pgest.variables import checkpoints
from tests import model_fns
from tests.agents.training_agents import counters, make_agent


def test_an_unfinished_batch_and_episode_go_on_with_the_same_environment():
    env = gymnasium.make("CartPole-v1")
    agent = make_agent()
    agent.train(env, timesteps=5)
    assert len(agent.memory) == 5
    agent.train(env, timesteps=3)
    assert len(agent.memory) == 8
    pieces = make_agent()
    other = gymnasium.make("CartPole-v1")
    for _ in range(4):
        pieces.train(other, timesteps=50)
    whole = make_agent().train(gymnasium.make("CartPole-v1"), timesteps=200)
    assert counters(pieces) == counters(whole)
    for name, value in model_fns.weights(whole).items():
        np.testing.assert_array_equal(model_fns.weights(pieces)[name], value, err_msg=name)


def test_an_episode_under_way_is_dropped_with_its_environment():
    agent = make_agent()
    agent.train(gymnasium.make("CartPole-v1"), timesteps=5)
    agent.train(gymnasium.make("CartPole-v1"), timesteps=3)
    assert len(agent.memory) == 3


class Closing(gymnasium.Wrapper):
    """Notes that it was closed."""

    closed: list = []

    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1"))

    def close(self):
        Closing.closed.append(self)
        self.env.close()


def test_only_environments_that_the_agent_made_are_closed():
    Closing.closed = []
    agent = make_agent(memory=pgest.RolloutMemory(horizon=8))
    mine, view = Closing(), pgest.make(Closing, num_envs=2)
    for env in (mine, view):
        agent.train(env, steps=1)
        agent.evaluate(env, episodes=1)
        agent.check(env)
        list(agent.predict(np.zeros([1, 4], np.float32), env=env))
    agent.train(mine, steps=1)
    assert not Closing.closed
    agent.train(Closing, steps=1)
    agent.train(mine, steps=1)
    assert len(Closing.closed) == 1, "the one of the factory, once another took its place"
    agent.evaluate(Closing, episodes=1)
    assert len(Closing.closed) == 2
    view.close()
    assert len(Closing.closed) == 4


@pytest.mark.slow
def test_two_runs_of_one_seed_end_in_bit_equal_weights():
    """Compiled, with minibatches, in environments that take their seeds from the agent."""

    def end_of(seed):
        shuffled = {"epochs": 2, "minibatch_size": 24}
        agent = make_agent(seed=seed, jit_compile="auto", optimizer_params=shuffled)
        return model_fns.weights(agent.train(gymnasium.make("CartPole-v1"), steps=9))

    first, second, other = end_of(3), end_of(3), end_of(4)
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)
    assert any(not np.array_equal(other[name], value) for name, value in first.items())


def test_a_second_process_goes_on_as_if_nothing_had_happened(tmp_path):
    """Through the checkpoint alone: another agent object, a new environment, the same weights."""
    first = make_agent(model_dir=tmp_path)
    first.train("CartPole-v1", max_steps=2)
    second = make_agent(model_dir=tmp_path)
    assert counters(second) == counters(first)
    second.train("CartPole-v1", max_steps=2)
    assert counters(second) == counters(first)
    second.train("CartPole-v1", max_steps=5)
    whole = make_agent().train("CartPole-v1", max_steps=5)
    assert counters(second) == counters(whole)
    for name, value in model_fns.weights(whole).items():
        np.testing.assert_array_equal(model_fns.weights(second)[name], value, err_msg=name)


def test_no_new_trace_after_the_first_update_and_the_first_evaluation(tmp_path):
    agent, env = (
        make_agent(model_fns.actor_critic, model_dir=tmp_path, jit_compile="auto"),
        "CartPole-v1",
    )
    agent.train(env, steps=1)
    agent.evaluate(env, episodes=1)
    env = gymnasium.make("CartPole-v1")
    agent.train(env, steps=1)
    traces = dict(agent.model.traces)
    agent.train(env, steps=3)
    agent.evaluate("CartPole-v1", episodes=2)
    agent.train(env, steps=2)
    assert agent.model.traces == traces


@pytest.mark.slow
def test_a_checkpoint_without_the_remainders_of_running_means_loads(tmp_path):
    def make(directory):
        model = pgest.models.A2C(normalize_observation=True, hidden_sizes=(8,))
        return make_agent(model, model_dir=directory)

    agent = make(tmp_path / "new").train("Pendulum-v1", steps=1)
    values = checkpoints.read(agent.latest_checkpoint())
    mean, remainder = values["observation_mean"], values.pop("observation_mean_remainder")
    assert remainder.any()
    variables = {name: tf.Variable(value) for name, value in values.items()}
    path = checkpoints.save(str(tmp_path / "old"), variables, step=1)
    again = make(tmp_path / "old")
    assert again.evaluate("Pendulum-v1", episodes=1)["episodes"] == 1
    np.testing.assert_array_equal(again.get_variable_value("observation_mean"), mean)
    assert not again.get_variable_value("observation_mean_remainder").any()
    assert again.train("Pendulum-v1", steps=1).global_step == 2
    assert agent.evaluate("Pendulum-v1", episodes=1, checkpoint_path=path)["episodes"] == 1
    np.testing.assert_array_equal(agent.get_variable_value("observation_mean_remainder"), remainder)
