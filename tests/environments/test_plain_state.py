"""Whole states of environments as bytes: what is kept, and what is told where it cannot be."""

import collections
import enum
import random

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers

import pgest


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Motor:
    def __init__(self):
        self.speed = 0.0


class Everything(gymnasium.Env):
    """Holds a thing of each kind, and changes all of them."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self):
        self.action_space = gymnasium.spaces.Discrete(3)
        self.reset()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.numbers = [1, 2.5, float("inf"), None, True, "é", b"\x00\xff", np.float32(0.1), 2**80]
        self.array = np.zeros((2, 3))
        self.view = self.array[1]  # one memory, two names
        self.frames = collections.deque([self.array, self.array], maxlen=3)
        self.counts = collections.defaultdict(int, {(1, 2): 3})
        self.objects = np.array([1, None, "a"], object)
        self.motor, self.again = Motor(), None
        self.colour = Colour.RED
        self.seen = {3, 1, 2}
        self.old, self.older = np.random.RandomState(1), random.Random(1)
        self.later = lambda: None
        return self.array[0, :2].astype(np.float32), {}

    def change(self):
        draw = float(self.np_random.normal())
        self.array += draw
        self.frames.append(np.full((2, 3), draw))
        self.counts[len(self.counts), 0] += 1
        self.numbers.append(self.old.normal() + self.older.random() + self.action_space.sample())
        self.objects = np.array([self.objects, draw], object)
        self.motor.speed += draw
        self.again = self.motor
        self.colour = Colour.BLUE if draw > 0 else Colour.RED
        self.seen.add(len(self.numbers))

    def picture(self):
        rows = [self.array, self.view, *self.frames, self.motor.speed, self.again.speed]
        return repr([rows, self.numbers, dict(self.counts), self.objects, self.colour, self.seen])


def test_everything_comes_back_in_another_object():
    first, second = (pgest.RestorableEnv(Everything()) for _ in range(2))
    first.reset(seed=1)
    second.reset(seed=2)
    first.action_space.seed(5)
    for _ in range(5):
        first.unwrapped.change()
    second.unwrapped.change()
    state = first.get_state()
    second.set_state(state)
    assert second.get_state() == state
    for _ in range(5):
        assert second.unwrapped.picture() == first.unwrapped.picture()
        first.unwrapped.change()
        second.unwrapped.change()
    assert second.unwrapped.counts["unknown"] == 0  # of its own kind still
    assert np.shares_memory(second.unwrapped.view, second.unwrapped.array)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gymnasium.make("CartPole-v1"),
        lambda: wrappers.TimeAwareObservation(gymnasium.make("Acrobot-v1")),
        lambda: wrappers.RecordEpisodeStatistics(gymnasium.make("Pendulum-v1")),
        lambda: wrappers.NormalizeObservation(gymnasium.make("MountainCarContinuous-v0")),
        lambda: wrappers.StickyAction(gymnasium.make("FrozenLake-v1"), 0.3),
        lambda: wrappers.DelayObservation(gymnasium.make("Blackjack-v1"), 2),
    ],
    ids=range(6),
)
def test_environments_of_gymnasium_go_on(make):
    first, second = pgest.RestorableEnv(make()), pgest.RestorableEnv(make())
    first.reset(seed=1)
    second.reset(seed=2)
    first.action_space.seed(3)
    ended = False
    for _ in range(60):
        if ended:
            first.reset()
        ended = any(first.step(first.action_space.sample())[2:4])
    second.set_state(first.get_state())
    for _ in range(40):
        action = first.action_space.sample()
        pair = [env.reset() if ended else env.step(action) for env in (first, second)]
        wanted, found = ([repr(part) for part in result[:4]] for result in pair)
        assert found == wanted
        ended = not ended and any(pair[0][2:4])


def test_what_cannot_be_kept_is_named_and_may_be_ignored():
    class Opens(Everything):
        def __init__(self):
            super().__init__()
            self.motor.file = iter([1])

    with pytest.raises(TypeError, match=r"Opens\.motor\.file is a builtins\.list_iterator.*ignore"):
        pgest.RestorableEnv(Opens()).get_state()
    assert pgest.RestorableEnv(Opens(), ignore=("file",)).get_state()


def test_a_state_of_another_environment_is_refused():
    first = pgest.RestorableEnv(wrappers.TimeLimit(Everything(), 5))
    second = pgest.RestorableEnv(gymnasium.make("CartPole-v1"))
    second.reset()
    with pytest.raises(ValueError, match="is not one of"):
        second.set_state(first.get_state())
