"""What a first program may leave out or ask for in short: memory, checkpoints, sampling."""

import pytest

import pgest

SMALL = {"hidden_sizes": (4,)}


def agent_of(model, **arguments):
    config = pgest.RunConfig(tf_random_seed=1)
    return pgest.PGAgent(model, config=config, **arguments)


def test_a_ready_made_model_knows_its_memory_and_update():
    agent = agent_of(pgest.models.PPO(**SMALL))
    assert isinstance(agent.memory, pgest.RolloutMemory)
    assert agent.memory.horizon == 2048
    assert (agent.update_config.epochs, agent.update_config.minibatch_size) == (10, 64)
    assert isinstance(agent_of(pgest.models.VPG()).memory, pgest.BatchMemory)
    agent = agent_of(pgest.models.A2C(**SMALL))
    assert agent.memory.horizon == 5
    agent.train("CartPole-v1", timesteps=10)
    assert agent.global_step == 2
    assert agent_of(pgest.models.A2C()).update_config.gae_lambda == 1.0


def test_what_the_user_says_goes_before_what_the_model_knows():
    agent = agent_of(pgest.models.PPO(), optimizer_params={"epochs": 2})
    assert (agent.update_config.epochs, agent.update_config.minibatch_size) == (2, 64)
    agent = agent_of(pgest.models.PPO(), memory=pgest.RolloutMemory(horizon=8))
    assert agent.memory.horizon == 8
    assert agent.update_config == pgest.UpdateConfig()


def test_a_plain_model_fn_needs_a_memory():
    with pytest.raises(ValueError, match="pass memory=pgest.BatchMemory"):
        pgest.PGAgent(lambda features, labels: None)


@pytest.mark.slow
def test_a_checkpoint_path_may_be_a_directory_or_the_best(tmp_path):
    model = pgest.models.VPG(**SMALL)
    agent = agent_of(model, memory=pgest.BatchMemory(batch_size=50), model_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no checkpoint. Train with"):
        agent.evaluate("CartPole-v1", 1, "best")
    hook = pgest.EvaluationHook("CartPole-v1", pgest.Every(steps=1), episodes=1)
    agent.train("CartPole-v1", max_steps=1, hooks=[hook])
    best = agent.evaluate("CartPole-v1", 1, "best")
    assert best["global_step"] == 1
    agent.train("CartPole-v1", max_steps=3)
    assert agent.evaluate("CartPole-v1", 1, "best") == best
    assert agent.evaluate("CartPole-v1", 1, str(tmp_path))["global_step"] == 3
    with pytest.raises(FileNotFoundError, match="has no model_dir"):
        agent_of(model).evaluate("CartPole-v1", 1, "best")


def test_an_evaluation_may_sample():
    """A first policy is nearly uniform: sampling plays at random, about 22; its mode does not."""
    agent = agent_of(pgest.models.VPG(**SMALL), memory=pgest.BatchMemory(batch_size=50))
    greedy = agent.evaluate("CartPole-v1", 20)
    sampled = agent.evaluate("CartPole-v1", 20, greedy=False)
    assert 15 < sampled["return_mean"] < 30 < greedy["return_mean"]
    assert sampled == agent.evaluate("CartPole-v1", 20, greedy=False)
    assert greedy == agent.evaluate("CartPole-v1", 20)
