"""A model_dir that others write to, that moves, or that cannot be written to."""

import os
import subprocess
import sys
import textwrap

import pytest

import pgest
from pgest.agents import directory_lock
from tests import model_fns
from tests.agents.training_agents import make_agent

TRAINS = textwrap.dedent("""
    import sys
    sys.path[:0] = {path!r}
    import pgest
    from tests.agents.training_agents import make_agent

    class Waits(pgest.BaseMonitor):
        def after_run(self, context):
            print("training", flush=True)
            sys.stdin.readline()

    make_agent(model_dir={directory!r}).train("CartPole-v1", steps=1, hooks=[Waits()])
""")


@pytest.mark.slow
def test_one_process_at_a_time_trains_in_a_model_dir(tmp_path):
    make_agent(model_dir=tmp_path).train("CartPole-v1", max_steps=1)
    script = TRAINS.format(path=sys.path, directory=str(tmp_path))
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout.readline() == "training\n"
        agent = make_agent(model_dir=tmp_path)
        match = rf"Process {other.pid} on .* trains in model_dir '{tmp_path}'"
        with pytest.raises(directory_lock.ModelDirInUseError, match=match):
            agent.train("CartPole-v1", steps=1)
        with pytest.raises(directory_lock.ModelDirInUseError, match=match):
            agent.save_checkpoint()
        assert agent.evaluate("CartPole-v1", episodes=1)["global_step"] == 1
        other.kill()
        other.wait()
        agent.train("CartPole-v1", steps=1)
    assert agent.global_step == 2


def test_two_agents_of_one_process_do_not_share_a_model_dir_at_once(tmp_path):
    class TrainsAnother(pgest.BaseMonitor):
        def after_run(self, context):
            make_agent(model_dir=tmp_path).train("CartPole-v1", steps=1)

    agent = make_agent(model_dir=tmp_path)
    with pytest.raises(directory_lock.ModelDirInUseError, match=f"Process {os.getpid()} on"):
        agent.train("CartPole-v1", steps=3, hooks=[TrainsAnother()])
    make_agent(model_dir=tmp_path).train("CartPole-v1", steps=1)


def test_a_forked_child_does_not_hold_the_lock_for_its_parent(tmp_path):
    """The child lives until it is told to end; of the parent, the kernel closes the descriptor."""
    (begun, begin), (ended, end) = os.pipe(), os.pipe()
    lock = directory_lock.DirectoryLock(str(tmp_path)).__enter__()
    child = os.fork()
    if child == 0:
        os.close(end)
        os.write(begin, b"1")
        os.read(ended, 1)
        os._exit(0)
    try:
        os.read(begun, 1)
        directory_lock._let_go()
        with directory_lock.DirectoryLock(str(tmp_path)):
            pass
        lock.__exit__(None, None, None)
    finally:
        os.close(end)
        os.waitpid(child, 0)


def test_what_a_killed_writer_left_is_swept_when_the_next_run_starts(tmp_path):
    for name in (".writing-7-model.ckpt-3.index", "checkpoint.writing-7"):
        (tmp_path / name).write_text("half")
    (tmp_path / ".writing-7-model.ckpt-3_temp").mkdir()
    make_agent(model_dir=tmp_path).train("CartPole-v1", max_steps=1)
    assert not [name for name in os.listdir(tmp_path) if "writing" in name]


def test_a_relative_model_dir_is_where_the_agent_was_made(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    make_agent(model_dir="~/source").train("CartPole-v1", max_steps=1)
    agent = make_agent(model_dir="runs/one", warm_start_from="source")
    assert agent.model_dir == agent.config.model_dir == str(tmp_path / "runs" / "one")
    monkeypatch.chdir(tmp_path / "elsewhere")
    agent.train("CartPole-v1", max_steps=2)
    agent.evaluate("CartPole-v1", episodes=1, checkpoint_path="~/source/model.ckpt-1")
    assert os.listdir(tmp_path / "elsewhere") == []
    assert agent.latest_checkpoint() == str(tmp_path / "runs" / "one" / "model.ckpt-2")
    config = pgest.RunConfig(model_dir=tmp_path / "same")
    pgest.PGAgent(model_fns.policy_gradient, pgest.BatchMemory(8), None, "../same", config)


def test_a_model_dir_that_cannot_be_written_to_says_so_before_anything_is_played(tmp_path):
    (tmp_path / "file").write_text("")
    agent = make_agent(model_dir=tmp_path / "file" / "run")
    with pytest.raises(OSError, match="model_dir .*file/run' cannot be written to .*another one"):
        agent.train("CartPole-v1", steps=1)
    assert agent.global_timestep == 0


def broken_from(step):
    """The agent's weights become NaN in the update that follows `step`."""

    class Breaks(pgest.BaseMonitor):
        def before_run(self, context):
            if context.step == step:
                for variable in context.agent.model.store.variables.values():
                    if variable.dtype.is_floating:
                        variable.assign(variable * float("nan"))

    return Breaks()


def test_the_message_about_a_nan_names_the_newest_good_checkpoint_of_earlier_runs(tmp_path):
    make_agent(model_dir=tmp_path).train("CartPole-v1", max_steps=2)
    with pytest.raises(pgest.NanLossDuringTrainingError, match=f"is {tmp_path}/model.ckpt-2"):
        make_agent(model_dir=tmp_path).train("CartPole-v1", steps=2, hooks=[broken_from(2)])
    with pytest.raises(pgest.NanLossDuringTrainingError, match="There is no checkpoint yet"):
        make_agent(model_dir=tmp_path / "new").train("CartPole-v1", hooks=[broken_from(0)])
