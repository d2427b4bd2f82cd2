"""PettingZoo through SuperSuit, by the adapter that the documentation gives."""

import re
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

import pgest
from pgest.environments import making
from tests.agents.training_agents import make_agent

# Not by its module: it raises ImportError at names that pytest looks for.
pair_vectors = pytest.importorskip("supersuit").pettingzoo_env_to_vec_env_v1
concatenated_vectors = pytest.importorskip("supersuit").concat_vec_envs_v1
ParallelEnv = pytest.importorskip("pettingzoo").ParallelEnv

PAGE = Path(__file__).parent.parent.parent / "docs" / "environments.md"


def adapter():
    """The class of the page."""
    code = re.search(
        r"```python\n(import gymnasium[^`]*class FromSuperSuit.*?)```", PAGE.read_text(), re.S
    )
    names = {}
    exec(code[1], names)
    return names["FromSuperSuit"]


class Pair(ParallelEnv):
    """Two agents see (which, step) and are paid their actions; after three steps the time is up."""

    metadata = {"name": "pair"}
    render_mode = None
    possible_agents = ["a", "b"]

    def __init__(self):
        self.record = []

    def observation_space(self, agent):
        return spaces.Box(0, 9, (2,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def observe(self):
        return {name: np.array([row, self.steps], np.float32) for row, name in enumerate("ab")}

    def reset(self, seed=None, options=None):
        self.agents, self.steps = list(self.possible_agents), 0
        return self.observe(), {name: {} for name in "ab"}

    def step(self, actions):
        self.steps += 1
        self.record.append({name: int(action) for name, action in actions.items()})
        cut = self.steps == 3
        if cut:
            self.agents = []
        return (
            self.observe(),
            {name: float(action) for name, action in actions.items()},
            dict.fromkeys("ab", False),
            dict.fromkeys("ab", cut),
            {name: {} for name in "ab"},
        )


def concatenated(copies=2):
    return concatenated_vectors(pair_vectors(Pair()), copies, num_cpus=0, base_class="gymnasium")


def test_without_the_adapter_one_sentence_says_what_is_missing():
    with pytest.raises(ValueError, match="no single_observation_space .*adapter"):
        making.view(concatenated(), seed=0)


def test_the_transitions_are_the_agents_own():
    view = making.view(adapter()(concatenated()), seed=0)
    for _ in range(2):
        for step in range(3):
            observation = view.observe()
            assert observation.tolist() == [[0, step], [1, step]] * 2
            action = np.array([0, 1, 1, 0])
            transition = view.step(action)
            assert transition.reward.tolist() == [0, 1, 1, 0]
            assert transition.next_observation.tolist() == [[0, step + 1], [1, step + 1]] * 2
            assert transition.truncated.tolist() == [step == 2] * 4
            assert not transition.terminated.any() and transition.acted.all()


def test_it_trains():
    env = adapter()(concatenated())
    agent = make_agent(memory=pgest.RolloutMemory(horizon=6))
    agent.train(env, steps=2)
    assert agent.global_timestep == 48 and agent.global_episode == 16
