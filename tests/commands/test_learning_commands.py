"""Commands that the pages print, at their full length: they learn, with every seed."""

import json

import pytest
from click.testing import CliRunner

from pgest.commands import program


def greedy_return(algorithm, env_id, seed, directory):
    """The mean return of 50 episodes after `pgest train` with the settings of the task."""
    train = ["train", "--algo", algorithm, "--env", env_id, "--seed", str(seed), "--quiet"]
    trained = CliRunner().invoke(program.pgest, [*train, "--model-dir", str(directory)])
    assert trained.exit_code == 0, trained.output
    assert f"tuned for {env_id}." in trained.output  # and nothing changed
    evaluate = ["evaluate", str(directory / f"seed{seed}"), "--episodes", "50", "--json"]
    return json.loads(CliRunner().invoke(program.pgest, evaluate).output)["return_mean"]


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(5))
def test_the_first_command_solves_cartpole(seed, tmp_path):
    assert greedy_return("ppo", "CartPole-v1", seed, tmp_path) >= 475


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(5))
def test_the_tuned_settings_solve_lunarlander(seed, tmp_path):
    pytest.importorskip("Box2D", reason="the extra box2d is not installed")
    assert greedy_return("ppo", "LunarLander-v3", seed, tmp_path) >= 200
