"""Python policies by themselves."""

import numpy as np
import pytest
import tensorflow as tf

from pgest import specs
from pgest.policies import py_policies, tf_py_policy, time_steps
from pgest.policies.time_steps import PolicyStep
from tests.policies.py_policy_fakes import ACTION, TIME_STEP, CountingPolicy, Returning, restart


def test_python_policies_keep_their_promises():
    policy = CountingPolicy()
    assert policy.policy_step_spec == PolicyStep(
        policy.action_spec, policy.policy_state_spec, policy.info_spec
    )
    assert policy.trajectory_spec.policy_info == policy.info_spec
    assert policy.collect_data_spec == policy.trajectory_spec
    assert policy.get_initial_state(2)["count"].tolist() == [10, 10]
    assert policy.get_initial_state()["count"].shape == ()
    assert Returning(0).get_initial_state(5) == ()
    with pytest.raises(TypeError, match="batch_size: got 1.5"):
        policy.get_initial_state(1.5)
    tensor_specs = py_policies.RandomPyPolicy(specs.from_spec(TIME_STEP), specs.from_spec(ACTION))
    assert tensor_specs.action_spec == ACTION
    with pytest.raises(ValueError, match="expected a TimeStep of specs"):
        py_policies.PyPolicy(ACTION, ACTION)


def test_python_policies_guard_their_public_methods():
    class Wrong(py_policies.PyPolicy):
        def action(self, time_step, policy_state=(), seed=None):
            return PolicyStep(())

    with pytest.raises(ValueError, match=r"Wrong overrides \['action'\]"):
        Wrong(TIME_STEP, ACTION)

    class Hasty(py_policies.PyPolicy):
        def __init__(self):
            pass

    for use in (lambda: Hasty().action(None), lambda: Hasty().time_step_spec):
        with pytest.raises(RuntimeError, match="Hasty.__init__ did not call super"):
            use()
    with pytest.raises(NotImplementedError, match="PyPolicy does not implement _action"):
        py_policies.PyPolicy(TIME_STEP, ACTION).action(restart())


def test_a_random_python_policy():
    spec = {
        "discrete": specs.BoundedArraySpec((), np.int64, 2, 4),
        "box": specs.BoundedArraySpec((2,), np.float32, [-1, -np.inf], [1, np.inf]),
        "yes": specs.ArraySpec((), np.bool_),
    }
    step = time_steps.restart({"x": np.zeros((3000, 4), np.float32)}, 3000)
    action = py_policies.RandomPyPolicy(TIME_STEP, spec, seed=0).action(step).action
    assert set(action["discrete"].tolist()) == {2, 3, 4} and action["discrete"].dtype == np.int64
    assert np.all(np.abs(action["box"][:, 0]) <= 1) and np.abs(action["box"][:, 1]).max() > 2
    assert action["box"].dtype == np.float32 and 0.4 < action["yes"].mean() < 0.6
    again = py_policies.RandomPyPolicy(TIME_STEP, spec, seed=0).action(step).action
    tf.nest.map_structure(np.testing.assert_array_equal, action, again)
    one = py_policies.RandomPyPolicy(TIME_STEP, spec, outer_dims=(7,)).action(step).action
    assert one["box"].shape == (7, 2)


def test_a_random_python_policy_respects_masks():
    policy = py_policies.RandomPyPolicy(
        TIME_STEP,
        specs.BoundedArraySpec((), np.int64, 5, 7),
        observation_and_action_constraint_splitter=lambda obs: (obs, obs["x"][..., 1:] > 0),
    )
    x = np.tile(np.array([[0, 1, 0, 1], [0, 0, 1, 0]], np.float32), (200, 1))
    action = policy.action(time_steps.restart({"x": x}, 400)).action
    assert set(action[::2]) == {5, 7} and set(action[1::2]) == {6}
    single = policy.action(time_steps.restart({"x": x[1]})).action
    assert single.shape == () and single == 6
    wrapped = tf_py_policy.TFPyPolicy(policy, py_policy_is_batched=True)
    assert set(wrapped.action(time_steps.restart({"x": x}, 400)).action.numpy()[1::2]) == {6}


@pytest.mark.parametrize("seed", [7, np.int32(7), [7, 0], np.array([7, 0], np.int32)])
def test_a_seed_is_an_int_or_two_numbers(seed):
    class Echo(py_policies.PyPolicy):
        def _action(self, time_step, policy_state, seed=None):
            return PolicyStep(seed)

    policy = Echo(TIME_STEP, ACTION)
    given = policy.action(restart(), seed=seed).action
    assert given == 7 and type(given) is int
    assert policy.action(restart(), seed=-1).action == 2**64 - 1
    with pytest.raises(TypeError, match=r"seed: got 'x', expected None, an int, or int32"):
        policy.action(restart(), seed="x")
