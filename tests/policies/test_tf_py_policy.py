"""Python policies inside of TensorFlow."""

import threading

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

from pgest import specs
from pgest.policies import py_policies, ready_made, tf_py_policy, time_steps
from pgest.policies.time_steps import PolicyStep
from tests.policies.py_policy_fakes import ACTION, TIME_STEP, CountingPolicy, Returning, restart


def eager(function):
    return function


def graph(function):
    return tf.function(function, autograph=False)


def dynamic(function):
    """In a graph that does not know the batch size."""
    signature = specs.add_outer_dims(specs.from_spec(TIME_STEP))

    def call(time_step, *rest):
        unknown = tf.function(
            lambda step: function(step, *rest), input_signature=[signature], autograph=False
        )
        return unknown(time_step)

    return call


ways = pytest.mark.parametrize("way", [eager, graph, dynamic])
FAILURES = (ValueError, TypeError, tf.errors.OpError)


def test_only_python_policies_are_wrapped():
    with pytest.raises(TypeError, match="should implement py_policies.PyPolicy, but saw function"):
        tf_py_policy.TFPyPolicy(eager)
    random = ready_made.RandomTFPolicy(
        specs.from_spec(TIME_STEP), specs.BoundedTensorSpec((), tf.int64, 0, 1)
    )
    with pytest.raises(TypeError, match="but saw RandomTFPolicy"):
        tf_py_policy.TFPyPolicy(random)


def test_specs_keep_their_bounds():
    policy = tf_py_policy.TFPyPolicy(CountingPolicy())
    assert policy.action_spec == specs.from_spec(ACTION)
    assert policy.policy_state_spec == {"count": tf.TensorSpec((), tf.int64)}
    assert policy.time_step_spec == specs.from_spec(TIME_STEP)
    assert policy.name == "tf_py_policy"
    assert tf_py_policy.TFPyPolicy(CountingPolicy(), name="expert").name == "expert"
    assert not policy.emit_log_probability and not policy.clip
    assert policy.variables() == () and policy.update(policy) is None


@ways
def test_one_row_loses_its_batch_axis_and_gets_it_back(way):
    python = CountingPolicy()
    policy = tf_py_policy.TFPyPolicy(python)
    state = policy.get_initial_state(1)
    assert state["count"].numpy().tolist() == [10]
    step = way(policy.action)(restart(1, 0.5), state)
    np.testing.assert_array_equal(step.action, [[11, 11]])
    assert step.state["count"].numpy().tolist() == [11]
    assert step.info[0].shape == (1, 3)
    time_step, policy_state, seed = python.seen[-1]
    assert isinstance(time_step, time_steps.TimeStep)
    np.testing.assert_array_equal(time_step.observation["x"], np.full(4, 0.5, np.float32))
    assert time_step.observation["x"].dtype == np.float32
    assert time_step.step_type.shape == policy_state["count"].shape == ()
    assert seed is None
    step = way(policy.action)(restart(1), step.state)
    assert step.state["count"].numpy().tolist() == [12]


@ways
def test_batches_pass_as_they_are(way):
    python = CountingPolicy()
    policy = tf_py_policy.TFPyPolicy(python, py_policy_is_batched=True)
    step = way(policy.action)(restart(3), policy.get_initial_state(3))
    assert step.action.shape == (3, 2) and step.info[0].shape == (3, 3)
    assert step.state["count"].numpy().tolist() == [11, 11, 11]
    assert python.seen[-1][0].observation["x"].shape == (3, 4)
    assert python.seen[0] == 3 and type(python.seen[0]) is int


@ways
def test_more_than_one_row_is_refused_unless_batched(way):
    policy = tf_py_policy.TFPyPolicy(Returning(np.zeros(2, np.float32)))
    with pytest.raises(FAILURES, match="expected .*1"):
        way(policy.action)(restart(2))


def test_a_time_step_without_batch_axis_is_refused():
    policy = tf_py_policy.TFPyPolicy(Returning(np.zeros(2, np.float32)))
    with pytest.raises(ValueError, match=r"outer shape \(\), expected \(1,\)"):
        policy.action(time_steps.restart({"x": tf.zeros(4)}))


