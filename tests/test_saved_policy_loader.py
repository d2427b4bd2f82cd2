"""Saved policies with numpy on both sides."""

import copy
import os
import shutil
import threading
import time
import types
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import saved_policy_models as models
import tensorflow as tf

from pgest import policies, specs, time_steps
from pgest.saved_policies import (
    called_graphs,
    eager_policy,
    loader,
    policy_saver,
    triggers,
)

ALL_POLICIES = {
    "discrete": models.DiscretePolicy,
    "box": models.BoxPolicy,
    "recurrent": models.RecurrentPolicy,
    "dict": models.DictPolicy,
    "log_probability": lambda: models.DiscretePolicy(emit_log_probability=True),
    "greedy": lambda: policies.GreedyPolicy(models.RecurrentPolicy()),
}


def save(policy, path, **options):
    policy_saver.PolicySaver(policy, **options).save(path)
    return path


def open_policy(path, **options):
    return eager_policy.SavedModelPyTFEagerPolicy(path, load_specs_from_pbtxt=True, **options)


def unbatched(nest):
    return tf.nest.map_structure(lambda leaf: np.asarray(leaf)[0], nest)


def assert_close(first, second):
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), first, second
    )


# --- acting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("portable", [False, True], ids=["", "portable"])
@pytest.mark.parametrize("name", ALL_POLICIES)
def test_numpy_in_numpy_out_as_the_live_policy(tmp_path, name, portable):
    policy = ALL_POLICIES[name]()
    opened = open_policy(save(policy, tmp_path / "policy", portable=portable))
    state, live_state = opened.get_initial_state(), policy.get_initial_state(1)
    for seed, first in ((5, True), (6, False), (np.int32([7, 8]), True)):
        batched = models.time_step_of(policy, 1, seed=3, first=first)
        live = policy.action(batched, live_state, seed=seed)
        found = opened.action(unbatched(batched), state, seed=seed)
        assert isinstance(found, time_steps.PolicyStep)
        assert_close(found.action, unbatched(live.action))
        assert_close(found.info, unbatched(live.info))
        assert_close(found.state, live.state)
        for leaf, spec in zip(
            tf.nest.flatten(found.action), tf.nest.flatten(policy.action_spec), strict=True
        ):
            assert type(leaf) is np.ndarray
            assert leaf.dtype == spec.dtype.as_numpy_dtype and leaf.shape == tuple(spec.shape)
        assert all(type(leaf) is np.ndarray for leaf in tf.nest.flatten(found))
        state, live_state = found.state, live.state


@pytest.mark.parametrize("name", ALL_POLICIES)
def test_batched_time_steps(tmp_path, name):
    policy = ALL_POLICIES[name]()
    opened = open_policy(save(policy, tmp_path / "policy"), batch_time_steps=False)
    for batch in (1, 4):
        time_step = models.time_step_of(policy, batch)
        state = opened.get_initial_state(batch)
        found = opened.action(time_step, state, seed=5)
        live = policy.action(time_step, policy.get_initial_state(batch), seed=5)
        assert_close(found, live)
        assert all(type(leaf) is np.ndarray for leaf in tf.nest.flatten(found))


def test_sampling_without_a_seed_varies_and_with_one_does_not(tmp_path):
    policy = models.DiscretePolicy(n=50)
    opened = open_policy(save(policy, tmp_path / "policy"))
    time_step = models.time_step_of(policy)
    assert len({int(opened.action(time_step).action) for _ in range(30)}) > 5
    assert len({int(opened.action(time_step, seed=3).action) for _ in range(5)}) == 1
    assert len({int(opened.action(time_step, seed=s).action) for s in range(30)}) > 5
    for seed in (-1, 2**40, [1, 2]):
        assert opened.action(time_step, seed=seed).action.shape == ()
    for seed in (1.5, "x", [1, 2, 3]):
        with pytest.raises(TypeError, match="seed: got"):
            opened.action(time_step, seed=seed)


def test_the_result_is_the_callers_own(tmp_path):
    policy = policies.GreedyPolicy(models.BoxPolicy())
    opened = open_policy(save(policy, tmp_path / "policy"))
    time_step = models.time_step_of(policy)
    first = opened.action(time_step).action
    wanted = first.copy()
    first += 1
    np.testing.assert_array_equal(opened.action(time_step).action, wanted)


@pytest.mark.parametrize("portable", [False, True], ids=["", "portable"])
def test_distribution(tmp_path, portable):
    policy = models.RecurrentPolicy()
    opened = open_policy(save(policy, tmp_path / "policy", portable=portable))
    batched = models.time_step_of(policy, 1)
    live = policy.distribution(batched, policy.get_initial_state(1))
    found = opened.distribution(unbatched(batched), opened.get_initial_state())
    logits = found.action["logits"] if portable else found.action.logits_parameter()
    assert_close(logits, live.action.logits_parameter()[0])
    assert type(found.state["c"]) is np.ndarray
    assert_close(found.state, live.state)
    if portable:
        assert type(logits) is np.ndarray
    else:
        assert found.action.sample().shape == ()


