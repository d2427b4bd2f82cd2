"""Views of gymnasium's vector environments: all autoreset modes, processes, native ones."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics
from gymnasium.wrappers.vector import RecordEpisodeStatistics as VectorRecordEpisodeStatistics

from pgest.environments import making
from pgest.environments.vector import VectorEnvironments
from tests.environments.environment_fakes import (
    CountingEnv,
    FailingEnv,
    MaskedEnv,
    MethodMaskedEnv,
    SpaceEnv,
    cartpole,
    tilting,
    trajectories,
)

MODES = list(AutoresetMode)


def sync(factory, num_envs, mode):
    return SyncVectorEnv([factory] * num_envs, autoreset_mode=mode)


def test_all_autoreset_modes_give_the_same_transitions():
    # Every reset after the first draws from the environment's own generator, alike in both modes.
    next_step, same_step = (
        trajectories(making.view(sync(cartpole, 3, mode), seed=8), 100)
        for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
    )
    assert next_step == same_step
    assert any(row[4] for row in next_step[0]) and any(row[5] for row in next_step[0])
    # In mode DISABLED pgest resets, with the seeds that its own environments get.
    disabled = trajectories(making.view(sync(cartpole, 3, AutoresetMode.DISABLED), seed=8), 100)
    own = trajectories(making.view(cartpole, seed=8, num_envs=3), 100)
    assert disabled == own
    assert disabled[0][:5] == next_step[0][:5]  # the first episode is seeded alike in every mode


def test_one_plain_environment_is_the_first_of_several():
    own = trajectories(making.view(cartpole, seed=8, num_envs=3), 60)
    assert trajectories(making.view(cartpole(), seed=8), 60)[0] == own[0]


def test_a_native_vector_environment_wastes_a_step_and_says_so():
    view = making.make("CartPole-v1", 16, vectorization="native", seed=1, max_episode_steps=20)
    previous_ended = np.zeros(16, np.bool_)
    counted, wasted = 0, 0
    for _ in range(100):
        observation = view.observe()
        assert observation.flags.c_contiguous and observation.dtype == np.float32
        transition = view.step(tilting(observation))
        np.testing.assert_array_equal(transition.acted, ~previous_ended)
        assert (transition.reward == transition.acted).all()
        last = transition.next_observation
        fallen = (np.abs(last[:, 2]) > 12 * np.pi / 180) | (np.abs(last[:, 0]) > 2.4)
        np.testing.assert_array_equal(transition.terminated, fallen)
        assert (np.abs(last[~transition.acted]) <= 0.05).all()  # where CartPole starts
        previous_ended = transition.terminated | transition.truncated
        assert sorted(transition.infos) == np.flatnonzero(previous_ended).tolist()
        counted, wasted = counted + transition.acted.sum(), wasted + (~transition.acted).sum()
    assert wasted > 50 and view.timestep == counted == 1600 - wasted


def test_a_native_vector_environment_repeats_itself_from_its_seed():
    first, second, other = (
        trajectories(making.make("CartPole-v1", 4, vectorization="native", seed=seed), 50)
        for seed in (1, 1, 2)
    )
    assert first == second != other


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("truncates", [False, True])
def test_the_last_observation_is_the_true_one_and_observe_goes_on(mode, truncates):
    view = making.view(sync(lambda: CountingEnv(2, truncates), 2, mode), seed=0)
    seen = []
    while len(seen) < 4:
        observation = view.observe()
        transition = view.step(np.zeros(2, np.int64))
        if transition.acted[0]:
            ended = bool((transition.truncated if truncates else transition.terminated)[0])
            assert not (transition.terminated if truncates else transition.truncated).any()
            seen.append((observation[1, 0], transition.next_observation[1, 0], ended))
    if mode is AutoresetMode.SAME_STEP:
        # SyncVectorEnv keeps CountingEnv's one array for final_obs and overwrites it by the reset.
        assert [row[0] for row in seen] == [0, 1, 0, 1] and [row[2] for row in seen] == [
            False,
            True,
        ] * 2
    else:
        assert seen == [(0, 1, False), (1, 2, True)] * 2
    assert view.timestep == 8


NESTED = spaces.Dict(
    image=spaces.Box(0, 255, (2, 2, 1), np.uint8),
    rest=spaces.Tuple([spaces.Discrete(3, start=1), spaces.Box(-1, 1, (2,))]),
)


@pytest.mark.parametrize("mode", MODES)
def test_nested_spaces_in_every_mode(mode):
    vector = sync(lambda: SpaceEnv(NESTED, NESTED, length=2), 2, mode)
    view = making.view(vector, seed=0)
    first, second = vector.envs
    for _ in range(7):
        observation = view.observe()
        assert observation["image"].shape == (2, 2, 2, 1) and observation["image"].dtype == np.uint8
        action = {
            "image": np.full((2, 2, 2, 1), 7, np.uint8),
            "rest": (np.array([1, 3]), np.array([[0, 0], [1, 1]], np.float32)),
        }
        transition = view.step(action)
        if transition.terminated[0]:
            before_last = -2 if mode is AutoresetMode.SAME_STEP else -1  # the reset one is the last
            true_last = second.observations[before_last]
            np.testing.assert_array_equal(
                transition.next_observation["rest"][1][1], true_last["rest"][1]
            )
            assert transition.next_observation["rest"][0][1] == true_last["rest"][0]
            np.testing.assert_array_equal(
                transition.next_observation["image"][1], true_last["image"]
            )
    assert [int(action["rest"][0]) for action in second.actions] == [3] * len(second.actions)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("env", [MaskedEnv, MethodMaskedEnv])
def test_masks_in_every_mode(mode, env):
    lengths = iter([2, 3])
    view = making.view(SyncVectorEnv([lambda: env(next(lengths))] * 2, autoreset_mode=mode), seed=0)
    for _ in range(12):
        observation = view.observe()
        mask = view.action_mask
        steps = observation[:, 0].astype(int)
        acting = view._ended == 0 if mode is AutoresetMode.NEXT_STEP else np.ones(2, bool)
        expected = np.arange(3)[None] == (steps % 3)[:, None]
        np.testing.assert_array_equal(mask, expected | ~acting[:, None])
        np.testing.assert_array_equal(view.step(mask.argmax(axis=1)).acted, acting)


@pytest.mark.parametrize("mode", MODES)
def test_numbers_of_the_last_info_in_every_mode(mode):
    view = making.view(
        sync(lambda: RecordEpisodeStatistics(CountingEnv(length=2)), 2, mode), seed=0
    )
    view.observe()
    assert view.step(np.zeros(2, np.int64)).infos == {}
    view.observe()
    infos = view.step(np.zeros(2, np.int64)).infos
    assert sorted(infos) == [0, 1]
    assert infos[1].pop("episode/t") >= 0
    assert infos[1] == {"steps": 2.0, "nested/half": 1.0, "episode/r": 3.0, "episode/l": 2.0}


@pytest.mark.parametrize("mode", MODES)
def test_statistics_of_a_vector_wrapper(mode):
    lengths = iter([2, 5])
    vector = SyncVectorEnv([lambda: CountingEnv(next(lengths))] * 2, autoreset_mode=mode)
    view = making.view(VectorRecordEpisodeStatistics(vector), seed=0)
    for _ in range(2):
        view.observe()
        infos = view.step(np.zeros(2, np.int64)).infos
    assert list(infos) == [0] and infos[0]["episode/r"] == 3.0 and infos[0]["steps"] == 2.0


class InfoEnv(CountingEnv):
    """A CountingEnv whose info has numbers by number, as of several players."""

    def step(self, action):
        return *super().step(action)[:4], {0: 0.5, "players": {1: 1.5}}


@pytest.mark.parametrize("mode", MODES)
def test_keys_of_an_info_may_be_numbers(mode):
    view = making.view(sync(lambda: InfoEnv(length=1), 2, mode), seed=0)
    view.observe()
    infos = view.step(np.zeros(2, np.int64)).infos
    assert infos == {index: {"0": 0.5, "players/1": 1.5} for index in range(2)}


class InfosOfTheWhole(gymnasium.vector.VectorWrapper):
    """A vector environment that also says things which are no environment's own."""

    def step(self, actions):
        *rest, infos = self.env.step(actions)
        whole = {"time": np.array(3.0), "weather": np.zeros(5), "log": [], "load": 0.5}
        return *rest, {**infos, **whole}


