"""Saving in a thread: one moment a file, nothing dropped silently, errors that surface."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pgest.saved_policies import async_policy_saver, directories, loader, policy_saver
from tests.saved_policies import saved_policy_models as models


def make(**options):
    policy = models.DiscretePolicy(**options)
    step = tf.Variable(0, dtype=tf.int64)
    return policy, step, policy_saver.PolicySaver(policy, train_step=step)


@pytest.fixture
def blocked(monkeypatch):
    """Holds every write until the event is set."""
    gate, entered = threading.Event(), threading.Event()
    bring_to_disk = directories.bring_to_disk

    def wait(*arguments):
        entered.set()
        assert gate.wait(60)
        bring_to_disk(*arguments)

    monkeypatch.setattr(directories, "bring_to_disk", wait)
    gate.entered = entered
    yield gate
    gate.set()


def fill(policy, step, value):
    for variable in policy.variables():
        variable.assign(tf.fill(variable.shape, float(value)))
    step.assign(value)


def held(path):
    """All values in a checkpoint or an export, and its step."""
    reader = tf.train.load_checkpoint(os.path.join(path, "variables", "variables"))
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    names = [n for n in reader.get_variable_to_shape_map() if n.startswith("model_variables")]
    values = np.concatenate([reader.get_tensor(name).ravel() for name in names])
    return set(values.tolist()), int(reader.get_tensor("train_step" + suffix))


def test_files_hold_the_moment_of_the_call(tmp_path, blocked):
    policy, step, saver = make()
    with async_policy_saver.AsyncPolicySaver(saver) as saving:
        fill(policy, step, 1)
        saving.save_checkpoint(tmp_path / "checkpoint_1")
        fill(policy, step, 2)
        saving.save(tmp_path / "policy")
        fill(policy, step, 3)
        blocked.set()
        saving.flush()
        assert held(tmp_path / "checkpoint_1") == ({1.0}, 1)
        assert held(tmp_path / "policy") == ({2.0}, 2)
        # The second export takes the graph of the first.
        saving.save(tmp_path / "again")
        fill(policy, step, 4)
    assert held(tmp_path / "again") == ({3.0}, 3)
    opened = loader.load_policy(tmp_path / "again")
    assert opened.get_train_step() == 3 and set(opened.variables()[0].ravel()) == {3.0}
    assert (tmp_path / "again/saved_model.pb").read_bytes() == (
        tmp_path / "policy/saved_model.pb"
    ).read_bytes()


def test_later_checkpoints_hold_what_the_first_would(tmp_path):
    policy = models.RecurrentPolicy()
    metadata = {"a/b.c": tf.Variable([1, 2]), "d": tf.Variable(2.5), "e": tf.Variable(True)}
    step, extra = tf.Variable(0, dtype=tf.int64), tf.Variable(1.0)
    saver = policy_saver.PolicySaver(policy, train_step=step, metadata=metadata)
    saver.register_function("scaled", lambda x: x * extra, tf.TensorSpec([], tf.float32))
    saver.save(tmp_path / "policy")
    for number in range(3):
        saver.save_checkpoint(tmp_path / f"checkpoint_{number}")
    found = [
        {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        for reader in (
            tf.train.load_checkpoint(str(tmp_path / f"checkpoint_{number}/variables/variables"))
            for number in range(3)
        )
    ]
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, value in found[0].items():
            np.testing.assert_array_equal(other[name], value)
    opened = loader.load_policy(tmp_path / "policy")
    metadata["e"].assign(False)
    extra.assign(4.0)
    saver.save_checkpoint(tmp_path / "checkpoint_3")
    opened.update_from_checkpoint(tmp_path / "checkpoint_3")
    assert not opened.get_metadata()["e"] and opened.scaled([1.0]).numpy() == [4.0]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_no_file_is_torn_while_training_goes_on(tmp_path, jit_compile):
    policy, step, saver = make(hidden=512)
    variables = policy.variables()

    @tf.function(jit_compile=jit_compile)
    def update():
        for variable in variables:
            variable.assign_add(tf.ones_like(variable))
        step.assign_add(1)

    fill(policy, step, 0)
    written = []
    with async_policy_saver.AsyncPolicySaver(saver) as saving:
        for _ in range(60):
            update()
            path = tmp_path / f"checkpoint_{int(step)}"
            replaced = saving.save_checkpoint(path)
            written.append(path)
            for directory in replaced:
                written.remove(Path(directory))
    assert written[-1].name == "checkpoint_60"
    assert sorted(written) == sorted(tmp_path.iterdir())
    for path in written:
        values, saved_step = held(path)
        assert values == {float(saved_step)}
        assert path.name == f"checkpoint_{saved_step}"


def test_coalescing_is_reported(tmp_path, blocked):
    policy, step, saver = make()
    with async_policy_saver.AsyncPolicySaver(saver) as saving:
        assert saving.save_checkpoint(tmp_path / "c1") == ()
        blocked.entered.wait(60)
        assert saving.save_checkpoint(tmp_path / "c2") == ()
        assert saving.save(tmp_path / "p1") == ()
        assert saving.save_checkpoint(tmp_path / "c3") == (str(tmp_path / "c2"),)
        assert saving.save(tmp_path / "p2") == (str(tmp_path / "p1"),)
        blocked.set()
    assert sorted(os.listdir(tmp_path)) == ["c1", "c3", "p2"]


def test_blocking_returns_when_the_directory_is_there(tmp_path):
    _, _, saver = make()
    with async_policy_saver.AsyncPolicySaver(saver) as saving:
        saving.save(tmp_path / "policy", blocking=True)
        assert (tmp_path / "policy/policy_specs.pbtxt").exists()
        saving.save_checkpoint(tmp_path / "checkpoint", blocking=True)
        assert (tmp_path / "checkpoint/variables/variables.index").exists()


def test_errors_surface_once_at_the_next_call_and_saving_goes_on(tmp_path):
    _, _, saver = make()
    (tmp_path / "file").write_text("")
    saving = async_policy_saver.AsyncPolicySaver(saver)
    with pytest.raises(tf.errors.FailedPreconditionError, match="is a file"):
        saving.save(tmp_path / "file", blocking=True)

    def fail():
        saving.save_checkpoint(tmp_path / "file")
        while saving._error is None:
            time.sleep(0.01)

    for surface in (
        saving.flush,
        lambda: saving.save(tmp_path / "x"),
        lambda: saving.save_checkpoint(tmp_path / "x"),
    ):
        fail()
        with pytest.raises(tf.errors.FailedPreconditionError, match="is a file"):
            surface()
        saving.flush()
        assert not (tmp_path / "x").exists()
    saving.save_checkpoint(tmp_path / "checkpoint")
    saving.flush()
    assert (tmp_path / "checkpoint").exists()
    fail()
    with pytest.raises(tf.errors.FailedPreconditionError, match="is a file"):
        saving.close()
    saving.close()


def test_closing(tmp_path):
    _, _, saver = make()
    saving = async_policy_saver.AsyncPolicySaver(saver)
    saving.save_checkpoint(tmp_path / "checkpoint")
    saving.close()
    saving.close()
    assert (tmp_path / "checkpoint").exists()
    assert not saving._thread.is_alive()
    for save in (saving.save, saving.save_checkpoint):
        with pytest.raises(ValueError, match="Saving thread in AsyncPolicySaver is not alive"):
            save(tmp_path / "x")
    saving.flush()


def test_an_error_in_the_with_statement_is_not_masked(tmp_path, caplog):
    _, _, saver = make()
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(KeyError, match="mine"),
        async_policy_saver.AsyncPolicySaver(saver) as saving,
    ):
        saving.save(tmp_path / "file")
        raise KeyError("mine")
    assert "Saving a policy failed" in caplog.text


def test_everything_else_is_the_savers(tmp_path):
    policy, step, saver = make()
    with async_policy_saver.AsyncPolicySaver(saver) as saving:
        step.assign(5)
        assert saving.get_train_step() == 5
        saving.register_function("double", lambda x: 2 * x, tf.TensorSpec([], tf.float32))
        saving.save(tmp_path / "policy")
        with pytest.raises(AttributeError):
            _ = saving.nonsense
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    np.testing.assert_array_equal(loaded.double([1.5]), [3.0])
    assert saving.action_input_spec == saver.action_input_spec


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "1 / 0"])
def test_the_interpreter_exits_and_what_was_requested_is_written(tmp_path, ending):
    program = textwrap.dedent(
        """
        import sys
        from tests.saved_policies import saved_policy_models as models
        from pgest.saved_policies import async_policy_saver, policy_saver
        saver = policy_saver.PolicySaver(models.DiscretePolicy())
        saving = async_policy_saver.AsyncPolicySaver(saver)
        saving.save(sys.argv[1] + "/policy")
        saving.save_checkpoint(sys.argv[1] + "/checkpoint")
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", program + ending, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert ran.returncode == (1 if "0" in ending and "Exit" not in ending else 0), ran.stderr
    assert (tmp_path / "policy/policy_specs.pbtxt").exists(), ran.stderr
    assert (tmp_path / "checkpoint/variables/variables.index").exists()


def test_a_request_returns_before_anything_is_written(tmp_path, blocked):
    policy, step, saver = make(hidden=200_000)  # 1.2 million numbers
    with async_policy_saver.AsyncPolicySaver(saver) as saving:
        saving.save_checkpoint(tmp_path / "checkpoint")
        assert not (tmp_path / "checkpoint").exists()
        blocked.set()
    assert (tmp_path / "checkpoint").exists()
