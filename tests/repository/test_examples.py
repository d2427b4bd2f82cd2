"""Each program in examples/ runs, in a process of its own, with a small budget."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

# Arguments that make a program short. Every example stands here.
BUDGETS = {
    "cartpole.py": ["--max-timesteps", "3000", "--episodes", "2", "--model-dir", "run"],
    "custom_hook.py": ["--max-timesteps", "3000"],
    "vector_environment.py": ["--max-timesteps", "1500", "--num-envs", "3"],
    "continue_training.py": ["--model-dir", "run"],
    "export_policy.py": ["--max-timesteps", "1024", "--save-steps", "10", "--model-dir", "run"],
    "python_expert.py": ["--updates", "200"],
    "graph_cartpole.py": ["--max-timesteps", "30000"],
    "graph_environment.py": ["--max-timesteps", "70000", "--num-envs", "16"],
}
# Need an export to play with, so they run in tests of their own.
AFTER_AN_EXPORT = {"play_saved_policy.py", "play_with_numpy.py", "tflite_policy.py"}
# Their output is looked at.
ON_THEIR_OWN = {"cartpole.py", "export_policy.py", "python_expert.py"}


def run(program: str, *arguments: str, cwd: Path, block: str = "") -> str:
    """The output of an example; `block` names a module that must not be imported."""
    command = [sys.executable, str(EXAMPLES / program), *arguments]
    environment = dict(os.environ)
    if block:
        (cwd / "blocked").mkdir(exist_ok=True)
        (cwd / "blocked" / f"{block}.py").write_text(f"raise ImportError('{block} is blocked')\n")
        environment["PYTHONPATH"] = str(cwd / "blocked")
    result = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_example_is_tested():
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    assert programs == set(BUDGETS) | AFTER_AN_EXPORT


@pytest.mark.slow
@pytest.mark.parametrize("program", sorted(set(BUDGETS) - ON_THEIR_OWN))
def test_the_example_runs(program, tmp_path):
    assert run(program, *BUDGETS[program], cwd=tmp_path)


@pytest.mark.slow
def test_cartpole_trains_and_its_export_plays_without_pgest(tmp_path):
    output = run("cartpole.py", *BUDGETS["cartpole.py"], cwd=tmp_path)
    assert "after 3,000 timesteps" in output
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    output = run(
        "play_saved_policy.py", "run/export", "--episodes", "2", cwd=tmp_path, block="pgest"
    )
    assert "Mean return" in output


@pytest.mark.slow
def test_continuing_adds_up(tmp_path):
    output = run("continue_training.py", *BUDGETS["continue_training.py"], cwd=tmp_path)
    steps = [int(step) for step in re.findall(r": +step (\d+), timestep", output)]
    assert steps == [4, 4, 7, 1]


@pytest.mark.slow
def test_exports_play_with_numpy_and_as_tflite(tmp_path):
    output = run("export_policy.py", *BUDGETS["export_policy.py"], cwd=tmp_path)
    # On a busy machine one save may be left out, never the last.
    saved = re.search(r"Checkpoints of the steps \[(.+)\]", output)[1].split(", ")
    assert saved[-1] == "40" and len(saved) <= 3
    assert (tmp_path / "run" / "policy_of_step_40" / "saved_model.pb").exists()

    output = run("play_with_numpy.py", "run", "--episodes", "1", cwd=tmp_path)
    steps = re.findall(r"Step +(\d+): mean return \d", output)
    assert steps == ["0", *saved]
    assert "'global_step': 40" in output

    output = run("tflite_policy.py", "run/export", "--episodes", "1", cwd=tmp_path, block="pgest")
    assert "Episode 1: return" in output
    assert float(output.split("Largest difference: ")[1].split()[0]) <= 1e-6


@pytest.mark.slow
def test_a_network_imitates_a_python_expert_in_a_graph(tmp_path):
    output = run("python_expert.py", *BUDGETS["python_expert.py"], cwd=tmp_path)
    # Chance keeps the pole up for about 20 timesteps.
    assert float(output.split("The imitator's return: ")[1]) > 100


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(5))
def test_cartpole_is_solved_within_200_000_timesteps(seed, tmp_path):
    """The shipped program and its own hyper-parameters; every seed counts."""
    output = run("cartpole.py", "--seed", str(seed), "--model-dir", "run", cwd=tmp_path)
    line = next(line for line in output.splitlines() if line.startswith("Greedy return"))
    mean = float(line.split(": ")[1].split(" ")[0])
    timesteps = int(line.split("after ")[1].split(" ")[0].replace(",", ""))
    assert mean >= 475.0
    assert timesteps <= 200_000


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(5))
def test_cartpole_in_the_graph_is_solved_within_ten_seconds(seed, tmp_path):
    """Of training; what compiling takes is not counted. Every seed counts."""
    output = run("graph_cartpole.py", "--seed", str(seed), cwd=tmp_path)
    assert float(re.search(r"CartPole-v1: ([\d.]+)", output)[1]) >= 475.0
    assert float(re.search(r"timesteps in ([\d.]+) s", output)[1]) < 10.0
