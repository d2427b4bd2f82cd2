"""What environments give: as their spaces and gymnasium's API say, unchanged, or an error."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from pgest.environments import making
from tests.environments.given_environments import (
    GivingEnv,
    gives_two_rewards,
    second_gives_fractions,
)

BYTES = spaces.Box(0, 255, (3,), np.uint8)
INTS = spaces.Box(-9, 9, (3,), np.int32)
FLOATS = spaces.Box(-np.inf, np.inf, (3,), np.float32)
WAYS = ["one", "several", "SyncVectorEnv"]


def view_of(way, space, at, **given):
    """The faulty environment alone, or as the second of three."""
    if way == "one":
        return making.view(GivingEnv(space, at, **given), seed=0)
    makers = [lambda: GivingEnv(space, -1), lambda: GivingEnv(space, at, **given)]
    makers.append(makers[0])
    if way == "SyncVectorEnv":
        return making.view(SyncVectorEnv(makers), seed=0)
    following = iter(makers)
    return making.make(lambda: next(following)(), 3, seed=0)


def play(view, steps=1):
    for _ in range(steps):
        view.observe()
        transition = view.step(np.zeros(view.num_envs, np.int64))
    return transition


def failure(way, space, at, **given):
    with pytest.raises(making.EnvironmentFailure) as caught:
        play(view_of(way, space, at, **given))
    return caught.value


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize(
    "space, observation, words",
    [
        (BYTES, np.array([0.2, 0.9, 0.5]), ["0.2 of dtype float64", "Box(0, 255, (3,), uint8)"]),
        (BYTES, np.array([1.0, 2.0, 3.0]), ["1.0 of dtype float64"]),
        (BYTES, np.array([0, -1, 5]), ["-1 of dtype int64"]),
        (BYTES, np.array([0, 1, 300]), ["300 of dtype int64"]),
        (INTS, np.array([0, 2**40, 1]), ["1099511627776 of dtype int64", "int32"]),
        (INTS, np.array([0, 1, np.nan]), ["nan of dtype float64"]),
        (FLOATS, np.array([0, 1e39, 1]), ["1e+39"]),
        (FLOATS, np.array([0, 1j, 1]), ["complex128"]),
    ],
)
def test_an_observation_that_the_dtype_cannot_hold(way, at, space, observation, words):
    if way == "SyncVectorEnv" and space is FLOATS and "1e+39" in words:
        words = ["inf"]  # gymnasium has made it infinite
        with np.errstate(over="ignore"):
            error = failure(way, space, at, observation=observation)
    else:
        error = failure(way, space, at, observation=observation)
    assert all(word in str(error) for word in words), error
    assert error.env_index == (0 if way == "one" else 1) and error.timestep == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("observation", [np.ones(1, "f4"), np.float32(1), np.ones((3, 1), "f4")])
def test_an_observation_of_another_shape_is_not_spread(way, at, observation):
    error = failure(way, FLOATS, at, observation=observation)
    words = f"the observation has shape {observation.shape}, observation_space says (3,)"
    assert words in str(error)
    assert error.env_index == (0 if way == "one" else 1)


def test_parts_of_a_nest_are_looked_at_too():
    space = spaces.Dict(a=BYTES, b=spaces.Discrete(3))
    right = {"a": np.zeros(3, np.uint8), "b": 1}
    words = r"observation_space\['a'\] Box\(0, 255, \(3,\), uint8\) of dtype uint8 cannot hold"
    for way in WAYS:
        with pytest.raises(making.EnvironmentFailure, match=words):
            play(view_of(way, space, 1, observation={**right, "a": np.array([1.5, 0, 0])}))
    with pytest.raises(
        making.EnvironmentFailure, match=r"is \['a'\], .* says a dict of \['a', 'b'"
    ):
        play(view_of("one", space, 1, observation={"a": right["a"]}))


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize(
    "space, observation, expected",
    [
        (BYTES, [1, 2, 255], [1, 2, 255]),
        (INTS, np.array([1, 2, -3], np.int64), [1, 2, -3]),
        (FLOATS, np.array([0.5, 1, 2], np.float64), [0.5, 1, 2]),
        (FLOATS, (True, 2, 3.5), [1, 2, 3.5]),
        (spaces.MultiBinary(3), np.array([True, False, True]), [1, 0, 1]),
        (spaces.Discrete(4, dtype=np.uint8), 3, 3),
    ],
)
def test_what_loses_nothing_is_taken(way, space, observation, expected):
    transition = play(view_of(way, space, 1, observation=observation))
    found = transition.next_observation[-2 if way == "several" else 0]
    assert found.tolist() == expected and found.dtype == space.dtype


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize(
    "space, observation",
    [
        (spaces.Discrete(3), 7),
        (spaces.Discrete(3, start=1), 0),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 3])),
        (spaces.MultiBinary(2), np.array([0, 2], np.int8)),
    ],
)
def test_a_count_outside_of_its_space(way, at, space, observation):
    error = failure(way, space, at, observation=observation)
    assert f"not in its space: {observation}" in str(error) and str(space) in str(error)
    assert error.env_index == (0 if way == "one" else 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "given, words",
    [
        ({"reward": np.ones(2)}, "gave a reward of shape (2,), expected one number"),
        ({"reward": None}, "gave the reward None, expected one number"),
        ({"reward": "1"}, "gave the reward '1', expected one number"),
        ({"reward": 1e39}, "gave the reward 1e+39, which float32 cannot hold"),
        ({"reward": -(10**400)}, "which float32 cannot hold"),
        ({"terminated": None}, "gave terminated=None, expected a bool"),
        ({"terminated": "False"}, "gave terminated='False', expected a bool"),
        ({"truncated": np.nan}, "gave truncated=nan, expected a bool"),
        ({"info": None}, "gave the info None from step(), expected a dict"),
        ({"result": (np.zeros(3), 1.0, False, {})}, "gave 4 values from step()"),
        ({"result": (np.zeros(3), 1.0, 0.0, False, False, {})}, "gave 6 values from step()"),
    ],
)
def test_a_result_that_is_not_gymnasiums(way, given, words):
    if way == "SyncVectorEnv":
        # gymnasium makes nan of the reward None and True of the flag "False" before pgest sees it.
        (name, value), *_ = given.items()
        if name in ("terminated", "truncated") or isinstance(value, str):
            pytest.skip("gymnasium's own arrays hold what became of it")
        words = {
            "reward": "reward",
            "info": "step(), is a dict",
            "result": "step() gives five values",
        }[name]
    error = failure(way, FLOATS, 1, **given)
    assert words in str(error), error
    assert error.env_index == (0 if way == "one" else 1) and error.timestep == 0


def test_a_reset_that_is_not_gymnasiums():
    observation = np.zeros(3, np.float32)
    for way in WAYS[:2]:
        error = failure(way, FLOATS, 0, result=observation)
        assert "gave one ndarray from reset(), gymnasium's reset() gives two values" in str(error)
        error = failure(way, FLOATS, 0, info=None)
        assert "gave the info None from reset(), expected a dict" in str(error)
    error = failure("SyncVectorEnv", FLOATS, 0, info=None)
    assert "the info, the last value of reset() and step(), is a dict" in str(error)


@pytest.mark.parametrize("way", WAYS)
def test_an_observation_that_is_not_finite(way):
    error = failure(way, FLOATS, 1, observation=np.array([0, np.nan, 1]))
    assert "gave an observation with 1 of 3 values not finite (the first: nan)" in str(error)


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("reward", [np.array([1.5]), np.float64(1.5), np.array([[1.5]])])
def test_a_reward_of_one_number_is_taken(way, reward):
    assert 1.5 in play(view_of(way, FLOATS, 1, reward=reward)).reward


@pytest.mark.parametrize("flag", [np.bool_(True), np.array([True]), 1, 1.0])
def test_flags_as_old_environments_give_them_are_taken(flag):
    assert play(view_of("one", FLOATS, 1, terminated=flag)).terminated.tolist() == [True]


class Batches(VectorEnv):
    """A vector environment of two that gives what it is told to."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    num_envs = 2
    single_observation_space = spaces.Discrete(5)
    single_action_space = spaces.Discrete(2)

    def __init__(self, **given):
        self.given = given

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.int64), {}

    def step(self, actions):
        right = {
            "observation": np.zeros(2, np.int64),
            "reward": np.ones(2),
            "terminated": np.zeros(2, np.bool_),
            "truncated": np.zeros(2, np.bool_),
            "infos": {},
        }
        return tuple({**right, **self.given}.values())


