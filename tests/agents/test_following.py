"""The parts of a chief and of an evaluator, one after the other in one process."""

import json

import pytest

import pgest
from pgest.agents import following
from pgest.hooks import monitor
from tests import model_fns

CARTPOLE = "CartPole-v1"
NOW = {"throttle_secs": 0, "start_delay_secs": 0, "episodes": 2}
CHIEF, EVALUATOR = ("chief", {"chief": ["a:1"]}), ("evaluator", {"chief": ["a:1"]})


def is_task(monkeypatch, kind, cluster):
    task = {"type": kind, "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))


def new_agent(directory):
    config = pgest.RunConfig(
        tf_random_seed=3, jit_compile=False, save_checkpoints_steps=2, keep_checkpoint_max=1
    )
    memory = pgest.BatchMemory(batch_size=32)
    return pgest.PGAgent(model_fns.policy_gradient, memory, model_dir=directory, config=config)


class Evaluates(pgest.BaseMonitor):
    """Does what the evaluator would, while training goes on."""

    def __init__(self, book):
        self.book = book

    def after_run(self, context):
        self.book.add(monitor.Evaluation(None, context.step, 0, 0, {"return_mean": context.step}))


@pytest.mark.slow
def test_an_evaluator_evaluates_what_the_chief_has_trained(tmp_path, monkeypatch):
    train_spec = pgest.TrainSpec(CARTPOLE, max_steps=3)
    exporters = [pgest.BestExporter(), pgest.LatestExporter(), pgest.FinalExporter()]
    eval_spec = pgest.EvalSpec(CARTPOLE, exporters=exporters, **NOW)
    is_task(monkeypatch, *CHIEF)
    agent = new_agent(tmp_path)
    assert pgest.train_and_evaluate(agent, train_spec, eval_spec) == ({}, [])
    assert agent.global_step == 3
    assert not (tmp_path / "eval").exists() and not (tmp_path / "export").exists()
    is_task(monkeypatch, *EVALUATOR)
    results, exports = pgest.train_and_evaluate(new_agent(tmp_path), train_spec, eval_spec)
    assert results == agent.evaluate(CARTPOLE, episodes=2)
    assert [path.split("/")[-2] for path in exports] == ["best", "latest", "final"]
    record = json.loads((tmp_path / "best/best.json").read_text())
    assert (record["return"], record["step"]) == (results["return_mean"], 3)
    (made,) = following.Book(str(tmp_path), (3, None)).evaluations()
    assert (made.step, made.results) == (3, results)


def test_evaluations_of_another_process_end_the_training(tmp_path, monkeypatch):
    is_task(monkeypatch, *CHIEF)
    agent, book = new_agent(tmp_path), following.Book(str(tmp_path), (50, None))
    book.add(monitor.Evaluation(None, 0, 0, 0, {"return_mean": 99.0}))  # of an earlier run
    hooks = [pgest.stop_if_higher_hook(agent, "return_mean", 1.5), Evaluates(book)]
    spec = pgest.TrainSpec(CARTPOLE, max_steps=50, hooks=hooks)
    pgest.train_and_evaluate(agent, spec, pgest.EvalSpec(CARTPOLE, **NOW))
    # Step 2 was evaluated after the hooks of step 2 had looked.
    assert (agent.global_step, agent.stop_reason) == (3, "return_mean 2 > 1.5")
    assert book.has_ended_at(agent.latest_checkpoint())
    # With other limits it has not ended.
    assert not following.Book(str(tmp_path), (60, None)).has_ended_at(agent.latest_checkpoint())


@pytest.mark.parametrize(
    ("kind", "cluster", "model_dir", "says"),
    [
        ("chief", {"chief": ["a:1"]}, None, "runs as chief of a cluster, and .* no model_dir"),
        ("worker", {"worker": ["a:1", "b:1"]}, "run", "names 2 processes.* no train_distribute"),
        ("ps", {"worker": ["a:1"], "ps": ["b:1"]}, "run", "has the task 'ps'"),
    ],
)
def test_who_has_no_part_is_told(kind, cluster, model_dir, says, tmp_path, monkeypatch):
    is_task(monkeypatch, kind, cluster)
    agent = new_agent(None if model_dir is None else tmp_path / model_dir)
    with pytest.raises(ValueError, match=says):
        pgest.train_and_evaluate(
            agent, pgest.TrainSpec(CARTPOLE, max_steps=1), pgest.EvalSpec(CARTPOLE)
        )


def test_a_worker_that_is_alone_evaluates_by_itself(tmp_path, monkeypatch):
    is_task(monkeypatch, "worker", {"worker": ["a:1"]})
    results, _ = pgest.train_and_evaluate(
        new_agent(tmp_path), pgest.TrainSpec(CARTPOLE, max_steps=2), pgest.EvalSpec(CARTPOLE, **NOW)
    )
    assert results["global_step"] == 2


@pytest.mark.parametrize("damaged", [b"", b"\xff\xfe", b"[1", b"3", b'[{"no": 1}]'])
def test_damaged_evaluations_count_as_none_and_are_replaced(tmp_path, damaged):
    book = following.Book(str(tmp_path), (3, None))
    made = monitor.Evaluation(None, 1, 2, 3, {"return_mean": 4.0})
    book.add(made)
    (tmp_path / "evaluator" / "evaluations.json").write_bytes(damaged)
    with pytest.warns(UserWarning, match=r"evaluations\.json' is damaged .* counts as not written"):
        book.add(made)
    assert book.evaluations() == [made]
