"""Compiled programs: what goes in and comes out is what a concrete function would give."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest
from pgest.environments import making
from pgest.tracing import acting, feeding, programs
from tests import model_fns

DTYPES = [tf.float32, tf.float64, tf.float16, tf.int64, tf.int32, tf.int8, tf.uint8, tf.bool]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_a_fed_tensor_has_the_value_of_the_latest_array(dtype, shape):
    (feed,) = feeding.feeds([tf.TensorSpec(shape, dtype)], share=True)
    for number in (1, 0):
        value = np.full(shape, number, dtype.as_numpy_dtype)
        tensor = feed(value)
        assert tensor.dtype == dtype
        np.testing.assert_array_equal(tensor.numpy(), value)


def test_a_fed_tensor_is_the_same_each_time_where_memory_is_shared():
    (shared,) = feeding.feeds([tf.TensorSpec([2])], share=True)
    (own,) = feeding.feeds([tf.TensorSpec([2])], share=False)
    value = np.ones([2], np.float32)
    assert shared(value) is shared(value)
    kept = own(value)
    own(2 * value)
    np.testing.assert_array_equal(kept.numpy(), value)


@pytest.mark.parametrize("share", [False, True])
def test_what_is_no_array_of_the_spec_is_converted_or_refused(share):
    (feed,) = feeding.feeds([tf.TensorSpec([2], tf.float32)], share=share)
    np.testing.assert_array_equal(feed([1, 2]).numpy(), np.float32([1, 2]))
    np.testing.assert_array_equal(feed(tf.constant([1.0, 2.0])).numpy(), np.float32([1, 2]))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        feed(np.zeros([3], np.float32))


@pytest.mark.parametrize("jit_compile", [True, False, "auto"])
def test_a_program_gives_what_its_concrete_function_gives(jit_compile):
    variable = tf.Variable([1.0, 2.0])
    other = tf.Variable(0.0)

    def function(nest, number):
        return {"b": nest["x"] * variable, "a": (number + 1, [nest["y"]])}

    specs = [
        {"x": tf.TensorSpec([2]), "y": tf.TensorSpec([1], tf.bool)},
        tf.TensorSpec([], tf.int64),
    ]
    program = programs.Program(function, specs, "a test", jit_compile)
    for number in range(3):  # the first call compiles
        variable.assign([1.0, 2.0 + number])
        nest = {"x": np.float32([3, number]), "y": np.array([number == 1])}
        expected = program.concrete(
            tf.nest.map_structure(tf.constant, nest), tf.constant(number, tf.int64)
        )
        given = program(nest, number)
        tf.nest.map_structure(np.testing.assert_array_equal, given, expected)
    assert program.reads(variable)
    assert not program.reads(other)


def explores_less_and_less(features, labels, mode):
    logits = tf.stack([tf.cast(pgest.get_global_timestep(), tf.float32), 0.0])
    logits = tf.zeros_like(features["state"][:, :2]) + logits
    distribution = tfp.distributions.Categorical(logits=logits)
    return pgest.EstimatorSpec(mode, {"timestep": logits[:, 0]}, distribution=distribution)


def test_acting_sees_the_timestep_where_the_model_reads_it():
    agent = pgest.PGAgent(explores_less_and_less, pgest.BatchMemory(64))
    view = making.view("CartPole-v1", seed=0)
    spaces = (view.observation_space, view.action_space)
    actor = acting.Actor(agent.model, *spaces, num_envs=1)
    for timestep in (5, 6):
        assert actor(view.observe(), timestep).predictions["timestep"] == [timestep]
    greedy = acting.Actor(agent.model, *spaces, num_envs=1, explore=False)
    greedy(view.observe(), 9)
    assert int(agent.model.counters.variables["global_timestep"]) == 6
    view.close()


def test_the_counters_variables_are_right_when_they_are_asked_for():
    config = pgest.RunConfig(tf_random_seed=0, log_step_count_steps=None)
    agent = pgest.PGAgent(model_fns.policy_gradient, pgest.BatchMemory(16), config=config)
    agent.train("CartPole-v1", timesteps=40)
    assert agent.get_variable_value("global_timestep") == agent.global_timestep == 40
    assert agent.get_variable_value("global_episode") == agent.global_episode


@pytest.mark.parametrize(
    ("layer", "convolves"),
    [
        (tf_keras.layers.Conv1D(2, 3), True),
        (tf_keras.layers.Conv2D(2, 3), True),
        (tf_keras.layers.DepthwiseConv2D(3), True),
        (tf_keras.layers.Conv3D(2, 3), True),
        (tf_keras.layers.Dense(2), False),
    ],
)
def test_convolutions_of_every_kind_are_found(layer, convolves):
    rank = {"Conv1D": 1, "Conv3D": 3}.get(type(layer).__name__, 2)
    signature = tf.TensorSpec([1, *[5] * rank, 3])
    concrete = tf.function(layer).get_concrete_function(signature)
    assert programs.convolves(concrete) is convolves


@pytest.mark.parametrize("jit_compile", [True, False])
def test_a_program_goes_on_with_other_variables(jit_compile):
    variable, other = tf.Variable([1.0, 2.0]), tf.Variable([10.0, 20.0])

    def add(amount):
        return variable.assign_add(amount) + 0.0

    program = programs.Program(add, [tf.TensorSpec([2])], "the sum", jit_compile)
    ones = np.ones([2], np.float32)
    assert program(ones).numpy().tolist() == [2.0, 3.0]
    program.redirect([variable], [other])
    assert program(ones).numpy().tolist() == [11.0, 21.0]
    assert other.numpy().tolist() == [11.0, 21.0]
    assert variable.numpy().tolist() == [2.0, 3.0]
    assert program.reads(variable), "what it was traced with tells what it depends on"


def test_what_a_user_reads_to_its_end_is_not_called_a_damaged_cache(monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/somewhere")
    rows = iter(tf.data.Dataset.from_tensors(np.ones([3], np.float32)).take(0))
    adds = programs.Program(lambda x: x + next(rows), [tf.TensorSpec([3])], "acting", False)
    with pytest.raises(tf.errors.OutOfRangeError, match="End of sequence"):
        adds(np.ones([3], np.float32))
