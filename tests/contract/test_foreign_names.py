"""Names of other libraries get one hint each, wherever they are tried."""

import operator
import re
import warnings

import pytest

import pgest
from pgest.contract import foreign_names


def agent():
    return pgest.PGAgent(pgest.models.VPG(hidden_sizes=(4,)), pgest.BatchMemory(episodes=1))


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: pgest.PGAgent(pgest.models.VPG(), gamma=0.9), "'discount': 0.99"),
        (lambda: pgest.PGAgent(pgest.models.VPG(), seed=1), r"RunConfig\(tf_random_seed=0\)"),
        (lambda: pgest.PGAgent(pgest.models.VPG(), verbose=1), "ProgressBarHook"),
        (lambda: pgest.models.PPO(ent_coef=0.1), "entropy_weight=0.01"),
        (lambda: pgest.models.A2C(n_steps=5), r"RolloutMemory\(horizon=2048\)"),
        (lambda: pgest.models.TRPO(gamma=0.9), "'discount': 0.99"),
        (lambda: pgest.models.PPO("MlpPolicy", "CartPole-v1"), "takes keywords alone"),
        (lambda: pgest.UpdateConfig(gamma=0.9), "'discount': 0.99"),
        (lambda: agent().train("CartPole-v1", total_timesteps=9), "timesteps=100_000"),
        (lambda: agent().train("CartPole-v1", callback=None), "hooks="),
        (lambda: agent().train("CartPole-v1", n_envs=4), "num_envs=8"),
        (lambda: agent().evaluate("CartPole-v1", n_eval_episodes=9), "episodes=20"),
        (lambda: agent().evaluate("CartPole-v1", steps=9), r"evaluate\(env, episodes=20\)"),
        (lambda: agent().predict(input_fn=print), "an environment in its place"),
        (lambda: agent().export_saved_model("x", serving_input_receiver_fn=print), "space says"),
        (
            lambda: pgest.models.VPG(graph_fn=print),
            r"`network` of a class Mine\(pgest.models.VPG\)",
        ),
    ],
)
def test_a_foreign_keyword_is_told(call, hint):
    with pytest.raises(TypeError, match=hint):
        call()


def test_a_foreign_key_of_a_dict_is_told():
    with pytest.raises(ValueError, match="unknown gamma.*gamma is PGAgent"):
        pgest.UpdateConfig.of({"gamma": 0.9})
    with pytest.raises(ValueError, match="ent_coef is pgest.models.PPO"):
        pgest.models.PPO().with_params({"ent_coef": 0.0})


def test_a_name_that_nobody_knows_is_told_with_those_that_exist():
    with pytest.raises(TypeError, match=r"PGAgent.evaluate has no epsiodes; it takes .*episodes"):
        agent().evaluate("CartPole-v1", epsiodes=3)


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("ModeKeys", "pgest.Modes"),
        ("Estimator", "pgest.PGAgent"),
        ("VPGModel", "pgest.models.VPG"),
        ("GymEnvironment", "an id"),
    ],
)
def test_a_foreign_name_in_the_package_is_told(name, here):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'. It is {here}"):
        getattr(pgest, name)


def test_the_successors_that_are_names_exist():
    for path in foreign_names.SUCCESSORS.values():
        found = re.fullmatch(r"pgest\.([\w.]+)", path)
        if found:
            assert operator.attrgetter(found[1])(pgest)
    with pytest.raises(AttributeError, match="module 'pgest' has no attribute 'nonsense'$"):
        pgest.nonsense  # noqa: B018


@pytest.mark.slow
def test_a_large_number_without_a_name_is_told(monkeypatch):
    monkeypatch.setattr(foreign_names, "_LARGE", 2)
    with pytest.warns(UserWarning, match=r"train\(env, 2\) trains for 2 episodes. Write timesteps"):
        learner = agent().train("CartPole-v1", 2)
    assert learner.global_episode == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.train("CartPole-v1", 1)
        learner.train("CartPole-v1", episodes=2)
    assert learner.global_episode == 5


def test_the_settings_are_shown():
    shown = repr(pgest.models.PPO(clip_ratio=0.1))
    fields, made_for = shown.split("  # made for ")
    assert made_for == "RolloutMemory(horizon=2048), {'epochs': 10, 'minibatch_size': 64}"
    assert eval(fields, vars(pgest.models)) == pgest.models.PPO(clip_ratio=0.1)
    config = pgest.RunConfig(tf_random_seed=3)
    lines = repr(pgest.PGAgent(pgest.models.PPO(), config=config)).splitlines()
    assert lines[0] == "PGAgent"
    assert "  memory: RolloutMemory(horizon=2048)" in lines
    assert "  tf_random_seed: 3" in lines
    assert any("epochs=10, minibatch_size=64" in line for line in lines)
