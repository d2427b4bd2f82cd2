"""Views of plain environments, one or several in this process; spaces; making views."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit

from pgest.environments import making
from pgest.environments.worker import episode_seed
from tests.environments.environment_fakes import (
    CountingEnv,
    FailingEnv,
    MaskedEnv,
    MethodMaskedEnv,
    SpaceEnv,
)

ZERO = np.zeros(1, np.int64)


def balancing(observation):
    """A CartPole action that is a function of the observation, so that trajectories compare."""
    return (observation[:, 2] + observation[:, 3] > 0).astype(np.int64)


def test_a_plain_environment_gives_exactly_its_own_trajectory():
    bare = gymnasium.make("CartPole-v1", max_episode_steps=30)
    view = making.view(gymnasium.make("CartPole-v1", max_episode_steps=30), seed=5)
    truncations = 0
    for episode in range(4):
        expected, _ = bare.reset(seed=episode_seed(5, 0, episode))
        ended = False
        while not ended:
            observation = view.observe()
            np.testing.assert_array_equal(observation, expected[None])
            action = balancing(observation)
            expected, reward, terminated, truncated, _ = bare.step(int(action[0]))
            transition = view.step(action)
            np.testing.assert_array_equal(transition.next_observation, expected[None])
            assert transition.reward == [reward] and transition.acted == [True]
            assert transition.terminated == [terminated] and transition.truncated == [truncated]
            ended = terminated or truncated
            assert list(transition.infos) == ([0] if ended else [])
        truncations += truncated
    assert truncations == 4  # this policy balances for 30 steps: the last observations are true
    assert view.timestep == 120


def test_arrays_have_a_batch_axis_and_the_dtypes_of_the_agreement():
    view = making.view("CartPole-v1", seed=0)
    observation = view.observe()
    transition = view.step(ZERO)
    assert observation.shape == (1, 4) and observation.dtype == np.float32
    assert transition.reward.dtype == np.float32 and transition.reward.shape == (1,)
    for flags in (transition.terminated, transition.truncated, transition.acted):
        assert flags.dtype == np.bool_ and flags.shape == (1,)


@pytest.mark.parametrize("num_envs", [None, 3])
def test_arrays_stay_as_they_were_though_the_environment_reuses_its_own(num_envs):
    view = making.view(lambda: CountingEnv(length=2), seed=0, num_envs=num_envs)
    observations, lasts = [], []
    action = np.zeros(num_envs or 1, np.int64)
    for _ in range(4):
        observations.append(view.observe())
        lasts.append(view.step(action).next_observation)
    assert [o[0].tolist() for o in observations] == [[0, 1], [1, 1], [0, 2], [1, 2]]
    assert [o[0].tolist() for o in lasts] == [[1, 1], [2, 1], [1, 2], [2, 2]]


def test_reset_seeds_are_a_function_of_seed_index_and_episode():
    made = []

    def factory():
        made.append(CountingEnv(length=1))
        return made[-1]

    view = making.view(factory, seed=9, num_envs=2)
    view.reset(episode=4)
    for _ in range(2):
        view.observe()
        view.step(np.zeros(2, np.int64))
    view.observe()
    assert made[0].seeds == [episode_seed(9, 0, episode) for episode in (4, 5, 6)]
    assert made[1].seeds == [episode_seed(9, 1, episode) for episode in (4, 5, 6)]
    assert len(set(made[0].seeds + made[1].seeds)) == 6


def test_without_a_seed_resets_are_unseeded_and_a_view_takes_the_first_seed_it_is_offered():
    view = making.make(CountingEnv)
    view.observe()
    assert making.view(view, seed=3) is view
    assert making.view(view, seed=4).seed == 3
    view.reset()
    assert view._envs[0].seeds == [None, episode_seed(3, 0, 0)]


@pytest.mark.parametrize("seed", [-1, 1.5, True, "x"])
def test_a_seed_must_be_a_non_negative_integer(seed):
    with pytest.raises(ValueError, match="seed is .*expected a non-negative integer"):
        making.view(CountingEnv(), seed=seed)


def test_pgest_closes_what_it_made_once_and_nothing_else():
    given = CountingEnv()
    with making.view(given, seed=0) as view:
        assert not view.owned and not view.is_vector and view.env is given
    assert given.closed == 0
    made = [CountingEnv() for _ in range(3)]
    left = list(made)
    with making.view(left.pop, seed=0, num_envs=3) as view:
        assert view.owned and view.is_vector
    view.close()
    assert [env.closed for env in made] == [1, 1, 1]


@pytest.mark.parametrize("num_envs", [None, 2])
def test_numbers_in_small_arrays_are_taken_or_refused_but_never_broadcast(num_envs):
    class Wrapping(CountingEnv):
        def step(self, action):
            observation, reward, terminated, truncated, info = super().step(action)
            return observation, self.wrap(reward), np.bool_(terminated), np.array([truncated]), info

    view = making.view(Wrapping, seed=0, num_envs=num_envs)
    action = np.zeros(num_envs or 1, np.int64)
    Wrapping.wrap = staticmethod(np.float64)
    view.observe()
    assert view.step(action).reward.tolist() == [1.5] * len(action)
    Wrapping.wrap = staticmethod(lambda reward: np.array([reward, reward]))
    view.observe()
    with pytest.raises(
        making.EnvironmentFailure, match=r"a reward of shape \(2,\), expected one number"
    ):
        view.step(action)


def test_truncated_is_not_terminated_and_the_last_observation_is_the_true_one():
    view = making.view(TimeLimit(CountingEnv(length=100), 4), seed=0)
    for step in range(1, 5):
        view.observe()
        transition = view.step(ZERO)
        assert not transition.terminated[0] and transition.truncated[0] == (step == 4)
        assert transition.next_observation[0, 0] == step
    assert view.observe()[0, 0] == 0


def test_stepping_an_ended_episode_without_observing_is_an_error():
    view = making.view(CountingEnv(length=1), seed=0)
    with pytest.raises(RuntimeError, match="observe"):
        view.step(ZERO)
    view.observe()
    view.step(ZERO)
    with pytest.raises(RuntimeError, match="observe"):
        view.step(ZERO)


@pytest.mark.parametrize(
    "what, match",
    [
        ("raise", r"Environment 1 \(.*\) failed in step\(\): KeyError: 'gear', at timestep 2"),
        (
            "shape",
            r"Environment 1 .*has shape \(5,\), observation_space says \(2,\)",
        ),
        ("observation nan", r"Environment 1 .*observation with 1 of 2 values not finite.*Box"),
        ("observation -inf", r"Environment 1 .*the first: -inf"),
        ("reward nan", r"Environment 1 .*gave the reward nan, at timestep 2"),
        ("reward inf", r"Environment 1 .*gave the reward inf"),
    ],
)
def test_failures_name_the_environment_and_the_timestep(what, match):
    made = [FailingEnv(what), CountingEnv(length=100)]
    view = making.view(made.pop, seed=0, num_envs=2)
    view.observe()
    view.step(np.zeros(2, np.int64))
    view.observe()
    with pytest.raises(making.EnvironmentFailure, match=match) as caught:
        view.step(np.zeros(2, np.int64))
    assert caught.value.env_index == 1 and caught.value.timestep == 2
    assert isinstance(caught.value.__cause__, KeyError) == (what == "raise")
    assert view.observe()[:, 0].tolist() == [0, 0]  # everything starts afresh


@pytest.mark.parametrize("what", ["raise", "observation nan", "reward nan"])
def test_a_single_environment_fails_as_clearly(what):
    view = making.view(FailingEnv(what, at=1), seed=0)
    view.observe()
    with pytest.raises(making.EnvironmentFailure, match="Environment 0 .* timestep 0"):
        view.step(ZERO)


def test_failures_in_reset_are_named_too():
    view = making.view(FailingEnv("raise in reset"), seed=0)
    with pytest.raises(making.EnvironmentFailure, match=r"reset\(\): OSError: no simulator"):
        view.observe()


def test_an_observation_unlike_its_space_is_found_at_reset():
    env = CountingEnv()
    env.observation_space = spaces.Box(0, 1, (3,))
    with pytest.raises(making.EnvironmentFailure, match=r"\(2,\), observation_space says \(3,\)"):
        making.view(env, seed=0).observe()
    env.observation_space = spaces.Dict(a=spaces.Discrete(2))
    with pytest.raises(making.EnvironmentFailure, match=r"a ndarray, .* says a dict of \['a"):
        making.view(env, seed=0).observe()


def test_a_nan_action_is_named_as_the_likely_cause():
    class Echo(SpaceEnv):
        def step(self, action):
            return np.full(2, action[0]), 0.0, False, False, {}

    view = making.view(Echo(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,))), seed=0)
    view.observe()
    with pytest.raises(making.EnvironmentFailure, match="look at the policy"):
        view.step(np.array([[np.nan]], np.float32))


def test_huge_finite_values_pass_the_check():
    view = making.view(FailingEnv("observation 3e38"), seed=0)
    for _ in range(2):
        view.observe()
        transition = view.step(ZERO)
    assert transition.next_observation[0, 1] == np.float32(3e38)


@pytest.mark.parametrize("env", [MaskedEnv, MethodMaskedEnv])
@pytest.mark.parametrize("num_envs", [None, 2])
def test_action_masks_belong_to_the_last_observation(env, num_envs):
    view = making.view(env, seed=0, num_envs=num_envs)
    for step in [0, 1, 2, 0, 1, 2]:
        view.observe()
        mask = view.action_mask
        assert mask.dtype == np.bool_ and mask.tolist() == [
            [step == 0, step == 1, step == 2] for _ in range(num_envs or 1)
        ]
        view.step(np.full(num_envs or 1, step))
        assert view.action_mask is mask


def test_taxi_offers_a_mask():
    view = making.view("Taxi-v4", seed=0)
    view.observe()
    assert view.action_mask.shape == (1, 6)
    np.testing.assert_array_equal(
        view.action_mask[0], view._envs[0].unwrapped.action_mask(view.observe()[0]) == 1
    )


def test_a_mask_that_goes_missing_or_allows_nothing_is_an_error():
    view = making.view(MaskedEnv(forget_at=1), seed=0)
    view.observe()
    with pytest.raises(making.EnvironmentFailure, match="no action_mask, though"):
        view.step(ZERO)
    empty = MaskedEnv()
    empty.mask = lambda: np.zeros(3)
    with pytest.raises(making.EnvironmentFailure, match="allows no action"):
        making.view(empty, seed=0).observe()
    wide = MaskedEnv()
    wide.mask = lambda: np.ones(4)
    with pytest.raises(making.EnvironmentFailure, match=r"shape \(4,\), not \(3,\)"):
        making.view(wide, seed=0).observe()


@pytest.mark.parametrize("as_nest", [False, True])
def test_each_choice_of_a_multi_discrete_has_to_allow_an_action(as_nest):
    env = MaskedEnv()
    env.action_space = spaces.MultiDiscrete([2, 3])
    env.mask = lambda: mask
    if as_nest:
        env.action_space = spaces.Dict(move=env.action_space)
        env.mask = lambda: {"move": mask}
    mask = np.array([0, 1, 0, 0, 1])
    making.view(env, seed=0).observe()
    mask = np.array([0, 0, 1, 1, 1])
    with pytest.raises(making.EnvironmentFailure, match="allows no action"):
        making.view(env, seed=0).observe()


def test_the_numbers_of_the_last_info_come_with_the_episode():
    view = making.view(RecordEpisodeStatistics(CountingEnv(length=2)), seed=0)
    view.observe()
    assert view.step(ZERO).infos == {}
    view.observe()
    info = view.step(ZERO).infos[0]
    assert info.pop("episode/t") >= 0
    assert info == {"steps": 2.0, "nested/half": 1.0, "episode/r": 3.0, "episode/l": 2.0}
    assert all(type(value) is float for value in info.values())


def test_what_view_and_make_take_and_what_they_say_otherwise():
    assert making.view("CartPole-v1", seed=0).num_envs == 1
    assert making.make("CartPole-v1", max_episode_steps=7)._envs[0].spec.max_episode_steps == 7
    assert making.make(CountingEnv, length=9)._envs[0].length == 9
    with pytest.raises(TypeError, match="env is 5 of type int, expected a gymnasium.Env"):
        making.view(5, seed=0)
    with pytest.raises(TypeError, match="expected the id of an environment or a factory"):
        making.make(CountingEnv())
    with pytest.raises(TypeError, match="made None, expected a gymnasium.Env"):
        making.make(lambda: None)
    with pytest.raises(ValueError, match="num_envs is 4, but CountingEnv comes as 1"):
        making.view(CountingEnv(), seed=0, num_envs=4)
    with pytest.raises(ValueError, match="num_envs is 0, expected a positive integer"):
        making.make("CartPole-v1", 0)
    with pytest.raises(ValueError, match="vectorization is 'fork', expected 'sync'"):
        making.make("CartPole-v1", 2, vectorization="fork")
    with pytest.raises(ValueError, match="takes the id of an environment"):
        making.make(CountingEnv, 2, vectorization="native")


def test_a_factory_must_make_new_environments_of_the_same_spaces():
    one = CountingEnv()
    with pytest.raises(ValueError, match="gave one environment twice"):
        making.make(lambda: one, 2)
    assert one.closed == 2  # nothing that was made is left open
    different = [MaskedEnv(), CountingEnv()]
    with pytest.raises(ValueError, match="Environment 1 has the spaces"):
        making.make(list(different).pop, 2)
    assert [env.closed for env in different] == [1, 1]
