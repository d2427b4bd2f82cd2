"""RolloutMemory: fixed horizons, whatever the lengths of the episodes."""

import numpy as np
import pytest

import pgest
from pgest.memory import memory as memory_lib
from tests.memory.memory_timesteps import vector


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


def test_a_memory_that_finds_no_room_says_how_much_it_asked_for():
    """2^46 rows of 2 x (8 + 1 + 1) bytes are more than a process can address."""
    memory = pgest.RolloutMemory(horizon=2**46 - 1)
    flags = np.zeros(2, np.bool_)
    match = r"no room for 70368744177664 timesteps of 2 environments, 20 bytes each, 1.31e\+06 GiB"
    with pytest.raises(MemoryError, match=match):
        memory.step_vector({"state": np.zeros(2), "terminated": flags, "truncated": flags})
    assert len(memory) == 0
