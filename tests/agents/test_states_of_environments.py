"""A run goes on from the state that an environment gives itself, which nothing else would give."""

import functools
import logging

import gymnasium
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import pgest
from pgest.variables import checkpoints
from tests.agents.interrupted_runs import assert_same, middle, run_config, run_with_snapshots
from tests.environments import stateful_environments as stateful

LIMITS = {"max_timesteps": 96}


def new_agent(directory, batches=False, overlap=False):
    memory = pgest.BatchMemory(20) if batches else pgest.RolloutMemory(8)
    model_fn = pgest.models.A2C(hidden_sizes=(4,))
    return pgest.PGAgent(model_fn, memory, None, directory, run_config(overlap))


def several(factory, **how):
    return pgest.make(factory, num_envs=2, **how)


def vector(mode, factory=stateful.drifting, **space):
    vector_env = SyncVectorEnv([factory] * 2, autoreset_mode=AutoresetMode[mode], **space)
    return pgest.RestorableVectorEnv(vector_env)


def stacked():
    env = gymnasium.wrappers.FrameStackObservation(gymnasium.make("CartPole-v1"), 2)
    return pgest.RestorableEnv(gymnasium.wrappers.FlattenObservation(env))


KINDS = {
    "array": stateful.Drifting,
    "bytes": functools.partial(stateful.Drifting, "bytes"),
    "dict": stateful.drifting,
    "masked": stateful.masked,
    "several": functools.partial(several, stateful.drifting),
    "several, masked": functools.partial(several, stateful.masked),
    "in a wrapper": lambda: pgest.RestorableEnv(stateful.drifting()),
    "frames": stacked,
    "native": lambda: pgest.make("CartPole-v1", num_envs=3, vectorization="native"),
    "NEXT_STEP": functools.partial(vector, "NEXT_STEP"),
    "SAME_STEP": functools.partial(vector, "SAME_STEP"),
    "DISABLED": functools.partial(vector, "DISABLED"),
    "NEXT_STEP, masked": functools.partial(vector, "NEXT_STEP", stateful.masked),
    "in processes": functools.partial(several, stateful.masked, vectorization="async"),
    "in processes, by methods": functools.partial(
        several, stateful.drifting, vectorization="async"
    ),
}
FAST = {"masked", "in a wrapper", "native"}


def _ends_equal(kind, every, tmp_path, caplog, **arguments):
    environment, agent = KINDS[kind], functools.partial(new_agent, **arguments)
    whole, paths = run_with_snapshots(agent, environment, tmp_path, every, **LIMITS)
    for path in middle(paths, 1):
        resumed, env = agent(path), environment()
        assert 0 < resumed.global_timestep < 96
        with caplog.at_level(logging.INFO, "pgest"):
            resumed.train(env, **LIMITS)
        assert "; 0 timesteps of" in caplog.text and "played again" in caplog.text
        assert_same(whole, resumed)


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k in FAST else [pytest.mark.slow]) for k in KINDS]
)
def test_a_run_goes_on_from_states(kind, tmp_path, caplog):
    _ends_equal(kind, pgest.Every(episodes=2), tmp_path, caplog)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arguments", [{"batches": True}, {"overlap": True}], ids=str)
def test_every_kind_goes_on_from_states(kind, arguments, tmp_path, caplog):
    _ends_equal(kind, pgest.Every(steps=1), tmp_path, caplog, **arguments)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (stateful.LosesItsPlace, "after set_state.., get_state.. gives another state"),
        (stateful.ShowsSomethingElse, "with its state set, it shows another observation"),
    ],
)
def test_what_comes_back_is_compared(environment, message, tmp_path):
    new_agent(tmp_path).train(environment(), max_timesteps=20)
    resumed = new_agent(tmp_path)
    with pytest.warns(UserWarning, match=f"{environment.__name__}, {message}") as seen:
        resumed.train(environment(), max_timesteps=40)
    assert len(seen) == 1
    assert resumed.global_timestep == 40


def test_without_the_methods_the_episodes_start_anew(tmp_path):
    agent = new_agent(tmp_path).train(stateful.Drifting(), max_timesteps=20)
    held = checkpoints.read_run(agent.latest_checkpoint())
    assert "environments/own/0/array/" in held
    assert not any("actions" in name for name in held)  # nothing has to be played again
    plain = gymnasium.wrappers.TimeLimit(stateful.Drifting(), 100)
    with pytest.warns(UserWarning, match="it has no get_state.. and set_state.state. now"):
        new_agent(tmp_path).train(plain, max_timesteps=40)


class OtherMethods(gymnasium.Wrapper):
    """Has methods of these names that are something else."""

    def get_state(self):
        return {"x": 1.0, "name": "CartPole"}

    def set_state(self, state):
        raise NotImplementedError


class OtherArguments(OtherMethods):
    def get_state(self, which):
        raise NotImplementedError


@pytest.mark.parametrize("wrapper", [OtherMethods, OtherArguments])
def test_methods_of_another_kind_are_left_alone(wrapper, tmp_path, caplog):
    def environment():
        return wrapper(gymnasium.make("CartPole-v1"))

    every = pgest.Every(episodes=2)
    whole, paths = run_with_snapshots(new_agent, environment, tmp_path, every, **LIMITS)
    resumed = new_agent(middle(paths, 1)[0])
    with caplog.at_level(logging.INFO, "pgest"):
        resumed.train(environment(), **LIMITS)
    assert ": weights" in caplog.text and "; 0 timesteps of" not in caplog.text
    assert_same(whole, resumed)


def test_a_state_that_cannot_be_had_is_named(tmp_path):
    class Broken(stateful.Drifting):
        def get_state(self):
            if self.taken > 10:
                raise KeyError("position")
            return super().get_state()

    saver = pgest.CheckpointSaverHook(pgest.Every(steps=1))
    with pytest.raises(
        pgest.EnvironmentFailure, match=r"Broken\) failed in get_state..: Key"
    ) as it:
        new_agent(tmp_path).train(Broken(), hooks=[saver], max_timesteps=40)
    assert it.value.env_index == 0
