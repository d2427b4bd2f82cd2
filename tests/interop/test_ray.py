"""The examples with Ray: searches, workers that are lost, and environments in actors."""

import json

import pytest

from tests.interop import own_environments

pytestmark = [pytest.mark.interop, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a part of `ray_runs.py`, and gives its directory and what it printed last."""
    try:
        own_environments.RAY.python()
    except own_environments.NotAvailableError as reason:
        pytest.skip(f"no Ray: {reason}")

    def of(what):
        directory = tmp_path_factory.mktemp(what)
        # Each worker of Ray's is a process that imports TensorFlow anew.
        printed = own_environments.RAY.run(
            "ray_runs.py", what, str(directory), with_pgest=True, timeout=1200
        )
        return directory, json.loads(printed.strip().splitlines()[-1])

    return of


def test_asha_ends_trials_early(run):
    directory, found = run("asha")
    assert found["errors"] == 0
    turns = {float(rate): turn for rate, turn in found["turns"].items()}
    assert len(turns) == 4 and all(1 <= turn <= 4 for turn in turns.values())
    assert max(turns[3e-3], turns[2e-3]) == 4, "a good one came to its end"
    # All begin with the same weights, whose greedy return is 9: they stay behind from the start.
    assert max(turns[1e-7], turns[2e-7]) < 4, "those that learn nothing did not"
    assert sorted(found["timesteps"]) == sorted(1024 * turn for turn in turns.values())
    assert (directory / "asha.png").stat().st_size > 5000
    # An update is a point: 4 environments x 128 timesteps.
    assert sorted(found["curves"]) == sorted(2 * turn for turn in turns.values())


def test_a_trial_of_a_population_goes_on_with_the_weights_of_a_better_one(run):
    _, found = run("pbt")
    assert found["errors"] == 0 and found["turns"] == [2, 2]
    taken = [note for note in found["begun"] if note["parent"] != note["child"]]
    assert taken, found["begun"]
    for note in found["begun"]:
        assert note["equal"], "the weights at the start are those of the checkpoint"
        assert note["timestep"] % 1024 == 0 and note["timestep"] > 0
    # It goes on with another learning rate, drawn or near the better trial's.
    assert all(note["rate"] not in (3e-3, 1e-7) for note in taken)


def test_environments_in_actors_are_a_vector_and_dead_actors_are_replaced(run):
    _, found = run("environments")
    assert found["after_kill"] == {
        "rewards": [0.0, 0.0],
        "terminated": [False, False],
        "truncated": [True, True],
        "moved": True,
    }
    assert (found["steps"], found["timesteps"]) == (250, 1000), "4 environments, one killed actor"
    assert found["episodes"] == found["ends"] > 10


def test_a_run_goes_on_to_its_end_after_a_worker_was_killed(run):
    _, found = run("train")
    assert found["error"] == ""
    assert found["metrics"]["timesteps"] == 8192
    begun = found["begun"]
    assert sorted(begun) == ["0.0", "0.1", "1.0", "1.1"], "both were started again, once"
    # The kill came in the update after 6,144 timesteps, and Ray had a checkpoint of 4,096.
    assert [begun[name]["timestep"] for name in sorted(begun)] == [0, 0, 4096, 4096]
    assert len({note["pid"] for note in begun.values()}) == 4
    # 2 workers x 8 environments x 128 timesteps an update of 4 x 4 steps.
    assert "model.ckpt-64.index" in found["checkpoint"]
