"""Each program in examples/ runs, in a process of its own, with a small budget."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

# Arguments that make a program short. Every example stands here.
BUDGETS = {
    "cartpole.py": ["--max-timesteps", "3000", "--episodes", "2", "--model-dir", "run"],
    "custom_hook.py": ["--max-timesteps", "3000"],
    "vector_environment.py": ["--max-timesteps", "1500", "--num-envs", "3"],
    "continue_training.py": ["--model-dir", "run"],
    "export_policy.py": ["--max-timesteps", "1024", "--save-steps", "10", "--model-dir", "run"],
    "python_expert.py": ["--updates", "200"],
    "distributed.py": ["--max-timesteps", "2000"],
    "graph_cartpole.py": ["--max-timesteps", "30000"],
    "graph_environment.py": ["--max-timesteps", "70000", "--num-envs", "16"],
}
# Need an export to play with, so they run in tests of their own.
AFTER_AN_EXPORT = {"play_saved_policy.py", "play_with_numpy.py", "tflite_policy.py"}
# Start other examples.
LAUNCHERS = {"local_workers.py"}
# Run with Ray, in tests/interop/test_ray.py.
WITH_RAY = {"ray_environments.py", "ray_train.py", "ray_tune.py"}
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
    assert programs == set(BUDGETS) | AFTER_AN_EXPORT | LAUNCHERS | WITH_RAY


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


@pytest.mark.slow
def test_the_launcher_starts_workers_of_one_run(tmp_path):
    program = [str(EXAMPLES / "distributed.py"), "--max-timesteps", "4096", "--model-dir", "run"]
    output = run("local_workers.py", "2+evaluator", *program, cwd=tmp_path)
    # 2 workers x 8 environments x 128 timesteps are 2,048 a batch.
    assert "2 workers: 4,096 timesteps" in output and "greedy return" in output, output
    assert len(list((tmp_path / "run").glob("events.out.tfevents.*"))) == 1


def test_the_launcher_fails_with_the_worker_that_failed(tmp_path):
    program = "import os, time; time.sleep(9 * ('index\": 0' in os.environ['TF_CONFIG'])); exit(7)"
    command = [sys.executable, str(EXAMPLES / "local_workers.py"), "2", "-c", program]
    began = time.monotonic()
    assert subprocess.run(command, cwd=tmp_path, timeout=60).returncode == 7
    assert time.monotonic() - began < 8


def test_the_slurm_script_tells_each_task_who_it_is(tmp_path):
    """Run with commands in the place of SLURM's that print what they get."""
    scripts = {
        "scontrol": "printf 'node1\\nnode2\\n'",
        "srun": 'shift; for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done',
        "python": 'echo "$TF_CONFIG"; test -f "$OLDPWD/$1" || exit 9',
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    variables = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    variables |= {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "5"}
    variables["OLDPWD"] = str(EXAMPLES.parent)
    command = ["bash", str(EXAMPLES / "cluster" / "train.slurm")]
    result = subprocess.run(
        command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    hosts = ["node1:29500", "node2:29500"]
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": rank}}
        for rank in range(2)
    ]


def test_the_manifest_starts_the_example_as_tensorflow_workers():
    text = (EXAMPLES / "cluster" / "tfjob.yaml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "TFJob")
    worker = job["spec"]["tfReplicaSpecs"]["Worker"]
    assert worker["replicas"] > 1 and worker["restartPolicy"] == "OnFailure"
    pod = worker["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "tensorflow"  # the operator sets TF_CONFIG there alone
    assert (EXAMPLES.parent / container["command"][1]).exists()
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
