"""Checkpoints that a thread writes while training goes on."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import pgest
from pgest.agents.directory_lock import ModelDirInUseError
from pgest.variables import checkpoints
from tests import model_fns
from tests.agents.interrupted_runs import assert_same

SECONDS = 60.0


def an_agent(model_dir, memory=None, **config):
    config = pgest.RunConfig(
        **{"tf_random_seed": 0, "jit_compile": False, "save_checkpoints_steps": 2, **config}
    )
    memory = pgest.BatchMemory(batch_size=16) if memory is None else memory
    return pgest.PGAgent(model_fns.policy_gradient, memory, model_dir=model_dir, config=config)


class Writing:
    """Holds up what a thread writes, until it is let go."""

    def __init__(self, monkeypatch):
        self.go_on, self.threads, self.steps = threading.Event(), [], []
        self._save = checkpoints.save
        monkeypatch.setattr(checkpoints, "save", self)

    def __call__(self, *arguments, **keywords):
        self.threads.append(threading.current_thread())
        self.steps.append(keywords["step"])
        if threading.current_thread() is not threading.main_thread():
            assert self.go_on.wait(SECONDS), "training waits for the checkpoint"
        return self._save(*arguments, **keywords)


class Watch(pgest.BaseMonitor):
    """Notes the weights after each update, and does something after one of them."""

    def __init__(self, agent, step=None, action=None):
        self.agent, self.step, self.action = agent, step, action
        self.weights = {}

    def after_run(self, context):
        self.weights[context.step] = model_fns.weights(self.agent)
        if context.step == self.step:
            self.action(context)


@pytest.fixture
def writing(monkeypatch):
    return Writing(monkeypatch)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_training_goes_on_and_what_is_written_is_of_the_moment_of_the_save(
    tmp_path, writing, jit_compile
):
    memory = pgest.RolloutMemory(16) if jit_compile else None
    agent = an_agent(tmp_path, memory, jit_compile=jit_compile)
    watch = Watch(agent, 3, lambda context: writing.go_on.set())
    agent.train("CartPole-v1", max_steps=3, hooks=[watch])
    assert writing.steps == [2, 3]
    assert writing.threads[0] is not writing.threads[1] is threading.main_thread()
    values = checkpoints.read(str(tmp_path / "model.ckpt-2"))
    for name, weights in watch.weights[2].items():
        np.testing.assert_array_equal(values[name], weights)
    assert any((watch.weights[3][name] != w).any() for name, w in watch.weights[2].items())


def test_the_next_checkpoint_waits_for_the_one_before(tmp_path, writing):
    agent = an_agent(tmp_path, save_checkpoints_steps=1)
    seen = []

    def look(context):
        threading.Timer(0.3, writing.go_on.set).start()
        context.save_checkpoint()
        seen.extend(os.path.basename(p) for p in checkpoints.all_checkpoints(tmp_path))

    # Hooks of the user have their turns before the default ones: step 1 is being written.
    agent.train("CartPole-v1", max_steps=2, hooks=[Watch(agent, 2, look)])
    assert seen == ["model.ckpt-1", "model.ckpt-2"]


def test_who_asks_for_the_newest_checkpoint_gets_one_that_is_complete(tmp_path, writing):
    agent = an_agent(tmp_path)
    found = []

    def ask(context):
        threading.Timer(0.3, writing.go_on.set).start()
        found.extend([agent.latest_checkpoint(), context.last_checkpoint])
        assert os.path.exists(f"{found[0]}.index")

    agent.train("CartPole-v1", max_steps=4, hooks=[Watch(agent, 3, ask)])
    assert found == [str(tmp_path / "model.ckpt-2")] * 2


def test_one_that_cannot_be_written_ends_the_run_at_the_next_update(tmp_path, monkeypatch):
    agent, save = an_agent(tmp_path), checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda *a, step, **k: _failing(save, a, step, k))
    watch = Watch(agent, 3, lambda context: agent.latest_checkpoint())  # it has failed by now
    with pytest.raises(OSError, match="no room for 2"):
        agent.train("CartPole-v1", max_steps=9, hooks=[watch])
    assert agent.stop_reason == "OSError: no room for 2"
    last = max(watch.weights)
    assert last <= 3, "nothing is trained once it has failed"
    # At the end there was room again.
    assert agent.latest_checkpoint() == str(tmp_path / f"model.ckpt-{last}")
    assert an_agent(tmp_path).global_step == last


def test_a_last_one_that_cannot_be_written_is_written_again_and_told(tmp_path, monkeypatch):
    agent, save = an_agent(tmp_path), checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda *a, step, **k: _failing(save, a, step, k))
    with pytest.raises(OSError, match="no room for 2"):
        agent.train("CartPole-v1", max_steps=2)
    assert agent.latest_checkpoint() == str(tmp_path / "model.ckpt-2")


def _failing(save, arguments, step, keywords):
    if threading.current_thread() is threading.main_thread():
        return save(*arguments, step=step, **keywords)
    raise OSError(f"no room for {step}")


def test_the_best_checkpoint_is_one_that_was_being_written(tmp_path, writing):
    writing.go_on.set()
    agent = an_agent(tmp_path, save_checkpoints_steps=1)
    evaluation = pgest.EvaluationHook("CartPole-v1", pgest.Every(steps=1), episodes=1)
    # The default saver comes before it.
    saver = pgest.CheckpointSaverHook(pgest.Every(steps=1))
    agent.train("CartPole-v1", max_steps=3, hooks=[saver, evaluation])
    best = checkpoints.read(evaluation.best.path)
    of_run = checkpoints.read(str(tmp_path / os.path.basename(evaluation.best.path)))
    assert all(np.array_equal(best[name], of_run[name]) for name in of_run)


def test_nobody_else_trains_there_until_it_is_written(tmp_path, writing):
    agent, refused = an_agent(tmp_path), []

    def insist(context):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # does not wait

    with pytest.raises(KeyboardInterrupt):
        agent.train("CartPole-v1", max_steps=9, hooks=[Watch(agent, 3, insist), Insisting()])
    try:
        an_agent(tmp_path).train("CartPole-v1", max_steps=9)
    except ModelDirInUseError as error:
        refused.append(error)
    writing.go_on.set()
    assert refused and agent.latest_checkpoint() == str(tmp_path / "model.ckpt-2")
    agent.train("CartPole-v1", max_steps=4)
    assert an_agent(tmp_path).global_step == 4


class Insisting(pgest.BaseMonitor):
    """Interrupts whoever waits while a run ends."""

    def end(self, context):
        self.timers = [
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)) for delay in (0.3, 0.6)
        ]
        for timer in self.timers:
            timer.start()


KILLED = textwrap.dedent("""
    import os, signal, sys, threading
    sys.path[:0] = {path!r}
    from pgest.variables import checkpoints, whole_files
    from tests.agents.test_checkpoints_in_background import Watch, an_agent

    rename, on_the_disk = whole_files.rename, threading.Event()

    def held_up(pairs):
        if "model.ckpt-4" in pairs[0][1]:
            if {moment!r} == "after":
                rename(pairs)
            on_the_disk.set()
            threading.Event().wait()
        rename(pairs)

    def kill(context):
        on_the_disk.wait()
        os.kill(os.getpid(), signal.SIGKILL)

    whole_files.rename = held_up
    agent = an_agent({directory!r})
    agent.train("CartPole-v1", max_steps=8, hooks=[Watch(agent, 5, kill)])
""")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_while_a_thread_writes_loses_that_checkpoint_at_most(tmp_path, moment):
    alone = an_agent(tmp_path / "alone")
    alone.train("CartPole-v1", max_steps=8)
    script = KILLED.format(path=sys.path, directory=str(tmp_path / "killed"), moment=moment)
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=200)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-2000:]
    newest = checkpoints.latest(tmp_path / "killed")
    assert newest.endswith("model.ckpt-2" if moment == "before" else "model.ckpt-4")
    again = an_agent(tmp_path / "killed")
    again.train("CartPole-v1", max_steps=8)
    assert_same(alone, again)
