"""Memories: what goes in comes out, whole episodes or fixed horizons, whatever the lengths."""

import numpy as np
import pytest

import pgest
from pgest import memory as memory_lib

FLAGS = {"terminated": False, "truncated": False}


def timestep(number, *, terminated=False, truncated=False, **more):
    return {
        "state": np.full([2], number, np.float32),
        "reward": np.float32(number),
        "terminated": terminated,
        "truncated": truncated,
        **more,
    }


def fill(memory, lengths, start=0):
    """Episodes of the given lengths; timesteps are numbered from `start`."""
    number = start
    for length in lengths:
        for index in range(length):
            memory.step(**timestep(number, terminated=index == length - 1))
            number += 1
    return number


# --- sizes ---------------------------------------------------------------------------------------


def test_the_default_is_five_thousand_timesteps():
    assert pgest.BatchMemory().batch_size == 5000
    assert repr(pgest.BatchMemory()) == "BatchMemory(batch_size=5000)"
    assert repr(pgest.BatchMemory(episodes=3)) == "BatchMemory(episodes=3)"
    assert repr(pgest.RolloutMemory(horizon=8)) == "RolloutMemory(horizon=8)"


@pytest.mark.parametrize("name", ["batch_size", "episodes", "max_episode_length"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_sizes_are_positive_integers(name, value, error):
    with pytest.raises(error, match=f"{name} is {value}; expected a positive integer"):
        pgest.BatchMemory(**{name: value})


def test_one_of_the_two_sizes():
    with pytest.raises(ValueError, match="batch_size=10 and episodes=2; give one"):
        pgest.BatchMemory(10, episodes=2)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (2.0, TypeError)])
def test_a_horizon_is_a_positive_integer(value, error):
    with pytest.raises(error, match="expected a positive integer"):
        pgest.RolloutMemory(value)


def test_numpy_integers_are_integers():
    assert pgest.BatchMemory(np.int64(7)).batch_size == 7


# --- whole episodes ------------------------------------------------------------------------------


def test_a_batch_in_timesteps_waits_for_an_episode_to_end():
    memory = pgest.BatchMemory(batch_size=5)
    fill(memory, [4])
    for number in range(4, 9):
        memory.step(**timestep(number))
    assert not memory.can_sample()  # nine timesteps, four of them in an ended episode
    assert (len(memory), memory.num_timesteps, memory.num_episodes) == (9, 4, 1)
    memory.step(**timestep(9, truncated=True))
    assert memory.can_sample()
    batch = memory.sample()
    np.testing.assert_array_equal(batch["reward"], np.arange(10))
    np.testing.assert_array_equal(np.flatnonzero(batch["terminated"]), [3])
    np.testing.assert_array_equal(np.flatnonzero(batch["truncated"]), [9])


def test_a_batch_in_episodes():
    memory = pgest.BatchMemory(episodes=2)
    fill(memory, [3])
    assert not memory.can_sample()
    fill(memory, [1], start=3)
    assert memory.can_sample()
    assert len(memory.sample()["reward"]) == 4


def test_can_sample_judges_by_a_counter_that_is_given():
    assert pgest.BatchMemory(batch_size=5).can_sample(5)
    assert not pgest.BatchMemory(batch_size=5).can_sample(4)
    assert pgest.BatchMemory(episodes=2).can_sample(2)
    assert not pgest.BatchMemory(episodes=2).can_sample(1)


def test_sampling_too_early_says_so():
    memory = pgest.BatchMemory(batch_size=5)
    with pytest.raises(ValueError, match="holds 0 timesteps of 0 ended episodes"):
        memory.sample()
    fill(memory, [3])
    with pytest.raises(ValueError, match=r"batch_size=5\) holds 3 timesteps of 1 ended"):
        memory.sample()


def test_sampling_clears_and_the_episode_under_way_stays():
    memory = pgest.BatchMemory(batch_size=3)
    fill(memory, [3])
    memory.step(**timestep(3))
    memory.step(**timestep(4))
    memory.sample()
    assert (len(memory), memory.num_timesteps, memory.num_episodes) == (2, 0, 0)
    assert memory.lengths.tolist() == [2]
    memory.step(**timestep(5, terminated=True))
    np.testing.assert_array_equal(memory.sample()["reward"], [3, 4, 5])


def test_a_batch_is_a_copy():
    memory = pgest.BatchMemory(episodes=1)
    fill(memory, [3])
    batch = memory.sample()
    fill(memory, [3], start=10)
    np.testing.assert_array_equal(batch["reward"], [0, 1, 2])


