"""Saved policies act with numpy on both sides: casts, checks, states, players, speed."""

import types

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

from pgest.policies import ready_made, time_steps
from pgest.saved_policies import called_graphs
from tests.saved_policies import saved_policy_models as models
from tests.saved_policies.opened_policies import assert_close, open_policy, save, unbatched

ALL_POLICIES = {
    "discrete": models.DiscretePolicy,
    "box": models.BoxPolicy,
    "recurrent": models.RecurrentPolicy,
    "dict": models.DictPolicy,
    "log_probability": lambda: models.DiscretePolicy(emit_log_probability=True),
    "greedy": lambda: ready_made.GreedyPolicy(models.RecurrentPolicy()),
}


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
    policy = ready_made.GreedyPolicy(models.BoxPolicy())
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
    opened = open_policy(save(ready_made.GreedyPolicy(models.DiscretePolicy()), tmp_path / "p"))
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
