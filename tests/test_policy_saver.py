"""What a SavedModel of a policy holds, and how saving fails."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest
import saved_policy_models as models
import tensorflow as tf
import tensorflow_probability as tfp

from pgest import policies, py_policies, specs, tf_py_policy, time_steps
from pgest.saved_policies import directories, loader, policy_saver, specs_proto, triggers
from pgest.time_steps import PolicyStep

tfd = tfp.distributions

FILES = {
    "saved_model.pb",
    "assets",
    "variables",
    "policy_specs.pbtxt",
    "policy.json",
    "fingerprint.pb",
}
ALL_POLICIES = {
    "discrete": models.DiscretePolicy,
    "box": models.BoxPolicy,
    "squashed": lambda: models.BoxPolicy(family="squashed"),
    "beta": lambda: models.BoxPolicy(family="beta"),
    "recurrent": models.RecurrentPolicy,
    "dict": models.DictPolicy,
    "greedy": lambda: policies.GreedyPolicy(models.DictPolicy()),
}


def change(policy, factor=-0.5):
    for variable in policy.variables():
        variable.assign(variable * factor + 0.05)


def assert_close(first, second):
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), first, second
    )


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
    class Hidden(policies.TFPolicy):
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
            policies.TFPolicy.__init__(
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
    class Modeless(policies.TFPolicy):
        def _distribution(self, time_step, policy_state):
            loc = time_step.observation[:, :2]
            mixture = tfd.MixtureSameFamily(
                tfd.Categorical(logits=tf.zeros_like(loc)), tfd.Normal(loc, 1.0)
            )
            return PolicyStep(mixture, policy_state)

    policy = Modeless(models.vector_spec(), tf.TensorSpec([], tf.float32, "action"))
    with pytest.raises(ValueError, match="does not implement mode"):
        policy_saver.PolicySaver(policies.GreedyPolicy(policy))


# --- the loaded object -------------------------------------------------------------------------


@pytest.mark.parametrize("portable", [False, True], ids=["", "portable"])
@pytest.mark.parametrize("name", ALL_POLICIES)
def test_a_loaded_policy_acts_as_the_live_one(tmp_path, name, portable):
    policy = ALL_POLICIES[name]()
    policy_saver.PolicySaver(policy, portable=portable).save(tmp_path / "policy")
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    seed = tf.constant([3, 4])
    for batch in (1, 3):
        state = policy.get_initial_state(batch)
        assert_close(loaded.get_initial_state(batch), state)
        assert_close(loaded.get_initial_state(batch_size=batch), state)
        for first in (True, False):
            time_step = models.time_step_of(policy, batch, first=first)
            live = policy.action(time_step, state, seed=seed)
            found = loaded.action(time_step, state, seed=seed)
            assert type(found).__name__ == "PolicyStep" and found._fields == live._fields
            assert_close(found.action, live.action)
            assert_close(found.state, live.state)
            assert [leaf.dtype for leaf in tf.nest.flatten(found.action)] == [
                spec.dtype for spec in tf.nest.flatten(policy.action_spec)
            ]
            state = live.state


def test_all_ways_of_calling_a_stateless_action(tmp_path):
    policy = policies.GreedyPolicy(models.DiscretePolicy())
    policy_saver.PolicySaver(policy).save(tmp_path / "policy")
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    time_step = models.time_step_of(policy, 2)
    wanted = policy.action(time_step).action
    seed = tf.constant([1, 2])
    for found in (
        loaded.action(time_step),
        loaded.action(time_step, ()),
        loaded.action(time_step=time_step, policy_state=()),
        loaded.action(time_step, (), seed),
        loaded.action(time_step, seed=seed),
        loaded.action(time_step, seed=np.array([1, 2], np.int32)),
    ):
        np.testing.assert_array_equal(found.action, wanted)
    for state in (loaded.get_initial_state(0), loaded.get_initial_state(batch_size=0)):
        assert state == ()


def test_automatic_reset_and_clipping_are_in_the_file(tmp_path):
    recurrent = models.RecurrentPolicy()
    policy_saver.PolicySaver(recurrent).save(tmp_path / "recurrent")
    loaded = tf.saved_model.load(str(tmp_path / "recurrent"))
    time_step = models.time_step_of(recurrent, 2)
    time_step = time_step._replace(step_type=np.array([0, 1], np.int32))
    state = {"c": np.ones((2, 5), np.float32), "h": np.ones((2, 5), np.float32)}
    other = {"c": np.zeros((2, 5), np.float32), "h": np.zeros((2, 5), np.float32)}
    first, second = (loaded.action(time_step, s).state["c"].numpy() for s in (state, other))
    np.testing.assert_array_equal(first[0], second[0])
    assert np.abs(first[1] - second[1]).max() > 0.01
    box = models.BoxPolicy()
    box._log_std.assign([5.0, 5.0])
    policy_saver.PolicySaver(box).save(tmp_path / "box")
    loaded = tf.saved_model.load(str(tmp_path / "box"))
    actions = loaded.action(models.time_step_of(box, 50)).action.numpy()
    assert np.abs(actions).max() == 1.0


def test_the_distribution_form_of_the_documentation(tmp_path):
    policy = models.DiscretePolicy(n=3)
    policy_saver.PolicySaver(policy).save(tmp_path / "policy")
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    time_step = models.time_step_of(policy, 3)
    step = loaded.distribution(time_step, loaded.get_initial_state(batch_size=3))
    assert isinstance(step.action, tfd.Distribution)
    assert step.action.sample(3).shape == (3, 3)
    wanted = policy.distribution(time_step).action
    assert_close(step.action.logits, wanted.logits)
    np.testing.assert_array_equal(step.action.sample(seed=[1, 2]), wanted.sample(seed=[1, 2]))


@pytest.mark.parametrize("family", ["squashed", "beta"])
def test_bounded_distributions_become_those_of_tfp(tmp_path, family):
    policy = models.BoxPolicy(family=family)
    policy_saver.PolicySaver(policy).save(tmp_path / "policy")
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    time_step = models.time_step_of(policy, 4)
    found, wanted = (p.distribution(time_step).action for p in (loaded, policy))
    assert "pgest" not in type(found.distribution).__module__
    for value in (-0.9, 0.1, 0.7):
        assert_close(found.log_prob([value, value]), wanted.log_prob([value, value]))


def test_a_policy_without_a_distribution_says_so_when_asked(tmp_path, caplog):
    class Fixed(policies.TFPolicy):
        def _action(self, time_step, policy_state, seed):
            return PolicyStep(tf.ones_like(time_step.step_type, tf.int64), policy_state)

    policy = Fixed(models.vector_spec(), models.discrete_spec())
    saver = policy_saver.PolicySaver(policy)
    assert "cannot export its distribution: Fixed has no distribution" in caplog.text
    saver.save(tmp_path / "policy")
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    time_step = models.time_step_of(policy, 2)
    np.testing.assert_array_equal(loaded.action(time_step).action, [1, 1])
    with pytest.raises(tf.errors.InvalidArgumentError, match="Fixed has no distribution"):
        loaded.distribution(time_step)


def test_train_step_and_metadata(tmp_path):
    metadata = {"score": tf.Variable(7.0), "best": tf.Variable(9.0), "n": tf.Variable([1, 2])}
    saver = policy_saver.PolicySaver(models.DiscretePolicy(), metadata=metadata)
    assert saver.get_train_step() == -1 and saver.get_train_step().dtype == np.int64
    assert saver.get_metadata()["score"] == 7.0
    saver.save(tmp_path / "policy")
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    assert int(loaded.get_train_step()) == -1
    found = loaded.get_metadata()
    assert float(found["score"]) == 7.0 and float(found["best"]) == 9.0
    np.testing.assert_array_equal(found["n"], [1, 2])
    # Two of one dtype: TF-Agents' signature kept one of them.
    flat = loaded.signatures["get_metadata"]()
    assert set(flat) == {"score", "best", "n"} and float(flat["best"]) == 9.0
    flat = loaded.signatures["get_train_step"]()
    assert int(flat["train_step"]) == int(flat["int64"]) == -1


def test_a_fixed_batch(tmp_path):
    policy = models.RecurrentPolicy()
    saver = policy_saver.PolicySaver(policy, batch_size=np.int64(3))
    saver.save(tmp_path / "policy")
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    for state in (loaded.get_initial_state(), loaded.get_initial_state(batch_size=3)):
        assert state["c"].shape == (3, 5)
        assert loaded.action(models.time_step_of(policy, 3), state).action.shape == (3,)
    signatures = loaded.signatures
    assert signatures["get_initial_state"].structured_input_signature == ((), {})
    assert signatures["action"].structured_outputs["action"].shape == (3,)


def test_an_input_fn(tmp_path):
    policy = models.RecurrentPolicy()

    def convert(example):
        observation = tf.stack([example["x"]] * 4, -1)
        return (
            time_steps.transition(observation, tf.zeros_like(example["x"])),
            {"c": example["memory"], "h": example["memory"]},
        )

    spec = {
        "x": tf.TensorSpec([], tf.float32, name="x"),
        "memory": tf.TensorSpec([5], tf.float32),
    }
    saver = policy_saver.PolicySaver(policy, input_fn_and_spec=(convert, spec))
    assert saver.action_input_spec == (spec,)
    saver.save(tmp_path / "policy")
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    example = {"x": np.float32([0.5, 1.0]), "memory": np.ones((2, 5), np.float32)}
    wanted = policy.action(*convert(tf.nest.map_structure(tf.constant, example)), seed=[1, 2])
    assert_close(loaded.action(example, seed=tf.constant([1, 2])).action, wanted.action)
    assert loaded.distribution(example).action.logits.shape == (2, 3)
    names = {
        spec.name for spec in loaded.signatures["action"].structured_input_signature[1].values()
    }
    assert names == {"x", "input_list_0"}


def test_an_input_fn_that_does_not_fit():
    policy = models.DiscretePolicy()
    spec = tf.TensorSpec([3], tf.float32, "x")

    def wide(x):
        return time_steps.transition(x, tf.zeros_like(x[:, 0])), ()

    def wrong_dtype(x):
        return time_steps.transition(tf.zeros([1, 4], tf.float64), tf.zeros([1])), ()

    for function, shown in ((wide, r"\(\?, 3\)"), (wrong_dtype, "float64")):
        with pytest.raises(ValueError, match=f"Tensor is incompatible with spec. .*{shown}"):
            policy_saver.PolicySaver(policy, input_fn_and_spec=(function, spec))
    with pytest.raises(ValueError, match="input_fn's result"):
        policy_saver.PolicySaver(policy, input_fn_and_spec=(lambda x: (x, ()), spec))


# --- flat signatures ---------------------------------------------------------------------------


def test_flat_names_follow_the_nests(tmp_path):
    policy = models.DictPolicy(emit_log_probability=True)
    policy_saver.PolicySaver(policy).save(tmp_path / "policy")
    signatures = tf.saved_model.load(str(tmp_path / "policy")).signatures
    assert set(signatures) == {"action", "get_initial_state", "get_train_step", "get_metadata"}
    inputs = signatures["action"].structured_input_signature[1].values()
    assert {spec.name for spec in inputs} == {
        "0/step_type",
        "0/reward",
        "0/discount",
        "0/observation/action_mask",
        "0/observation/level",
        "0/observation/position",
    }
    assert set(signatures["action"].structured_outputs) == {
        "action/force",
        "action/move",
        "info/log_probability/force",
        "info/log_probability/move",
    }
    time_step = models.time_step_of(policy, 2)
    flat = {
        f"0/{path}": tf.constant(leaf)
        for path, leaf in policy_saver.nests.flatten_with_paths(time_step)
    }
    assert signatures["action"](**flat)["action/move"].shape == (2,)


def test_the_flat_loop_of_the_documentation(tmp_path):
    policy = models.RecurrentPolicy()
    saver = policy_saver.PolicySaver(policy, seed=1)
    saver.save(tmp_path / "policy")
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    initial, action = loaded.signatures["get_initial_state"], loaded.signatures["action"]
    state = initial(batch_size=tf.constant(3))
    assert set(state) == {"c", "h"}
    time_step = models.time_step_of(policy, 3)
    inputs = {
        "0/step_type": tf.constant(time_step.step_type),
        "0/reward": tf.constant(time_step.reward),
        "0/discount": tf.constant(time_step.discount),
        "0/observation": tf.constant(time_step.observation),
    }
    for _ in range(2):
        inputs |= {f"1/{name}": value for name, value in state.items()}
        step = action(**inputs)
        assert set(step) == {"action", "state/c", "state/h"}
        state = {name: step[f"state/{name}"] for name in ("c", "h")}
    assert saver.signatures.keys() == loaded.signatures.keys()
    assert [spec.name for spec in tf.nest.flatten(saver.policy_step_spec)] == [
        "action",
        "state/c",
        "state/h",
    ]
    assert [spec.name for spec in tf.nest.flatten(saver.policy_state_spec)] == ["c", "h"]


def test_saved_model_cli_shows_and_runs(tmp_path):
    policy = policies.GreedyPolicy(models.DiscretePolicy())
    policy_saver.PolicySaver(policy).save(tmp_path / "policy")
    program = shutil.which("saved_model_cli", path=os.path.dirname(sys.executable))
    if program is None:
        pytest.skip("TensorFlow's saved_model_cli is not installed")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}

    def run(command, *arguments):
        common = ("--dir", str(tmp_path / "policy"), "--tag_set", "serve")
        done = subprocess.run(
            [program, command, *common, "--signature_def", "action", *arguments],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = run("show")
    assert "inputs['0/observation']" in shown and "outputs['action']" in shown
    time_step = models.time_step_of(policy, 1)
    np.savez(tmp_path / "inputs.npz", **time_step._asdict())
    inputs = [f"0/{name}={tmp_path}/inputs.npz[{name}]" for name in time_step._fields]
    ran = run("run", "--inputs", ";".join(inputs))
    wanted = policy.action(time_step).action.numpy()
    assert f"Result for output key action:\n{wanted}" in ran


# --- seeds -------------------------------------------------------------------------------------


def draws(loaded, policy, count=6):
    time_step = models.time_step_of(policy, 8)
    return np.array([loaded.action(time_step).action.numpy() for _ in range(count)])


@pytest.mark.parametrize("kind", ["distribution", "stateful_ops"])
def test_sampling_without_a_seed_is_never_frozen(tmp_path, kind):
    class Stateful(policies.TFPolicy):
        def _action(self, time_step, policy_state, seed):
            del seed
            rows = tf.shape(time_step.step_type)
            return PolicyStep(tf.random.uniform(rows, 0, 10, tf.int64), policy_state)

    tf.random.set_seed(5)
    try:
        if kind == "distribution":
            policy = models.DiscretePolicy(n=10)
        else:
            policy = Stateful(models.vector_spec(), models.discrete_spec(10))
        policy_saver.PolicySaver(policy).save(tmp_path / "policy")
        loads = [tf.saved_model.load(str(tmp_path / "policy")) for _ in range(2)]
        first, second = (draws(loaded, policy) for loaded in loads)
    finally:
        tf.random.set_seed(None)
    assert (first != second).any()
    assert (first[0] != first[1]).any()


def test_a_seed_of_the_saver_fixes_the_sequence(tmp_path):
    policy = models.DiscretePolicy(n=10)
    policy_saver.PolicySaver(policy, seed=3).save(tmp_path / "policy")
    loads = [tf.saved_model.load(str(tmp_path / "policy")) for _ in range(2)]
    first, second = (draws(loaded, policy) for loaded in loads)
    np.testing.assert_array_equal(first, second)
    assert (first[0] != first[1]).any()


def test_a_seed_of_the_call_fixes_the_action_in_every_process(tmp_path):
    policy = models.DiscretePolicy(n=10)
    policy_saver.PolicySaver(policy, portable=True).save(tmp_path / "policy")
    time_step = models.time_step_of(policy, 8)
    wanted = policy.action(time_step, seed=[5, 6]).action.numpy()
    np.save(tmp_path / "observation.npy", time_step.observation)
    program = textwrap.dedent(
        """
        import collections, sys
        import numpy as np, tensorflow as tf
        loaded = tf.saved_model.load(sys.argv[1] + "/policy")
        TimeStep = collections.namedtuple("TimeStep", "step_type reward discount observation")
        rows = np.load(sys.argv[1] + "/observation.npy")
        ones = np.ones(len(rows), np.float32)
        step = loaded.action(TimeStep(ones.astype(np.int32), ones, ones, rows), seed=[5, 6])
        print(step.action.numpy().tolist())
        assert not [name for name in sys.modules if name.startswith(("pgest", "tensorflow_prob"))]
        """
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == wanted.tolist()


# --- registered functions ----------------------------------------------------------------------


def test_registered_functions(tmp_path):
    policy = models.DiscretePolicy()
    saver = policy_saver.PolicySaver(policy)
    scale, offset = tf.Variable(3.0), tf.Variable(1.0)

    @tf.function
    def shift(x):
        return x + offset

    shift(tf.constant(1.0))
    saver.register_function(
        "scaled", lambda x: x["a"] * scale, {"a": tf.TensorSpec([2], tf.float32)}
    )
    saver.register_function("single", lambda x: x * scale, tf.TensorSpec([], tf.float32), ())
    saver.register_concrete_function("shifted", shift)
    saver.register_concrete_function("exact", shift.get_concrete_function(tf.constant(0.0)))
    for name in ("scaled", "action", "train_step", "model_variables"):
        with pytest.raises(ValueError, match=f"already has an attribute registered with: {name}"):
            saver.register_function(name, lambda x: x, tf.TensorSpec([], tf.float32))
        with pytest.raises(ValueError, match=f"already has an attribute registered with: {name}"):
            saver.register_concrete_function(name, shift)
    with pytest.raises(ValueError, match="never traced"):
        saver.register_concrete_function("untraced", tf.function(lambda x: x))
    with pytest.raises(TypeError, match="expected a traced tf.function"):
        saver.register_concrete_function("plain", lambda x: x)
    saver.save(tmp_path / "policy")
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    np.testing.assert_array_equal(loaded.scaled({"a": tf.ones([1, 2])}), [[3.0, 3.0]])
    assert float(loaded.single(tf.constant(2.0))) == 6.0
    assert float(loaded.shifted(tf.constant(2.0))) == float(loaded.exact(tf.constant(2.0))) == 3.0
    assert float(loaded.shifted__variables_0) == 1.0
    assert "shifted" not in loaded.signatures
    # A checkpoint carries the variables of the functions too.
    offset.assign(5.0)
    saver.save_checkpoint(tmp_path / "checkpoint_1")
    opened = loader.load_policy(tmp_path / "policy")
    opened.update_from_checkpoint(tmp_path / "checkpoint_1")
    assert float(opened.shifted(tf.constant(2.0))) == 7.0


# --- portable ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_POLICIES)
def test_portable_signatures(tmp_path, name):
    policy = ALL_POLICIES[name]()
    policy_saver.PolicySaver(policy, portable=True).save(tmp_path / "policy")
    assert b"tfp." not in (tmp_path / "policy/saved_model.pb").read_bytes()
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    signatures = loaded.signatures
    observation = models.observation_of(policy, 3)
    state = policy.get_initial_state(3)
    inputs = dict(
        policy_saver.nests.flatten_with_paths({"observation": observation, "policy_state": state})
    )
    inputs = {key: tf.constant(value) for key, value in inputs.items()}
    greedy = policy if name == "greedy" else policies.GreedyPolicy(policy)
    time_step = models.time_step_of(policy, 3, first=False)
    step = greedy.action(time_step, state)
    wanted = dict(
        policy_saver.nests.flatten_with_paths({"action": step.action, "state": step.state})
    )
    assert_close(signatures["serving_default"](**inputs), wanted)
    parameters = loaded.distribution(time_step, state).action
    assert all(tf.is_tensor(leaf) for leaf in tf.nest.flatten(parameters))
    if name == "greedy":
        assert "sample" not in signatures
        return
    width = signatures["sample"].structured_input_signature[1]["noise"].shape[1]
    noise = np.random.default_rng(0).random((3, width)).astype(np.float32)
    first = signatures["sample"](**inputs, noise=tf.constant(noise))
    assert set(first) == set(wanted)
    again = signatures["sample"](**inputs, noise=tf.constant(noise))
    other = signatures["sample"](**inputs, noise=tf.constant(1 - noise))
    tf.nest.map_structure(np.testing.assert_array_equal, first, again)
    assert any((first[key].numpy() != other[key].numpy()).any() for key in first if "action" in key)


@pytest.mark.parametrize("name", ["discrete", "box", "squashed", "recurrent", "dict"])
def test_tflite_gives_the_same_with_built_in_ops_only(tmp_path, name):
    policy = ALL_POLICIES[name]()
    policy_saver.PolicySaver(policy, portable=True).save(tmp_path / "policy")
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    observation, state = models.observation_of(policy, 1), policy.get_initial_state(1)
    inputs = dict(
        policy_saver.nests.flatten_with_paths({"observation": observation, "policy_state": state})
    )
    inputs = {key: np.asarray(value) for key, value in inputs.items()}
    for signature in ("serving_default", "sample"):
        function = loaded.signatures[signature]
        given = dict(inputs)
        if signature == "sample":
            width = function.structured_input_signature[1]["noise"].shape[1]
            given["noise"] = np.random.default_rng(1).random((1, width)).astype(np.float32)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(tmp_path / "policy"), signature_keys=[signature]
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        interpreter = tf.lite.Interpreter(model_content=converter.convert())
        runner = interpreter.get_signature_runner(signature)
        found = runner(**given)
        wanted = function(**{key: tf.constant(value) for key, value in given.items()})
        for key, value in wanted.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-6, atol=1e-6)


def test_tflite_of_the_flat_action_signature_of_a_greedy_policy(tmp_path):
    policy = policies.GreedyPolicy(models.DiscretePolicy())
    policy_saver.PolicySaver(policy).save(tmp_path / "policy")
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(tmp_path / "policy"), signature_keys=["action"]
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    runner = tf.lite.Interpreter(model_content=converter.convert()).get_signature_runner("action")
    time_step = models.time_step_of(policy, 1)
    names = policy_saver.nests.flatten_with_paths((time_step,))
    found = runner(**{name: np.asarray(value) for name, value in names})
    np.testing.assert_array_equal(found["action"], policy.action(time_step).action)


# --- comparing exports -------------------------------------------------------------------------


def test_the_architecture_is_the_same_in_another_process_and_differs_where_it_should(tmp_path):
    here = policy_saver.PolicySaver(models.DiscretePolicy()).architecture
    again = policy_saver.PolicySaver(models.DiscretePolicy()).architecture
    assert here == again
    assert here != policy_saver.PolicySaver(models.DiscretePolicy(hidden=9)).architecture
    assert (
        here
        != policy_saver.PolicySaver(policies.GreedyPolicy(models.DiscretePolicy())).architecture
    )
    program = (
        "import saved_policy_models as m\nfrom pgest.saved_policies import policy_saver\n"
        "print(policy_saver.PolicySaver(m.DiscretePolicy()).architecture)"
    )
    here_path = pathlib.Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here_path}{os.pathsep}{here_path.parent}"}
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
    small = policies.GreedyPolicy(models.DiscretePolicy())
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