def test_the_beginning_of_a_long_episode_is_never_dropped():
    memory = pgest.BatchMemory(batch_size=10)
    fill(memory, [5000])
    batch = memory.sample()
    np.testing.assert_array_equal(batch["reward"], np.arange(5000))
    np.testing.assert_array_equal(batch["state"][:, 1], np.arange(5000))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_envs", [1, 3])
def test_what_goes_in_comes_out_whatever_the_lengths(seed, num_envs):
    random = np.random.default_rng(seed)
    size = int(random.integers(1, 60))
    memory = pgest.BatchMemory(batch_size=size)
    written = [[] for _ in range(num_envs)]  # episodes under way, by column
    ended = [[] for _ in range(num_envs)]
    read = []
    for number in range(600):
        rewards = (number * num_envs + np.arange(num_envs)).astype(np.float32)
        terminated = random.random(num_envs) < 0.07
        truncated = ~terminated & (random.random(num_envs) < 0.03)
        acted = random.random(num_envs) < 0.9 if seed % 2 else None
        memory.step_vector(
            {"reward": rewards, "terminated": terminated, "truncated": truncated}, acted
        )
        for column in range(num_envs):
            if acted is not None and not acted[column]:
                continue
            written[column].append(rewards[column])
            if terminated[column] or truncated[column]:
                ended[column] += written[column]
                written[column] = []
        assert memory.num_timesteps == sum(map(len, ended))
        assert len(memory) == sum(map(len, ended)) + sum(map(len, written))
        assert memory.lengths.tolist() == [len(column) for column in written]
        assert memory.can_sample() == (sum(map(len, ended)) >= size)
        if memory.can_sample():
            batch = memory.sample()
            np.testing.assert_array_equal(batch["reward"], np.concatenate(ended))
            done = batch["terminated"] | batch["truncated"]
            assert done[-1] and not batch["cut"].any()
            read.append(batch)
            ended = [[] for _ in range(num_envs)]
    assert read


# --- what a timestep holds -----------------------------------------------------------------------


def test_the_first_timestep_fixes_the_names():
    memory = pgest.BatchMemory()
    memory.step(state=1.0, reward=1.0, **FLAGS)
    with pytest.raises(KeyError, match="lacks reward and has rewards, unknown so far"):
        memory.step(state=1.0, rewards=1.0, **FLAGS)
    with pytest.raises(KeyError, match="lacks reward; the first one held state, reward"):
        memory.step(state=1.0, **FLAGS)
    memory.clear()
    with pytest.raises(KeyError, match="make a new memory"):
        memory.step(state=1.0, **FLAGS)
    memory.step(**FLAGS, reward=2.0, state=3.0)  # in another order
    assert memory.get_by_index(0) == {"state": 3.0, "reward": 2.0, **FLAGS}


@pytest.mark.parametrize("name", ["terminated", "truncated"])
def test_the_ends_of_episodes_are_needed(name):
    with pytest.raises(KeyError, match=f"lacks {name}"):
        pgest.BatchMemory().step(reward=1.0, **{k: v for k, v in FLAGS.items() if k != name})


@pytest.mark.parametrize("name", ["cut", "bootstrap_value"])
def test_names_that_the_memory_writes_are_refused(name):
    with pytest.raises(KeyError, match=f"holds {name}, which the memory writes itself"):
        pgest.BatchMemory().step(**{name: 1.0}, **FLAGS)


def test_the_first_timestep_fixes_shapes():
    memory = pgest.BatchMemory()
    memory.step(state=np.zeros([4]), **FLAGS)
    for shape in ([3], [], [1], [4, 1]):  # some of which NumPy would broadcast
        with pytest.raises(ValueError, match=r"state is float64 of shape .*fixed .*\(1, 4\)"):
            memory.step(state=np.zeros(shape), **FLAGS)
    assert len(memory) == 1


def test_the_first_timestep_fixes_dtypes():
    memory = pgest.BatchMemory()
    memory.step(reward=1, **FLAGS)
    with pytest.raises(ValueError, match="reward is float64 .*fixed int64"):
        memory.step(reward=0.5, **FLAGS)  # would be stored as 0
    memory = pgest.BatchMemory(episodes=1)
    memory.step(reward=np.float32(1), **FLAGS)
    memory.step(reward=2, terminated=True, truncated=False)  # an integer is a float
    assert memory.sample()["reward"].dtype == np.float32


