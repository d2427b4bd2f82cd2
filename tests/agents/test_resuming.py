"""A run that goes on from a checkpoint ends, bit for bit, as one that was never stopped."""

import functools
import logging

import gymnasium
import numpy as np
import pytest
import tf_keras
from gymnasium.vector import SyncVectorEnv

import pgest
from pgest import models, schedules
from tests import model_fns
from tests.agents.interrupted_runs import (
    Snapshots,
    assert_same,
    middle,
    run_config,
    run_with_snapshots,
)


def new_agent(directory, model_fn=model_fns.actor_critic, memory=None, overlap=False, **arguments):
    memory = memory or functools.partial(pgest.RolloutMemory, 16)
    return pgest.PGAgent(
        model_fn, memory(), model_dir=directory, config=run_config(overlap), **arguments
    )


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


def following_progress(kind, **arguments):
    """A ready-made model with running means, whose learning rate follows the run's progress."""
    rate = schedules.linear(1e-2, 0.0)
    return kind(hidden_sizes=(8,), learning_rate=rate, normalize_observation=True, **arguments)


BATCH = {"memory": functools.partial(pgest.BatchMemory, 40)}
PPO = {
    "model_fn": following_progress(models.PPO, normalize_reward=True),
    "optimizer_params": {"epochs": 2, "minibatch_size": 8},
}
# Its moments are known to TensorFlow by handle alone, as those of the ready-made models.
LEGACY = {"params": {"optimizer": tf_keras.optimizers.legacy.Adam}, "overlap": True}
LSTM = {"model_fn": following_progress(models.A2C, cell="lstm", cell_size=4)}
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
    "overlapped, whole episodes": ({**BATCH, "overlap": True}, cart_pole),
    "PPO": (PPO, cart_pole),
    "PPO, overlapped": ({**PPO, "overlap": True}, cart_pole),
    "legacy Adam, overlapped": (LEGACY, cart_pole),
    "A2C with an LSTM, several": (LSTM, several),
    "TRPO": ({"model_fn": following_progress(models.TRPO)}, cart_pole),
    "VPG": ({"model_fn": following_progress(models.VPG, normalize_reward=True), **BATCH}, several),
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PPO", "whole episodes", "overlapped, several"])
def test_a_run_goes_on_bit_for_bit(kind, tmp_path, caplog):
    _ends_equal(kind, "episodes", tmp_path, caplog)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "in processes"])
@pytest.mark.parametrize("unit", ["episodes", "steps"])
def test_every_kind_goes_on_bit_for_bit(kind, unit, tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(KINDS, "in processes", ({}, asynchronous))
    _ends_equal(kind, unit, tmp_path, caplog)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["overlapped, whole episodes", "PPO, overlapped", "recurrent"])
def test_a_run_that_has_gone_on_goes_on_once_more(kind, tmp_path):
    """From checkpoints that the second process writes before its first update, and after it."""
    arguments, environment = KINDS[kind]
    agent = functools.partial(new_agent, **arguments)
    limits = {"max_timesteps": 200}
    whole, paths = run_with_snapshots(
        agent, environment, tmp_path, pgest.Every(episodes=2), **limits
    )
    again = tmp_path / "again"
    again.mkdir()
    snapshots = Snapshots(again)
    saver = pgest.CheckpointSaverHook(pgest.Every(episodes=1), listeners=[snapshots])
    (path,) = middle(paths, 1)
    agent(path).train(environment(), hooks=[saver], **limits)
    for path in snapshots.paths[:3]:
        third = agent(path)
        third.train(environment(), **limits)
        assert_same(whole, third)


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

    def step(self, action):
        observation, *rest = self.env.step(action)
        return observation + self._offset, *rest


def test_what_does_not_come_back_is_named_once_and_the_run_goes_on(tmp_path):
    every, limits = pgest.Every(timesteps=20), {"max_timesteps": 120}
    _, paths = run_with_snapshots(new_agent, Forgetful, tmp_path, every, **limits)
    resumed = new_agent(middle(paths, 1)[0])
    with pytest.warns(UserWarning, match="CartPole-v1, played again, it stands elsewhere") as seen:
        resumed.train(Forgetful(), **limits)
    assert len(seen) == 1
    assert resumed.global_timestep == 120


def test_a_vector_with_a_generator_of_its_own_is_named(tmp_path):
    def vector():
        return SyncVectorEnv([cart_pole] * 2)

    new_agent(tmp_path).train(vector(), max_steps=1)
    message = "SyncVectorEnv.*, it resets itself from a generator of its own .pgest.Restorable"
    with pytest.warns(UserWarning, match=message):
        new_agent(tmp_path).train(vector(), max_steps=2)


def test_another_seed_begins_new_episodes(tmp_path):
    new_agent(tmp_path).train(cart_pole(), max_timesteps=40)
    config = pgest.RunConfig(tf_random_seed=4, jit_compile=False)
    resumed = pgest.PGAgent(model_fns.actor_critic, pgest.RolloutMemory(16), None, tmp_path, config)
    with pytest.warns(UserWarning, match="CartPole-v1, its seed is .* now, it was .* then"):
        resumed.train(cart_pole(), max_timesteps=60)


def test_a_model_that_predicts_something_else_begins_new_episodes(tmp_path):
    def predicting_more(features, labels, mode, params):
        spec = model_fns.actor_critic(features, labels, mode, params)
        if mode == pgest.Modes.PREDICT:
            spec.predictions["twice"] = 2.0 * spec.predictions["value"]
        return spec

    every, limits = pgest.Every(episodes=2), {"max_timesteps": 120}
    _, paths = run_with_snapshots(new_agent, cart_pole, tmp_path, every, **limits)
    resumed = new_agent(middle(paths, 1)[0], predicting_more)
    with pytest.warns(UserWarning, match="held action, .*, now it holds action, .*twice"):
        resumed.train(cart_pole(), **limits)
    assert resumed.global_timestep == 120


@pytest.mark.slow
def test_a_run_with_other_limits_has_its_own_progress(tmp_path):
    """Of a run that was stopped half way through its batch, the rate follows the new limit."""
    agent = functools.partial(new_agent, **PPO)
    agent(tmp_path).train(cart_pole(), max_timesteps=40)
    resumed, rates = agent(tmp_path), pgest.HistoryHook()
    resumed.train(cart_pole(), hooks=[rates], max_timesteps=80)
    # Updates after 48, 64 and 80 timesteps of 80.
    expected = [1e-2 * (1 - timestep / 80) for timestep in (48, 64, 80)]
    found = [record["learning_rate"] for record in rates.records if "learning_rate" in record]
    np.testing.assert_allclose(found[:3], expected, rtol=1e-5, atol=1e-8)
