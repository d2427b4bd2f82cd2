"""What the settings of a task put around its environment."""

import pickle
import sys

import gymnasium
import numpy as np
import pytest

from pgest.commands import task_environments
from pgest.commands.task_settings import SettingsError


def test_without_such_settings_it_is_the_id():
    assert task_environments.environment("CartPole-v1", {}, training=True) == "CartPole-v1"
    with task_environments.made("CartPole-v1", render_mode="rgb_array") as env:
        assert env.render_mode == "rgb_array"


def test_frames_are_stacked_in_processes_too():
    factory = task_environments.environment("CartPole-v1", {"frame_stack": 3}, training=True)
    env = task_environments.made(pickle.loads(pickle.dumps(factory)), render_mode="rgb_array")
    assert env.observation_space.shape == (3, 4) and env.render_mode == "rgb_array"
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation[1], observation[2])  # filled up with the first
    following, *_ = env.step(0)
    np.testing.assert_array_equal(following[:2], observation[1:])
    env.close()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"preprocessing": "atary"}, "preprocessing is 'atary'; expected atari or null"),
        ({"frame_stack": 0}, "frame_stack is 0; expected"),
        ({"frame_stack": "four"}, "frame_stack is 'four'; expected"),
    ],
)
def test_values_that_are_none(values, message):
    with pytest.raises(SettingsError, match=message):
        task_environments.environment("CartPole-v1", values, training=True)


@pytest.mark.parametrize(
    "env_id, module, extra",
    [
        ("ALE/NotThere-v5", "ale_py", "atari"),
        ("MinAtar/NotThere-v1", "minatar.gym", "minatar"),
    ],
)
def test_a_missing_package_is_told_with_how_to_install_it(env_id, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    line = rf"{env_id} needs .*pip install 'pgest\[{extra}\]'"
    with pytest.raises(gymnasium.error.DependencyNotInstalled, match=line):
        task_environments.environment(env_id, {}, training=True)
