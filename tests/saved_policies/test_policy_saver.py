"""What a PolicySaver takes, which files it writes, and how saving fails."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from pgest import specs
from pgest.policies import py_policies, ready_made, tf_py_policy, time_steps
from pgest.policies.time_steps import PolicyStep
from pgest.saved_policies import directories, loader, policy_saver, specs_proto, triggers
from tests.saved_policies import saved_policy_models as models
from tests.saved_policies.opened_policies import assert_close

tfd = tfp.distributions

FILES = {
    "saved_model.pb",
    "assets",
    "variables",
    "policy_specs.pbtxt",
    "policy.json",
    "fingerprint.pb",
}


def change(policy, factor=-0.5):
    for variable in policy.variables():
        variable.assign(variable * factor + 0.05)


# --- files -------------------------------------------------------------------------------------


def test_save_writes_these_files_and_the_specs_last(tmp_path):
    policy_saver.PolicySaver(models.DiscretePolicy()).save(tmp_path / "policy")
    assert set(os.listdir(tmp_path / "policy")) == FILES
    assert sorted(os.listdir(tmp_path / "policy/variables")) == [
        "variables.data-00000-of-00001",
        "variables.index",
    ]
    times = {name: os.stat(tmp_path / "policy" / name).st_mtime_ns for name in FILES}
    assert times["policy_specs.pbtxt"] == max(times.values())
    assert os.listdir(tmp_path) == ["policy"]


def test_save_checkpoint_writes_variables_only(tmp_path):
    policy_saver.PolicySaver(models.DiscretePolicy()).save_checkpoint(str(tmp_path / "a" / "b"))
    assert os.listdir(tmp_path / "a/b") == ["variables"]
    assert sorted(os.listdir(tmp_path / "a/b/variables")) == [
        "variables.data-00000-of-00001",
        "variables.index",
    ]


def test_one_saver_saves_live_values_again_and_again(tmp_path):
    policy = models.DiscretePolicy()
    step = tf.Variable(0, dtype=tf.int64)
    saver = policy_saver.PolicySaver(policy, train_step=step)
    time_step = models.time_step_of(policy, 2)
    for value in (1, 4):
        change(policy)
        step.assign(value)
        saver.save(tmp_path / "policy")
        loaded = tf.saved_model.load(str(tmp_path / "policy"))
        assert int(loaded.get_train_step()) == value == saver.get_train_step()
        seed = tf.constant([1, 2])
        assert_close(
            loaded.action(time_step, seed=seed).action, policy.action(time_step, seed=seed).action
        )
        assert_close(loaded.model_variables[0], policy.variables()[0])


def test_an_export_among_other_files_leaves_them_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    saver = policy_saver.PolicySaver(models.DiscretePolicy())
    saver.save(tmp_path)
    saver.save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert set(os.listdir(tmp_path)) == FILES | {"notes.txt"}
    loader.load_policy(tmp_path)


def test_save_into_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saver = policy_saver.PolicySaver(models.DiscretePolicy())
    saver.save("")
    saver.save("")
    assert set(os.listdir()) == FILES


def test_a_file_in_the_way_is_an_error(tmp_path):
    (tmp_path / "policy").write_text("")
    saver = policy_saver.PolicySaver(models.DiscretePolicy())
    for save in (saver.save, saver.save_checkpoint):
        with pytest.raises(tf.errors.FailedPreconditionError, match="is a file"):
            save(tmp_path / "policy")
    assert os.listdir(tmp_path) == ["policy"]


def test_an_address_of_a_remote_file_system_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policy, address = models.DiscretePolicy(), "gs://bucket/policy"
    saver = policy_saver.PolicySaver(policy)
    saver.save("policy")
    loaded = loader.load_policy("policy")
    agent = types.SimpleNamespace(policy=policy, collect_policy=policy)
    for use in (
        saver.save,
        saver.save_checkpoint,
        loader.load_policy,
        loaded.update_from_checkpoint,
        lambda path: loader.materialize_saved_model("policy", path, "whole"),
        lambda path: loader.materialize_saved_model("policy", "policy", path),
        lambda path: triggers.PolicySavedModelTrigger(path, agent, tf.Variable(0), 1),
    ):
        with pytest.raises(ValueError, match="'gs://bucket/policy' is an address of a remote"):
            use(address)
    assert os.listdir() == ["policy"]


def test_options_reach_tensorflow(tmp_path):
    saver = policy_saver.PolicySaver(models.DiscretePolicy())
    saver.save(tmp_path / "a", options=tf.saved_model.SaveOptions(save_debug_info=True))
    assert "debug" in os.listdir(tmp_path / "a")
    saver.save_checkpoint(tmp_path / "b", options=tf.train.CheckpointOptions())
    with pytest.raises(AttributeError):
        saver.save(tmp_path / "c", options=1)
    assert not (tmp_path / "c").exists()


def test_specs_file_keeps_structures_bounds_and_names(tmp_path):
    policy = models.DictPolicy()
    policy_saver.PolicySaver(policy).save(tmp_path / "policy")
    found = specs_proto.from_text((tmp_path / "policy/policy_specs.pbtxt").read_text())
    assert found["collect_data_spec"] == policy.collect_data_spec
    assert type(found["collect_data_spec"]) is time_steps.Trajectory
    assert found["policy_state_spec"] == ()
    recurrent = models.RecurrentPolicy()
    policy_saver.PolicySaver(recurrent).save(tmp_path / "recurrent")
    found = specs_proto.from_text((tmp_path / "recurrent/policy_specs.pbtxt").read_text())
    assert found["policy_state_spec"] == {
        "c": tf.TensorSpec([5], tf.float32, "c"),
        "h": tf.TensorSpec([5], tf.float32, "h"),
    }


@pytest.mark.parametrize(
    "nest",
    [
        (),
        [],
        {},
        {"a": [tf.TensorSpec([2, 3], tf.float32, "x"), (tf.TensorSpec([], tf.bool),)]},
        specs.BoundedTensorSpec([2], tf.float32, [-np.inf, 0], [1, np.inf], "box"),
        specs.BoundedTensorSpec([], tf.uint8, 0, 255, "pixel"),
        specs.BoundedTensorSpec([], tf.int64, -3, 2**40, "big"),
        time_steps.time_step_spec(tf.TensorSpec([None, 2], tf.float64, "o")),
    ],
    ids=repr,
)
def test_specs_survive_their_text(nest):
    found = specs_proto.from_text(specs_proto.to_text(nest))
    assert found == nest
    tf.nest.assert_same_structure(found, nest)


def test_specs_text_errors():
    with pytest.raises(TypeError, match=r"specs at 'a': got 3 of type int"):
        specs_proto.to_text({"a": 3})
    with pytest.raises(TypeError, match="the dict key 1"):
        specs_proto.to_text({1: tf.TensorSpec([], tf.float32)})
    with pytest.raises(ValueError, match="not a StructuredValue"):
        specs_proto.from_text("nonsense {")
    with pytest.raises(ValueError, match="got int64_value"):
        specs_proto.from_text("int64_value: 3")


# --- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [None, 3, "policy", lambda: None])
def test_the_policy_must_be_a_tf_policy(policy):
    with pytest.raises(TypeError, match="policy is not a TFPolicy.  Saw: "):
        policy_saver.PolicySaver(policy)


def test_a_python_policy_is_refused_in_one_sentence():
    expert = py_policies.RandomPyPolicy(models.vector_spec(), models.discrete_spec())
    policy = tf_py_policy.TFPyPolicy(expert)
    with pytest.raises(TypeError, match="RandomPyPolicy, which exists only in this process"):
        policy_saver.PolicySaver(policy)


def test_python_code_inside_of_a_policy_is_refused():
    class Hidden(ready_made.TFPolicy):
        def _action(self, time_step, policy_state, seed):
            action = tf.numpy_function(
                lambda x: np.zeros(len(x), np.int64), [time_step.reward], tf.int64
            )
            return PolicyStep(tf.ensure_shape(action, [None]), policy_state)

    with pytest.raises(ValueError, match=r"runs Python code \(.*PyFunc"):
        policy_saver.PolicySaver(Hidden(models.vector_spec(), models.discrete_spec()))


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, "3", True, False, [1]])
def test_bad_batch_sizes(batch_size):
    with pytest.raises(ValueError, match=r"Expected batch_size == None or python int > 0, saw: "):
        policy_saver.PolicySaver(models.DiscretePolicy(), batch_size=batch_size)


@pytest.mark.parametrize("seed", [1.5, "3", True, tf.constant(3.0)])
def test_the_seed_must_be_an_int(seed):
    with pytest.raises(TypeError, match="seed: got .*, expected None or an int"):
        policy_saver.PolicySaver(models.DiscretePolicy(), seed=seed)


@pytest.mark.parametrize("train_step", [3, 3.0, tf.constant(3)])
def test_train_step_must_be_a_variable(train_step):
    with pytest.raises(ValueError, match="train_step must be a TensorFlow variable"):
        policy_saver.PolicySaver(models.DiscretePolicy(), train_step=train_step)


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ([tf.Variable(1.0)], "metadata must be a dictionary"),
        ([], "metadata must be a dictionary"),
        ({1: tf.Variable(1.0)}, "Keys of metadata must be strings: 1"),
        ({"a": 1.0}, "Values of metadata must be tf.Variable: 1.0"),
        ({"a": tf.constant(1.0)}, "Values of metadata must be tf.Variable"),
    ],
)
def test_bad_metadata(metadata, match):
    with pytest.raises(TypeError, match=match):
        policy_saver.PolicySaver(models.DiscretePolicy(), metadata=metadata)


def test_names_must_be_there_and_unique_without_nest_paths():
    class Named(models.DiscretePolicy):
        def __init__(self, name):
            ready_made.TFPolicy.__init__(
                self,
                time_steps.time_step_spec(tf.TensorSpec([4], tf.float32, name)),
                models.discrete_spec(),
            )

        def _distribution(self, time_step, policy_state):
            return PolicyStep(tfd.Categorical(logits=time_step.observation[:, :2]), policy_state)

    for name, shown in ((None, "<MISSING>"), ("reward", "'reward', 'discount', 'reward'")):
        with pytest.raises(
            ValueError,
            match=f"(?s)either a missing name or a name collision.*Spec names: .*{shown}",
        ):
            policy_saver.PolicySaver(Named(name), use_nest_path_signatures=False)
        policy_saver.PolicySaver(Named(name))
    saver = policy_saver.PolicySaver(Named("position"), use_nest_path_signatures=False)
    names = [spec.name for spec in tf.nest.flatten(saver.action_input_spec)]
    assert names == ["step_type", "reward", "discount", "position"]


def test_a_greedy_policy_without_a_mode_is_refused():
    class Modeless(ready_made.TFPolicy):
        def _distribution(self, time_step, policy_state):
            loc = time_step.observation[:, :2]
            mixture = tfd.MixtureSameFamily(
                tfd.Categorical(logits=tf.zeros_like(loc)), tfd.Normal(loc, 1.0)
            )
            return PolicyStep(mixture, policy_state)

    policy = Modeless(models.vector_spec(), tf.TensorSpec([], tf.float32, "action"))
    with pytest.raises(ValueError, match="does not implement mode"):
        policy_saver.PolicySaver(ready_made.GreedyPolicy(policy))


# --- comparing exports -------------------------------------------------------------------------


@pytest.mark.slow
def test_the_architecture_is_the_same_in_another_process_and_differs_where_it_should(tmp_path):
    here = policy_saver.PolicySaver(models.DiscretePolicy()).architecture
    again = policy_saver.PolicySaver(models.DiscretePolicy()).architecture
    assert here == again
    assert here != policy_saver.PolicySaver(models.DiscretePolicy(hidden=9)).architecture
    assert (
        here
        != policy_saver.PolicySaver(ready_made.GreedyPolicy(models.DiscretePolicy())).architecture
    )
    program = (
        "from pgest.saved_policies import policy_saver\n"
        "from tests.saved_policies import saved_policy_models as m\n"
        "print(policy_saver.PolicySaver(m.DiscretePolicy()).architecture)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert ran.stdout.strip() == here, ran.stderr


def test_matches(tmp_path):
    saver = policy_saver.PolicySaver(models.DiscretePolicy())
    assert not saver.matches(tmp_path / "policy")
    saver.save(tmp_path / "policy")
    assert saver.matches(tmp_path / "policy")
    assert policy_saver.PolicySaver(models.DiscretePolicy(seed=4)).matches(tmp_path / "policy")
    for other in (
        policy_saver.PolicySaver(models.DiscretePolicy(hidden=9)),
        policy_saver.PolicySaver(models.DiscretePolicy(), metadata={"a": tf.Variable(1.0)}),
        policy_saver.PolicySaver(models.DiscretePolicy(), batch_size=2),
    ):
        assert not other.matches(tmp_path / "policy")


# --- failures of the file system ---------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path):
    with models.tiny_disk(tmp_path / "disk") as place:
        yield place


def test_a_full_disk_leaves_the_earlier_export_as_it_was(tiny_disk):
    small = ready_made.GreedyPolicy(models.DiscretePolicy())
    saver = policy_saver.PolicySaver(small, train_step=tf.Variable(1, dtype=tf.int64))
    saver.save_checkpoint(tiny_disk / "checkpoint")
    before = (tiny_disk / "checkpoint/variables/variables.index").read_bytes()
    large = policy_saver.PolicySaver(models.DiscretePolicy(hidden=20_000))
    for save in (large.save, large.save_checkpoint):
        with pytest.raises((OSError, tf.errors.OpError)):
            save(tiny_disk / "checkpoint")
        assert os.listdir(tiny_disk) == ["checkpoint"]
    assert (tiny_disk / "checkpoint/variables/variables.index").read_bytes() == before
    saver.save_checkpoint(tiny_disk / "another")


def test_a_read_only_directory_is_an_error(tiny_disk):
    saver = policy_saver.PolicySaver(models.DiscretePolicy())
    saver.save_checkpoint(tiny_disk / "checkpoint")
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    for save in (saver.save, saver.save_checkpoint):
        with pytest.raises(OSError, match="Read-only file system"):
            save(tiny_disk / "policy")
    assert os.listdir(tiny_disk) == ["checkpoint"]


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = directories._HOST
    names = {
        "killed": f".policy.writing-{host}-{dead.pid}-0",
        "running": f".policy.writing-{host}-{os.getpid()}-0",
        "elsewhere": f".policy.writing-00000000-{dead.pid}-0",
        "other": ".policy.mine",
    }
    for name in names.values():
        (tmp_path / name).mkdir()
    directories.remove_leftovers(tmp_path)
    assert set(os.listdir(tmp_path)) == set(names.values()) - {names["killed"]}
