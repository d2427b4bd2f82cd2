"""How a run ends: Ctrl-C, SIGTERM, limits, hooks, errors."""

import os
import signal
import sys
import time

import gymnasium
import pytest

import pgest
from tests.agents.training_agents import make_agent


class SignalAtStep(pgest.BaseMonitor):
    """Sends its own process a signal, as Ctrl-C and a cluster do, and notes how the run ended."""

    def __init__(self, number, step, times=1):
        self.number, self.step, self.times = number, step, times
        self.ended = None

    def after_run(self, context):
        if context.step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)

    def end(self, context):
        self.ended = context.error


def test_ctrl_c_ends_the_step_saves_says_so_and_is_passed_on(tmp_path, caplog):
    before = signal.getsignal(signal.SIGINT)
    agent, hook = make_agent(model_dir=tmp_path), SignalAtStep(signal.SIGINT, step=2)
    with pytest.raises(KeyboardInterrupt):
        agent.train("CartPole-v1", max_steps=50, hooks=[hook])
    (line,) = [record.message for record in caplog.records if "SIGINT" in record.message]
    assert line == (
        f"SIGINT: the run ended after step 2; the newest checkpoint is {tmp_path}/model.ckpt-2."
    )
    assert agent.stop_reason == "SIGINT was received"
    assert agent.global_step == 2 and hook.ended is None
    assert make_agent(model_dir=tmp_path).global_step == 2
    assert signal.getsignal(signal.SIGINT) is before
    agent.train("CartPole-v1", max_steps=3)
    assert agent.global_step == 3, "the next call goes on"


def test_ctrl_c_ends_a_loop_over_runs_too():
    trained = []
    with pytest.raises(KeyboardInterrupt):
        for seed in range(3):
            trained.append(make_agent(seed=seed))
            trained[-1].train("CartPole-v1", steps=3, hooks=[SignalAtStep(signal.SIGINT, step=2)])
    assert len(trained) == 1


def test_at_a_prompt_ctrl_c_gives_the_prompt_back(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    agent, hook = make_agent(model_dir=tmp_path), SignalAtStep(signal.SIGINT, step=2)
    assert agent.train("CartPole-v1", max_steps=50, hooks=[hook]) is agent
    assert agent.stop_reason == "SIGINT was received"
    assert make_agent(model_dir=tmp_path).global_step == 2


class StopsAtStep(pgest.BaseMonitor):
    def __init__(self, step, error=None):
        self.step, self.error = step, error

    def after_run(self, context):
        if context.step == self.step:
            if self.error is not None:
                raise self.error
            context.request_stop("the moon is full")


def test_an_agent_says_why_its_run_ended():
    agent = make_agent()
    assert agent.stop_reason is None
    agent.train("CartPole-v1", steps=2)
    assert agent.stop_reason == "max_steps=2 is reached"
    agent.train("CartPole-v1", max_timesteps=1)
    assert agent.stop_reason == "max_timesteps=1 is reached"
    agent.train("CartPole-v1", episodes=1)
    assert agent.stop_reason == f"max_episodes={agent.global_episode} is reached"
    agent.train("CartPole-v1", hooks=[StopsAtStep(agent.global_step + 1)])
    assert agent.stop_reason == "the moon is full"
    with pytest.raises(OSError, match="no paper"):
        agent.train("CartPole-v1", hooks=[StopsAtStep(agent.global_step + 1, OSError("no paper"))])
    assert agent.stop_reason == "OSError: no paper"


class Hangs(gymnasium.Wrapper):
    """Answers no more after some timesteps; told twice to end, as an impatient cluster does."""

    left = 100

    def step(self, action):
        self.left -= 1
        if not self.left:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(600)
        return self.env.step(action)


def test_a_second_sigterm_does_not_wait_for_an_environment_that_hangs(tmp_path):
    agent, hook = make_agent(model_dir=tmp_path), SignalAtStep(signal.SIGINT, step=-1)
    start = time.monotonic()
    with pytest.raises(SystemExit) as exited:
        agent.train(Hangs(gymnasium.make("CartPole-v1")), hooks=[hook])
    assert time.monotonic() - start < 60
    assert exited.value.code == 143 and isinstance(hook.ended, SystemExit)
    assert agent.stop_reason == "SIGTERM was received"
    assert make_agent(model_dir=tmp_path).global_timestep == agent.global_timestep == 99


def test_sigterm_ends_the_step_saves_and_exits_with_143(tmp_path):
    agent, hook = make_agent(model_dir=tmp_path), SignalAtStep(signal.SIGTERM, step=2)
    with pytest.raises(SystemExit) as exited:
        agent.train("CartPole-v1", max_steps=50, hooks=[hook])
    assert exited.value.code == 143 and hook.ended is None
    assert make_agent(model_dir=tmp_path).global_step == 2


def test_a_second_ctrl_c_does_not_wait():
    agent, hook = make_agent(), SignalAtStep(signal.SIGINT, step=2, times=2)
    with pytest.raises(KeyboardInterrupt):
        agent.train("CartPole-v1", max_steps=50, hooks=[hook])
    assert isinstance(hook.ended, KeyboardInterrupt)


class SlowToEnd(pgest.BaseMonitor):
    """Ctrl-C while the run ends: an evaluation there, say, takes the user too long."""

    def end(self, context):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_ctrl_c_while_the_run_ends_skips_what_takes_long_and_no_more(tmp_path):
    def handlers():
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    agent, hook = make_agent(model_dir=tmp_path), SignalAtStep(signal.SIGINT, step=2)
    before = handlers()
    with pytest.raises(KeyboardInterrupt):
        agent.train("CartPole-v1", max_steps=50, hooks=[SlowToEnd(), hook])
    assert handlers() == before, "the next SIGTERM has to end the process"
    assert hook.ended is None
    assert make_agent(model_dir=tmp_path).global_step == 2


class InterruptedWorker(gymnasium.Wrapper):
    """Ctrl-C reaches its process too, as that of gymnasium's AsyncVectorEnv, which passes it on."""

    left = 100

    def step(self, action):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGINT)
            raise KeyboardInterrupt
        return self.env.step(action)


def test_ctrl_c_that_comes_back_from_an_environment_ends_the_run_in_order(tmp_path):
    agent, hook = make_agent(model_dir=tmp_path), SignalAtStep(signal.SIGINT, step=-1)
    with pytest.raises(KeyboardInterrupt):
        agent.train(InterruptedWorker(gymnasium.make("CartPole-v1")), hooks=[hook])
    assert hook.ended is None and agent.global_timestep == 99
    assert make_agent(model_dir=tmp_path).global_timestep == 99
