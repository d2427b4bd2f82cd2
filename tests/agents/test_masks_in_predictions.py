"""Predictions where the environment says which actions are allowed."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import pgest
from tests.models.model_environments import AnySpaces


class Masked(gymnasium.Wrapper):
    """Gives the same mask at every timestep."""

    def __init__(self, action_space, mask):
        super().__init__(AnySpaces(spaces.Box(-1, 1, (3,), np.float32), action_space))
        self.mask = mask

    def reset(self, **arguments):
        observation, info = self.env.reset(**arguments)
        return observation, info | {"action_mask": self.mask}

    def step(self, action):
        *rest, info = self.env.step(action)
        return *rest, info | {"action_mask": self.mask}


def make_agent(**arguments):
    return pgest.PGAgent(
        pgest.models.PPO(hidden_sizes=(4,), **arguments),
        pgest.RolloutMemory(horizon=8),
        config=pgest.RunConfig(tf_random_seed=1, jit_compile=False),
    )


OBSERVATIONS = np.random.default_rng(0).normal(size=[4, 3])


@pytest.fixture(scope="module")
def trained():
    agent = make_agent()
    agent.train(Masked(spaces.Discrete(4), np.array([1, 0, 1, 1])), steps=1)
    return agent


def test_each_row_has_its_own_mask(trained):
    for rows in (np.eye(4), np.eye(4)[::-1]):
        predictions = list(trained.predict(OBSERVATIONS, action_mask=rows))
        assert [row["action"] for row in predictions] == rows.argmax(axis=1).tolist()
        np.testing.assert_array_equal([row["log_prob"] for row in predictions], np.zeros(4))


def test_a_recurrent_model_and_a_nest_of_masks():
    agent = make_agent(cell="gru")
    space = spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)])
    agent.train(Masked(space, (np.ones(3), None)), steps=1)
    mask = (np.eye(3)[[2, 0]], None)
    rows = list(agent.predict(OBSERVATIONS[:2], action_mask=mask))
    assert [row["action"][0] for row in rows] == [2, 0]


def test_before_anything_was_played():
    agent = make_agent()
    env = Masked(spaces.MultiDiscrete([2, 3]), np.ones(5))
    mask = np.array([[0, 1, 0, 0, 1], [1, 0, 0, 1, 0]], bool)
    rows = list(agent.predict(OBSERVATIONS[:2], env=env, action_mask=mask))
    assert [row["action"].tolist() for row in rows] == [[1, 2], [0, 1]]


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (None, r"needs action_mask=\.\.\., bools of the shapes \('N', 4\).*all True allows"),
        (np.ones([4, 3]), r"got 4 observations.*\(4, 3\); expected \('N', 4\), where N is 4"),
        (np.ones([3, 4]), r"got 4 observations.*\(3, 4\); expected \('N', 4\), where N is 4"),
        (np.ones([4]), r"\(4,\); expected \('N', 4\)"),
        (True, r"\(\); expected \('N', 4\)"),
        (np.eye(4)[[0, 1, 2, 3]] * [1, 1, 0, 1], r"action_mask\[2\] allows no action"),
    ],
)
def test_masks_that_do_not_fit(trained, mask, said):
    with pytest.raises(ValueError, match=said):
        list(trained.predict(OBSERVATIONS, action_mask=mask))


def test_who_has_played_without_masks_needs_none():
    agent = make_agent()
    agent.train("CartPole-v1", steps=1)
    observations = np.zeros([2, 4])
    assert len(list(agent.predict(observations))) == 2
    rows = list(agent.predict(observations, action_mask=[[True, False], [False, True]]))
    assert [row["action"] for row in rows] == [0, 1]
