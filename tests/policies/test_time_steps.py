"""Time steps, policy steps and trajectories."""

import collections

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

from pgest import specs
from pgest.policies import time_steps
from pgest.policies.time_steps import PolicyStep, StepType, TimeStep, Trajectory
from pgest.specs import nests

OBSERVATION = {"x": np.zeros((2, 3), np.float32)}
TENSORS = tf.nest.map_structure(tf.constant, OBSERVATION)


def test_fields_stand_in_the_public_order():
    assert TimeStep._fields == ("step_type", "reward", "discount", "observation")
    assert PolicyStep._fields == ("action", "state", "info")
    assert Trajectory._fields == (
        "step_type",
        "observation",
        "action",
        "policy_info",
        "next_step_type",
        "reward",
        "discount",
    )
    assert PolicyStep(1) == PolicyStep(1, (), ()) and PolicyStep(1).replace(action=2).action == 2


def test_step_types():
    assert [int(StepType(value)) for value in (0, 1, 2)] == [0, 1, 2]
    assert StepType.FIRST.dtype == np.int32 and StepType(1) is StepType.MID
    with pytest.raises(ValueError, match="got 3, expected 0"):
        StepType(3)


@pytest.mark.parametrize("observation", [OBSERVATION, TENSORS], ids=["numpy", "tensor"])
def test_the_makers_follow_the_observation(observation):
    is_tensor = tf.is_tensor(observation["x"])
    made = {
        "restart": (time_steps.restart(observation, batch_size=2), 0, [0, 0], [1, 1]),
        "transition": (time_steps.transition(observation, [1, 2], 0.5), 1, [1, 2], [0.5, 0.5]),
        "termination": (time_steps.termination(observation, [1, 2]), 2, [1, 2], [0, 0]),
        "truncation": (time_steps.truncation(observation, [1, 2], [1, 0.9]), 2, [1, 2], [1, 0.9]),
    }
    for name, (step, step_type, reward, discount) in made.items():
        assert all(tf.is_tensor(leaf) == is_tensor for leaf in tf.nest.flatten(step)), name
        np.testing.assert_array_equal(step.step_type, [step_type] * 2, name)
        np.testing.assert_allclose(step.reward, reward, err_msg=name)
        np.testing.assert_allclose(step.discount, discount, rtol=1e-6, err_msg=name)
        assert [leaf.dtype for leaf in step[:3]] == (
            [tf.int32, tf.float32, tf.float32] if is_tensor else [np.int32, np.float32, np.float32]
        )
        np.testing.assert_array_equal(step.is_first(), [step_type == 0] * 2)
        np.testing.assert_array_equal(step.is_mid(), [step_type == 1] * 2)
        np.testing.assert_array_equal(step.is_last(), [step_type == 2] * 2)
        assert tf.is_tensor(step.is_last()) == is_tensor


def test_one_environment_has_no_batch_axis():
    for step in (time_steps.restart(np.zeros(3)), time_steps.transition(np.zeros(3), 1.0)):
        assert step.step_type.shape == step.reward.shape == step.discount.shape == ()


def test_makers_in_a_graph_with_an_unknown_batch_size():
    @tf.function(input_signature=[tf.TensorSpec((None, 3)), tf.TensorSpec((None,))])
    def make(observation, reward):
        first = time_steps.restart(observation, tf.shape(observation)[0])
        return first, time_steps.termination(observation, reward)

    first, last = make(tf.zeros((4, 3)), tf.ones(4))
    assert first.discount.shape == last.discount.shape == (4,)


def test_several_rewards():
    reward_spec = {"a": specs.ArraySpec((2,), np.float32)}
    step = time_steps.restart(OBSERVATION, 2, reward_spec)
    assert step.reward["a"].shape == (2, 2)
    step = time_steps.transition(OBSERVATION, {"a": np.ones((2, 2))}, outer_dims=(2,))
    assert step.step_type.shape == (2,) and step.reward["a"].dtype == np.float32


@pytest.mark.parametrize("value", [None, np.nan, [1.0, np.nan]])
def test_broken_rewards_are_refused(value):
    with pytest.raises(ValueError, match="reward: got .*expected numbers"):
        time_steps.transition(OBSERVATION, value)
    with pytest.raises(ValueError, match="discount: got .*expected numbers"):
        time_steps.transition(OBSERVATION, [1.0, 1.0], value)


def test_time_step_spec_is_of_the_kind_of_the_observation():
    space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    spec = time_steps.time_step_spec(specs.observation_spec(space))
    assert spec.step_type == tf.TensorSpec((), tf.int32, "step_type")
    assert spec.reward == tf.TensorSpec((), tf.float32, "reward")
    assert spec.discount == specs.BoundedTensorSpec((), tf.float32, 0, 1, "discount")
    arrays = time_steps.time_step_spec(specs.to_array_spec(specs.observation_spec(space)))
    assert arrays == specs.to_array_spec(spec)
    assert time_steps.time_step_spec() == TimeStep((), (), (), ())
    with pytest.raises(TypeError, match="tensor specs and array specs together"):
        time_steps.time_step_spec(spec.observation, specs.ArraySpec((), np.float32))
    assert {spec: 1}[spec] == 1


def test_trajectories_know_where_they_stand():
    types = np.array([[0, 1], [1, 1], [1, 2], [2, 0]], np.int32)
    blank = np.zeros(4)
    trajectory = Trajectory(types[:, 0], blank, blank, (), types[:, 1], blank, blank)
    np.testing.assert_array_equal(trajectory.is_first(), [True, False, False, False])
    np.testing.assert_array_equal(trajectory.is_mid(), [False, True, False, False])
    np.testing.assert_array_equal(trajectory.is_last(), [False, False, True, False])
    np.testing.assert_array_equal(trajectory.is_boundary(), [False, False, False, True])
    np.testing.assert_array_equal(trajectory.replace(reward=1).reward, 1)
    tensors = tf.nest.map_structure(tf.constant, trajectory)
    np.testing.assert_array_equal(tensors.is_mid(), [False, True, False, False])


def test_a_time_step_of_a_bare_observation():
    spec = time_steps.time_step_spec({"x": tf.TensorSpec((2,), tf.float32)})
    step = time_steps.time_step_from_observation({"x": [1, 2], "extra": 0}, spec)
    assert step.step_type.shape == () and set(step.observation) == {"x"}
    assert step.is_first() and step.observation["x"].dtype == np.float32
    batch = time_steps.time_step_from_observation(
        {"x": np.ones((3, 2))}, spec, first=False, reward=[1, 2, 3]
    )
    assert batch.step_type.tolist() == [1, 1, 1] and batch.reward.tolist() == [1, 2, 3]
    assert time_steps.time_step_from_observation({"x": [1, 2]}, spec, batch=True).reward.shape == (
        1,
    )
    with pytest.raises(ValueError, match="observation at 'x': got float32 of shape .1, 3."):
        time_steps.time_step_from_observation({"x": [[1, 2, 3]]}, spec)


def test_a_foreign_time_step_of_the_same_fields_has_the_same_structure():
    foreign = collections.namedtuple("TimeStep", TimeStep._fields)
    nests.check_same_structure(TimeStep(0, 0, 0, 0), foreign(1, 1, 1, 1))
    other = collections.namedtuple("Step", TimeStep._fields)
    with pytest.raises(ValueError, match="got a Step with fields"):
        nests.check_same_structure(TimeStep(0, 0, 0, 0), other(1, 1, 1, 1))
