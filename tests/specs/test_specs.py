"""Specs: from spaces, to arrays and back, checks and casts."""

import copy

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from pgest import specs
from pgest.policies import time_steps
from pgest.specs import checks as spec_checks
from pgest.specs import nests

NESTED = spaces.Dict(
    {
        "position": spaces.Box(-1.0, 1.0, (3,), np.float32),
        "parts": spaces.Tuple(
            (spaces.Discrete(3, start=2), spaces.MultiDiscrete([2, 5]), spaces.MultiBinary(4))
        ),
    }
)


def test_bounded_spec_goes_wherever_a_tensor_spec_goes(tmp_path):
    spec = specs.BoundedTensorSpec((None, 2), tf.float32, -1, [1, 2], name="x")
    module = tf.Module()
    module.double = tf.function(lambda nest: 2 * nest["x"], input_signature=[{"x": spec}])
    np.testing.assert_array_equal(module.double({"x": tf.ones((3, 2))}), np.full((3, 2), 2.0))
    with pytest.raises((TypeError, ValueError)):
        module.double({"x": tf.ones((3, 3))})
    tf.saved_model.save(module, str(tmp_path / "module"))
    loaded = tf.saved_model.load(str(tmp_path / "module"))
    np.testing.assert_array_equal(loaded.double({"x": tf.ones((1, 2))}), [[2.0, 2.0]])


def test_bounds_are_part_of_a_spec():
    spec = specs.BoundedTensorSpec((2,), tf.float32, -1, 1, name="x")
    same = specs.BoundedTensorSpec((2,), tf.float32, -1, 1, name="x")
    assert spec == same and hash(spec) == hash(same)
    assert spec != specs.BoundedTensorSpec((2,), tf.float32, -1, 2, name="x")
    assert spec != tf.TensorSpec((2,), tf.float32, name="x")
    assert tf.TensorSpec((2,), tf.float32, name="x") != spec
    assert copy.deepcopy(spec) == spec
    assert specs.BoundedTensorSpec.from_spec(spec, name="y").name == "y"
    with pytest.raises(ValueError, match="read-only"):
        spec.minimum[...] = 0
    array_spec = specs.BoundedArraySpec((2,), np.float32, -1, 1, name="x")
    assert array_spec == specs.BoundedArraySpec((2,), np.float32, -1, 1, name="x")
    assert array_spec != specs.ArraySpec((2,), np.float32, name="x")
    assert specs.ArraySpec((2,), np.float32, name="x") != array_spec


@pytest.mark.parametrize("kind", [specs.BoundedTensorSpec, specs.BoundedArraySpec])
def test_wrong_bounds_are_refused(kind):
    with pytest.raises(ValueError, match="minimum has shape .3,., expected one that broadcasts"):
        kind((2,), np.float32, [0, 0, 0], 1)
    with pytest.raises(ValueError, match="above maximum"):
        kind((2,), np.float32, 1, 0)


def test_specs_of_spaces_keep_bounds_dtypes_and_starts():
    spec = specs.observation_spec(NESTED)
    by_path = dict(nests.flatten_with_paths(spec))
    assert set(by_path) == {"position", "parts/0", "parts/1", "parts/2"}
    assert by_path["position"] == specs.BoundedTensorSpec(
        (3,), tf.float32, [-1] * 3, [1] * 3, "observation/position"
    )
    assert by_path["parts/0"] == specs.BoundedTensorSpec((), tf.int64, 2, 4, "observation/parts/0")
    np.testing.assert_array_equal(by_path["parts/1"].maximum, [1, 4])
    assert by_path["parts/2"].dtype == tf.int8 and int(by_path["parts/2"].maximum) == 1
    assert isinstance(spec["parts"], tuple)


