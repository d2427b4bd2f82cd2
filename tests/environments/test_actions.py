"""From what a distribution samples to what an environment takes."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from pgest.environments import actions

convert = actions.environment_action


def accepted(space, converted):
    """Whether the space contains every row of a nest."""
    leaves = tf.nest.map_structure(lambda leaf: leaf.numpy(), converted)
    size = len(tf.nest.flatten(leaves)[0])
    rows = [tf.nest.map_structure(lambda leaf, i=i: leaf[i], leaves) for i in range(size)]
    return all(space.contains(row) for row in rows)


def test_actions_that_fit_stay_the_very_same_tensor():
    action = tf.constant([0, 1])
    assert convert(spaces.Discrete(2), action) is action
    action = tf.constant([[0.5]])
    assert convert(spaces.Box(-np.inf, np.inf, [1]), action) is action


def test_discrete_actions_start_where_the_space_does():
    space = spaces.Discrete(3, start=-5)
    np.testing.assert_array_equal(convert(space, tf.constant([0, 2])), [-5, -3])
    space = spaces.MultiDiscrete([3, 2], start=[1, 10])
    converted = convert(space, tf.constant([[0, 0], [2, 1]], tf.int64))
    np.testing.assert_array_equal(converted, [[1, 10], [3, 11]])
    assert accepted(space, converted)


def test_bounds_are_kept():
    space = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32))
    converted = convert(space, tf.constant([[-3.0, 9.0], [0.5, 0.5]]))
    np.testing.assert_array_equal(converted, [[-1.0, 5.0], [0.5, 0.5]])
    assert converted.dtype == tf.float32


def test_a_half_open_box_is_clipped_where_it_ends():
    space = spaces.Box(np.array([0.0], np.float32), np.array([np.inf], np.float32))
    np.testing.assert_array_equal(convert(space, tf.constant([[-1.0], [1e9]])), [[0.0], [1e9]])


def test_floats_take_the_dtype_of_the_box():
    space = spaces.Box(-1.0, 1.0, [2], np.float64)
    assert convert(space, tf.zeros([3, 2])).dtype == tf.float64


def test_no_bound_is_overstepped_by_rounding():
    space = spaces.Box(-0.1, 0.1, [2], np.float64)  # the float32 of 0.1 is larger than it
    converted = convert(space, tf.constant([[-3.0, 3.0], [-0.1, 0.1]]))
    np.testing.assert_array_equal(converted, [[-0.1, 0.1], [-0.1, 0.1]])
    assert accepted(space, converted)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_boxes_of_integers_take_rounded_floats_and_integers(dtype):
    high = min(np.iinfo(dtype).max, 2**31 - 1)
    space = spaces.Box(0, high, [2], dtype)
    converted = convert(space, tf.constant([[-4.0, 2.6], [7.2, 1e12]]))
    np.testing.assert_array_equal(converted.numpy(), [[0, 3], [7, high]])
    assert accepted(space, converted)
    assert accepted(space, convert(space, tf.constant([[1, 300]])))


@pytest.mark.parametrize("bounds", [(-5, 5), (0, 2**31 - 1), (-(2**24) - 1, 7)])
def test_integers_are_those_that_float64_gives(bounds):
    values = np.float32([-np.inf, -7.5, -5.5, -0.5, 0.5, 1.5, 2.5, 5.5, 2**24, 3e9, np.inf])
    wanted = np.round(np.clip(values.astype(np.float64), *bounds)).astype(np.int32)
    found = actions.to_integers(tf.constant(values), tf.int32, *np.int32(bounds))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("float64", -2, 3), ("float64", -0.1, 0.1), ("float64", -np.inf, 1), ("float16", -2, 3)]
    + [("int8", -2, 3), ("uint8", 0, 3), ("int32", -2, 3), ("int64", -2, 2**40)],
)
def test_clipping_is_that_of_the_wanted_dtype(dtype, low, high):
    """Whichever dtype it is done in: 0.1 of float64 is no float32, and may not be overstepped."""
    low, high = np.array([low], dtype), np.array([high], dtype)
    values = np.array([0, 1, 2, 3, 4, 100] if dtype[0] == "u" else [-100, -3, -2, 0, 1, 4, 100])
    given = tf.constant(values, tf.float32 if "float" in dtype else dtype)
    found = actions.clip_to(given, tf.as_dtype(dtype), low, high)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.clip(values.astype(dtype), low, high))


def test_binaries_take_integers_and_bools():
    space = spaces.MultiBinary(3)
    assert accepted(space, convert(space, tf.constant([[0, 1, 1]])))
    assert accepted(space, convert(space, tf.constant([[False, True, True]])))
    converted = convert(spaces.Discrete(2), tf.constant([True, False]))
    np.testing.assert_array_equal(converted, [1, 0])


def test_nests_are_converted_leaf_by_leaf():
    space = spaces.Dict(
        gear=spaces.Discrete(3, start=1),
        arm=spaces.Tuple([spaces.Box(-1.0, 1.0, [2]), spaces.MultiBinary(2)]),
    )
    action = {
        "gear": tf.constant([0, 2], tf.int64),
        "arm": (tf.constant([[-9.0, 9.0], [0.0, 0.0]]), tf.constant([[0, 1], [1, 1]])),
    }
    converted = convert(space, action)
    np.testing.assert_array_equal(converted["gear"], [1, 3])
    np.testing.assert_array_equal(converted["arm"][0], [[-1, 1], [0, 0]])
    assert isinstance(converted["arm"], tuple)
    assert accepted(space, converted)


@pytest.mark.parametrize(
    ("space", "action", "message"),
    [
        (spaces.Discrete(2), tf.zeros([4]), r"float32 of shape \(4,\).*wants integers"),
        (spaces.Discrete(2), tf.zeros([4, 1], tf.int32), r"\(4, 1\).*integers of shape \('B',\)"),
        (spaces.Discrete(2), tf.zeros([], tf.int32), r"int32 of shape \(\)"),
        (spaces.Discrete(2), {"a": tf.zeros([4])}, "is a dict with the keys"),
        (spaces.Box(-1, 1, [2]), tf.zeros([4], tf.float32), r"shape \(4,\).*\('B', 2\)"),
        (spaces.Box(-1, 1, [2]), tf.zeros([4, 3]), r"\(4, 3\).*\('B', 2\)"),
        (spaces.Box(-1, 1, [2]), tf.zeros([4, 2], tf.int32), "int32.*wants floats"),
        (spaces.Box(-1, 1, [1]), tf.zeros([4, 1, 1]), r"\(4, 1, 1\)"),
        (spaces.MultiDiscrete([2, 3]), tf.zeros([4, 3], tf.int32), r"\(4, 3\).*\('B', 2\)"),
        (spaces.MultiBinary(3), tf.zeros([4, 3]), "float32.*wants integers"),
        (spaces.Tuple([spaces.Discrete(2)]), tf.zeros([4], tf.int32), "wants a tuple of 1"),
        (spaces.Dict(a=spaces.Discrete(2)), {"b": tf.zeros([4])}, r"wants a dict.*\['a'\]"),
        (spaces.Dict(a=spaces.Discrete(2)), {"a": tf.zeros([4])}, "The model's action/a is"),
    ],
)
def test_an_action_that_does_not_fit_the_space_is_an_error(space, action, message):
    with pytest.raises(ValueError, match=message):
        convert(space, action)


def test_unknown_shapes_are_left_to_the_environment():
    @tf.function(input_signature=[tf.TensorSpec(None, tf.int32)])
    def inside(action):
        return convert(spaces.Discrete(2), action)

    np.testing.assert_array_equal(inside(tf.constant([1, 0])), [1, 0])


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Sequence(spaces.Discrete(2))])
def test_unsupported_spaces_are_named(space: gymnasium.Space):
    with pytest.raises(ValueError, match=f"type {type(space).__name__} are not supported"):
        convert(space, tf.zeros([1], tf.int32))
