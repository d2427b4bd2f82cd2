"""The ready-made models and the same algorithms in examples/algorithms give the same weights."""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tf_keras

import pgest
from pgest import models
from pgest.models import adam
from tests.model_fns import weights

FOLDER = Path(__file__).parent.parent.parent / "examples" / "algorithms"
NAMES = ("vpg", "a2c", "ppo", "trpo")


def load(name):
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(f"by_hand_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(model_fn, params, env_id, memory, **optimizer_params):
    """An agent after ten updates, with the seed that all have here."""
    agent = pgest.PGAgent(
        model_fn,
        memory,
        optimizer_params=optimizer_params,
        params=params,
        config=pgest.RunConfig(tf_random_seed=3, jit_compile=False),
    )
    updates = optimizer_params.get("epochs", 1) * (
        128 // optimizer_params.get("minibatch_size", 128)
    )
    env = pgest.make(env_id, num_envs=2)
    return agent.train(env, steps=10 * updates)


CASES = {
    "vpg": (
        models.VPG(baseline=False, learning_rate=1e-2),
        {"actions": 2, "learning_rate": 1e-2},
        "CartPole-v1",
        lambda: pgest.BatchMemory(batch_size=128),
        {},
    ),
    "a2c": (
        models.A2C(entropy_weight=0.01),
        {"actions": 2, "learning_rate": 7e-4, "entropy_weight": 0.01},
        "CartPole-v1",
        lambda: pgest.RolloutMemory(horizon=64),
        {"gae_lambda": 1.0, "normalize_advantage": False},
    ),
    "ppo": (
        models.PPO(learning_rate=1e-3),
        {"actions": 1, "learning_rate": 1e-3, "clip_ratio": 0.2},
        "Pendulum-v1",
        lambda: pgest.RolloutMemory(horizon=64),
        {"epochs": 2, "minibatch_size": 32},
    ),
    "trpo": (
        # Each iteration of conjugate gradients makes rounding larger.
        models.TRPO(cg_steps=3, critic_passes=1, critic_minibatch_size=None),
        {"actions": 2, "learning_rate": 1e-3, "target_kl": 0.01, "cg_steps": 3},
        "CartPole-v1",
        lambda: pgest.RolloutMemory(horizon=64),
        {},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_weights_are_equal_after_ten_updates(name, monkeypatch):
    # Keras's rounds 1 - beta otherwise, see test_adam.py; all else is to be the same.
    monkeypatch.setattr(tf_keras.optimizers, "Adam", adam.Adam)
    ready_made, params, env_id, memory, settings = CASES[name]
    ours = weights(train(ready_made, None, env_id, memory(), **settings))
    by_hand = weights(train(load(name).model_fn, params, env_id, memory(), **settings))
    names = [n for n in by_hand if n.startswith(("policy_", "value_", "action"))]
    assert len(names) >= 6
    for variable in names:
        np.testing.assert_allclose(ours[variable], by_hand[variable], rtol=0, atol=1e-6)
    assert ours["global_timestep"] == by_hand["global_timestep"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_short_and_needs_three_names_of_pgest(name):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    imported = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("pgest")
        for alias in node.names
    ]
    assert set(imported) <= {"EstimatorSpec", "Modes", "minimize"}
    code = text.split('"""', 2)[2].splitlines()
    assert 25 <= len([line for line in code if line.strip()]) <= 60