def test_initial_states(tmp_path):
    policy = models.RecurrentPolicy()
    opened = open_policy(save(policy, tmp_path / "a"))
    assert opened.get_initial_state()["c"].shape == (1, 5)
    assert opened.get_initial_state(batch_size=3)["c"].shape == (3, 5)
    assert (opened.get_initial_state()["c"] == 0.25).all()
    fixed = open_policy(save(policy, tmp_path / "b", batch_size=2), batch_time_steps=False)
    assert fixed.get_initial_state()["c"].shape == (2, 5)
    assert fixed.get_initial_state(2)["c"].shape == (2, 5)
    with pytest.raises(ValueError, match="batch_size: got 1, but the export works with"):
        fixed.get_initial_state(1)
    assert open_policy(save(models.DiscretePolicy(), tmp_path / "c")).get_initial_state() == ()


def test_a_fixed_batch(tmp_path):
    policy = models.RecurrentPolicy()
    save(policy, tmp_path / "policy", batch_size=3)
    opened = open_policy(tmp_path / "policy", batch_time_steps=False)
    time_step = models.time_step_of(policy, 3)
    found = opened.action(time_step, opened.get_initial_state(), seed=1)
    assert_close(found, policy.action(time_step, policy.get_initial_state(3), seed=1))
    with pytest.raises(ValueError, match=r"time_step/step_type: .*expected int32 of shape \(3,\)"):
        opened.action(models.time_step_of(policy, 2), opened.get_initial_state())
    opened = open_policy(tmp_path / "policy")
    with pytest.raises(ValueError, match="exported with batch_size=3 .* batch_time_steps=False"):
        opened.action(models.time_step_of(policy), opened.get_initial_state())
    one = open_policy(save(policy, tmp_path / "one", batch_size=1))
    assert one.action(models.time_step_of(policy), one.get_initial_state()).action.shape == ()


def test_an_export_with_an_input_fn(tmp_path):
    policy = models.DiscretePolicy(n=9)

    def convert(example):
        observation = tf.stack([example["x"]] * 4, -1)
        return time_steps.transition(observation, tf.zeros_like(example["x"])), ()

    spec = {"x": tf.TensorSpec([], tf.float32, name="x")}
    save(policy, tmp_path / "policy", input_fn_and_spec=(convert, spec))
    opened = open_policy(tmp_path / "policy")
    wanted = policy.action(*convert({"x": tf.constant([0.5])}), seed=3).action[0]
    assert opened.action({"x": 0.5}, seed=3).action == wanted
    with pytest.raises(ValueError, match="example/x: got float32 of shape"):
        opened.action({"x": [0.5, 1.0]})
    batched = open_policy(tmp_path / "policy", batch_time_steps=False)
    assert batched.action({"x": np.float32([0.5, 1.0])}).action.shape == (2,)


# --- checking and casting ----------------------------------------------------------------------


def test_inputs_are_cast_where_nothing_is_lost(tmp_path):
    policy = models.DictPolicy()
    opened = open_policy(save(policy, tmp_path / "policy"))
    time_step = models.time_step_of(policy)
    wanted = opened.action(time_step, seed=1)
    observation = time_step.observation
    for changed in (
        time_step._replace(step_type=np.int64(0), reward=0.0, discount=1),
        time_step._replace(
            observation={
                "position": observation["position"].astype(np.float64),
                "level": int(observation["level"]),
                "action_mask": observation["action_mask"].tolist(),
                "extra": "dropped",
            }
        ),
        time_step._replace(observation=tf.nest.map_structure(tf.constant, observation)),
    ):
        assert_close(opened.action(changed, seed=1).action, wanted.action)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"position": np.zeros(3)},
            r"time_step/observation/position: got .* \(3,\), expected .* \(2,\)",
        ),
        ({"position": np.zeros((1, 2))}, r"time_step/observation/position: got .* \(1, 2\)"),
        ({"level": 0.5}, r"time_step/observation/level: got float.*expected int64"),
        ({"position": "left"}, r"time_step/observation/position: got str"),
        ({"level": {"a": 1}}, "time_step/observation/level: got a dict"),
        (None, "time_step at 'observation': got a leaf"),
        ("remove", "time_step at 'observation': got a dict with keys"),
    ],
)
def test_a_wrong_input_is_one_line_that_names_the_leaf(tmp_path_factory, change, match):
    policy = models.DictPolicy()
    path = tmp_path_factory.getbasetemp() / "wrong_input"
    if not path.exists():
        save(policy, path)
    opened = open_policy(path)
    time_step = models.time_step_of(policy)
    observation = time_step.observation
    if change is None:
        observation = np.zeros(2)
    elif change == "remove":
        observation = {"position": observation["position"]}
    else:
        observation = {**observation, **change}
    with pytest.raises((ValueError, TypeError), match=match) as caught:
        opened.action(time_step._replace(observation=observation))
    assert "\n" not in str(caught.value)