def test_images_stay_bytes():
    memory = pgest.BatchMemory(episodes=1)
    images = np.random.default_rng(0).integers(256, size=[20, 8, 8, 3], dtype=np.uint8)
    for number, image in enumerate(images):
        memory.step(state=image, reward=0.0, terminated=number == 19, truncated=False)
    batch = memory.sample()
    assert batch["state"].dtype == np.uint8
    np.testing.assert_array_equal(batch["state"], images)


def test_nests_keep_their_structure():
    memory = pgest.BatchMemory(episodes=1)
    for number in range(3):
        memory.step(
            state={"camera": np.full([2, 2], number, np.uint8), "arm": (number, [float(number)])},
            action=(np.int32(number),),
            terminated=number == 2,
            truncated=False,
        )
    batch = memory.sample()
    assert set(batch["state"]) == {"camera", "arm"}
    assert batch["state"]["camera"].shape == (3, 2, 2)
    assert batch["state"]["camera"].dtype == np.uint8
    np.testing.assert_array_equal(batch["state"]["arm"][0], [0, 1, 2])
    np.testing.assert_array_equal(batch["state"]["arm"][1][0], [0.0, 1.0, 2.0])
    assert isinstance(batch["action"], tuple) and batch["action"][0].dtype == np.int32


def test_another_nest_is_refused():
    memory = pgest.BatchMemory()
    memory.step(state={"a": 1.0, "b": 2.0}, **FLAGS)
    with pytest.raises(ValueError, match="state is another nest than in the first timestep"):
        memory.step(state={"a": 1.0, "c": 2.0}, **FLAGS)
    with pytest.raises(ValueError, match="state is another nest than in the first timestep"):
        memory.step(state=1.0, **FLAGS)


def test_get_by_index_counts_column_after_column():
    memory = pgest.BatchMemory()
    assert memory.get_by_index(0) is None
    for number in range(3):
        values = {"reward": np.array([number, 10 + number], np.float32)}
        flags = {name: np.zeros([2], np.bool_) for name in FLAGS}
        memory.step_vector({**values, **flags}, np.array([True, number < 2]))
    found = [memory.get_by_index(index)["reward"] for index in range(5)]
    assert found == [0, 1, 2, 10, 11]
    assert memory.get_by_index(-1)["reward"] == 11
    for index in (5, -6):
        with pytest.raises(IndexError, match="holds 5 timesteps and was asked for"):
            memory.get_by_index(index)


def test_clear_forgets_every_timestep():
    memory = pgest.BatchMemory(episodes=1)
    fill(memory, [3])
    memory.step(**timestep(9))
    memory.clear()
    assert (len(memory), memory.num_timesteps, memory.num_episodes) == (0, 0, 0)
    assert memory.get_by_index(0) is None and not memory.can_sample()
    fill(memory, [2], start=20)
    np.testing.assert_array_equal(memory.sample()["reward"], [20, 21])


# --- several environments ------------------------------------------------------------------------


def vector(rewards, terminated=None, truncated=None, **more):
    size = len(rewards)
    return {
        "reward": np.asarray(rewards, np.float32),
        "terminated": np.zeros([size], np.bool_) if terminated is None else np.asarray(terminated),
        "truncated": np.zeros([size], np.bool_) if truncated is None else np.asarray(truncated),
        **more,
    }


def test_rows_that_did_not_act_are_left_out():
    memory = pgest.BatchMemory(episodes=2)
    memory.step_vector(vector([0, 10]))
    # The second environment resets; whatever stands in its row must not be used.
    memory.step_vector(vector([1, 99], [True, True]), np.array([True, False]))
    assert memory.num_episodes == 1
    memory.step_vector(vector([99, 11], [False, True]), np.array([False, True]))
    np.testing.assert_array_equal(memory.sample()["reward"], [0, 1, 10, 11])


def test_dropping_what_is_under_way_keeps_the_episodes_that_ended():
    memory = pgest.BatchMemory(episodes=2, max_episode_length=2)
    memory.step_vector(vector([0, 10], [True, False]))
    memory.step_vector(vector([1, 11]))
    memory.drop_unfinished()
    assert (len(memory), memory.num_timesteps, memory.num_episodes) == (1, 1, 1)
    memory.step_vector(vector([2, 20], [True, True]))
    np.testing.assert_array_equal(memory.sample()["reward"], [0, 2, 20])


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 4)])
def test_other_environments_find_the_ended_episodes_of_the_former_ones(before, after):
    memory = pgest.BatchMemory(batch_size=100)
    memory.step_vector(vector(range(before), np.ones([before], np.bool_)))
    memory.step_vector(vector(range(before)))
    with pytest.raises(ValueError, match=rf"of {after} environments, while episodes of {before}"):
        memory.step_vector(vector(range(after)))
    memory.drop_unfinished()
    memory.step_vector(vector(range(50, 50 + after), np.ones([after], np.bool_)))
    assert memory.num_timesteps == before + after and memory.num_episodes == before + after
    memory.batch_size = 1
    rewards = memory.sample()["reward"]
    assert sorted(rewards) == [*range(before), *range(50, 50 + after)]


