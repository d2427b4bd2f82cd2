"""The program: what each command prints, writes and exits with."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from pgest.commands import program, run_directories

SMALL = ["-p", "num_envs=1", "horizon=32", "epochs=1", "hidden_sizes=[8]", "--quiet"]
TRAIN = ["train", "--algo", "ppo", "--env", "CartPole-v1", "--eval-episodes", "1", *SMALL]
MODEL = """
import tensorflow as tf, tensorflow_probability as tfp, tf_keras, pgest

def model_fn(features, labels, mode, params):
    logits = tf_keras.layers.Dense(2)(features["state"])
    distribution = tfp.distributions.Categorical(logits=logits)
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution)
    loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(params["rate"]))
    return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

class Careful(pgest.models.PPO):
    pass
"""


def call(*arguments):
    return CliRunner().invoke(program.pgest, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The directory of two seeds of a short run, the first with its best checkpoint."""
    directory = tmp_path_factory.mktemp("runs")
    result = call(
        *TRAIN, "--seed", 0, 1, "--timesteps", 64, "--model-dir", directory, "--eval-every", 32
    )
    assert result.exit_code == 0, result.output
    assert result.output.count("after 64 timesteps") == 2
    return directory


def test_evaluate_says_how_good_the_run_is(runs):
    result = call("evaluate", runs / "seed0", "--episodes", 2, "--json")
    results = json.loads(result.output)
    assert results["global_timestep"] == 64 and results["episodes"] == 2
    best = call("evaluate", runs / "seed0", "--episodes", 1, "--best")
    assert best.exit_code == 0 and best.output.startswith("Return ")


def test_export_writes_the_trained_policy(runs, tmp_path):
    result = call("export", runs / "seed1", tmp_path)
    assert result.exit_code == 0, result.output
    observation = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    greedy = tf.saved_model.load(result.output.strip()).signatures["serving_default"]
    (name,) = greedy.structured_input_signature[1]
    (actions,) = (v for k, v in greedy(**{name: tf.constant(observation)}).items() if "action" in k)
    rows = run_directories.read(runs / "seed1").agent().predict(observation, env="CartPole-v1")
    assert actions.numpy().tolist() == [int(row["action"]) for row in rows]


@pytest.mark.slow
def test_the_same_command_goes_on_and_another_is_refused(runs):
    more = [*TRAIN, "--model-dir", runs, "--timesteps"]
    assert "has its 64 timesteps already" in call(*more, 64).output
    result = call(*more, 96)
    assert "goes on at timestep 64" in result.output and "after 96 timesteps" in result.output
    other = call(*more, 96, "-p", "discount=0.5")
    assert other.exit_code == 2
    assert "a run with discount 0.98, now it is 0.5" in " ".join(other.output.split())


def test_a_video_of_an_episode(runs, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("pygame")
    video = tmp_path / "new" / "cart.mp4"
    result = call("enjoy", runs / "seed1", "--video", video)
    assert result.exit_code == 0, result.output
    frames = ffmpeg.read_frames(str(video))
    assert next(frames)["size"] == (600, 400)
    length = float(result.output.split()[1].rstrip(","))  # a reward of 1 a timestep
    assert len(list(frames)) == length + 1  # and the frame of the reset


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--env", "CartPole-v1"], "Give either --algo or --model"),
        (["train", "--algo", "ppo", "--env", "CartPole-v1", "-p", "epochz=3"], "mean 'epochs'"),
        (["train", "--algo", "dqn", "--env", "CartPole-v1"], "'dqn' is not one of"),
        (["train", "--model", "nowhere", "--env", "CartPole-v1"], "package.module:model_fn"),
        (["evaluate", "."], "holds no run"),
        (["settings", "--algo", "ppo", "--env", "CartPole-v1", "-p", "a"], "key=value"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def test_an_unknown_environment_is_said_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("train", "--algo", "ppo", "--env", "CartPoll-v1")
    assert result.exit_code == 1 and "CartPoll" in result.output
    assert not list(tmp_path.iterdir())


def test_settings_lists_tasks_and_prints_one():
    assert "ppo CartPole-v1" in call("settings").output.splitlines()
    printed = call("settings", "--algo", "ppo", "--env", "CartPole-v1", "-p", "epochs=3").output
    assert "epochs: 3\n" in printed and "learning_rate: linear(0.001)\n" in printed


@pytest.mark.parametrize("name", sorted(program.pgest.commands))
def test_each_command_shows_an_example(name):
    result = call(name, "--help")
    assert result.exit_code == 0 and f"Example:\n    pgest {name}" in result.output


def test_models_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_policies.py").write_text(MODEL)
    result = call(
        "train", "--model", "my_policies:model_fn", "--env", "CartPole-v1", "--timesteps", 32,
        "--eval-episodes", 1, "-p", "horizon=16", "rate=0.5", "--quiet", "--model-dir", "own",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    agent = run_directories.read(tmp_path / "own" / "seed0").agent()
    assert agent.params == {"rate": 0.5} and agent.global_timestep == 32
    model, params = run_directories.own_model("my_policies:Careful", {"clip_ratio": 0.1})
    assert model.clip_ratio == 0.1 and params is None
    with pytest.raises(ValueError, match="no field 'clip': did you mean"):
        run_directories.own_model("my_policies:Careful", {"clip": 0.1})


def test_an_interrupt_before_training_has_the_same_exit_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "interrupted.py").write_text("import os; os.kill(os.getpid(), 2)")
    # A shell that starts the tests in the background has Ctrl-C ignored by them.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = call("train", "--model", "interrupted:model_fn", "--env", "CartPole-v1")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert result.output.splitlines()[-1] == "Interrupted."


@pytest.mark.slow
def test_an_interrupt_loses_nothing(tmp_path):
    command = [sys.executable, "-m", "pgest", *TRAIN[:-1], "--timesteps", "10000000"]
    process = subprocess.Popen(
        [*command, "--model-dir", str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 240
        while not list(tmp_path.rglob("events*")) and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "the same command goes on from there" in errors
    assert run_directories.read(tmp_path / "seed0").agent().global_timestep > 0


@pytest.mark.slow
@pytest.mark.parametrize("script", [False, True])
def test_a_command_says_nothing_of_how_tensorflow_starts(script, tmp_path):
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("TF_")}
    command = ["-m", "pgest"]
    if script:  # as the console script that is installed
        text = "from pgest.commands import program\nprogram.main()\n"
        (tmp_path / "pgest").write_text(text)
        command = [str(tmp_path / "pgest")]
        environment["PYTHONPATH"] = os.getcwd()
    done = subprocess.run(
        [sys.executable, *command, "settings", "--algo", "ppo", "--env", "CartPole-v1"],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("# ppo on CartPole-v1")
    assert done.stderr == ""
