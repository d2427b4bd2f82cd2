"""Training goes on after an environment has failed, and mixes no two episodes."""

import numpy as np
import pytest

import pgest
from tests.environments.environment_fakes import CountingEnv


class Breaks(CountingEnv):
    """Raises once, at the third step of its second episode; episodes are of five."""

    def __init__(self):
        super().__init__(length=5)

    def step(self, action):
        if len(self.seeds) == 2 and self.steps == 2:
            raise OSError("out of gear")
        return super().step(action)


class Lengths(pgest.hooks.BaseMonitor):
    def __init__(self):
        self.seen = []

    def after_episode(self, context):
        self.seen.append(context.episodes[0].length)


def one_breaks():
    made = []

    def make():
        made.append(CountingEnv(length=5) if made else Breaks())
        return made[-1]

    return pgest.make(make, num_envs=2)


@pytest.mark.parametrize("make", [Breaks, one_breaks])
def test_after_a_failure_an_episode_starts_anew(make):
    env, memory, lengths = make(), pgest.BatchMemory(1000), Lengths()
    config = pgest.RunConfig(tf_random_seed=1, jit_compile=False)
    agent = pgest.PGAgent(pgest.models.VPG(hidden_sizes=(4,)), memory, config=config)
    with pytest.raises(pgest.EnvironmentFailure, match="out of gear"):
        agent.train(env, episodes=10, hooks=[lengths])
    agent.train(env, episodes=4, hooks=[lengths])
    assert set(lengths.seen) == {5}
    rows = [memory.get_by_index(index) for index in range(len(memory))]
    steps = [int(row["state"][0]) for row in rows]
    np.testing.assert_array_equal(steps, np.arange(len(rows)) % 5)
    assert [bool(row["terminated"]) for row in rows] == [step == 4 for step in steps]
