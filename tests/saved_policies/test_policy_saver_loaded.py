"""What TensorFlow's loader makes of a policy's SavedModel."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from pgest.policies import ready_made, time_steps
from pgest.policies.time_steps import PolicyStep
from pgest.saved_policies import loader, policy_saver
from tests.saved_policies import saved_policy_models as models
from tests.saved_policies.opened_policies import assert_close
from tests.saved_policies.saved_policy_models import ALL_POLICIES

tfd = tfp.distributions


# --- acting ------------------------------------------------------------------------------------


@pytest.mark.slow
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
    policy = ready_made.GreedyPolicy(models.DiscretePolicy())
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
    class Fixed(ready_made.TFPolicy):
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


# --- seeds -------------------------------------------------------------------------------------


def draws(loaded, policy, count=6):
    time_step = models.time_step_of(policy, 8)
    return np.array([loaded.action(time_step).action.numpy() for _ in range(count)])


@pytest.mark.parametrize("kind", ["distribution", "stateful_ops"])
def test_sampling_without_a_seed_is_never_frozen(tmp_path, kind):
    class Stateful(ready_made.TFPolicy):
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


@pytest.mark.slow
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
