"""TFPolicy, GreedyPolicy, RandomTFPolicy: the contract around `_action` and `_distribution`."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

from pgest import policies, seeds, spec_sampling, specs, time_steps
from pgest.time_steps import PolicyInfo, PolicyStep, StepType

tfd = tfp.distributions

OBSERVATION = tf.TensorSpec((4,), tf.float32, "observation")
TIME_STEP = time_steps.time_step_spec(OBSERVATION)
DISCRETE = specs.BoundedTensorSpec((), tf.int64, 0, 2, "action")
BOX = specs.BoundedTensorSpec((2,), tf.float32, -1, 1, "action")


def restart(rows=3, value=0.0):
    return time_steps.restart(tf.fill((rows, 4), value), batch_size=rows)


class NormalPolicy(policies.TFPolicy):
    """A Keras network into a normal distribution, built when it is first used."""

    def __init__(self, name=None, scale=1.0, **options):
        super().__init__(TIME_STEP, BOX, name=name, **options)
        self.count = tf.Variable(0, name="count", trainable=False)
        self.network = tf_keras.Sequential([tf_keras.layers.Dense(2, name="mean")])
        self.scale = scale

    def _distribution(self, time_step, policy_state):
        mean = self.network(time_step.observation)
        return PolicyStep(tfd.MultivariateNormalDiag(mean, [self.scale] * 2), policy_state)


class CategoricalPolicy(policies.TFPolicy):
    """Logits that are a variable; int32 samples for an int64 spec, as usual with gymnasium."""

    def __init__(self, logits=(0.0, 1.0, 2.0), **options):
        super().__init__(TIME_STEP, DISCRETE, **options)
        self.logits = tf.Variable(logits, name="logits")

    def _distribution(self, time_step, policy_state):
        logits = tf.tile(self.logits[tf.newaxis], [tf.shape(time_step.step_type)[0], 1])
        return PolicyStep(tfd.Categorical(logits=logits), policy_state)


class CountingPolicy(policies.TFPolicy):
    """A recurrent policy: its state counts steps from 10 and is the action."""

    def __init__(self, **options):
        state = [tf.TensorSpec((), tf.float32), {"wide": tf.TensorSpec((2,), tf.int32)}]
        super().__init__(TIME_STEP, tf.TensorSpec((), tf.float32), state, **options)

    def _get_initial_state(self, batch_size):
        outer = [] if batch_size is None else [batch_size]
        return [tf.fill(outer, 10.0), {"wide": tf.fill([*outer, 2], 5)}]

    def _action(self, time_step, policy_state, seed):
        count = policy_state[0] + 1
        return PolicyStep(count, [count, {"wide": policy_state[1]["wide"] * 2}])


class ConstantPolicy(policies.TFPolicy):
    """Returns what it was given, to look at the checks."""

    def __init__(self, action, action_spec, **options):
        super().__init__(TIME_STEP, action_spec, **options)
        self._constant = lambda: action

    def _action(self, time_step, policy_state, seed):
        self.seen = lambda: time_step
        return PolicyStep(self._constant(), policy_state)


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
    policy = policies.RandomTFPolicy(array_specs, specs.to_array_spec(BOX))
    assert policy.action_spec == BOX and policy.time_step_spec == TIME_STEP


def test_a_time_step_spec_that_is_none_is_refused():
    with pytest.raises(ValueError, match="time_step_spec: got .*expected a TimeStep of specs"):
        policies.TFPolicy(OBSERVATION, DISCRETE)


def test_public_methods_are_not_for_overriding():
    class Wrong(policies.TFPolicy):
        def action(self, time_step, policy_state=(), seed=None):
            return PolicyStep(())

    with pytest.raises(ValueError, match=r"Wrong overrides \['action'\]"):
        Wrong(TIME_STEP, DISCRETE)


def test_a_subclass_that_skips_init_is_told_so():
    class Hasty(policies.TFPolicy):
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


def test_the_same_seed_draws_the_same_action():
    policy = NormalPolicy()
    for seed in (7, [3, 4], tf.constant([3, 4]), np.int64(7)):
        first, second = (policy.action(restart(), seed=seed).action for _ in range(2))
        np.testing.assert_array_equal(first, second)
    assert not np.allclose(
        policy.action(restart(), seed=7).action, policy.action(restart(), seed=8).action
    )


def test_a_seed_samples_as_the_distribution_does_with_it():
    policy = CategoricalPolicy()
    seed = tf.constant([1, 2])
    action = policy.action(restart(20), seed=seed).action
    sample = policy.distribution(restart(20)).action.sample(seed=seed)
    np.testing.assert_array_equal(action, sample)
    assert action.dtype == tf.int64


@pytest.mark.parametrize("seed", [1.5, True, [1, 2, 3], "7", 2**64])
def test_other_seeds_are_refused(seed):
    with pytest.raises(TypeError, match="seed: got .*expected"):
        CategoricalPolicy().action(restart(), seed=seed)


def test_seeds_of_64_bits_come_back_as_they_were():
    for seed in (0, 1, 2**31, 2**40 + 3, 2**64 - 1):
        assert seeds.as_int(seeds.as_seed(seed).numpy()) == seed


@pytest.mark.parametrize("jit_compile", [False, True])
def test_sampling_without_a_seed_is_never_frozen(jit_compile):
    policy = NormalPolicy()
    policy.action(restart())

    def trace():
        tf.random.set_seed(3)
        return tf.function(
            lambda step: policy.action(step).action, jit_compile=jit_compile, autograph=False
        )

    first, second = trace(), trace()
    drawn = [act(restart()).numpy().tobytes() for act in (first, first, first, second, second)]
    assert len(set(drawn)) == 5


def test_sampling_without_a_seed_is_not_frozen_in_a_file(tmp_path):
    policy = NormalPolicy()
    tf.random.set_seed(3)
    module = tf.Module()
    module.policy = policy
    module.act = tf.function(
        lambda x: policy.action(time_steps.restart(x, tf.shape(x)[0])).action,
        input_signature=[tf.TensorSpec((None, 4))],
    )
    tf.saved_model.save(module, str(tmp_path / "policy"))
    drawn = []
    for _ in range(2):
        tf.random.set_seed(3)
        loaded = tf.saved_model.load(str(tmp_path / "policy"))
        drawn += [loaded.act(tf.zeros((2, 4))).numpy().tobytes() for _ in range(2)]
    assert len(set(drawn)) == 4


def test_every_leaf_of_an_action_has_a_seed_of_its_own():
    class Two(policies.TFPolicy):
        def _distribution(self, time_step, policy_state):
            normal = tfd.Normal(tf.zeros(tf.shape(time_step.step_type)), 1.0)
            return PolicyStep({"a": normal, "b": (normal,)}, policy_state)

    spec = tf.TensorSpec((), tf.float32)
    action = Two(TIME_STEP, {"a": spec, "b": (spec,)}).action(restart(), seed=1).action
    assert not np.allclose(action["a"], action["b"][0])


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
    policy = policies.RandomTFPolicy(spec, DISCRETE)
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
    class Recurrent(policies.TFPolicy):
        def _distribution(self, time_step, policy_state):
            return PolicyStep(tfd.Deterministic(policy_state), policy_state + 1)

    spec = tf.TensorSpec((), tf.float32)
    policy = Recurrent(TIME_STEP, spec, spec)
    mixed = restart(2)._replace(step_type=tf.constant([StepType.MID, StepType.FIRST]))
    for use in (policy, policies.GreedyPolicy(policy)):
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
    class Summing(policies.TFPolicy):
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


def test_log_probabilities_on_request():
    policy = CategoricalPolicy(emit_log_probability=True)
    step = policy.action(restart(5))
    assert isinstance(step.info, PolicyInfo)
    expected = policy.distribution(restart(5)).action.log_prob(tf.cast(step.action, tf.int32))
    np.testing.assert_allclose(step.info.log_probability, expected, rtol=1e-6)
    assert policy.info_spec.log_probability.dtype == tf.float32
    assert policy.trajectory_spec.policy_info == policy.info_spec


def test_log_probabilities_join_the_info_that_is_there():
    class Valued(CategoricalPolicy):
        def _distribution(self, time_step, policy_state):
            step = super()._distribution(time_step, policy_state)
            return step._replace(info={"value": tf.ones(tf.shape(time_step.step_type))})

    policy = Valued(info_spec={"value": tf.TensorSpec((), tf.float32)}, emit_log_probability=True)
    assert set(policy.action(restart()).info) == {"value", "log_probability"}
    assert set(policy.distribution(restart()).info) == {"value"}
    greedy = policies.GreedyPolicy(policy)
    assert set(greedy.action(restart()).info) == {"value", "log_probability"}
    with pytest.raises(ValueError, match="emit_log_probability: got an info of type TensorSpec"):
        CategoricalPolicy(info_spec=OBSERVATION, emit_log_probability=True)


def test_a_log_probability_is_that_of_the_action_before_clipping():
    policy = NormalPolicy(scale=50.0, emit_log_probability=True)
    step = policy.action(restart(), seed=1)
    sample = policy.distribution(restart()).action.sample(seed=seeds.as_seed(1))
    assert np.all(np.abs(step.action) <= 1) and np.any(np.abs(sample) > 1)
    expected = policy.distribution(restart()).action.log_prob(sample)
    np.testing.assert_allclose(step.info.log_probability, expected, rtol=1e-5)


def test_policies_without_a_distribution_say_so():
    with pytest.raises(NotImplementedError, match="CountingPolicy has no distribution"):
        policy = CountingPolicy()
        policy.distribution(restart(), policy.get_initial_state(3))


def test_a_tensor_is_no_distribution():
    class Wrong(policies.TFPolicy):
        def _distribution(self, time_step, policy_state):
            return PolicyStep(tf.zeros(3), policy_state)

    with pytest.raises(TypeError, match="got a tensor, expected a tensorflow_probability"):
        Wrong(TIME_STEP, tf.TensorSpec((), tf.float32)).distribution(restart())


@pytest.mark.parametrize(("tau", "expected"), [(1.0, 1.0), (0.5, 0.75), (0.0, 0.5)])
def test_update_mixes_variables(tau, expected):
    source, target = CategoricalPolicy([1.0] * 3), CategoricalPolicy([0.5] * 3)
    assert target.update(source, tau) is None
    np.testing.assert_allclose(target.logits, [expected] * 3)
    np.testing.assert_allclose(source.logits, [1.0] * 3)


def test_update_has_a_tau_for_what_is_not_trained():
    class Two(policies.TFPolicy):
        def __init__(self, value):
            super().__init__(TIME_STEP, DISCRETE)
            self.trained = tf.Variable(value)
            self.mean = tf.Variable(value, trainable=False)
            self.count = tf.Variable(int(value), trainable=False)

        def values(self):
            return [float(variable) for variable in (self.trained, self.mean, self.count)]

    target = Two(0.0)
    target.update(Two(8.0), tau=0.5, tau_non_trainable=0.25)
    # Counts are copied: 2.0 would be no count that ever was.
    assert target.values() == [4.0, 2.0, 8.0]
    target.update(Two(1.0), tau=0.0, tau_non_trainable=1.0)
    assert target.values() == [4.0, 1.0, 1.0]
    target.update(Two(0.0), tau=0.5)
    assert target.values() == [2.0, 0.5, 0.0]


def test_update_inside_a_graph():
    source, target = CategoricalPolicy([1.0] * 3), CategoricalPolicy([0.0] * 3)

    @tf.function
    def update():
        target.update(source, 0.25)

    update()
    update()
    np.testing.assert_allclose(target.logits, [0.4375] * 3)


def test_update_can_pair_by_name():
    class Swapped(policies.TFPolicy):
        def __init__(self, names):
            super().__init__(TIME_STEP, DISCRETE, name="swapped")
            self.first = tf.Variable(float(len(names[0])), name=names[0])
            self.second = tf.Variable(float(len(names[1])), name=names[1])

    source, target = Swapped(["a", "bb"]), Swapped(["bb", "a"])
    target.update(source, sort_variables_by_name=True)
    assert (float(target.first), float(target.second)) == (2.0, 1.0)
    target.update(source)
    assert (float(target.first), float(target.second)) == (1.0, 2.0)


def test_update_refuses_what_does_not_pair():
    policy = CategoricalPolicy()
    with pytest.raises(TypeError, match="expected a TFPolicy"):
        policy.update(tf.Module())
    with pytest.raises(ValueError, match="tau: got 2, expected a number in"):
        policy.update(CategoricalPolicy(), tau=2)
    with pytest.raises(ValueError, match="categorical_policy/logits:0 .*expected the same shape"):
        policy.update(CategoricalPolicy([1.0, 2.0]))
    with pytest.raises(ValueError, match="got 0 variables to copy to 1"):
        policy.update(CountingPolicy())
    assert policies.RandomTFPolicy(TIME_STEP, DISCRETE).update(CountingPolicy()) is None


def test_greedy_takes_the_mode():
    policy = CategoricalPolicy([0.0, 5.0, 1.0])
    greedy = policies.GreedyPolicy(policy)
    assert greedy.action(restart(4)).action.numpy().tolist() == [1, 1, 1, 1]
    assert greedy.variables() == policy.variables() and greedy.wrapped_policy is policy
    assert greedy.policy_step_spec == policy.policy_step_spec
    assert greedy.name == "greedy_policy"
    policy.logits.assign([9.0, 5.0, 1.0])
    assert greedy.action(restart(1)).action.numpy().tolist() == [0]


def test_a_greedy_graph_draws_no_random_numbers():
    greedy = policies.GreedyPolicy(NormalPolicy(emit_log_probability=True))
    signature = [specs.add_outer_dims(TIME_STEP)]
    traced = tf.function(greedy.action, input_signature=signature).get_concrete_function()
    operations = {operation.type for operation in traced.graph.get_operations()}
    assert "MatMul" in operations and not any("Random" in kind for kind in operations)


def test_greedy_keeps_the_event_shape():
    policy = NormalPolicy()
    greedy = policies.GreedyPolicy(policy, name="best")
    distribution = greedy.distribution(restart(2, 0.1)).action
    assert distribution.event_shape == (2,) and distribution.batch_shape == (2,)
    np.testing.assert_allclose(distribution.mode(), policy.network(tf.fill((2, 4), 0.1)))
    assert greedy.name == "best"


def test_greedy_clips_as_its_policy_does():
    class Far(policies.TFPolicy):
        def _distribution(self, time_step, policy_state):
            return PolicyStep(tfd.Deterministic(tf.fill((3, 2), 9.0)), policy_state)

    for clip, expected in ((True, 1.0), (False, 9.0)):
        greedy = policies.GreedyPolicy(Far(TIME_STEP, BOX, clip=clip))
        np.testing.assert_array_equal(greedy.action(restart()).action, np.full((3, 2), expected))


def test_greedy_needs_a_mode():
    class Modeless(policies.TFPolicy):
        def _distribution(self, time_step, policy_state):
            components = tfd.Normal(tf.zeros((3, 2)), 1.0)
            weights = tfd.Categorical(logits=tf.zeros((3, 2)))
            return PolicyStep(tfd.MixtureSameFamily(weights, components), policy_state)

    greedy = policies.GreedyPolicy(Modeless(TIME_STEP, tf.TensorSpec((), tf.float32)))
    with pytest.raises(ValueError, match="does not implement mode making it incompatible"):
        greedy.action(restart())
    with pytest.raises(TypeError, match="expected a TFPolicy"):
        policies.GreedyPolicy(lambda: 0)


def test_greedy_of_a_recurrent_policy_starts_where_it_does():
    class Recurrent(CountingPolicy):
        def _distribution(self, time_step, policy_state):
            return PolicyStep(tfd.Deterministic(policy_state[0]), policy_state)

    greedy = policies.GreedyPolicy(Recurrent())
    assert greedy.get_initial_state(2)[0].numpy().tolist() == [10, 10]
    step = greedy.action(restart(2), specs.zero_spec_nest(greedy.policy_state_spec, (2,)))
    assert step.action.numpy().tolist() == [10, 10]


def test_random_actions_fill_their_bounds():
    action_spec = {
        "discrete": specs.BoundedTensorSpec((), tf.int64, 2, 4),
        "many": specs.BoundedTensorSpec((2,), tf.int32, [0, 10], [1, 12]),
        "box": specs.BoundedTensorSpec((2,), tf.float32, [-1, 5], [1, 7]),
        "half": specs.BoundedTensorSpec((2,), tf.float32, [3, -np.inf], [np.inf, -3]),
        "free": tf.TensorSpec((3,), tf.float32),
        "bytes": specs.BoundedTensorSpec((), tf.uint8, 0, 255),
        "yes": tf.TensorSpec((), tf.bool),
    }
    policy = policies.RandomTFPolicy(TIME_STEP, action_spec)
    action = tf.nest.map_structure(lambda leaf: leaf.numpy(), policy.action(restart(4000)).action)
    assert set(action["discrete"]) == {2, 3, 4}
    counts = np.bincount(action["discrete"])[2:]
    # Binomial with p = 1/3: 4000 / 3 = 1333, standard deviation 30.
    assert np.all(np.abs(counts - 4000 / 3) < 150)
    assert set(action["many"][:, 0]) == {0, 1} and set(action["many"][:, 1]) == {10, 11, 12}
    assert np.all(action["box"].min(0) < [-0.95, 5.05]) and np.all(action["box"].min(0) >= [-1, 5])
    assert np.all(action["box"].max(0) > [0.95, 6.95]) and np.all(action["box"].max(0) <= [1, 7])
    assert action["half"][:, 0].min() >= 3 and action["half"][:, 1].max() <= -3
    assert np.all(np.abs(action["half"].mean(0) - [4, -4]) < 0.15)
    assert abs(action["free"].mean()) < 0.1 and abs(action["free"].std() - 1) < 0.1
    assert action["bytes"].min() < 10 and action["bytes"].max() > 245
    assert 0.4 < action["yes"].mean() < 0.6
    assert not np.array_equal(action["box"][:, 0], action["box"][:, 1] - 6)


def test_a_random_policy_respects_masks():
    spec = time_steps.time_step_spec(
        {"x": OBSERVATION, "mask": tf.TensorSpec((3,), tf.bool)},
    )
    policy = policies.RandomTFPolicy(
        spec,
        specs.BoundedTensorSpec((), tf.int64, 5, 7),
        emit_log_probability=True,
        observation_and_action_constraint_splitter=lambda obs: (obs["x"], obs["mask"]),
    )
    mask = np.tile([[True, False, True], [False, True, False]], (500, 1))
    observation = {"x": tf.zeros((1000, 4)), "mask": tf.constant(mask)}
    step = policy.action(time_steps.restart(observation, 1000))
    assert set(step.action.numpy()[::2]) == {5, 7} and set(step.action.numpy()[1::2]) == {6}
    np.testing.assert_allclose(step.info.log_probability[:2], [-np.log(2), 0], atol=1e-6)


def test_a_random_policy_knows_its_log_probability():
    for spec, expected in ((DISCRETE, -np.log(3)), (BOX, -2 * np.log(2))):
        policy = policies.RandomTFPolicy(TIME_STEP, spec, emit_log_probability=True)
        log_prob = policy.action(restart(2)).info.log_probability
        np.testing.assert_allclose(log_prob, [expected] * 2, rtol=1e-6)
    with pytest.raises(ValueError, match="expected finite bounds"):
        policies.RandomTFPolicy(TIME_STEP, tf.TensorSpec((), tf.float32), emit_log_probability=True)


def test_a_random_policy_needs_bounds_for_integers():
    with pytest.raises(ValueError, match="random values at 'a': .*has no bounds"):
        policies.RandomTFPolicy(TIME_STEP, {"a": tf.TensorSpec((), tf.int32)})
    with pytest.raises(ValueError, match="an action mask needs a scalar integer action"):
        spec_sampling.sample_tensors(BOX, seeds.as_seed(0), (2,), tf.ones((2, 2), tf.bool))


def test_random_actions_in_a_graph_and_with_a_seed():
    policy = policies.RandomTFPolicy(TIME_STEP, BOX)
    act = tf.function(policy.action, input_signature=[specs.add_outer_dims(TIME_STEP)])
    first, second = act(restart(2)).action, act(restart(2)).action
    assert first.shape == (2, 2) and not np.allclose(first, second)
    np.testing.assert_array_equal(
        policy.action(restart(2), seed=5).action, policy.action(restart(2), seed=5).action
    )