def test_infos_that_are_no_environments_own_are_left_out():
    vector = InfosOfTheWhole(sync(lambda: CountingEnv(length=1), 2, AutoresetMode.DISABLED))
    view = making.view(vector, seed=0)
    view.observe()
    assert view.step(np.zeros(2, np.int64)).infos[1] == {"steps": 1.0, "nested/half": 0.5}


class Declares(gymnasium.vector.VectorWrapper):
    """Says what it is told to; its environments are those of another."""

    def __init__(self, mode, own=None):
        super().__init__(sync(cartpole, 1, AutoresetMode.NEXT_STEP))
        del self.env.autoreset_mode
        self.metadata = {"autoreset_mode": mode}
        self.autoreset_mode = own


@pytest.mark.parametrize("mode", ["NextStep", "SAME_STEP", AutoresetMode.DISABLED])
def test_modes_by_name_and_value(mode):
    found = making.view(Declares(mode), seed=0)._mode
    assert mode in (found, found.name, found.value)
    assert making.view(Declares(None, mode), seed=0)._mode is found


@pytest.mark.parametrize("mode", [None, "sometimes"])
def test_a_missing_or_unknown_mode_is_an_error_of_one_sentence(mode):
    with pytest.raises(
        ValueError, match="'autoreset_mode'] is .*expected one of AutoresetMode.NEXT"
    ):
        making.view(Declares(mode), seed=0)


