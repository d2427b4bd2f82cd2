"""Runs on MuJoCo and ALE go on from the simulators' own states, bit for bit; games by command."""

import glob
import os
import subprocess
import sysconfig
import time

import pytest

from tests.interop import own_environments

pytestmark = [pytest.mark.interop, pytest.mark.slow]


@pytest.fixture(scope="module")
def start():
    """Starts a program of this directory where the simulators are."""
    try:
        python = own_environments.SIMULATORS.python()
    except own_environments.NotAvailableError as reason:
        pytest.skip(f"no simulators: {reason}")
    paths = (str(own_environments.ROOT), sysconfig.get_path("purelib"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def started(program, *arguments):
        command = [python, str(own_environments.HERE / program), *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)

    return started


def ended(process):
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return printed


def test_states_of_simulators_come_back(start):
    assert "Humanoid, " in ended(start("restored_simulators.py"))


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "ALE/Breakout-v5"])
def test_a_killed_run_on_a_simulator_ends_equal(name, start, tmp_path):
    arguments = ("simulator_run.py", name)
    whole = ended(start(*arguments, tmp_path / "whole", 1024)).split()[-1]
    process = start(*arguments, tmp_path / "killed", 1024)
    while len(glob.glob(f"{tmp_path}/killed/model.ckpt-*.index")) < 3 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    printed = ended(start(*arguments, tmp_path / "killed", 1024))
    assert "; 0 timesteps of 0 environments played again" in printed
    assert printed.split()[-1] == whole


def test_games_are_whole_where_policies_are_evaluated_and_lives_where_they_learn(start):
    assert "5 lives, then 1" in ended(start("atari_lives.py"))


@pytest.mark.parametrize(
    "algo, env_id, settings",
    [
        ("ppo", "ALE/Breakout-v5", ["num_envs=2", "horizon=16", "minibatch_size=16"]),
        ("a2c", "ALE/Pong-v5", ["num_envs=2", "vectorization=async"]),
        ("ppo", "MinAtar/Breakout-v1", ["num_envs=2", "horizon=16", "minibatch_size=16"]),
    ],
)
def test_a_command_trains_on_a_game(algo, env_id, settings, start, tmp_path):
    arguments = ["train", "--algo", algo, "--env", env_id, "--timesteps", 96, "--eval-episodes", 1]
    printed = ended(
        start("command_line.py", *arguments, "--model-dir", tmp_path, "-p", *settings, "--quiet")
    )
    family = env_id.partition("/")[0]
    assert f"tuned for {family}/*, changed" in printed and "over 1 episodes" in printed
    video = tmp_path / "game.mp4"
    ended(start("command_line.py", "enjoy", tmp_path / "seed0", "--video", video))
    assert video.stat().st_size > 1_000