@pytest.mark.parametrize("in_graph", [False, True])
def test_initial_states(in_graph):
    def start(policy, size):
        function = policy.get_initial_state
        return tf.function(function)(size) if in_graph else function(size)

    single = tf_py_policy.TFPyPolicy(CountingPolicy())
    batched = tf_py_policy.TFPyPolicy(CountingPolicy(), py_policy_is_batched=True)
    assert start(single, 1)["count"].shape == (1,)
    assert start(single, tf.constant(1))["count"].shape == (1,)
    assert start(single, None)["count"].shape == ()
    assert start(batched, 5)["count"].numpy().tolist() == [10] * 5
    assert start(batched, tf.constant(5))["count"].shape == (5,)
    assert start(batched, 0)["count"].shape == (0,)
    assert start(batched, None)["count"].shape == ()
    for size in (2, tf.constant(2)):
        with pytest.raises(FAILURES, match="got batch_size 2, expected 1 or None"):
            start(single, size)
    stateless = tf_py_policy.TFPyPolicy(Returning(np.zeros(2)))
    assert start(stateless, 4) == () and start(stateless, tf.constant(0)) == ()


def test_static_shapes_are_known_in_a_graph():
    policy = tf_py_policy.TFPyPolicy(CountingPolicy(), py_policy_is_batched=True)
    signature = specs.add_outer_dims((policy.time_step_spec, policy.policy_state_spec))
    traced = tf.function(policy.action, input_signature=signature).get_concrete_function()
    shapes = tf.nest.map_structure(lambda t: t.shape.as_list(), traced.structured_outputs)
    assert shapes == PolicyStep([None, 2], {"count": [None]}, ([None, 3],))
    single = tf_py_policy.TFPyPolicy(CountingPolicy())
    traced = tf.function(single.action, input_signature=signature).get_concrete_function()
    assert traced.structured_outputs.action.shape.as_list() == [1, 2]


@ways
@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros(3, np.float32), r"at 'action': got float32 of shape \(3,\), expected float32"),
        (np.zeros((1, 2), np.float32), r"at 'action': got float32 of shape \(1, 2\)"),
        (np.array(["a", "b"]), "at 'action': got str"),
        ({"a": np.zeros(2, np.float32)}, "at 'action': got a dict with keys"),
        (np.zeros(2, np.complex64), "at 'action': got complex64 of shape"),
    ],
)
def test_what_does_not_fit_the_specs_is_named(way, returned, message):
    policy = tf_py_policy.TFPyPolicy(Returning(returned))
    with pytest.raises(FAILURES, match=f"what Returning returned {message}"):
        way(policy.action)(restart())


@ways
def test_numbers_are_cast_where_nothing_is_lost(way):
    policy = tf_py_policy.TFPyPolicy(Returning([1, 0.5]))
    action = way(policy.action)(restart()).action
    assert action.dtype == tf.float32 and action.numpy().tolist() == [[1, 0.5]]
    discrete = specs.BoundedArraySpec((), np.int64, 0, 1)
    policy = tf_py_policy.TFPyPolicy(Returning(1, discrete))
    assert way(policy.action)(restart()).action.numpy().tolist() == [1]
    policy = tf_py_policy.TFPyPolicy(Returning(0.5, discrete))
    with pytest.raises(FAILURES, match="got float64 of shape .., expected int64"):
        way(policy.action)(restart())


@ways
def test_a_bare_action_is_no_policy_step(way):
    class Bare(py_policies.PyPolicy):
        def _action(self, time_step, policy_state):
            return np.zeros(2, np.float32)

    with pytest.raises(FAILURES, match="expected a PolicyStep with fields"):
        way(tf_py_policy.TFPyPolicy(Bare(TIME_STEP, ACTION)).action)(restart())


@ways
def test_wrong_inputs_never_reach_the_python_policy(way):
    python = CountingPolicy()
    policy = tf_py_policy.TFPyPolicy(python)
    state = {"count": tf.zeros(1, tf.int64)}
    wrong = time_steps.restart({"x": tf.zeros((1, 5))}, 1)
    with pytest.raises(FAILURES):
        way(policy.action)(wrong, state)
    with pytest.raises(TypeError, match="policy_state at 'count': got int32"):
        way(policy.action)(restart(), {"count": tf.zeros(1, tf.int32)})
    assert python.seen == []


