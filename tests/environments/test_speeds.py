"""Measuring which way of stepping environments is the fastest."""

import time

import gymnasium
import numpy as np
import pytest

import pgest
from pgest.environments import making
from pgest.environments import speeds as environment_speeds
from tests.environments.environment_fakes import MaskedEnv


class Sleepy(gymnasium.Env):
    """Each step takes twenty milliseconds, in which others may work."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        time.sleep(0.02)
        return np.zeros(2, np.float32), 0.0, False, False, {}


@pytest.mark.slow
def test_processes_win_where_a_step_takes_long():
    speeds = pgest.measure_environments(
        Sleepy, 2, vectorizations=["sync", "async", "native"], seconds=0.3
    )
    assert [speed.vectorization for speed in speeds] == ["async", "sync", "native"]
    waiting, in_a_row, native = speeds
    assert in_a_row.timesteps_per_second <= 50.0 < waiting.timesteps_per_second
    assert native.failure == "of an id only, and a factory was given"
    assert "sync" in str(in_a_row) and native.failure in str(native)


def test_the_native_vector_wins_where_there_is_one():
    ways = ["sync", "native"]
    speeds = pgest.measure_environments("CartPole-v1", 64, vectorizations=ways, seconds=0.1)
    assert [speed.vectorization for speed in speeds] == ["native", "sync"]
    speeds = pgest.measure_environments("Acrobot-v1", 2, vectorizations=ways, seconds=0.05)
    assert speeds[0].failure is None
    assert speeds[1].timesteps_per_second == 0.0
    assert "Acrobot-v1" in speeds[1].failure


def test_what_was_measured_is_timesteps_a_second():
    (speed,) = pgest.measure_environments(Sleepy, 2, vectorizations=["sync"], seconds=0.2)
    assert 10.0 < speed.timesteps_per_second <= 50.0


def test_actions_are_those_that_the_mask_allows():
    # Another action is an error of the environment, which would be the failure.
    (speed,) = pgest.measure_environments(MaskedEnv, 3, vectorizations=["sync"], seconds=0.05)
    assert speed.failure is None
    view = making.make(MaskedEnv, 3, seed=0)
    view.observe()
    for _ in range(20):
        actions = environment_speeds._allowed(view, np.zeros(3, np.int64))
        assert view.action_mask[np.arange(3), actions].all()
        view.step(actions)
        view.observe()


@pytest.mark.parametrize(
    ("name", "value"),
    [("seconds", 0), ("seconds", True), ("vectorizations", ["threads"]), ("num_envs", 0)],
)
def test_what_makes_no_sense_is_refused(name, value):
    arguments = {"num_envs": 2, "vectorizations": ["sync"], "seconds": 0.01, name: value}
    with pytest.raises(ValueError, match=name):
        pgest.measure_environments("CartPole-v1", **arguments)
