"""`pgest tune`: studies of short real runs, interrupted and gone on with."""

import socket
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner

from pgest.commands import program, run_directories, searching, task_settings
from pgest.commands.searching import Range
from pgest.commands.task_settings import SettingsError

optuna = pytest.importorskip("optuna")

SMALL = ["-p", "num_envs=1", "horizon=16", "epochs=1", "hidden_sizes=[8]", "jit_compile=false"]
SHORT = ["--timesteps", "64", "--evaluations", "2", "--eval-episodes", "1"]
RATE = ["-s", "learning_rate=log(1e-4, 1e-2)", "clip_norm=[0.5, 1.0]"]
# An environment in which Ctrl-C is pressed, once.
INTERRUPTING = """
import os, signal
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Interrupting(CartPoleEnv):
    steps = 0

    def step(self, action):
        Interrupting.steps += 1
        if Interrupting.steps == 40:
            os.kill(os.getpid(), signal.SIGINT)
        return super().step(action)

gymnasium.register("Interrupting-v0", Interrupting, max_episode_steps=500)
"""


def call(*arguments):
    return CliRunner().invoke(program.pgest, ["tune", *map(str, arguments)])


def tune(directory, trials, env="CartPole-v1", *more):
    arguments = ["--algo", "ppo", "--env", env, "--trials", trials, "--study-dir", directory]
    return call(*arguments, *SMALL, *SHORT, *RATE, *more)


def trials_of(directory, env="CartPole-v1"):
    name = f"tune-ppo-{env}"
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{directory / 'study.db'}")
    return study, study.trials


@pytest.mark.slow
def test_a_study_finds_settings_and_goes_on(tmp_path):
    done = tune(tmp_path, 2)
    assert done.exit_code == 0, done.output
    study, trials = trials_of(tmp_path)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 2
    assert set(trials[0].intermediate_values) == {1, 2}
    assert set(trials[0].params) >= {"learning_rate", "clip_norm", "clip_ratio", "discount"}
    assert not {"epochs", "horizon"} & set(trials[0].params), "-p has set them"
    best = study.best_trial
    assert f"Best return {best.value:.1f}, of trial{best.number}: " in done.output
    found = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert {name: found[name] for name in best.params} == best.params
    assert found["hidden_sizes"] == [8] and "timesteps" not in found
    task_settings.Settings("ppo", found)  # `pgest train --config` takes it
    run = run_directories.read(tmp_path / f"trial{best.number}")
    assert run.agent().global_timestep == 64
    assert run.settings.values["learning_rate"] == best.params["learning_rate"]
    again = tune(tmp_path, 3)
    assert again.exit_code == 0 and again.output.count("return") == 2, "one trial, and the best"
    _, trials = trials_of(tmp_path)
    assert len(trials) == 3
    assert len({trial.params["learning_rate"] for trial in trials}) == 3


@pytest.mark.slow
def test_ctrl_c_and_a_kill_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "interrupting.py").write_text(INTERRUPTING)
    directory, env = tmp_path / "study", "interrupting:Interrupting-v0"
    done = tune(directory, 2, env)
    assert done.exit_code == 130
    assert "the same command goes on from there" in " ".join(done.output.split())
    before = run_directories.read(directory / "trial0").agent().global_timestep
    assert 0 < before < 64
    # Another process of this machine began a trial and was killed.
    study, _ = trials_of(directory, env)
    dead = study.ask()
    assert dead.user_attrs == {"goes_on": 0}, "first in the queue"
    dead.set_user_attr("host", socket.gethostname())
    done = tune(directory, 2, env)
    assert done.exit_code == 0, done.output
    _, trials = trials_of(directory, env)
    states = [trial.state.name for trial in trials]
    assert states == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[0].params == trials[2].params
    assert sorted(path.name for path in directory.glob("trial*")) == ["trial0", "trial3"]
    for name in ("trial0", "trial3"):
        assert run_directories.read(directory / name).agent().global_timestep == 64


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["study.db", "study.log"])
def test_two_processes_share_a_study(tmp_path, storage):
    """Started at one moment, on a database or on Optuna's journal, by the same command."""
    trials = 5
    command = [sys.executable, "-m", "pgest", "tune", "--algo", "ppo", "--env", "CartPole-v1"]
    command += ["--trials", str(trials), "--study-dir", str(tmp_path / "study"), *SMALL, *SHORT]
    journal = ["--storage", str(tmp_path / storage)] if storage == "study.log" else []
    both = [
        subprocess.Popen(
            [*command, *RATE, *journal], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    if journal:
        backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / storage))
        where = optuna.storages.JournalStorage(backend)
    else:
        where = f"sqlite:///{tmp_path / 'study' / storage}"
    study = optuna.load_study(study_name="tune-ppo-CartPole-v1", storage=where)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * trials
    for number in range(trials):
        assert sum(f"trial{number}: return" in text for text in printed) == 1, printed
        assert run_directories.read(tmp_path / f"study/trial{number}").agent().global_timestep == 64
    assert len({trial.params["learning_rate"] for trial in study.trials}) == trials
    best = yaml.safe_load((tmp_path / "study" / "best.yaml").read_text())
    assert best["learning_rate"] == study.best_params["learning_rate"]