# --- pieces and endless episodes ------------------------------------------------------------------


def test_long_episodes_are_handed_over_in_pieces_that_are_bootstrapped():
    memory = pgest.BatchMemory(batch_size=6, max_episode_length=3)
    for number in range(7):
        memory.step(**timestep(number))
        columns = memory.columns_to_cut()
        assert columns.tolist() == ([0] if number % 3 == 2 else [])
        if columns.size:
            memory.bootstrap(columns, np.array([100.0 + number]))
            memory.cut(columns)
    batch = memory.sample()
    np.testing.assert_array_equal(batch["reward"], np.arange(6))
    np.testing.assert_array_equal(batch["cut"], [False, False, True] * 2)
    np.testing.assert_array_equal(batch["bootstrap_value"], [0, 0, 102, 0, 0, 105])
    assert not (batch["terminated"] | batch["truncated"]).any()
    assert memory.lengths.tolist() == [1]
    memory.step(**timestep(7, terminated=True))
    fill(memory, [4], start=8)
    batch = memory.sample()  # nothing of the former marks is left
    assert not batch["cut"].any() and not batch["bootstrap_value"].any()


def test_the_bootstrap_value_of_a_truncated_episode_stands_at_its_last_row():
    memory = pgest.BatchMemory(episodes=2)
    memory.step_vector(vector([0, 1]))
    memory.step_vector(vector([2, 3], truncated=[True, False]))
    memory.bootstrap(np.array([0]), np.array([7.0]))
    memory.step_vector(vector([4, 5], terminated=[False, True]))
    batch = memory.sample()
    np.testing.assert_array_equal(batch["reward"], [0, 2, 1, 3, 5])
    np.testing.assert_array_equal(batch["bootstrap_value"], [0, 7, 0, 0, 0])


def test_dropping_takes_marks_along():
    memory = pgest.BatchMemory(episodes=1)
    memory.step(**timestep(0))
    memory.bootstrap(np.array([0]), np.array([5.0]))
    memory.drop_unfinished()
    fill(memory, [2])
    assert not memory.sample()["bootstrap_value"].any()


def test_an_endless_episode_is_found_out_and_said_once(monkeypatch):
    monkeypatch.setattr(memory_lib, "_ENDLESS", 2000)
    memory = pgest.BatchMemory(batch_size=10)
    memory.step(**FLAGS)
    values = {name: np.zeros([1], np.bool_) for name in FLAGS}

    def run(count):
        for _ in range(count):
            memory.step_vector(values)
            memory.columns_to_cut()

    run(1500)
    with pytest.warns(UserWarning, match="2000 timesteps without an end.*max_episode_length"):
        run(1500)
    run(3000)  # a second warning would be an error


def test_long_episodes_that_end_are_not_called_endless(monkeypatch):
    monkeypatch.setattr(memory_lib, "_ENDLESS", 2000)
    memory = pgest.BatchMemory(batch_size=10**6)
    for number in range(6000):
        done = np.array([number % 1500 == 1499])
        memory.step_vector({"terminated": done, "truncated": np.array([False])})
        memory.columns_to_cut()


# --- fixed horizons ------------------------------------------------------------------------------


def test_a_rollout_is_time_first():
    memory = pgest.RolloutMemory(horizon=3)
    for number in range(3):
        assert not memory.can_sample()
        memory.step_vector(vector([number, 10 + number], truncated=[number == 1, False]))
        columns = memory.columns_to_cut()
        assert columns.tolist() == ([0, 1] if number == 2 else [])
    memory.bootstrap(columns, np.array([5.0, 6.0]))
    memory.cut(columns)
    assert memory.can_sample()
    batch = memory.sample()
    np.testing.assert_array_equal(batch["reward"], [[0, 10], [1, 11], [2, 12]])
    np.testing.assert_array_equal(batch["cut"], [[False, False], [False, False], [True, True]])
    np.testing.assert_array_equal(batch["bootstrap_value"], [[0, 0], [0, 0], [5, 6]])
    assert len(memory) == 0
    memory.step_vector(vector([1, 1]))
    assert memory.lengths.tolist() == [1, 1]


