"""A run that goes on from a checkpoint ends, bit for bit, as one that was never stopped."""

import functools
import logging

import gymnasium
import numpy as np
import pytest

import pgest
from tests import model_fns
from tests.agents.interrupted_runs import assert_same, middle, run_with_snapshots


def new_agent(directory, model_fn=model_fns.actor_critic, memory=None, overlap=False, **arguments):
    memory = memory or functools.partial(pgest.RolloutMemory, 16)
    config = pgest.RunConfig(
        tf_random_seed=3,
        log_step_count_steps=None,
        save_summary_steps=None,
        jit_compile=False,
        overlap_updates=overlap,
        keep_checkpoint_max=None,
    )
    return pgest.PGAgent(model_fn, memory(), model_dir=directory, config=config, **arguments)


def cart_pole():
    return gymnasium.make("CartPole-v1")


def several():
    return pgest.make("CartPole-v1", num_envs=3)


class Masked(gymnasium.Wrapper):
    """CartPole that forbids an action at every third timestep."""

    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1"))
        self._time = 0

    def _mask(self):
        return np.array([self._time % 3 != 0, True])

    def reset(self, **arguments):
        observation, info = self.env.reset(**arguments)
        self._time = 0
        return observation, {**info, "action_mask": self._mask()}

    def step(self, action):
        *rest, info = self.env.step(action)
        self._time += 1
        return *rest, {**info, "action_mask": self._mask()}


BATCH = {"memory": functools.partial(pgest.BatchMemory, 40)}
KINDS = {
    "rollouts": ({}, cart_pole),
    "rollouts of several": ({}, several),
    "whole episodes": (BATCH, cart_pole),
    "whole episodes of several": (BATCH, several),
    "recurrent": ({"model_fn": model_fns.recurrent}, cart_pole),
    "recurrent, several": ({"model_fn": model_fns.recurrent}, several),
    "masked": ({}, Masked),
    "overlapped": ({"overlap": True}, cart_pole),
    "overlapped, several": ({"overlap": True}, several),
}


def asynchronous():
    return pgest.make("CartPole-v1", num_envs=2, vectorization="async")


def _ends_equal(kind, unit, tmp_path, caplog):
    arguments, environment = KINDS[kind]
    agent = functools.partial(new_agent, **arguments)
    limits = {"max_timesteps": 300}
    every = pgest.Every(**{unit: 2})
    whole, paths = run_with_snapshots(agent, environment, tmp_path, every, **limits)
    for path in middle(paths):
        resumed = agent(path)
        assert 0 < resumed.global_timestep < 300
        with caplog.at_level(logging.INFO, "pgest"):
            resumed.train(environment(), **limits)
        assert "played again" in caplog.text
        assert_same(whole, resumed)


@pytest.mark.parametrize("kind", ["rollouts of several", "whole episodes", "overlapped, several"])
def test_a_run_goes_on_bit_for_bit(kind, tmp_path, caplog):
    _ends_equal(kind, "episodes", tmp_path, caplog)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "in processes"])
@pytest.mark.parametrize("unit", ["episodes", "steps"])
def test_every_kind_goes_on_bit_for_bit(kind, unit, tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(KINDS, "in processes", ({}, asynchronous))
    _ends_equal(kind, unit, tmp_path, caplog)


class Forgetful(gymnasium.Wrapper):
    """Begins elsewhere each time that it is made: no function of its seed and actions."""

    made = 0

    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1"))
        Forgetful.made += 1
        self._offset = np.float32(Forgetful.made) * np.float32(1e-3)

    def reset(self, **arguments):
        observation, info = self.env.reset(**arguments)
        return observation + self._offset, info


def test_what_does_not_come_back_is_named_once_and_the_run_goes_on(tmp_path):
    every, limits = pgest.Every(timesteps=20), {"max_timesteps": 120}
    _, paths = run_with_snapshots(new_agent, Forgetful, tmp_path, every, **limits)
    resumed = new_agent(middle(paths, 1)[0])
    with pytest.warns(UserWarning, match="CartPole-v1, played again, it stands elsewhere") as seen:
        resumed.train(Forgetful(), **limits)
    assert len(seen) == 1
    assert resumed.global_timestep == 120


def test_a_vector_with_a_generator_of_its_own_is_named(tmp_path):
    def native():
        return pgest.make("CartPole-v1", num_envs=2, vectorization="native")

    new_agent(tmp_path).train(native(), max_steps=1)
    with pytest.warns(UserWarning, match="resets itself from a generator of its own"):
        new_agent(tmp_path).train(native(), max_steps=2)
