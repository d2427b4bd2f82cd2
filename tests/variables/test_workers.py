"""Which worker a process is, and what a lost one says; several workers are in test_distributed."""

import json

import pytest
import tensorflow as tf

import pgest
from pgest.variables import workers
from tests import model_fns

CLUSTER = {"worker": ["a:1", "b:1"], "evaluator": ["c:1"]}


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "count", "rank"),
    [
        ({}, None, None, 1, 0),
        (CLUSTER, "worker", 0, 2, 0),
        (CLUSTER, "worker", 1, 2, 1),
        (CLUSTER, "evaluator", 0, 2, None),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "chief", 0, 3, 0),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "worker", 1, 3, 2),
    ],
)
def test_the_place_in_a_cluster(cluster, kind, index, count, rank, monkeypatch):
    task = workers.Task.of(cluster, kind, index)
    assert (task.num_workers, task.rank) == (count, rank)
    text = json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})
    monkeypatch.setenv("TF_CONFIG", text)
    config = pgest.RunConfig()
    assert (config.task_type, config.task_id) == (kind or "worker", index or 0)
    assert (config.num_worker_replicas, config.is_chief) == (count, rank == 0)


def test_without_a_cluster_a_process_is_the_chief(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    config = pgest.RunConfig()
    assert config.is_chief and config.num_worker_replicas == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"cluster": 3}', '{"task": {"index": "x"}}'])
def test_a_wrong_tf_config_is_shown(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG is .* expected JSON such as"):
        _ = pgest.RunConfig().is_chief


def test_a_mean_over_one_worker_is_the_number_itself():
    seen = []

    def model_fn(features, labels, mode, params):
        if mode == pgest.Modes.TRAIN:
            seen.append(pgest.mean_over_workers([1.0, 2.0]))
        return model_fns.policy_gradient(features, labels, mode, params)

    agent = pgest.PGAgent(model_fn, pgest.RolloutMemory(8))
    agent.check("CartPole-v1", timesteps=0)
    assert tf.get_static_value(seen[0]).tolist() == [1.0, 2.0]


def test_a_mean_is_of_floats_and_inside_a_model_fn():
    with pytest.raises(TypeError, match="mean_over_workers got int32; expected floats"):
        pgest.mean_over_workers(tf.constant(1))
    with pytest.raises(RuntimeError, match="only inside a model_fn"):
        pgest.mean_over_workers(tf.constant(1.0))


class OneOfTwo(workers.Workers):
    """The second of two, of which nothing is exchanged."""

    def __init__(self):
        self.rank, self.count, self._lost = 1, 2, False


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (tf.errors.UnavailableError(None, None, "Collective ops is aborted"), "has ended"),
        (tf.errors.DeadlineExceededError(None, None, "Collective"), "within the timeout_seconds"),
        (tf.errors.InternalError(None, None, "coordination service"), "has ended"),
    ],
)
def test_the_error_of_a_collective_says_what_to_do(error, says):
    with pytest.raises(pgest.WorkerLostError, match=f"Worker 1 of 2 .*{says}.* Start all workers"):
        with OneOfTwo().watched():
            raise error


def test_other_errors_stay_what_they_are():
    with pytest.raises(tf.errors.InvalidArgumentError):
        with OneOfTwo().watched():
            raise tf.errors.InvalidArgumentError(None, None, "a shape")


def test_environments_of_a_second_worker_begin_with_other_seeds():
    from pgest.environments import making, worker

    with making.make("CartPole-v1", 2, seed=4) as view:
        whole = making.make("CartPole-v1", 4, seed=4)
        view.first_index = 2
        view.reset(7)
        whole.reset(7)
        assert (view.observe() == whole.observe()[2:]).all()
        assert worker.episode_seed(4, 2, 7) != worker.episode_seed(4, 0, 7)
        whole.close()