def test_a_rollout_of_images_stays_what_it_was():
    images = np.random.default_rng(0).integers(256, size=[7, 2, 300, 300, 3], dtype=np.uint8)
    memory = memory_lib.RolloutMemory(3)
    batches = []
    for image in images:
        memory.step_vector(vector([0, 1], state=image))
        if memory.can_sample():
            batches.append(memory.sample()["state"])
    assert batches[0].nbytes > 2**20  # so large that it is not copied
    np.testing.assert_array_equal(np.concatenate(batches), images[:6])
    np.testing.assert_array_equal(memory.get_by_index(1)["state"], images[6, 1])


def test_a_column_whose_episode_ends_with_the_rollout_is_not_cut():
    memory = pgest.RolloutMemory(horizon=2)
    memory.step_vector(vector([0, 1]))
    memory.step_vector(vector([2, 3], terminated=[True, False]))
    assert memory.columns_to_cut().tolist() == [1]


def test_an_even_rollout_can_be_had_end_to_end():
    memory = pgest.RolloutMemory(horizon=2)
    for number in range(2):
        memory.step_vector(vector([number, 10 + number]))
    memory.cut(memory.columns_to_cut())
    batch = memory.sample(end_to_end=True)
    np.testing.assert_array_equal(batch["reward"], [0, 1, 10, 11])
    np.testing.assert_array_equal(batch["cut"], [False, True, False, True])


def test_a_rollout_sampled_too_early_says_so():
    memory = pgest.RolloutMemory(horizon=2)
    memory.step_vector(vector([0, 1, 2]))
    with pytest.raises(ValueError, match=r"RolloutMemory\(horizon=2\) holds 3 of 6 timesteps"):
        memory.sample()


def test_columns_that_others_have_left_uneven_are_dropped_whole():
    memory = pgest.RolloutMemory(horizon=3)
    memory.step_vector(vector([0, 1], terminated=[True, False]))
    memory.drop_unfinished()
    assert len(memory) == 0
    memory.step_vector(vector([0, 1, 2]))  # another number of environments
    assert memory.can_sample(9) and not memory.can_sample(8)


@pytest.mark.parametrize("seed", range(6))
def test_uneven_columns_hand_over_every_timestep_once_and_cut_where_they_are_split(seed):
    """Environments that spend steps on resetting, as gymnasium's NEXT_STEP autoreset does."""
    random = np.random.default_rng(seed)
    num_envs, horizon = int(random.integers(2, 6)), int(random.integers(2, 7))
    memory = pgest.RolloutMemory(horizon=horizon)
    resetting = np.zeros([num_envs], np.bool_)
    history = [[] for _ in range(num_envs)]  # of each environment: (number, ended)
    given = [[] for _ in range(num_envs)]
    number = np.zeros([num_envs], np.int64)
    for _ in range(400):
        acted = ~resetting
        terminated = acted & (random.random(num_envs) < 0.2)
        values = vector(
            np.arange(num_envs) * 1000 + number, terminated, value=1000.0 + number.astype("f4")
        )
        values["terminated"] = np.where(acted, terminated, random.random(num_envs) < 0.5)
        memory.step_vector(values, None if acted.all() else acted)
        for column in np.flatnonzero(acted):
            history[column].append(bool(terminated[column]))
        number += acted
        resetting = terminated
        columns = memory.columns_to_cut()
        if columns.size:  # the value of what follows the last row
            memory.bootstrap(columns, 1000.0 + number[columns])
            memory.cut(columns)
        if not memory.can_sample():
            continue
        batch = memory.sample(end_to_end=True)
        assert batch["reward"].shape == (horizon * num_envs,)
        self_check(batch, history, given)
    for column in range(num_envs):
        assert given[column] == list(range(len(given[column])))
        assert len(history[column]) - len(given[column]) <= horizon + 1


def self_check(batch, history, given):
    column_of = (batch["reward"] // 1000).astype(int)
    number_of = (batch["reward"] % 1000).astype(int)
    assert (np.diff(column_of) >= 0).all()
    for row, (column, number) in enumerate(zip(column_of, number_of, strict=True)):
        given[column].append(int(number))
        last = row + 1 == len(column_of) or column_of[row + 1] != column
        ended = history[column][number]
        assert batch["terminated"][row] == ended
        # Cut at the end of its column, unless the episode ended there; nowhere else.
        assert batch["cut"][row] == (last and not ended)
        expected = 1000.0 + number + 1 if batch["cut"][row] else 0.0
        assert batch["bootstrap_value"][row] == expected
