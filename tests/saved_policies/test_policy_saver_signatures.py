"""The flat signatures of a policy's SavedModel, and the portable ones that TFLite takes too."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from pgest.policies import ready_made, time_steps
from pgest.policies.time_steps import PolicyStep
from pgest.saved_policies import policy_saver
from tests.saved_policies import saved_policy_models as models
from tests.saved_policies.opened_policies import assert_close
from tests.saved_policies.saved_policy_models import ALL_POLICIES

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_saved_model_cli_shows_and_runs(tmp_path):
    policy = ready_made.GreedyPolicy(models.DiscretePolicy())
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
    greedy = policy if name == "greedy" else ready_made.GreedyPolicy(policy)
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


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("name", ["discrete", "recurrent"])
def test_portable_signatures_of_a_fixed_batch_size(tmp_path, name, batch_size):
    policy = ALL_POLICIES[name]()
    for directory, size in (("fixed", batch_size), ("any", None)):
        saver = policy_saver.PolicySaver(policy, size, portable=True)
        saver.save(tmp_path / directory)
    fixed, of_any_size = (tf.saved_model.load(str(tmp_path / name)) for name in ("fixed", "any"))
    nest = {
        "observation": models.observation_of(policy, batch_size),
        "policy_state": policy.get_initial_state(batch_size),
    }
    inputs = {key: tf.constant(value) for key, value in policy_saver.nests.flatten_with_paths(nest)}
    served = fixed.signatures["serving_default"]
    assert {tensor.shape[0] for tensor in served.structured_outputs.values()} == {batch_size}
    assert_close(served(**inputs), of_any_size.signatures["serving_default"](**inputs))
    assert "sample" in fixed.signatures


@pytest.mark.slow
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
    policy = ready_made.GreedyPolicy(models.DiscretePolicy())
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


# --- names ---------------------------------------------------------------------------------


class Keyed(ready_made.TFPolicy):
    """Observes a number under each key, and chooses the key of the greatest under each key."""

    def __init__(self, observation_keys, action_keys):
        observation = {key: tf.TensorSpec([1], tf.float32) for key in observation_keys}
        action = {key: models.discrete_spec() for key in action_keys}
        super().__init__(time_steps.time_step_spec(observation), action)

    def _distribution(self, time_step, policy_state):
        logits = tf.concat(tf.nest.flatten(time_step.observation), 1)
        choices = {key: models.tfd.Categorical(logits=logits) for key in self.action_spec}
        return PolicyStep(choices, policy_state)


@pytest.mark.parametrize("keys", [("a b", "a-b"), ("A", "a"), ("é", "ü"), ("x.1", "x_1")])
def test_keys_that_tensorflow_takes_for_one_are_refused_at_construction(keys):
    with pytest.raises(ValueError, match=f"tell '0/observation/{keys[0]}' and '0/.*{keys[1]}'"):
        policy_saver.PolicySaver(Keyed(keys, ["x"]))


def test_so_are_keys_of_actions():
    with pytest.raises(ValueError, match="tell 'action/a b' and 'action/a_b' apart"):
        policy_saver.PolicySaver(Keyed(["x", "y"], ["a b", "a_b"]))
    policy_saver.PolicySaver(Keyed(["x", "y"], ["a", "A"]))


@pytest.mark.parametrize("portable", [False, True])
def test_names_are_in_the_characters_that_tensorflow_takes(tmp_path, portable):
    policy = Keyed(("B-é", "left arm"), ("left arm", "right"))
    policy_saver.PolicySaver(policy, portable=portable).save(tmp_path / "policy")
    signatures = tf.saved_model.load(tmp_path / "policy").signatures
    for best, values in enumerate(([[100.0]], [[-100.0]])):
        observation = {"observation/B-_": values, "observation/left_arm": [[0.0]]}
        if portable:
            given = {name: tf.constant(value) for name, value in observation.items()}
            found = signatures["serving_default"](**given)
        else:
            given = {f"0/{name}": tf.constant(value) for name, value in observation.items()}
            given |= {"0/step_type": tf.constant([1]), "0/discount": tf.ones([1])}
            found = signatures["action"](**given, **{"0/reward": tf.zeros([1])})
        assert found["action/left_arm"] == found["action/right"] == best