class WritesIntoAll(VectorEnv):
    """Writes its mode into the metadata that all vector environments without their own share."""

    num_envs = 1
    single_observation_space = single_action_space = spaces.Discrete(2)

    def __init__(self, mode, says=True):
        if says:
            self.autoreset_mode = mode
        self.metadata["autoreset_mode"] = mode


def test_the_last_one_made_does_not_decide_for_all():
    shared = dict(VectorEnv.metadata)
    try:
        training = WritesIntoAll(AutoresetMode.SAME_STEP)
        silent = WritesIntoAll(AutoresetMode.SAME_STEP, says=False)
        WritesIntoAll(AutoresetMode.NEXT_STEP)  # an evaluation's, say
        assert making.view(training, seed=0)._mode is AutoresetMode.SAME_STEP
        wrapped = gymnasium.vector.VectorWrapper(training)
        assert making.view(wrapped, seed=0)._mode is AutoresetMode.SAME_STEP
        with pytest.raises(ValueError, match=r"metadata\['autoreset_mode'] is None, expected one"):
            making.view(silent, seed=0)
    finally:
        VectorEnv.metadata.clear()
        VectorEnv.metadata.update(shared)


def test_modes_that_contradict_each_other_are_an_error():
    with pytest.raises(ValueError, match="autoreset_mode is .*SAME_STEP.*but its metadata"):
        making.view(Declares("NextStep", AutoresetMode.SAME_STEP), seed=0)


class Promises(gymnasium.vector.VectorWrapper):
    """Says SAME_STEP and gives the last observation under another key, or not at all."""

    def __init__(self, key):
        super().__init__(sync(lambda: CountingEnv(1), 2, AutoresetMode.SAME_STEP))
        self.key = key

    def step(self, actions):
        *rest, infos = self.env.step(actions)
        final = infos.pop("final_obs", None)
        return *rest, infos if self.key is None else {**infos, self.key: final}


@pytest.mark.parametrize("key", [None, "final_observation", "terminal_observation"])
def test_a_promise_of_final_observations_must_be_kept(key):
    view = making.view(Promises(key), seed=0)
    view.observe()
    words = r"without infos\['final_obs'\].*promises"
    words += "," if key is None else rf" \(it gave infos\['{key}'\]: rename"
    with pytest.raises(making.EnvironmentFailure, match=words):
        view.step(np.zeros(2, np.int64))