def test_python_errors_come_through():
    policy = tf_py_policy.TFPyPolicy(Returning(RuntimeError("out of fuel")))
    with pytest.raises(RuntimeError, match="out of fuel"):
        policy.action(restart())
    with pytest.raises(tf.errors.OpError, match="out of fuel"):
        graph(policy.action)(restart())


@ways
def test_seeds_reach_the_python_policy(way):
    random = py_policies.RandomPyPolicy(TIME_STEP, ACTION, seed=1)
    policy = tf_py_policy.TFPyPolicy(random)

    def act(seed):
        return way(lambda step: policy.action(step, seed=seed))(restart()).action.numpy().tolist()

    assert act(7) == act(7) != act(8)
    assert (
        act(7)[0]
        == random.action(time_steps.restart({"x": np.zeros(4, np.float32)}), seed=7).action.tolist()
    )
    # Without a seed the policy draws from its own generator.
    assert act(None) != act(None)


@ways
def test_a_seed_for_a_policy_that_takes_none_is_refused(way):
    policy = tf_py_policy.TFPyPolicy(Returning(np.zeros(2)))
    with pytest.raises(TypeError, match="Returning._action takes no seed"):
        way(lambda step: policy.action(step, seed=3))(restart())


def test_every_execution_of_a_graph_asks_again():
    policy = tf_py_policy.TFPyPolicy(py_policies.RandomPyPolicy(TIME_STEP, ACTION))
    act = graph(lambda: policy.action(restart()).action)
    assert len({act().numpy().tobytes() for _ in range(5)}) == 5


def aligned_zeros(size):
    """Zeros at an address that TensorFlow would share rather than copy."""
    memory = np.zeros(4 * size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + 4 * size].view(np.float32)


@ways
def test_an_array_that_the_policy_goes_on_writing_to_is_copied(way):
    class Reusing(py_policies.PyPolicy):
        def __init__(self):
            super().__init__(TIME_STEP, specs.ArraySpec((1024,), np.float32))
            self.buffer = aligned_zeros(1024)

        def _action(self, time_step, policy_state):
            self.buffer += 1
            return PolicyStep(self.buffer, policy_state)

    act = way(tf_py_policy.TFPyPolicy(Reusing()).action)
    first = act(restart()).action
    before = first.numpy().max()
    act(restart())
    assert first.numpy().max() == before


def test_one_call_at_a_time():
    class Watching(Returning):
        inside = most = 0

        def _action(self, time_step, policy_state):
            self.inside += 1
            self.most = max(self.most, self.inside)
            event = threading.Event()
            event.wait(0.01)
            self.inside -= 1
            return super()._action(time_step, policy_state)

    python = Watching(np.zeros(2))
    policy = tf_py_policy.TFPyPolicy(python)
    threads = [threading.Thread(target=policy.action, args=(restart(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert python.most == 1


def test_there_is_no_distribution_and_no_export():
    policy = tf_py_policy.TFPyPolicy(CountingPolicy())
    with pytest.raises(NotImplementedError, match="has no distribution"):
        policy.distribution(restart(), policy.get_initial_state(1))
    assert "CountingPolicy, which exists only in this process" in policy.export_obstacle
    assert ready_made.GreedyPolicy(policy).export_obstacle == policy.export_obstacle


def test_an_expert_plays_cartpole_inside_a_graph():
    env = gymnasium.make("CartPole-v1")
    spec = time_steps.time_step_spec(
        specs.to_array_spec(specs.observation_spec(env.observation_space))
    )

    class Expert(py_policies.PyPolicy):
        def _action(self, time_step, policy_state):
            angle, speed = time_step.observation[2:]
            return PolicyStep(int(3 * angle + speed > 0), policy_state)

    policy = tf_py_policy.TFPyPolicy(Expert(spec, specs.action_spec(env.action_space)))
    act = tf.function(policy.action)
    observation, _ = env.reset(seed=0)
    total, done = 0.0, False
    while not done:
        step = time_steps.time_step_from_observation(observation, spec, batch=True)
        action = act(tf.nest.map_structure(tf.constant, step)).action
        observation, reward, terminated, truncated, _ = env.step(int(action[0]))
        total, done = total + reward, terminated or truncated
    assert total == 500
    env.close()
