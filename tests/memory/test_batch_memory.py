"""BatchMemory: whole episodes come out, of several environments, in pieces where they are long."""

import numpy as np
import pytest

import pgest
from pgest.memory import memory as memory_lib
from tests.memory.memory_timesteps import FLAGS, fill, timestep, vector

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


# --- several environments ------------------------------------------------------------------------


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


# --- pieces and endless episodes -----------------------------------------------------------------


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