def test_wrong_structures_and_states(tmp_path):
    policy = models.RecurrentPolicy()
    opened = open_policy(save(policy, tmp_path / "policy"))
    time_step, state = models.time_step_of(policy), opened.get_initial_state()
    with pytest.raises(ValueError, match="time_step: got a tuple of length 4, expected a TimeStep"):
        opened.action(tuple(time_step), state)
    with pytest.raises(ValueError, match=r"policy_state: got \(\), but the policy has a state"):
        opened.action(time_step)
    with pytest.raises(ValueError, match="policy_state: got a dict with keys"):
        opened.action(time_step, {"c": state["c"]})
    with pytest.raises(ValueError, match=r"policy_state/c: got .*\(5,\), expected .*\(1, 5\)"):
        opened.action(time_step, {"c": state["c"][0], "h": state["h"]})
    # A time step of another library will do.
    foreign = types.SimpleNamespace(**time_step._asdict())
    assert opened.action(foreign, state, seed=1).action == opened.action(time_step, state, 1).action


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

    class Pair(policies.TFPolicy):
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
    agent = types.SimpleNamespace(policy=policies.GreedyPolicy(policy), collect_policy=policy)
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


# --- playing -----------------------------------------------------------------------------------


class Recall(gymnasium.Env):
    """Pays for answering, in the second timestep, the number shown in the first."""

    observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        return self.observation_space.sample(), 1.0, self.steps == 5, False, {}


@pytest.mark.parametrize("name", ["discrete", "recurrent"])
def test_a_player_in_a_gymnasium_loop(tmp_path, name):
    opened = open_policy(save(ALL_POLICIES[name](), tmp_path / "policy"))
    env = Recall()
    play = opened.player(seed=3)
    for _ in range(2):
        observation, _ = env.reset(seed=1)
        env.observation_space.seed(1)
        play.reset()
        done, total = False, 0.0
        while not done:
            observation, reward, terminated, truncated, _ = env.step(play(observation))
            done = terminated or truncated
            total += reward
        assert total == 5.0


def test_a_player_is_reproducible_and_remembers(tmp_path):
    policy = models.RecurrentPolicy()
    opened = open_policy(save(policy, tmp_path / "policy"))
    observations = [models.observation_of(policy, seed=seed) for seed in range(8)]

    def plays(seed):
        play = opened.player(seed)
        return [int(play(observation)) for observation in observations]

    assert plays(1) == plays(1)
    assert len({tuple(plays(seed)) for seed in range(5)}) > 1
    play = opened.player()
    play(observations[0])
    remembered = play._state["c"]
    wanted = policy.action(
        models.time_step_of(policy, 1)._replace(observation=observations[0][None]),
        policy.get_initial_state(1),
    ).state["c"]
    np.testing.assert_allclose(remembered, wanted, rtol=1e-5, atol=1e-6)


def test_a_player_of_vector_environments(tmp_path):
    policy = models.RecurrentPolicy()
    opened = open_policy(save(policy, tmp_path / "policy"), batch_time_steps=False)
    play = opened.player()
    for seed in range(3):
        assert play(models.observation_of(policy, 6, seed)).shape == (6,)
    first = np.arange(6) < 2
    observation = models.observation_of(policy, 6, 5)
    play(observation, first)
    fresh = opened.player()
    fresh(observation)
    np.testing.assert_allclose(play._state["c"][:2], fresh._state["c"][:2], rtol=1e-5, atol=1e-6)
    assert np.abs(play._state["c"][2:] - fresh._state["c"][2:]).max() > 1e-3


# --- the fast path -----------------------------------------------------------------------------


def test_unused_inputs_are_found_through_inner_functions():
    @tf.function(autograph=False)
    def inner(a, b):
        return a + 1.0

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.float32)] * 3)
    def outer(a, b, c):
        return inner(a, b) * tf.cond(c > 0, lambda: 1.0, lambda: 2.0)

    assert called_graphs.used_inputs(outer.get_concrete_function())[:3] == [True, False, True]


def test_a_feed_forward_policy_is_fed_its_observation_only(tmp_path):
    opened = open_policy(save(policies.GreedyPolicy(models.DiscretePolicy()), tmp_path / "p"))
    assert opened._graphs[False]._fed == [False, False, False, True]
    recurrent = open_policy(save(models.RecurrentPolicy(), tmp_path / "r"))
    assert recurrent._graphs[False]._fed == [True, False, False, True, True, True]


def test_nothing_is_traced_after_the_first_action(tmp_path):
    policy = models.DiscretePolicy()
    opened = open_policy(save(policy, tmp_path / "policy"))
    time_step = models.time_step_of(policy)
    opened.action(time_step)
    opened.action(time_step, seed=1)
    graphs = dict(opened._graphs)
    for seed in (None, 1, 2):
        opened.action(models.time_step_of(policy, seed=seed or 0), seed=seed)
    assert opened._graphs == graphs
