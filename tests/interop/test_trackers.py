"""What Weights & Biases and MLflow have of a run, read from the files of the real libraries."""

import json

import pytest

from tests.interop import own_environments

pytestmark = [pytest.mark.interop, pytest.mark.slow]


def run(*arguments):
    try:
        own_environments.TRACKERS.python()
    except own_environments.NotAvailableError as reason:
        pytest.skip(f"no trackers: {reason}")
    printed = own_environments.TRACKERS.run("track_runs.py", *arguments, with_pgest=True)
    return json.loads(printed.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    return run(str(tmp_path_factory.mktemp("tracked")))


SETTINGS = {
    "algorithm": "VPG",
    "environment": "CartPole-v1",
    "hidden_sizes": "(4,)",
    "horizon": 20,
    "seed": 0,
}
STEPS = [1, 2, 4, 6, 8]  # the first update, and every second


def test_wandb_has_settings_scalars_against_timesteps_and_the_policy(tracked):
    found = tracked["wandb"]
    assert found["runs"] == [tracked["ids"][0]]
    (config,) = found["config"]
    wanted = {**SETTINGS, "mine": 1}
    assert {name: config[name] for name in wanted} == wanted
    assert found["axes"] == [["*", "timestep"]]
    rows = found["rows"]
    *updates, last = rows
    assert [row["step"] for row in updates] == STEPS
    assert [row["timestep"] for row in rows] == [20 * step for step in STEPS] + [160]
    assert all({"loss", "policy/entropy", "learning_rate"} <= row.keys() for row in updates)
    assert "loss" not in last and "eval/return_mean" in last, "the evaluation at the end"
    evaluated = [row["eval/return_mean"] for row in rows if "eval/return_mean" in row]
    assert max(evaluated) == tracked["return"]
    assert any("episode/return" in row for row in rows)
    ((kind, names),) = found["artifacts"]
    assert kind == "model" and "saved_model.pb" in names
    assert found["exits"] == [0]


def test_mlflow_has_settings_scalars_against_timesteps_and_the_policy(tracked):
    (found,) = tracked["mlflow"]
    assert (found["experiment"], found["name"], found["status"]) == ("tests", "a run", "FINISHED")
    wanted = {name: str(value) for name, value in SETTINGS.items()}
    assert {name: found["params"][name] for name in wanted} == wanted
    assert [step for step, _ in found["metrics"]["loss"]] == [20 * step for step in STEPS]
    assert max(value for _, value in found["metrics"]["eval/return_mean"]) == tracked["return"]
    assert "policy/saved_model.pb" in found["artifacts"]


def test_a_killed_run_that_goes_on_is_one_run_there(tracked):
    again = tracked["again"]
    assert again["ids"] == tracked["ids"]
    assert set(again["wandb"]["runs"]) == {again["ids"][0]}
    (before,), (found,) = tracked["mlflow"], again["mlflow"]
    assert found["status"] == "FINISHED"
    for name, points in before["metrics"].items():
        assert found["metrics"][name] == points, "each point is there once"
    rows = again["wandb"]["rows"]
    updates = [(row["timestep"], row["loss"]) for row in rows if "loss" in row]
    assert [x for x, _ in updates[len(STEPS) :]] == [120, 160], "from the checkpoint on"
    assert len(set(updates)) == len(STEPS), "with equal values"


def test_a_run_that_fails_is_marked(tracked):
    assert tracked["failed"] == [[1], "FAILED"]


def test_the_interquartile_mean_is_that_of_rliable():
    means, wanted, low, high = run("iqm")
    assert means == pytest.approx(wanted, abs=1e-9)
    assert all(lower < mean < upper for lower, mean, upper in zip(low, means, high, strict=True))
