"""Several workers train one model: real processes on 127.0.0.1, many cases a pair of them."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.compat.proto import event_pb2

from pgest.variables import checkpoints as pgest_checkpoints
from tests.agents import distributed_cases, distributed_reference

# One process of the tests, so that each set of workers is started once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workers")]
COMPARED = ["a2c", "ppo", "vpg", "trpo", "lstm", "masks", "target_kl", "graph"]
# Weights are around 1. The same rows in another order within each minibatch, on one worker, come to
# 2e-7 after a hundred steps and more: float32 sums are rounded in another order, and that is all.
# Adam makes it grow with the learning rate, to 8e-5 at ten times the largest one of these cases.
TOLERANCE = 1e-6
ALL = [*COMPARED, "gsde", "timesteps", "whole", "resets", "resumed", "graph_lstm", "graph_resumed"]


class Outcome:
    """What the workers of one start came to."""

    def __init__(self, directory, count=2):
        self.directory, self.count = directory, count

    def weights(self, name, rank):
        return dict(np.load(self.directory / f"{name}.{rank}.npz"))

    def report(self, name, rank):
        return json.loads((self.directory / f"{name}.{rank}.json").read_text())

    def log(self, rank):
        return (self.directory / f"log.{rank}").read_text()


def of_model(weights):
    """The variables that are not each worker's own."""
    return {n: value for n, value in weights.items() if not n.startswith("environment/")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("workers")
    processes = distributed_cases.start(directory, [*ALL, "refusals"])
    codes = distributed_cases.finish(processes)
    outcome = Outcome(directory)
    assert codes == [0, 0], outcome.log(0)[-3000:] + outcome.log(1)[-3000:]
    return outcome


@pytest.mark.parametrize("name", ALL)
def test_workers_are_equal_to_the_bit(trained, name):
    chief, other = of_model(trained.weights(name, 0)), of_model(trained.weights(name, 1))
    assert chief.keys() == other.keys()
    for variable, value in chief.items():
        np.testing.assert_array_equal(other[variable], value, err_msg=variable)
    # The seed of "resets" was drawn, by the chief.
    assert trained.report(name, 0) | {"seconds": 0} == trained.report(name, 1) | {"seconds": 0}


@pytest.mark.parametrize("name", COMPARED)
def test_two_workers_equal_one_with_all_environments(trained, monkeypatch, name):
    weights, report = distributed_reference.run(name, monkeypatch, shards=2)
    together = trained.report(name, 0)
    assert together["counters"] == report["counters"]
    assert together["stop_reason"] == report["stop_reason"]
    for variable, value in of_model(weights).items():
        found = trained.weights(name, 0)[variable]
        np.testing.assert_allclose(found, value, rtol=0, atol=TOLERANCE, err_msg=variable)
    for alone, shared in zip(report["metrics"], together["metrics"], strict=True):
        assert shared == pytest.approx(alone, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("episodes", "another number of minibatches .minibatch_size=16.: leave minibatch_size out"),
        ("override", "Overriding overrides run_episode: use a hook"),
        ("overlap", "leave overlap_updates out"),
        ("compile", "XLA cannot compile an update in which workers exchange numbers"),
        ("num_envs", "differ in their settings: num_envs"),
        ("limits", "differ in where the run begins and ends: max_steps"),
        ("apart", "policy/bias, policy/kernel.*|train_op changes them by what this worker alone"),
    ],
)
def test_what_workers_cannot_do_is_refused(trained, name, says):
    for rank in range(2):
        assert re.search(says, trained.report("refusals", rank)["said"][name])


@pytest.mark.parametrize(("name", "place", "limit"), [("timesteps", 1, 2001), ("whole", 2, 60)])
def test_limits_of_whole_episodes_are_exact(trained, name, place, limit):
    report = trained.report(name, 0)
    assert report["counters"][place] == limit
    # Batches of 150 timesteps of each worker, and episodes of 60 at most.
    updates = len(report["metrics"])
    assert report["counters"][0] == updates * (2 if name == "timesteps" else 1) > 2
    assert updates * 2 * 150 <= report["counters"][1]