@pytest.mark.parametrize(
    "environment", ["CartPole-v1", "Pendulum-v1", "Blackjack-v1", "Acrobot-v1", "FrozenLake-v1"]
)
def test_samples_of_real_spaces_fit_their_specs(environment):
    env = gymnasium.make(environment)
    for space, spec in (
        (env.observation_space, specs.observation_spec(env.observation_space)),
        (env.action_space, specs.action_spec(env.action_space)),
    ):
        space.seed(0)
        for _ in range(20):
            array = spec_checks.cast_to_spec(space.sample(), specs.to_array_spec(spec))
            checks = zip(
                tf.nest.flatten(specs.to_array_spec(spec)), tf.nest.flatten(array), strict=True
            )
            assert all(leaf_spec.check_array(leaf) for leaf_spec, leaf in checks)
    env.close()


def test_spaces_without_a_spec_are_refused():
    with pytest.raises(TypeError, match="observation/word: got the space Text"):
        specs.observation_spec(spaces.Dict({"word": spaces.Text(5)}))


def test_tensor_and_array_specs_turn_into_each_other():
    spec = specs.action_spec(NESTED)
    arrays = specs.to_array_spec(spec)
    assert all(isinstance(leaf, specs.BoundedArraySpec) for leaf in tf.nest.flatten(arrays))
    assert specs.from_spec(arrays) == spec
    assert specs.to_array_spec(arrays) == arrays
    with pytest.raises(ValueError, match="spec at 'a/0': got 3 of type int"):
        specs.from_spec({"a": (3,)})
    with pytest.raises(ValueError, match="spec at 'a': got 'float32'"):
        specs.to_array_spec({"a": "float32"})


def test_zeros_and_outer_dims():
    spec = specs.observation_spec(NESTED)
    zeros = specs.zero_spec_nest(spec, (5,))
    spec_checks.check_spec(zeros, spec, outer_dims=(5,))
    dynamic = tf.function(lambda rows: specs.zero_spec_nest(spec, (rows,)))(tf.constant(2))
    assert dynamic["position"].shape == (2, 3)
    batched = specs.add_outer_dims(spec)
    assert batched["position"].shape.as_list() == [None, 3]
    np.testing.assert_array_equal(batched["position"].maximum, [1, 1, 1])
    arrays = specs.zero_spec_nest(specs.to_array_spec(spec))
    assert arrays["parts"][2].dtype == np.int8
    with pytest.raises(NotImplementedError, match="expected a dense spec"):
        specs.zero_spec_nest({"a": tf.RaggedTensorSpec((None, None), tf.float32)})
    with pytest.raises(ValueError, match="not fully known"):
        specs.zero_spec_nest(tf.TensorSpec((None,), tf.float32))


def test_specs_are_named_by_their_paths():
    named = specs.with_path_names({"b": specs.ArraySpec((), np.int32), "a": (tf.TensorSpec(()),)})
    assert [leaf.name for leaf in tf.nest.flatten(named)] == ["a/0", "b"]
    assert specs.with_path_names(tf.TensorSpec((), name="x"), "action").name == "action"
    assert specs.with_path_names(tf.TensorSpec((), name="x")).name == "x"


def test_paths_follow_the_order_of_tf_nest():
    nest = {"b": [1, {"z": 2, "y": 3}], "a": (4,), "c": ()}
    paths, leaves = zip(*nests.flatten_with_paths(nest), strict=True)
    assert list(leaves) == tf.nest.flatten(nest)
    assert paths == ("a/0", "b/0", "b/1/y", "b/1/z")
    assert nests.flatten_with_paths(7) == [("", 7)]


@pytest.mark.parametrize(
    ("expected", "nest", "message"),
    [
        ({"a": {"b": 1}}, {"a": {"c": 1}}, r"at 'a': got a dict with keys \['c'\]"),
        ((1, 2), [1, 2], "got a list of length 2, expected a tuple of length 2"),
        ((1, 2), (1,), "got a tuple of length 1, expected a tuple of length 2"),
        ((), 1, "got a leaf of type int, expected an empty tuple"),
        (1, {"a": 1}, "got a dict with keys .'a'., expected a leaf"),
    ],
)
def test_structures_that_differ_are_named(expected, nest, message):
    with pytest.raises(ValueError, match=message):
        nests.check_same_structure(expected, nest)


