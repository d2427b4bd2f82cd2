"""Saved policies are opened, updated from checkpoints, found in directories and made whole."""

import copy
import os
import shutil
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pgest import specs
from pgest.policies import ready_made, time_steps
from pgest.saved_policies import eager_policy, loader, policy_saver, triggers
from tests.saved_policies import saved_policy_models as models
from tests.saved_policies.opened_policies import assert_close, open_policy, save, unbatched

# --- opening -----------------------------------------------------------------------------------


def test_specs_come_from_the_file_or_from_the_caller(tmp_path):
    policy = models.DictPolicy(emit_log_probability=True)
    save(policy, tmp_path / "policy")
    opened = open_policy(tmp_path / "policy")
    for name in ("time_step_spec", "action_spec", "policy_state_spec", "info_spec"):
        assert getattr(opened, name) == specs.to_array_spec(getattr(policy, name)), name
    assert opened.collect_data_spec == specs.to_array_spec(policy.collect_data_spec)
    assert opened.policy_step_spec == specs.to_array_spec(policy.policy_step_spec)
    assert opened.trajectory_spec == opened.collect_data_spec
    os.unlink(tmp_path / "policy/policy_specs.pbtxt")
    given = eager_policy.SavedModelPyTFEagerPolicy(
        tmp_path / "policy",
        policy.time_step_spec,
        policy.action_spec,
        info_spec=policy.info_spec,
        load_specs_from_pbtxt=True,
        use_tf_function=True,
    )
    time_step = models.time_step_of(policy)
    assert_close(given.action(time_step, seed=1), opened.action(time_step, seed=1))
    with pytest.raises(OSError, match="policy_specs.pbtxt"):
        open_policy(tmp_path / "policy")


def test_missing_and_wrong_specs(tmp_path):
    policy = models.DiscretePolicy()
    save(policy, tmp_path / "policy")
    make = eager_policy.SavedModelPyTFEagerPolicy
    with pytest.raises(
        ValueError, match="you have to provide the specs, or enable loading from proto"
    ):
        make(tmp_path / "policy")
    with pytest.raises(ValueError, match="without action_spec"):
        make(tmp_path / "policy", policy.time_step_spec)
    with pytest.raises(ValueError, match="does not take what the specs describe"):
        make(tmp_path / "policy", models.vector_spec(7), policy.action_spec)
    with pytest.raises(OSError, match="nowhere"):
        open_policy(tmp_path / "nowhere")
    (tmp_path / "policy/policy_specs.pbtxt").write_text("broken {")
    with pytest.raises(ValueError, match="not a StructuredValue"):
        open_policy(tmp_path / "policy")


def test_attributes_of_the_saved_model(tmp_path):
    saver = policy_saver.PolicySaver(models.DiscretePolicy())
    saver.register_function("double", lambda x: 2 * x, tf.TensorSpec([], tf.float32), ())
    saver.save(tmp_path / "policy")
    opened = open_policy(tmp_path / "policy")
    assert float(opened.double(tf.constant(2.0))) == 4.0
    assert "action" in opened.signatures
    assert isinstance(opened.model_variables[0], tf.Variable)
    assert [type(value) for value in opened.variables()] == [np.ndarray] * 4
    with pytest.raises(AttributeError, match="Neither .* nor the SavedModel has .* 'nonsense'"):
        _ = opened.nonsense
    with pytest.raises(AttributeError):
        _ = copy.copy(opened).nonsense


def test_train_step_and_metadata_are_numpy(tmp_path):
    save(
        models.DiscretePolicy(),
        tmp_path / "policy",
        train_step=tf.Variable(200_000, dtype=tf.int64),
        metadata={"score": tf.Variable(2.5), "history": tf.Variable([1, 2])},
    )
    opened = open_policy(tmp_path / "policy")
    assert opened.get_train_step() == 200_000 and isinstance(opened.get_train_step(), np.int64)
    metadata = opened.get_metadata()
    assert metadata["score"] == 2.5 and type(metadata["history"]) is np.ndarray
    assert open_policy(save(models.DiscretePolicy(), tmp_path / "b")).get_train_step() == -1


# --- updating ----------------------------------------------------------------------------------