@pytest.mark.slow
def test_a_trial_of_a_living_process_is_left_alone(tmp_path):
    from pgest.agents import directory_lock

    assert tune(tmp_path, 1).exit_code == 0
    study, _ = trials_of(tmp_path)
    alive = study.ask()
    alive.set_user_attr("host", socket.gethostname())
    with directory_lock.DirectoryLock(str(tmp_path / "running" / f"trial{alive.number}")):
        assert tune(tmp_path, 2).exit_code == 0, "this one has begun, so there is nothing to do"
    assert [trial.state.name for trial in trials_of(tmp_path)[1]] == ["COMPLETE", "RUNNING"]


def test_settings_that_fail_are_told_and_do_not_end_the_study(tmp_path):
    done = call(
        "--algo", "ppo", "--env", "CartPole-v1", "--trials", 2, "--study-dir", tmp_path, *SMALL,
        *SHORT, "-s", "learning_rate=[0.001]", "discount=[2.0, 3.0]", "--seed", 1,
    )  # fmt: skip
    assert done.exit_code == 1
    assert done.output.count("failed, SettingsError: discount is") == 2
    assert "No trial came to its end" in done.output


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["-s", "learning_rat=log(1e-4, 1e-2)"], "did you mean 'learning_rate'"),
        (["-s", "learning_rate=1e-4..1e-2"], "expected log(low, high)"),
        (["-s", "learning_rate=log(0, 1)"], "both above 0"),
        (["-p", "epochz=3"], "did you mean 'epochs'"),
        (["--search", "nowhere.yaml"], "cannot be read"),
        (["--storage", "nothing://x"], "The storage 'nothing://x' cannot be opened"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("--algo", "ppo", "--env", "CartPole-v1", *arguments)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.output.split())
    assert not list(tmp_path.rglob("*.db"))


def test_ranges_as_they_are_written():
    assert searching.parsed("a", "log(1e-5, 1e-2)") == Range("log", (1e-5, 1e-2))
    assert searching.parsed("a", "uniform(0.5,1)") == Range("uniform", (0.5, 1.0))
    assert searching.parsed("a", "int(1, 20)") == Range("int", (1, 20))
    assert searching.parsed("a", [[64], [64, 64]]) == Range("choice", ([64], [64, 64]))
    for wrong in ("int(1.5, 2)", "uniform(1, 1)", "normal(0, 1)", [], 3):
        with pytest.raises(SettingsError, match="The range of a"):
            searching.parsed("a", wrong)


def test_lists_are_choices_too():
    trial = optuna.trial.FixedTrial({"hidden_sizes": "[64, 64]"})
    assert Range("choice", ([64], [64, 64])).suggest(trial, "hidden_sizes") == [64, 64]


@pytest.mark.parametrize("algorithm", sorted(task_settings.MODELS))
def test_each_algorithm_has_ranges_that_its_settings_take(algorithm):
    settings = task_settings.tuned(algorithm, "Nowhere-v7")
    ranges = searching.of(settings, {}, {})
    for trial_seed in range(5):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(trial_seed))
        trial = study.ask()
        chosen = settings.changed({k: r.suggest(trial, k) for k, r in ranges.items()})
        chosen.model(), chosen.update(), chosen.memory()
    assert "discount" not in searching.of(settings, {"discount": None}, {})
    assert "discount" not in searching.of(settings, {}, {"discount": 0.9})
