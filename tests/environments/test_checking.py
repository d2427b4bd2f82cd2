"""What a look at an environment finds before training does."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from pgest.environments import checking, making
from tests.environments.environment_fakes import CountingEnv, MaskedEnv, SpaceEnv
from tests.environments.given_environments import GivingEnv


def rows(env, timesteps=20):
    """What was seen, and what is wrong with it, by what was looked at; and what ended it."""
    with making.view(env, seed=0) as view:
        examination = checking.examine(view, timesteps)
        assert view.timestep == 0
    return {name: (seen, fault) for name, seen, fault in examination.rows}, examination.failure


class Steps(CountingEnv):
    """Observes how many steps its episode has, whatever was before."""

    def observe(self):
        return np.array([self.steps, 0], np.float32)


def test_a_sound_environment():
    seen, failure = rows(Steps(length=4))
    assert failure is None and not any(fault for _, fault in seen.values())
    assert seen["observation_space"][0] == "float32 (2,), 0 to 4"
    assert seen["reward"][0] == "1.5 to 1.5 in 20 timesteps"
    assert seen["ends"][0] == "5 terminated, 0 truncated"
    assert seen["info"][0] == "nested/half, steps"
    assert seen["seeds"][0] == "repeat themselves"


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environments_in_every_mode(mode):
    seen, failure = rows(SyncVectorEnv([lambda: Steps(length=4)] * 2, autoreset_mode=mode))
    assert failure is None and not any(fault for _, fault in seen.values())
    assert seen["observation_space"][0] == "float32 (2,), 0 to 4"
    wasted = 4 if mode is AutoresetMode.NEXT_STEP else 0  # 20 calls: 4 steps and a reset, 4 times
    assert seen["reward"][0].endswith(f"in {2 * (20 - wasted)} timesteps")


def test_observations_outside_of_their_bounds():
    env = GivingEnv(spaces.Box(-1, 1, (2,)), observation=np.array([0, 1.5], np.float32))
    seen, failure = rows(env)
    assert failure is None
    assert (
        "1.5 is outside of the bounds of Box(-1.0, 1.0, (2,), float32)"
        in (seen["observation_space"][1])
    )


@pytest.mark.parametrize(
    "given, words",
    [
        ({"observation": np.array([0.5, 0])}, "holds 0.5"),
        ({"reward": np.ones(2)}, "reward of shape"),
        ({"info": None}, "info None"),
        ({"terminated": "no"}, "terminated='no'"),
        ({"result": ()}, "gave 0 values"),
    ],
)
def test_what_training_stops_at_ends_the_table(given, words):
    seen, failure = rows(GivingEnv(spaces.Box(0, 255, (2,), np.uint8), at=3, **given))
    assert isinstance(failure, making.EnvironmentFailure)
    assert seen["timesteps"] == ("failed after 2", str(failure))
    assert words in str(failure)


def test_a_count_outside_of_its_space_is_found():
    _, failure = rows(GivingEnv(spaces.Discrete(3), at=5, observation=7))
    assert "not in its space: 7" in str(failure)


class ResetsItself(CountingEnv):
    """Gives the first observation of the next episode where the last one belongs."""

    def observe(self):
        return np.array([self.steps % self.length, 0], np.float32)


def test_doubts():
    seen, _ = rows(CountingEnv(length=4))  # it observes how often it was reset
    assert seen["seeds"][1] == "reset(seed=...) does not seed everything"
    seen, _ = rows(ResetsItself(length=4))
    assert "does it reset itself" in seen["ends"][1]


def test_a_bandit_does_not_seem_to_reset_itself():
    class Bandit(CountingEnv):
        def observe(self):
            return np.zeros(2, np.float32)

    seen, _ = rows(Bandit(length=1))
    assert not any(fault for _, fault in seen.values())


def test_actions_obey_masks_and_fit_their_space():
    seen, failure = rows(MaskedEnv())  # raises at an action that is not allowed
    assert failure is None and seen["action_mask"][0] == "1 to 1 allowed"
    space = spaces.Dict(
        a=spaces.Discrete(3, start=2),
        b=spaces.Tuple([spaces.MultiDiscrete([2, 3], start=[1, 5]), spaces.Box(-1, 1, (2,))]),
    )
    _, failure = rows(SpaceEnv(spaces.Discrete(2), space))  # raises at what its space does not hold
    assert failure is None


def test_masks_of_several_choices():
    class Picky(SpaceEnv):
        def action_masks(self):
            return np.array([0, 1, 0, 0, 1], np.bool_)

        def step(self, action):
            if action.tolist() != [2, 7]:  # the second of two from 1, the third of three from 5
                raise ValueError(f"{action} is not allowed")
            return super().step(action)

    _, failure = rows(Picky(spaces.Discrete(2), spaces.MultiDiscrete([2, 3], start=[1, 5])))
    assert failure is None
