"""Memories: their sizes, and what a timestep holds."""

import numpy as np
import pytest

import pgest
from tests.memory.memory_timesteps import FLAGS, fill, timestep

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


@pytest.mark.parametrize("name", ["cut", "bootstrap_value", "env_index"])
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
