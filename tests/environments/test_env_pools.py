"""EnvPool behind a view: what has ended resets by itself, in EnvPool's threads."""

import gymnasium
import numpy as np
import pytest

import pgest
from pgest.environments import making
from pgest.environments.env_pools import EnvPoolEnvironments
from pgest.environments.vector import VectorEnvironments
from tests import model_fns
from tests.environments.environment_fakes import tilting, trajectories

envpool = pytest.importorskip("envpool")


def cartpoles(num_envs=3, seed=1):
    return envpool.make("CartPole-v1", env_type="gymnasium", num_envs=num_envs, seed=seed)


def make_agent(model_fn=model_fns.actor_critic, memory=None, **arguments):
    config = pgest.RunConfig(tf_random_seed=0, log_step_count_steps=None, jit_compile=False)
    memory = pgest.RolloutMemory(horizon=32) if memory is None else memory
    return pgest.PGAgent(model_fn, memory, config=config, **arguments)


def test_the_transitions_are_those_that_it_gives_when_it_resets_by_steps():
    view = making.view(cartpoles(), seed=0)
    assert isinstance(view, EnvPoolEnvironments)
    assert not view.resets_take_steps
    spending = VectorEnvironments(cartpoles(), given=None, seed=0, owned=False)
    assert spending.resets_take_steps
    rows = trajectories(view, 200)
    assert rows == trajectories(spending, 200)
    for row in rows:
        for (*_, last, terminated, truncated), (following, *_) in zip(row, row[1:], strict=False):
            assert terminated or truncated or last == following
    assert sum(step[4] for step in rows[0]) > 8


def test_resets_may_begin_and_be_waited_for_at_any_time():
    expected = trajectories(making.view(cartpoles(), seed=0), 100)
    view = making.view(cartpoles(), seed=0)
    moments = np.random.default_rng(0)

    def policy(observation):
        return tilting(observation)

    step = view.step

    def step_and_more(action):
        transition = step(action)
        before = transition.next_observation.copy()
        for chosen in moments.choice(["prepare", "settle", "observe"], size=moments.integers(4)):
            getattr(view, chosen)()
        np.testing.assert_array_equal(transition.next_observation, before)
        return transition

    view.step = step_and_more
    assert trajectories(view, 100, policy) == expected


def stepped_until_one_ends(view):
    while True:
        view.observe()
        transition = view.step(np.ones(view.num_envs, np.int64))
        if transition.terminated.any():
            return transition


def test_everything_may_reset_while_some_do():
    view = making.view(cartpoles(), seed=0)
    stepped_until_one_ends(view)
    view.prepare()
    view.reset()
    assert np.abs(view.observe()).max() < 0.05, "first observations"
    assert view.step(np.ones(3, np.int64)).reward.tolist() == [1.0] * 3


def test_what_ended_may_not_be_stepped():
    view = making.view(cartpoles(), seed=0)
    stepped_until_one_ends(view)
    with pytest.raises(RuntimeError, match="observe"):
        view.step(np.ones(3, np.int64))


def test_infos_of_what_ended_are_numbers():
    view = making.view(cartpoles(num_envs=64), seed=0)
    transition = stepped_until_one_ends(view)
    assert set(transition.infos) == set(np.flatnonzero(transition.terminated).tolist())
    for index, info in transition.infos.items():
        assert info["env_id"] == index
        assert info["elapsed_step"] > 5


def test_nests_of_observations():
    pool = envpool.make("MiniGrid-Empty-Random-5x5-v0", env_type="gymnasium", num_envs=4, seed=0)
    view, ended = making.view(pool, seed=0), 0
    actions = np.random.default_rng(0)
    for _ in range(400):
        observation = view.observe()
        assert set(observation) == set(view.observation_space.spaces)
        transition = view.step(actions.integers(3, size=4))
        ended += int(transition.terminated.sum())
    assert ended > 3


def test_a_wrapped_one_spends_steps_on_resetting():
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(cartpoles())
    assert making.view(wrapped, seed=0).resets_take_steps


def test_the_pool_is_nobodys_after_training_and_evaluating():
    agent, pool = make_agent(), cartpoles(num_envs=8)
    for _ in range(3):
        agent.train(pool, timesteps=200)
        agent.evaluate(pool, episodes=10)
        observation, _ = pool.reset()
        assert observation.shape == (8, 4)
        assert pool.step(np.zeros(8, np.int32))[1].tolist() == [1.0] * 8
    assert agent.global_timestep == 600


def test_columns_stay_in_step_for_recurrent_models_too():
    agent = make_agent(model_fns.recurrent, pgest.RolloutMemory(horizon=16))
    agent.train(cartpoles(), steps=4)
    assert agent.global_timestep == 4 * 16 * 3


def test_two_runs_of_one_seed_end_in_bit_equal_weights():
    first, second = (make_agent().train(cartpoles(), steps=5) for _ in range(2))
    for name, value in model_fns.weights(first).items():
        np.testing.assert_array_equal(value, second.get_variable_value(name), err_msg=name)


def test_a_hook_that_fails_leaves_the_pool_in_order():
    class Failing(pgest.BaseMonitor):
        def after_episode(self, context):
            if context.episode > 5:
                raise OSError("disk full")

    agent, pool = make_agent(), cartpoles()
    with pytest.raises(OSError, match="disk full"):
        agent.train(pool, steps=50, hooks=[Failing()])
    assert pool.reset()[0].shape == (3, 4)
    agent.train(cartpoles(), steps=1)