def test_each_timestep_of_whole_episodes_counts_once(trained):
    """The weight goes against the mean of what all workers saw, whose batches differ in length."""
    reports = [trained.report("refusals", rank)["weighted"] for rank in range(2)]
    totals, counts = zip(*[report["own"] for report in reports], strict=True)
    assert counts[0] != counts[1]
    mean = sum(totals) / sum(counts)
    for report in reports:
        assert report["weight"] == pytest.approx(-mean, rel=1e-5)
        assert report["metric"] == pytest.approx(mean, rel=1e-5)


def test_the_chief_writes_the_summaries_of_a_model(trained):
    assert [trained.report("refusals", rank)["steps"] for rank in range(2)] == [8, 8]
    (file,) = (trained.directory / "summaries").glob("*tfevents*")
    tags = [
        value.tag
        for record in tf.data.TFRecordDataset(str(file))
        for value in event_pb2.Event.FromString(record.numpy()).summary.value
    ]
    assert 2 <= tags.count("own/loss") < 8


def test_workers_trace_alike_and_not_again(trained):
    """The update without summaries, which the chief alone writes, and the one with them."""
    chief, other = (trained.report("refusals", rank)["traced"] for rank in range(2))
    assert chief == other and len(chief) == 8
    # Every second update is the one with summaries: each has been traced after two.
    assert chief[1] > 0 and set(chief[1:]) == {chief[1]}


def test_a_worker_knows_who_it_is(trained):
    assert trained.report("refusals", 0)["config"] == [True, 2, "worker", 0]
    assert trained.report("refusals", 1)["config"] == [False, 2, "worker", 1]


def files_of(run):
    """Everything in a run's directory but TensorBoard's files, which say that the run failed."""
    files = (path for path in run.rglob("*") if path.is_file() and "tfevents" not in path.name)
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def preempted(tmp_path_factory):
    """Two workers of which the second got SIGTERM after the third update."""
    directory = tmp_path_factory.mktemp("preempted")
    processes = distributed_cases.start(directory, ["resumed"], fault="TERM@1")
    return Outcome(directory), distributed_cases.finish(processes)


def copied(preempted, tmp_path):
    """A directory that goes on from where the preempted run was left."""
    shutil.copytree(preempted[0].directory / "run", tmp_path / "run")
    return Outcome(tmp_path)


def test_a_signal_at_one_worker_ends_all(preempted):
    outcome, codes = preempted
    assert codes == [143, 143], outcome.log(0)[-3000:] + outcome.log(1)[-3000:]
    # Three updates of 64 timesteps and 2 x 4 steps.
    run = outcome.directory / "run"
    assert sorted(path.name for path in run.glob("*.index")) == ["model.ckpt-24.index"]
    assert len(list(run.glob("*tfevents*"))) == 1


@pytest.mark.parametrize("victim", [1, 0])
def test_a_killed_worker_ends_the_others_and_the_run_goes_on(preempted, trained, tmp_path, victim):
    outcome = copied(preempted, tmp_path)
    processes = distributed_cases.start(tmp_path, ["resumed"], fault=f"KILL@{victim}")
    assert processes[victim].wait(300) == -9
    begin, before = time.monotonic(), files_of(tmp_path / "run")
    code = distributed_cases.finish(processes)[1 - victim]
    assert time.monotonic() - begin < 15
    assert code not in (0, 143)
    assert "WorkerLostError" in outcome.log(1 - victim)
    assert files_of(tmp_path / "run") == before
    if victim == 0:
        return
    # Started again, it ends as one that was never stopped, to the bit.
    ends_as_if_never_stopped("resumed", outcome, trained)


def ends_as_if_never_stopped(name, outcome, trained):
    """Starts the workers of a case again; they come to the same bits, those of their own too."""
    codes = distributed_cases.finish(distributed_cases.start(outcome.directory, [name]))
    assert codes == [0, 0], outcome.log(0)[-3000:] + outcome.log(1)[-3000:]
    for rank in range(2):
        assert outcome.report(name, rank)["counters"] == trained.report(name, rank)["counters"]
        for variable, value in trained.weights(name, rank).items():
            here = outcome.weights(name, rank)[variable]
            np.testing.assert_array_equal(here, value, err_msg=variable)