def test_cast_keeps_numbers_or_says_why_not():
    spec = {"x": tf.TensorSpec((2,), tf.float32), "n": specs.ArraySpec((), np.uint8)}
    out = spec_checks.cast_to_spec({"x": np.array([[1.5, 2.5]]), "n": [200]}, spec)
    assert tf.is_tensor(out["x"]) and out["x"].dtype == tf.float32 and out["x"].shape == (1, 2)
    assert isinstance(out["n"], np.ndarray) and out["n"].dtype == np.uint8 and out["n"][0] == 200
    with pytest.raises(TypeError, match="obs at 'n': got int64 of shape .1,., expected uint8 of"):
        spec_checks.cast_to_spec({"x": np.zeros((1, 2)), "n": [300]}, spec, what="obs")
    with pytest.raises(TypeError, match="obs at 'n': got float64"):
        spec_checks.cast_to_spec({"x": np.zeros((1, 2)), "n": [1.5]}, spec, what="obs")
    with pytest.raises(TypeError, match="at 'x': got float64 of shape .2,., expected float32"):
        spec_checks.cast_to_spec({"x": tf.zeros(2, tf.float64), "n": 1}, spec)
    with pytest.raises(TypeError, match="got str"):
        spec_checks.cast_to_spec("word", tf.TensorSpec((), tf.float32))


def test_shapes_are_checked_in_one_line_that_names_the_leaf():
    spec = {"a": tf.TensorSpec((2,), tf.float32), "b": tf.TensorSpec((), tf.float32)}
    value = {"a": np.zeros((4, 2), np.float32), "b": np.zeros(3, np.float32)}
    with pytest.raises(
        ValueError, match="value at 'b': got float32 of shape .3,., .*shape .4,"
    ) as e:
        spec_checks.check_spec(value, spec)
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match=r"at 'a': .* expected float32 of shape \(7, 2\)"):
        spec_checks.cast_to_spec(value, spec, outer_dims=(7,))
    spec_checks.check_spec({**value, "b": np.zeros(4, np.float32)}, spec, outer_dims=(None,))


def test_lists_count_as_arrays_where_the_spec_has_a_leaf():
    spec = ({"x": specs.ArraySpec((2,), np.float32)}, specs.ArraySpec((), np.int64))
    out = spec_checks.cast_to_spec(({"x": [1, 2]}, 3), spec)
    np.testing.assert_array_equal(out[0]["x"], np.array([1, 2], np.float32))


def test_containers_that_tensorflow_wraps_are_what_they_were():
    module = tf.Module()
    module.nest = (time_steps.TimeStep(0, 1, 2, {"x": [np.zeros(2)], "y": ()}),)
    assert type(module.nest) is not tuple
    spec = (
        time_steps.TimeStep(
            *[specs.ArraySpec((), np.int64)] * 3, {"x": [specs.ArraySpec((2,), np.float32)]}
        ),
    )
    pruned = nests.prune_extra_keys(spec, module.nest)
    out = spec_checks.cast_to_spec(pruned, spec)
    assert type(out[0]) is time_steps.TimeStep and out[0].observation["x"][0].dtype == np.float32
    nests.check_same_structure(module.nest, (time_steps.TimeStep(0, 0, 0, {"x": [0], "y": ()}),))


def test_batching_a_nest_and_back():
    nest = {"a": np.zeros(3), "b": (tf.ones(()),)}
    batched = nests.batch_nest(nest)
    assert batched["a"].shape == (1, 3) and batched["b"][0].shape == (1,)
    assert nests.unbatch_nest(batched)["a"].shape == (3,)
    with pytest.raises(ValueError, match="^a: got shape .2, 3., expected a leading batch axis of"):
        nests.unbatch_nest({"a": np.zeros((2, 3))})
    with pytest.raises(ValueError, match="leading batch axis"):
        nests.unbatch_nest(tf.zeros(()))