@pytest.mark.parametrize(
    "given, words",
    [
        ({"reward": np.ones((2, 2))}, r"a reward of shape \(2,\), expected one number"),
        ({"reward": [1.0, 1e39]}, r"Environment 1 .*the reward 1e\+39, which float32 cannot hold"),
        ({"reward": [None, None]}, "expected one number for each environment"),
        ({"terminated": [None, None]}, "gave terminated=None, expected a bool"),
        ({"truncated": [0.0, np.nan]}, "gave truncated=nan, expected a bool"),
        ({"truncated": [False]}, r"gave truncated of shape \(1,\), expected \(2,\)"),
        ({"infos": [{}, {}]}, r"gave the info \[\{\}, \{\}\] from step\(\), expected a dict"),
        ({"observation": np.array([0.5, 1])}, "holds 0.5 of dtype float64"),
        ({"observation": np.array([1, 5])}, "Environment 1 .*not in its space: 5"),
        ({"more": 0}, "gave 6 values from step"),
    ],
)
def test_batches_that_are_not_gymnasiums(given, words):
    with pytest.raises(making.EnvironmentFailure, match=words):
        play(making.view(Batches(**given), seed=0))


def test_flags_and_rewards_of_other_dtypes_are_taken():
    env = Batches(reward=[[1], [2]], terminated=np.array([0, 1], np.uint8), truncated=[0.0, 0.0])
    transition = play(making.view(env, seed=0))
    assert transition.reward.tolist() == [1, 2] and transition.terminated.tolist() == [False, True]


def test_processes_look_before_gymnasium_casts():
    with making.make(second_gives_fractions, 2, vectorization="async", seed=0) as view:
        words = "Environment 1 .*holds 0.2 of dtype float64, which observation_space .*uint8"
        with pytest.raises(making.EnvironmentFailure, match=words) as caught:
            play(view)
        assert caught.value.env_index == 1
    with making.make(gives_two_rewards, 1, vectorization="async", seed=0) as view:
        words = r"gave a reward of shape \(2,\), expected one number"
        with pytest.raises(making.EnvironmentFailure, match=words):
            play(view)


def test_an_environment_that_raises_is_told_from_one_that_gives_what_is_wrong():
    class Raises(gymnasium.Wrapper):
        def step(self, action):
            first, second = action  # raises: "cannot unpack"

    makers = [lambda: GivingEnv(FLOATS), lambda: Raises(GivingEnv(FLOATS))]
    with pytest.raises(making.EnvironmentFailure, match="TypeError: cannot unpack") as caught:
        play(making.view(SyncVectorEnv(makers), seed=0))
    assert caught.value.env_index == 1 and "API" not in str(caught.value)
