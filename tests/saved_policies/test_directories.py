"""Directories that a former trigger has written to: a restart, another policy, a killed writer."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from pgest.saved_policies import directories, loader, policy_saver, triggers
from tests.saved_policies import saved_policy_models
from tests.saved_policies.trigger_fakes import inode, make_agent, make_step

# --- going on in a directory ---------------------------------------------------------------


def test_a_restart_keeps_exports_of_the_same_architecture(tmp_path):
    with triggers.PolicySavedModelTrigger(tmp_path, make_agent(), make_step(), 1) as trigger:
        assert trigger.exported == {"policy", "collect_policy", "greedy_policy"}
        trigger(1)
    before = inode(tmp_path)
    trigger = triggers.PolicySavedModelTrigger(tmp_path, make_agent(seed=3), make_step(), 1)
    assert trigger.exported == frozenset()
    assert inode(tmp_path) == before


def test_a_stale_export_is_written_again(tmp_path, caplog):
    triggers.PolicySavedModelTrigger(tmp_path, make_agent(), make_step(), 1)
    triggers.PolicySavedModelTrigger(tmp_path, make_agent(hidden=9), make_step(), 1)
    assert "held another policy; it is exported anew" in caplog.text
    policy = loader.load_policy(tmp_path)
    assert (4, 9) in [value.shape for value in policy.variables()]


def test_another_architecture_beside_checkpoints_is_refused(tmp_path):
    agent, step = make_agent(), make_step()
    with triggers.PolicySavedModelTrigger(tmp_path, agent, step, 1):
        step.assign(1)
    before = inode(tmp_path)
    with pytest.raises(ValueError, match="holds checkpoints of another architecture"):
        triggers.PolicySavedModelTrigger(tmp_path, make_agent(hidden=9), make_step(), 1)
    assert inode(tmp_path) == before
    loader.load_policy(tmp_path)


@pytest.mark.parametrize("async_saving", [False, True])
def test_what_lies_in_an_old_checkpoint_goes_with_it(tmp_path, async_saving):
    agent, step = make_agent(), make_step()
    with triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, 1, keep_max=1, async_saving=async_saving
    ) as trigger:
        for value in range(1, 8):
            step.assign(value)
            trigger(value)
            trigger.flush()
            (checkpoint,) = (tmp_path / "checkpoints").glob("policy*")
            assert checkpoint.name == directories.checkpoint_name(value)
            assert [path.name for path in checkpoint.iterdir()] == ["variables"]
            if value == 3:
                (checkpoint / "note.txt").write_text("of step 3")
            assert loader.load_policy(tmp_path).get_train_step() == value
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [checkpoint.name]


def test_a_run_from_the_beginning_keeps_its_own_checkpoints(tmp_path, caplog):
    def train(steps):
        agent, step = make_agent(), make_step()
        with triggers.PolicySavedModelTrigger(tmp_path, agent, step, 1, keep_max=2) as trigger:
            for value in steps:
                step.assign(value)
                trigger(value)
                yield list(loader.saved_steps(tmp_path))

    assert list(train([100, 200, 300])) == [[100], [100, 200], [200, 300]]
    assert not caplog.text
    assert list(train([10, 20, 300, 310])) == [[10, 300], [10, 20], [20, 300], [300, 310]]
    assert "checkpoints of the steps [200, 300], later than the present 0" in caplog.text


# --- links ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["an export", "an empty directory", "nothing yet"])
def test_a_link_to_another_place_stays_one(tmp_path, target):
    link, place = tmp_path / "here/policy", tmp_path / "there/policy"
    link.parent.mkdir()
    place.parent.mkdir()
    link.symlink_to(place)
    saver = policy_saver.PolicySaver(saved_policy_models.DiscretePolicy())
    if target == "an export":
        saver.save(place)
        (place / "saved_model.pb").write_bytes(b"an earlier one")
    elif target == "an empty directory":
        place.mkdir()
    saver.save(link)
    assert link.is_symlink() and [path.name for path in place.parent.iterdir()] == ["policy"]
    assert [path.name for path in link.parent.iterdir()] == ["policy"]
    loader.load_policy(place)


# --- a writer that is killed ---------------------------------------------------------------


WRITER = """
import sys, time, types
from tests.saved_policies import saved_policy_models as models
import tensorflow as tf
from pgest.policies import ready_made
from pgest.saved_policies import directories, triggers

directory, delay = sys.argv[1], float(sys.argv[2])
policy = models.DiscretePolicy()
agent = types.SimpleNamespace(policy=ready_made.GreedyPolicy(policy), collect_policy=policy)
step = tf.Variable(0, dtype=tf.int64)
if delay:
    sync = directories._sync
    def slow_sync(path):
        time.sleep(delay)
        sync(path)
    directories._sync = slow_sync
    rename = directories.os.rename
    def slow_rename(*paths):
        time.sleep(delay)
        rename(*paths)
        time.sleep(delay)
    directories.os.rename = slow_rename
trigger = triggers.PolicySavedModelTrigger(
    directory, agent, step, 1, keep_max=2, portable=True, async_saving=True
)
print("ready", flush=True)
for value in range(int(sys.argv[3]), 10**6):
    for variable in policy.variables():
        variable.assign(tf.fill(variable.shape, float(value)))
    step.assign(value)
    started = time.perf_counter()
    trigger(value, force_trigger=True)
    trigger.flush()
    print(value, time.perf_counter() - started, flush=True)
"""


def start_writer(directory, delay, first):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(directory), str(delay), str(first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def read_once(directory):
    """Opens what is there; every value in it belongs to one step."""
    policy = loader.load_policy(directory)
    values = {value for array in policy.variables() for value in array.ravel()}
    step = int(policy.get_train_step())
    assert step <= 0 or values == {float(step)}
    portable = loader.load_policy(directory, step=None, kind="portable_policy")
    values = {value for array in portable.variables() for value in array.ravel()}
    step = int(portable.get_train_step())
    assert step <= 0 or values == {float(step)}
    return step


@pytest.mark.slow
def test_a_killed_writer_never_leaves_a_broken_policy(tmp_path):
    """Kills at points spread evenly over a slowed save, while a reader polls."""
    directory = tmp_path / "policies"
    points, first, delay = 8, 1, 0.05
    duration = None
    reads = 0
    for point in range(points):
        writer = start_writer(directory, delay, first)
        assert writer.stdout.readline().strip() == "ready"
        value, seconds = writer.stdout.readline().split()
        duration = float(seconds) if duration is None else duration
        deadline = time.perf_counter() + duration * (point + 0.5) / points
        while time.perf_counter() < deadline:
            read_once(directory)
            reads += 1
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        last = read_once(directory)
        assert last >= int(value)
        first = last + 2
    assert reads >= points / 2
    # The next writer removes what the killed ones left.
    trigger = triggers.PolicySavedModelTrigger(
        directory, make_agent(), make_step(), 1, portable=True
    )
    hidden = [name for _, names, _ in os.walk(directory) for name in names if name.startswith(".")]
    assert hidden == []
    trigger.close()
    shutil.rmtree(directory)
