"""Spaces: observations and actions of every kind through a view, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from pgest.environments import actions, making
from tests.environments.environment_fakes import SpaceEnv

OBSERVATION_SPACES = [
    spaces.Box(0, 255, (8, 6, 3), np.uint8),
    spaces.Box(-1, 1, (), np.float64),
    spaces.Box(-5, 5, (2, 2), np.int16),
    spaces.Discrete(4, start=-2),
    spaces.MultiDiscrete([3, 4], start=[1, -1]),
    spaces.MultiBinary((2, 3)),
    spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 1, (2,))]),
    spaces.Dict(
        z=spaces.Box(0, 255, (2, 2), np.uint8),
        a=spaces.Dict(deep=spaces.Tuple([spaces.Discrete(2, start=5), spaces.MultiBinary(2)])),
    ),
]


def assert_nest_equal(actual, expected, index):
    """The row `index` of a nest of batches is the unbatched nest `expected`, dtypes included."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_nest_equal(actual[key], expected[key], index)
    elif isinstance(expected, tuple):
        assert isinstance(actual, tuple) and len(actual) == len(expected)
        for pair in zip(actual, expected, strict=True):
            assert_nest_equal(*pair, index)
    else:
        assert actual.dtype == np.asarray(expected).dtype
        np.testing.assert_array_equal(actual[index], expected)


@pytest.mark.parametrize("space", OBSERVATION_SPACES, ids=str)
@pytest.mark.parametrize("num_envs", [1, 2])
def test_observations_of_every_space(space, num_envs):
    made = []

    def factory():
        made.append(SpaceEnv(space, spaces.Discrete(2)))
        return made[-1]

    view = making.make(factory, num_envs)
    for _ in range(8):
        observation = view.observe()
        for index, env in enumerate(made):
            assert_nest_equal(observation, env.observations[-1], index)
        transition = view.step(np.zeros(num_envs, np.int64))
        for index, env in enumerate(made):
            assert_nest_equal(transition.next_observation, env.observations[-1], index)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "Blackjack-v1", "FrozenLake-v1", "Taxi-v4"])
def test_real_environments_with_random_actions(env_id):
    view = making.view(env_id, seed=0, num_envs=2)
    view.action_space.seed(0)
    ended = 0
    for _ in range(60):
        observation = view.observe()
        for leaf in observation if isinstance(observation, tuple) else [observation]:
            assert leaf.shape[0] == 2
        action = np.stack([view.action_space.sample() for _ in range(2)])
        ended += len(view.step(action).infos)
    assert view.timestep == 120 and (ended > 2 or env_id in ("Pendulum-v1", "Taxi-v4"))


ACTION_SPACES = [
    (spaces.Discrete(3, start=-1), np.array([0, 2], np.int32), np.array([-1, 1])),
    (
        spaces.MultiDiscrete([2, 3], start=[10, 20]),
        np.array([[0, 2], [1, 0]], np.int32),
        np.array([[10, 22], [11, 20]]),
    ),
    (spaces.MultiBinary(2), np.array([[0, 1], [1, 1]]), np.array([[0, 1], [1, 1]], "i1")),
    (
        spaces.Box(np.array([-1, 0], "f4"), np.array([1, np.inf], "f4")),
        np.array([[-3.0, 7.0], [0.25, -1.0]]),
        np.array([[-1, 7], [0.25, 0]], "f4"),
    ),
    (spaces.Box(0, 9, (1,), np.int64), np.array([[3.6], [99.0]]), np.array([[4], [9]])),
    (
        spaces.Dict(
            b=spaces.Discrete(2, start=1), a=spaces.Tuple([spaces.MultiBinary(1), spaces.Box(0, 1)])
        ),
        {"a": (np.array([[1], [0]]), np.array([[0.5], [2.0]])), "b": np.array([1, 0])},
        {
            "b": np.array([2, 1]),
            "a": (np.array([[1], [0]], "i1"), np.array([[0.5], [1.0]], "f4")),
        },
    ),
]


@pytest.mark.parametrize("space, sampled, expected", ACTION_SPACES, ids=lambda value: "")
def test_actions_reach_the_environments_in_their_own_terms(space, sampled, expected):
    made = []

    def factory():
        made.append(SpaceEnv(spaces.Discrete(2), space))
        return made[-1]

    tensors = actions.environment_action(space, tf.nest.map_structure(tf.constant, sampled))
    action = tf.nest.map_structure(
        lambda leaf, wanted: leaf.numpy().astype(wanted.dtype), tensors, expected
    )
    view = making.view(factory, seed=0, num_envs=2)
    view.observe()
    view.step(action)
    for index, env in enumerate(made):
        assert_nest_equal(action, env.actions[0], index)  # SpaceEnv checks space.contains
        assert_nest_equal(expected, env.actions[0], index)


def test_an_environment_that_writes_into_its_action_changes_nothing_outside():
    class Doubling(SpaceEnv):
        def step(self, action):
            result = super().step(action.copy())
            action *= 2
            return result

    view = making.view(Doubling(spaces.Discrete(2), spaces.Box(-9, 9, (2,))), seed=0)
    view.observe()
    action = np.ones((1, 2), np.float32)
    view.step(action)
    np.testing.assert_array_equal(action, [[1, 1]])


def test_an_action_of_a_wrong_shape_is_named():
    view = making.view("Pendulum-v1", seed=0)
    view.observe()
    with pytest.raises(ValueError, match=r"action has shape \(1, 2\), action_space says \(1, 1\)"):
        view.step(np.zeros((1, 2), np.float32))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Box(0, 1), spaces.Discrete(2)),
        spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]),
        spaces.Dict(),
    ],
    ids=lambda space: type(space).__name__,
)
def test_unsupported_spaces_are_named_with_their_place(space):
    nested = spaces.Dict(a=spaces.Discrete(2), b=spaces.Tuple([space]))
    with pytest.raises(ValueError, match=r"observation_space\['b'\]\[0\] is .*not support"):
        making.view(SpaceEnv(nested, spaces.Discrete(2)), seed=0)
    with pytest.raises(ValueError, match="action_space is .*not support"):
        making.view(SpaceEnv(spaces.Discrete(2), space), seed=0)
