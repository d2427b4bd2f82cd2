"""TFPolicy: the contract around `_action` and `_distribution`."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from pgest import specs
from pgest.policies import ready_made, time_steps
from pgest.policies.time_steps import PolicyStep, StepType
from tests.policies.policy_fakes import (
    BOX,
    DISCRETE,
    OBSERVATION,
    TIME_STEP,
    CategoricalPolicy,
    ConstantPolicy,
    CountingPolicy,
    NormalPolicy,
    restart,
)

tfd = tfp.distributions


def test_action_and_distribution_have_the_promised_shapes():
    policy = NormalPolicy()
    step = policy.action(restart(3))
    assert step.action.shape == (3, 2) and step.state == () and step.info == ()
    assert isinstance(step, PolicyStep)
    distribution = policy.distribution(restart(3)).action
    assert distribution.event_shape == (2,) and distribution.batch_shape == (3,)


def test_spec_properties():
    policy = CountingPolicy(emit_log_probability=False)
    assert policy.time_step_spec == TIME_STEP
    assert policy.policy_step_spec == PolicyStep(
        policy.action_spec, policy.policy_state_spec, policy.info_spec
    )
    trajectory = policy.trajectory_spec
    assert trajectory.observation == OBSERVATION and trajectory.policy_info == ()
    assert trajectory.next_step_type == trajectory.step_type == TIME_STEP.step_type
    assert policy.collect_data_spec == trajectory
    assert policy.validate_args and policy.automatic_state_reset and policy.clip
    assert not policy.emit_log_probability
    assert policy.observation_and_action_constraint_splitter is None
    assert policy.export_obstacle is None
    # tf.Module wraps lists and dicts that are its attributes; specs must come out as they went in.
    assert type(policy.policy_state_spec) is list and type(policy.policy_state_spec[1]) is dict


def test_array_specs_are_taken_too():
    array_specs = specs.to_array_spec(TIME_STEP)
    policy = ready_made.RandomTFPolicy(array_specs, specs.to_array_spec(BOX))
    assert policy.action_spec == BOX and policy.time_step_spec == TIME_STEP


def test_a_time_step_spec_that_is_none_is_refused():
    with pytest.raises(ValueError, match="time_step_spec: got .*expected a TimeStep of specs"):
        ready_made.TFPolicy(OBSERVATION, DISCRETE)


def test_public_methods_are_not_for_overriding():
    class Wrong(ready_made.TFPolicy):
        def action(self, time_step, policy_state=(), seed=None):
            return PolicyStep(())

    with pytest.raises(ValueError, match=r"Wrong overrides \['action'\]"):
        Wrong(TIME_STEP, DISCRETE)


def test_a_subclass_that_skips_init_is_told_so():
    class Hasty(ready_made.TFPolicy):
        def __init__(self):
            self.weight = tf.Variable(1.0)

    policy = Hasty()
    for use in (
        lambda: policy.action(restart()),
        lambda: policy.distribution(restart()),
        lambda: policy.get_initial_state(1),
        lambda: policy.action_spec,
    ):
        with pytest.raises(RuntimeError, match="Hasty.__init__ did not call super"):
            use()


def test_the_name_stands_in_front_of_every_variable():
    policy = NormalPolicy(name="pilot")
    policy.action(restart())
    names = sorted(variable.name for variable in policy.variables())
    assert names == ["pilot/count:0", "pilot/mean/bias:0", "pilot/mean/kernel:0"]
    assert NormalPolicy().variables()[0].name == "normal_policy/count:0"


def test_the_name_stands_in_front_of_variables_that_a_trace_makes():
    policy = NormalPolicy(name="pilot")
    tf.function(policy.action)(restart())
    assert {variable.name.split("/")[0] for variable in policy.variables()} == {"pilot"}


def test_only_bounded_leaves_are_clipped():
    action = {"a": tf.constant([[5.0, -5.0]]), "b": tf.constant([5.0])}
    spec = {"a": BOX, "b": tf.TensorSpec((), tf.float32)}
    step = ConstantPolicy(action, spec).action(restart(1))
    np.testing.assert_array_equal(step.action["a"], [[1, -1]])
    np.testing.assert_array_equal(step.action["b"], [5])
    step = ConstantPolicy(action, spec, clip=False).action(restart(1))
    np.testing.assert_array_equal(step.action["a"], [[5, -5]])


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64, tf.int32, tf.int64, tf.uint8, tf.int8])
def test_every_kind_of_number_can_be_clipped(dtype):
    spec = specs.BoundedTensorSpec((), dtype, 1, 3)
    step = ConstantPolicy(tf.constant([0, 2, 9], dtype), spec).action(restart(3))
    assert step.action.numpy().tolist() == [1, 2, 3]


def test_what_does_not_match_is_named():
    with pytest.raises(TypeError, match="constant_policy action: got float64 of shape .1,., expec"):
        ConstantPolicy(tf.zeros(1, tf.float64), tf.TensorSpec((), tf.float32)).action(restart(1))
    with pytest.raises(
        ValueError, match=r"action: got float32 of shape \(2,\), expected .* \(1,\)"
    ):
        ConstantPolicy(tf.zeros(2), tf.TensorSpec((), tf.float32)).action(restart(1))
    with pytest.raises(ValueError, match="action: got a leaf .*, expected a dict"):
        ConstantPolicy(tf.zeros(1), {"a": tf.TensorSpec((), tf.float32)}).action(restart(1))
    policy = CategoricalPolicy()
    with pytest.raises(
        ValueError, match="categorical_policy time_step at 'observation': got float"
    ):
        policy.action(time_steps.restart(tf.zeros((1, 5)), 1))
    with pytest.raises(TypeError, match="at 'step_type': got int64 of shape .1,., expected int32"):
        policy.action(restart(1)._replace(step_type=tf.zeros(1, tf.int64)))
    with pytest.raises(ValueError, match="at 'reward': got float32 of shape .2,., expected .*.1,."):
        policy.action(restart(1)._replace(reward=tf.zeros(2)))
    with pytest.raises(ValueError, match="policy_state: got a list of length 1, expected an empty"):
        policy.action(restart(1), [tf.zeros(1)])


def test_a_traced_output_is_checked_as_well():
    policy = ConstantPolicy(tf.zeros(1, tf.float64), tf.TensorSpec((), tf.float32))
    with pytest.raises(TypeError, match="got float64"):
        tf.function(policy.action, autograph=False)(restart(1))


def test_without_validation_nothing_is_checked():
    policy = ConstantPolicy(
        tf.zeros(2, tf.float64), tf.TensorSpec((), tf.float32), validate_args=False
    )
    assert policy.action(restart(1)).action.dtype == tf.float64
    # Not even the inputs.
    policy.action(time_steps.restart(tf.zeros((1, 9)), 1))


def test_numpy_observations_are_cast_and_extra_keys_dropped():
    spec = time_steps.time_step_spec({"x": OBSERVATION})
    policy = ready_made.RandomTFPolicy(spec, DISCRETE)
    observation = {"x": np.zeros((2, 4)), "other": np.zeros(3)}
    assert policy.action(time_steps.restart(observation, 2)).action.shape == (2,)
    with pytest.raises(ValueError, match=r"at 'observation': got a dict with keys \[\]"):
        policy.action(time_steps.restart({"other": np.zeros(3)}, 2))


def test_a_foreign_time_step_is_accepted():
    foreign = collections.namedtuple("TimeStep", time_steps.TimeStep._fields)(*restart(2))
    assert CategoricalPolicy().action(foreign).action.shape == (2,)


def test_the_state_starts_over_where_an_episode_begins():
    policy = CountingPolicy()
    state = policy.get_initial_state(3)
    assert state[0].numpy().tolist() == [10, 10, 10]
    step = policy.action(restart(3), state)
    mixed = restart(3)._replace(step_type=tf.constant([1, 0, 2]))
    step = policy.action(mixed, step.state)
    assert step.action.numpy().tolist() == [12, 11, 12]
    assert step.state[1]["wide"].numpy().tolist() == [[20, 20], [10, 10], [20, 20]]
    kept = CountingPolicy(automatic_state_reset=False).action(restart(3), step.state)
    assert kept.action.numpy().tolist() == [13, 12, 13]


def test_the_state_of_distribution_starts_over_too():
    class Recurrent(ready_made.TFPolicy):
        def _distribution(self, time_step, policy_state):
            return PolicyStep(tfd.Deterministic(policy_state), policy_state + 1)

    spec = tf.TensorSpec((), tf.float32)
    policy = Recurrent(TIME_STEP, spec, spec)
    mixed = restart(2)._replace(step_type=tf.constant([StepType.MID, StepType.FIRST]))
    for use in (policy, ready_made.GreedyPolicy(policy)):
        step = use.distribution(mixed, tf.constant([7.0, 7.0]))
        assert step.action.mode().numpy().tolist() == [7, 0]
        assert step.state.numpy().tolist() == [8, 1]
        assert use.action(mixed, tf.constant([7.0, 7.0])).action.numpy().tolist() == [7, 0]


def test_state_resets_inside_a_graph_of_unknown_batch_size():
    policy = CountingPolicy()
    signature = specs.add_outer_dims((policy.time_step_spec, policy.policy_state_spec))
    act = tf.function(policy.action, input_signature=signature)
    mixed = restart(2)._replace(step_type=tf.constant([1, 0]))
    assert act(mixed, policy.get_initial_state(2)).action.numpy().tolist() == [11, 11]
    assert act.get_concrete_function().output_shapes.action.as_list() == [None]


def test_a_time_axis_after_the_batch_axis_resets_by_its_first_step():
    class Summing(ready_made.TFPolicy):
        def _action(self, time_step, policy_state, seed):
            lengths = tf.ones_like(time_step.reward)
            return PolicyStep(policy_state[:, tf.newaxis] + tf.cumsum(lengths, 1), policy_state)

    spec = tf.TensorSpec((), tf.float32)
    step_type = tf.constant([[1, 0, 1], [0, 1, 1]])
    time_step = time_steps.TimeStep(
        step_type, tf.zeros((2, 3)), tf.ones((2, 3)), tf.zeros((2, 3, 4))
    )
    step = Summing(TIME_STEP, spec, spec).action(time_step, tf.constant([7.0, 7.0]))
    assert step.action.numpy().tolist() == [[8, 9, 10], [1, 2, 3]]


def test_inputs_of_unknown_rank_are_batches():
    policy = CountingPolicy()
    unknown = tf.nest.map_structure(
        lambda spec: tf.TensorSpec(None, spec.dtype), (TIME_STEP, policy.policy_state_spec)
    )
    act = tf.function(policy.action, input_signature=unknown)
    step = act(restart(2), policy.get_initial_state(2))
    assert step.action.numpy().tolist() == [11, 11]
    wrong = [tf.zeros((2, 1)), policy.get_initial_state(2)[1]]
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not compatible with expected"):
        act(restart(2), wrong)


def test_one_row_without_a_batch_axis():
    policy = CountingPolicy()
    step = policy.action(time_steps.restart(tf.zeros(4)), policy.get_initial_state(None))
    assert float(step.action) == 11 and step.action.shape == ()


def test_a_missing_state_is_explained():
    with pytest.raises(ValueError, match="start from policy.get_initial_state"):
        CountingPolicy().action(restart(2))
    with pytest.raises(ValueError, match="policy_state at '0': .*expected float32 of shape .2,."):
        CountingPolicy().action(restart(2), CountingPolicy().get_initial_state(3))


def test_batch_sizes_of_an_initial_state():
    policy = CountingPolicy()
    for size in (3, np.int64(3), tf.constant(3)):
        assert policy.get_initial_state(size)[1]["wide"].shape == (3, 2)
        assert policy.get_initial_state(batch_size=size)[0].shape == (3,)
    assert policy.get_initial_state(None)[0].shape == ()
    assert policy.get_initial_state(0)[0].shape == (0,)
    assert CategoricalPolicy().get_initial_state(0) == ()
    for wrong in (True, 2.0, "3", (3,)):
        with pytest.raises(TypeError, match="batch_size: got"):
            policy.get_initial_state(wrong)
    with pytest.raises(ValueError, match="batch_size: got -1"):
        policy.get_initial_state(-1)


def test_policies_without_a_distribution_say_so():
    with pytest.raises(NotImplementedError, match="CountingPolicy has no distribution"):
        policy = CountingPolicy()
        policy.distribution(restart(), policy.get_initial_state(3))


def test_a_tensor_is_no_distribution():
    class Wrong(ready_made.TFPolicy):
        def _distribution(self, time_step, policy_state):
            return PolicyStep(tf.zeros(3), policy_state)

    with pytest.raises(TypeError, match="got a tensor, expected a tensorflow_probability"):
        Wrong(TIME_STEP, tf.TensorSpec((), tf.float32)).distribution(restart())
