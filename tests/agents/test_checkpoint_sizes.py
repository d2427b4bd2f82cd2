"""What a checkpoint costs where observations are images: little between two updates."""

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium import spaces

import pgest
from pgest.variables import checkpoints
from tests import model_fns

IMAGE = 84 * 84 * 4
NUM_ENVS, HORIZON = 2, 16


class Images(gymnasium.Env):
    observation_space = spaces.Box(0, 255, (84, 84, 4), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.picture(), {}

    def picture(self):
        return self.np_random.integers(0, 256, (84, 84, 4), np.uint8)

    def step(self, action):
        self.steps += 1
        return self.picture(), 1.0, self.steps == 12, False, {}


def of_the_mean(features, labels, mode, params):
    """Acts by how bright an image is, so that the weights are small."""
    brightness = tf.reduce_mean(tf.cast(features["state"], tf.float32), [1, 2, 3])[:, None]
    return model_fns.actor_critic({**features, "state": brightness}, labels, mode, params)


class Sizes(pgest.CheckpointSaverListener):
    """Timesteps of the batch under way, and bytes of the images, in each checkpoint."""

    def __init__(self):
        self.found = []

    def after_save(self, context, path):
        held = checkpoints.read_run(path)
        images = sum(value.nbytes for value in held.values() if value.dtype == np.uint8)
        self.found.append((context.timestep % (NUM_ENVS * HORIZON), images))


def test_images_of_the_batch_under_way_alone_are_saved(tmp_path):
    after_updates, on_the_way = Sizes(), Sizes()
    savers = [
        pgest.CheckpointSaverHook(pgest.Every(steps=1), listeners=[after_updates]),
        pgest.CheckpointSaverHook(pgest.Every(episodes=2), listeners=[on_the_way]),
    ]
    memory = pgest.RolloutMemory(HORIZON)
    config = pgest.RunConfig(tf_random_seed=1, save_summary_steps=None, jit_compile=False)
    agent = pgest.PGAgent(of_the_mean, memory, None, tmp_path, config)
    agent.train(pgest.make(Images, num_envs=NUM_ENVS), hooks=savers, max_timesteps=64)
    # Both environments' last observations, and what the last timestep of the batch led to.
    texts = 10_000
    assert after_updates.found
    for under_way, size in after_updates.found:
        assert under_way == 0 and 2 * NUM_ENVS * IMAGE <= size < 2 * NUM_ENVS * IMAGE + texts
    assert [under_way for under_way, _ in on_the_way.found[:2]] == [24, 16]  # at 24 and 48
    for under_way, size in on_the_way.found[:2]:
        expected = (under_way + 2 * NUM_ENVS) * IMAGE
        assert expected <= size < expected + texts
