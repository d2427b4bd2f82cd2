"""`pgest.evaluate` plays every kind of policy as its own way of acting would."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

import pgest
from pgest import specs
from tests.environments.environment_fakes import CountingEnv

CARTPOLE = "CartPole-v1"


def cartpole_specs():
    env = gymnasium.make(CARTPOLE)
    time_step_spec = pgest.time_step_spec(specs.observation_spec(env.observation_space))
    return time_step_spec, specs.action_spec(env.action_space)


class Rule(pgest.PyPolicy):
    """Pushes to the side that the pole falls to: 500 timesteps from most starts."""

    def _action(self, time_step, policy_state):
        angle, speed = time_step.observation[2], time_step.observation[3]
        return pgest.PolicyStep(np.int64(3 * angle + speed > 0), policy_state)


class Left(pgest.TFPolicy):
    """Always 0: about nine timesteps."""

    def _action(self, time_step, policy_state, seed):
        return pgest.PolicyStep(tf.zeros_like(time_step.step_type, tf.int64), policy_state)


class Alternating(pgest.PyPolicy):
    """Remembers how often it acted in this episode."""

    def _action(self, time_step, policy_state):
        assert (policy_state == 0) == time_step.is_first()
        return pgest.PolicyStep(np.int64(policy_state % 2), policy_state + 1)


def test_policies_in_python_and_in_tensorflow():
    rule = pgest.evaluate(Rule(*cartpole_specs()), CARTPOLE, 3)
    left = pgest.evaluate(Left(*cartpole_specs()), CARTPOLE, 3)
    assert set(left) >= {"return_mean", "return_std", "length_max", "episodes"}
    assert rule["episodes"] == left["episodes"] == 3
    assert left["return_max"] < 12 < 300 < rule["return_min"]
    assert rule == pgest.evaluate(Rule(*cartpole_specs()), CARTPOLE, 3)
    wrapped = pgest.TFPyPolicy(Rule(*cartpole_specs()))
    assert pgest.evaluate(wrapped, CARTPOLE, 3) == rule
    vector = pgest.make(CARTPOLE, num_envs=3)
    assert pgest.evaluate(Rule(*cartpole_specs()), vector, 6)["return_min"] > 300


def test_each_environment_has_a_policy_state_of_its_own():
    envs = [CountingEnv(length=3), CountingEnv(length=5)]
    view = pgest.make(iter(envs).__next__, num_envs=2)
    time_step_spec = pgest.time_step_spec(specs.observation_spec(view.observation_space))
    policy = Alternating(
        time_step_spec, specs.action_spec(view.action_space), specs.ArraySpec((), np.int64)
    )
    results = pgest.evaluate(policy, view, 4)
    assert (results["length_min"], results["length_max"]) == (3, 5)
    assert envs[1].actions[:10] == [0, 1, 0, 1, 0] * 2


def test_a_policy_that_samples_follows_the_seed():
    policy = pgest.RandomTFPolicy(*cartpole_specs())
    first, again, other = (pgest.evaluate(policy, CARTPOLE, 5, seed=s) for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.slow
@pytest.mark.parametrize("cell", [None, "gru"])
def test_exports_of_an_agent_play_as_the_agent_does(cell, tmp_path):
    model = pgest.models.VPG(hidden_sizes=(4,), cell=cell, cell_size=3)
    config = pgest.RunConfig(tf_random_seed=5)
    agent = pgest.PGAgent(model, pgest.BatchMemory(episodes=1), config=config)
    agent.train(CARTPOLE, episodes=1)
    path = agent.export_saved_model(tmp_path)
    seed = 5 + 1_000_003  # that of the agent's own evaluations
    own = agent.evaluate(CARTPOLE, 4)
    saved = str(tmp_path / "saved")
    pgest.PolicySaver(agent.policy).save(saved)
    policies = [agent.policy, path, tf.saved_model.load(path), saved, pgest.load_policy(saved)]
    policies.append(pgest.load_policy(saved, batch_time_steps=False))
    for policy in policies:
        results = pgest.evaluate(policy, CARTPOLE, 4, seed=seed)
        assert results.items() <= own.items()


def test_what_is_no_policy_and_what_does_not_fit():
    with pytest.raises(TypeError, match=r"policy is int; expected a TFPolicy.*agent.evaluate\(env"):
        pgest.evaluate(3, CARTPOLE)
    with pytest.raises(ValueError, match="expected a positive integer"):
        pgest.evaluate(Rule(*cartpole_specs()), CARTPOLE, 0)