def trained(tmp_path, **options):
    """An export, a checkpoint and another export of a policy that moved on."""
    policy = models.DiscretePolicy(**options)
    step, score = tf.Variable(0, dtype=tf.int64), tf.Variable(0.5)
    saver = policy_saver.PolicySaver(policy, train_step=step, metadata={"score": score})
    saver.save(tmp_path / "policy")
    for value in (60, 100):
        for variable in policy.variables():
            variable.assign(variable * -0.5 + 0.1)
        step.assign(value)
        score.assign(value / 2)
        saver.save_checkpoint(tmp_path / f"checkpoint_{value:05d}")
    saver.save(tmp_path / "later")
    return policy


@pytest.mark.parametrize(
    ("name", "step", "path_step"),
    [("checkpoint_00060", 60, 60), ("checkpoint_00100/", 100, 100), ("later", 100, None)],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_updates_from_checkpoints_and_from_exports(tmp_path, name, step, path_step, kind):
    policy = trained(tmp_path)
    opened = open_policy(tmp_path / "policy")
    assert opened.get_train_step_from_last_restored_checkpoint_path() is None
    opened.update_from_checkpoint(kind(f"{tmp_path}/{name}"))
    assert opened.get_train_step() == step and opened.get_metadata()["score"] == step / 2
    assert opened.get_train_step_from_last_restored_checkpoint_path() == path_step
    if step == 100:
        for found, wanted in zip(opened.variables(), policy.variables(), strict=True):
            np.testing.assert_array_equal(found, wanted)
        time_step = models.time_step_of(policy, 1)
        wanted = policy.distribution(time_step).action.logits[0]
        found = opened.distribution(unbatched(time_step)).action.logits
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        assert (
            opened.action(unbatched(time_step), seed=1).action
            == policy.action(time_step, seed=1).action[0]
        )


def test_a_failed_update_leaves_the_policy_as_it_was(tmp_path):
    trained(tmp_path)
    plain = policy_saver.PolicySaver(models.DiscretePolicy(seed=8))
    plain.save_checkpoint(tmp_path / "no_metadata_7")
    policy_saver.PolicySaver(models.DiscretePolicy(hidden=9)).save_checkpoint(tmp_path / "wide_8")
    shutil.copytree(tmp_path / "checkpoint_00100", tmp_path / "torn_9")
    data = tmp_path / "torn_9/variables/variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:40])
    opened = open_policy(tmp_path / "policy")
    opened.update_from_checkpoint(tmp_path / "checkpoint_00060")
    before = [*opened.variables(), opened.get_train_step(), opened.get_metadata()["score"]]
    for name in ("no_metadata_7", "wide_8", "torn_9"):
        with pytest.raises(ValueError, match=f"{name}' does not fit the policy .* is as it was"):
            opened.update_from_checkpoint(tmp_path / name)
    with pytest.raises(tf.errors.NotFoundError):
        opened.update_from_checkpoint(tmp_path / "nowhere_10")
    after = [*opened.variables(), opened.get_train_step(), opened.get_metadata()["score"]]
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(first, second)
    assert opened.get_train_step_from_last_restored_checkpoint_path() == 60


def test_no_action_sees_half_an_update(tmp_path):
    """A policy whose two variables must agree, updated while another thread acts."""

    class Pair(ready_made.TFPolicy):
        def __init__(self):
            super().__init__(models.vector_spec(), tf.TensorSpec([2], tf.float32, "action"))
            self._a, self._b = tf.Variable(0.0), tf.Variable(0.0)

        def _action(self, time_step, policy_state, seed):
            rows = tf.ones_like(time_step.reward)
            action = tf.stack([rows * self._a, rows * self._b], -1)
            return time_steps.PolicyStep(action, policy_state)

    policy = Pair()
    saver = policy_saver.PolicySaver(policy)
    saver.save(tmp_path / "policy")
    for value in (1.0, 2.0):
        policy._a.assign(value)
        policy._b.assign(value)
        saver.save_checkpoint(tmp_path / f"checkpoint_{int(value)}")
    opened = open_policy(tmp_path / "policy")
    stop = threading.Event()

    def update():
        while not stop.is_set():
            for value in (1, 2):
                opened.update_from_checkpoint(tmp_path / f"checkpoint_{value}")

    thread = threading.Thread(target=update)
    thread.start()
    try:
        time_step = models.time_step_of(policy)
        pairs, deadline = [], time.monotonic() + 60
        while time.monotonic() < deadline and (len(pairs) < 300 or len(set(pairs)) < 2):
            pairs.append(tuple(opened.action(time_step).action.tolist()))
    finally:
        stop.set()
        thread.join()
    assert all(first == second for first, second in pairs)
    assert len(set(pairs)) > 1


# --- load_policy and materialize ---------------------------------------------------------------


@pytest.fixture
def trigger_directory(tmp_path):
    policy = models.DiscretePolicy()
    agent = types.SimpleNamespace(policy=ready_made.GreedyPolicy(policy), collect_policy=policy)
    step = tf.Variable(0, dtype=tf.int64)
    with triggers.PolicySavedModelTrigger(tmp_path / "policies", agent, step, 10) as trigger:
        for value in (10, 20):
            for variable in policy.variables():
                variable.assign(tf.fill(variable.shape, float(value)))
            step.assign(value)
            trigger(value)
    return tmp_path


def test_load_policy(trigger_directory):
    base = trigger_directory / "policies"
    for directory in (trigger_directory, base, str(base), base / "greedy_policy", base / "policy"):
        assert loader.load_policy(directory).get_train_step() == 20
        assert loader.load_policy(directory, step=10).get_train_step() == 10
        assert loader.load_policy(directory, step=None).get_train_step() == 0
    greedy = loader.load_policy(base)
    assert greedy._model_path.endswith("greedy_policy")
    assert loader.load_policy(base, kind="collect_policy")._model_path.endswith("collect_policy")
    shutil.rmtree(base / "greedy_policy")
    assert loader.load_policy(base)._model_path.endswith("policies/policy")
    assert loader.saved_steps(base) == [10, 20]
    with pytest.raises(
        ValueError, match=r"step: got 15, expected 'latest', None or one of \[10, 20\]"
    ):
        loader.load_policy(base, step=15)
    with pytest.raises(FileNotFoundError, match="holds no saved policy: .*portable_policy"):
        loader.load_policy(base, kind="portable_policy")
    with pytest.raises(FileNotFoundError, match="holds no saved policy"):
        loader.load_policy(trigger_directory / "nowhere")


def test_an_incomplete_checkpoint_is_not_seen(trigger_directory):
    checkpoints = trigger_directory / "policies/checkpoints"
    (checkpoints / "policy_checkpoint_0000000030/variables").mkdir(parents=True)
    (checkpoints / ".policy_checkpoint_0000000040.writing-00000000-1-0").mkdir()
    (checkpoints / "notes.txt").write_text("")
    assert loader.load_policy(trigger_directory).get_train_step() == 20


@pytest.mark.parametrize("values", ["checkpoint_00060", "later"])
def test_materialize(tmp_path, values):
    trained(tmp_path)
    step = 60 if values != "later" else 100
    loader.materialize_saved_model(tmp_path / "policy", tmp_path / values, tmp_path / "whole")
    assert set(os.listdir(tmp_path / "whole")) >= {
        "saved_model.pb",
        "policy_specs.pbtxt",
        "variables",
    }
    whole = loader.load_policy(tmp_path / "whole", step=None)
    assert whole.get_train_step() == step and whole.get_metadata()["score"] == step / 2
    assert int(tf.saved_model.load(str(tmp_path / "whole")).get_train_step()) == step
    with pytest.raises(ValueError, match="Output path already exists: "):
        loader.materialize_saved_model(tmp_path / "policy", tmp_path / values, tmp_path / "whole")
    with pytest.raises(FileNotFoundError, match="saved_model.pb' does not exist"):
        loader.materialize_saved_model(tmp_path / values, tmp_path / "later", tmp_path / "x") if (
            values != "later"
        ) else loader.materialize_saved_model(tmp_path / "none", tmp_path / values, tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="variables.index' does not exist"):
        loader.materialize_saved_model(tmp_path / "policy", tmp_path / "none", tmp_path / "x")
    assert not (tmp_path / "x").exists()
