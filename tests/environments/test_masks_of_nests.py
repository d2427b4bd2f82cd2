"""Masks of an action space with parts that cannot be masked."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

import pgest
from tests.models.model_environments import AnySpaces


class Masked(gymnasium.Wrapper):
    """Allows one choice of the first part of a Tuple; the second is a Box."""

    def __init__(self):
        space = spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)])
        super().__init__(AnySpaces(spaces.Box(-1, 1, (3,), np.float32), space))

    def reset(self, **arguments):
        observation, info = self.env.reset(**arguments)
        return observation, info | {"action_mask": (np.array([0, 1, 0]), None)}

    def step(self, action):
        assert action[0] == 1
        *rest, info = self.env.step(action)
        return *rest, info | {"action_mask": (np.array([0, 1, 0]), None)}


@pytest.mark.parametrize("num_envs", [1, 2])
def test_a_part_without_a_mask(num_envs, tmp_path):
    agent = pgest.PGAgent(
        pgest.models.PPO(hidden_sizes=(4,)),
        pgest.RolloutMemory(horizon=8),
        optimizer_params={"minibatch_size": 4},
        config=pgest.RunConfig(tf_random_seed=1, jit_compile=False),
    )
    agent.train(pgest.make(Masked, num_envs=num_envs), steps=4)
    assert agent.evaluate(Masked(), episodes=2)["length_mean"] == 5
    mask = tf.constant([[False, True, False]] * 2)
    observation = {"observation": tf.zeros([2, 3]), "action_mask": (mask, ())}
    action = agent.policy.action(pgest.restart(observation, batch_size=2)).action
    assert action[0].numpy().tolist() == [1, 1]