def test_environments_in_the_graph_go_on_where_they_stood(trained, tmp_path):
    name = "graph_resumed"
    processes = distributed_cases.start(tmp_path, [name], fault="TERM@1")
    assert distributed_cases.finish(processes) == [143, 143]
    ends_as_if_never_stopped(name, Outcome(tmp_path), trained)


def test_environments_in_the_graph_are_each_workers_own(trained):
    chief, other = (trained.weights("graph_resumed", rank) for rank in range(2))
    name = "environment/reward_running_return_2"
    assert not np.array_equal(chief[name], other[name])
    # 64 timesteps of all a batch; the last one is cut.
    assert trained.report("graph_lstm", 0)["counters"][:2] == [64, 1032]


def test_another_number_of_workers_goes_on_with_new_episodes(preempted, tmp_path):
    copied(preempted, tmp_path)
    case = distributed_cases.CASES["resumed"]
    agent = case.agent(1, model_dir=str(tmp_path / "run"))
    assert (agent.global_step, agent.global_timestep) == (24, 192)
    agent.train(case.environment(1), **case.limits)
    assert agent.global_timestep == 640


def test_a_worker_that_hangs_ends_the_others_after_the_time_that_was_set(tmp_path):
    outcome = Outcome(tmp_path)
    processes = distributed_cases.start(tmp_path, ["masks"], fault="HANG@1")
    try:
        assert processes[0].wait(300) not in (0, 143)
        assert processes[1].poll() is None  # asleep
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert "WorkerLostError" in outcome.log(0)
    assert "did not answer within the timeout_seconds" in outcome.log(0)


def test_three_workers(tmp_path, monkeypatch):
    outcome = Outcome(tmp_path)
    processes = distributed_cases.start(tmp_path, ["three"], count=3)
    assert distributed_cases.finish(processes) == [0, 0, 0], outcome.log(0)[-3000:]
    weights, report = distributed_reference.run("three", monkeypatch, shards=3)
    assert outcome.report("three", 2)["counters"] == report["counters"]
    for variable, value in of_model(weights).items():
        found = [outcome.weights("three", rank)[variable] for rank in range(3)]
        np.testing.assert_array_equal(found[1], found[0], err_msg=variable)
        np.testing.assert_array_equal(found[2], found[0], err_msg=variable)
        np.testing.assert_allclose(found[0], value, rtol=0, atol=TOLERANCE, err_msg=variable)


def test_an_evaluator_follows_two_workers_and_its_results_end_their_run(tmp_path):
    root = pathlib.Path(__file__).parent.parent.parent
    command = [sys.executable, root / "examples" / "local_workers.py", "2+evaluator"]
    command += ["-m", "tests.agents.distributed_roles", tmp_path]
    variables = {**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        command, env=variables, cwd=root, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names = ("worker.0", "worker.1", "evaluator.0")
    chief, worker, evaluator = (json.loads((tmp_path / f"{n}.json").read_text()) for n in names)
    assert len({each["pid"] for each in (chief, worker, evaluator)}) == 3
    assert 48 <= chief["step"] == worker["step"] < 100_000
    assert chief["why"].startswith("return_mean ")
    assert worker["why"] == "another worker asked to stop"
    # The evaluator ended with the last weights, and has exported them.
    run = tmp_path / "run"
    assert evaluator["results"]["global_step"] == chief["step"]
    assert pgest_checkpoints.latest(str(run)).endswith(f"-{chief['step']}")
    assert {pathlib.Path(path).parent.name for path in evaluator["exports"]} >= {"final", "latest"}
    assert (run / "best" / "best.json").exists() and list((run / "eval").glob("*tfevents*"))
    for each in (chief, worker):
        assert (each["results"], each["exports"]) == ({}, [])