def test_a_vector_environment_of_the_user_stays_open_and_counts():
    vector = sync(CountingEnv, 2, AutoresetMode.NEXT_STEP)
    with making.view(vector, seed=0) as view:
        assert view.env is vector and view.is_vector and not view.owned and view.num_envs == 2
    assert not vector.closed
    with pytest.raises(ValueError, match="num_envs is 3, but SyncVectorEnv comes as 2"):
        making.view(vector, seed=0, num_envs=3)
    with making.view(lambda: vector, seed=0) as view:
        assert view.owned  # a factory makes it, for pgest
    assert vector.closed


def test_only_resets_of_everything_are_seeded_where_one_seed_is_all_there_is():
    class Recording(VectorEnv):
        metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        num_envs = 2
        single_observation_space = spaces.Discrete(2)
        single_action_space = spaces.Discrete(2)
        resets = []

        def reset(self, *, seed=None, options=None):
            self.resets.append((seed, options))
            return np.zeros(2, np.int64), {}

        def step(self, actions):
            return actions, np.ones(2), np.array([False, True]), np.zeros(2, bool), {}

    view = making.view(Recording(), seed=5)
    view.observe()
    view.step(np.zeros(2, np.int64))
    view.observe()
    (first, nothing), (second, options) = Recording.resets
    assert isinstance(first, int) and nothing is None and second is None
    assert options["reset_mask"].tolist() == [False, True]


def test_a_reset_of_everything_forgets_the_resets_that_were_due():
    view = making.view(sync(lambda: CountingEnv(1), 2, AutoresetMode.NEXT_STEP), seed=0)
    view.observe()
    assert view.step(np.zeros(2, np.int64)).terminated.all()
    view.reset()
    assert view.observe()[:, 0].tolist() == [0, 0]
    assert view.step(np.zeros(2, np.int64)).acted.all()


def test_nothing_of_an_ignored_step_counts_whatever_the_environment_says():
    class Careless(VectorEnv):
        metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        num_envs = 2
        single_observation_space = spaces.Discrete(2)
        single_action_space = spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.int64), {}

        def step(self, actions):
            return actions, np.ones((2, 1)), np.array([False, True]), np.zeros(2, bool), {}

    view = making.view(Careless(), seed=0)
    steps = []
    for _ in range(3):
        view.observe()
        transition = view.step(np.zeros(2, np.int64))
        assert transition.reward.shape == (2,)
        steps.append((transition.acted[1], transition.reward[1], transition.terminated[1]))
    assert steps == [(True, 1, True), (False, 0, False), (True, 1, True)]


@pytest.mark.parametrize("what", ["raise", "observation nan", "reward inf", "raise in reset"])
@pytest.mark.parametrize("mode", MODES)
def test_failures_name_the_environment_where_gymnasium_tells(what, mode):
    envs = [CountingEnv(length=100), FailingEnv(what)]
    vector = SyncVectorEnv([lambda: envs[0], lambda: envs[1]], autoreset_mode=mode)
    view = making.view(vector, seed=0)
    with pytest.raises(making.EnvironmentFailure, match="Environment 1 .*timestep") as caught:
        for _ in range(2):
            view.observe()
            view.step(np.zeros(2, np.int64))
    assert caught.value.env_index == 1
    assert caught.value.timestep == (0 if what == "raise in reset" else 2)


@pytest.mark.parametrize("name, value", [("is_async", True), ("batch_size", 1)])
def test_one_that_steps_a_part_at_a_time_is_refused(name, value):
    vector = sync(CountingEnv, 2, AutoresetMode.NEXT_STEP)
    setattr(vector, name, value)
    with pytest.raises(ValueError, match="batch_size=num_envs"):
        making.view(vector, seed=0)
    vector.is_async, vector.batch_size = False, 2
    assert VectorEnvironments(vector, given=vector, seed=0, owned=False).num_envs == 2


def test_one_that_does_not_tell_its_single_spaces_is_refused():
    class Concatenated(VectorEnv):
        observation_space = action_space = spaces.Discrete(2)
        num_envs = 2

    words = "Concatenated has no single_observation_space and no single_action_space, which"
    with pytest.raises(ValueError, match=words):
        making.view(Concatenated(), seed=0)
