"""Whatever is trained, and whenever it is killed: started again, it ends as if nothing had been."""

import json
import os
import pathlib
import signal
import tempfile

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings

from tests.agents import killed_programs
from tests.agents.test_tensorboard import read

pytestmark = pytest.mark.slow

WANTED = os.environ.get("PGEST_PROGRAMS")


@pytest.fixture(scope="module")
def starter():
    starter = killed_programs.Starter()
    yield starter
    starter.close()


def points(directory):
    """TensorBoard's points, each x once; without speeds, and what each process says of itself."""
    found = {}
    for tag, curve in read(directory).items():
        steps = [step for step, _ in curve]
        if tag.startswith(("_hparams_", "speed")) or tag == "run":
            continue
        assert len(set(steps)) == len(steps), f"{tag}: {steps}"
        found[tag] = [(step, value.tobytes()) for step, value in curve]
    return found


def ended(directory):
    """What a program ended with, whatever can be compared; and what belongs to its last life."""
    run = directory / "run"
    with np.load(directory / "end.npz") as file:
        weights = {name: (file[name].dtype.str, file[name].tobytes()) for name in file}
    best = run / "best" / "best.json"
    record = json.loads(best.read_text()) if best.exists() else {}
    record.pop("checkpoint", None)  # its name counts how many there were of one step
    document = json.loads((directory / "end.json").read_text())
    return {
        "weights": weights,
        "points": points(run),
        "evaluations": points(run / "eval"),
        "best": record,
    }, document


def killed_at(moment, **others):
    """A small program that is killed once, with other settings for its `program`."""
    program = {
        "algorithm": "PPO", "observation": "several", "action": "double",
        "episodes": [(7, False), (3, False)], "kind": "SAME_STEP", "keeps": True, "num_envs": 3,
        "memory": ("timesteps", 24), "calls": [("max_episodes", 6)], "comes_back": [], "seed": 602,
        "update": {
            "epochs": 3, "minibatch_size": 13, "discount": 0.9, "gae_lambda": 0.95,
            "normalize_advantage": False,
        },
    }  # fmt: skip
    return killed_programs.Killed(
        program={**program, **others},
        clock={"episodes": 1},
        config={"overlap_updates": False},
        model={"normalize_observation": False, "normalize_reward": True},
        saver_is_first=True,
        kills=[moment],
    )


# Between the last timestep and the last update; in the second call of train.
@example(killed=killed_at(("episode", 7)))
@example(killed=killed_at(("timestep", 40), calls=[("max_episodes", 6), ("max_timesteps", 75)]))
@settings(
    max_examples=int(WANTED or 3),
    derandomize=WANTED is None,
    database=None,
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate],  # to shrink one takes a quarter of an hour
    suppress_health_check=list(HealthCheck),
)
@given(killed_programs.killed())
def test_a_killed_program_ends_as_one_that_was_left_alone(starter, killed):
    with tempfile.TemporaryDirectory() as folder:
        whole, other = pathlib.Path(folder) / "whole", pathlib.Path(folder) / "killed"
        for directory in (whole, other):
            directory.mkdir()
        assert starter.run(killed, whole) == 0, (whole / "error.txt").read_text()
        for moment in [*killed.kills, None]:
            status = starter.run(killed, other, moment)
            assert status in (0, -signal.SIGKILL), (other / "error.txt").read_text()
            if status == 0:
                break
        (wanted, heard), (found, last) = ended(whole), ended(other)
        for name, value in wanted.items():
            assert found[name] == value, name
        for name in ("told", "records"):  # by hooks, a list a call
            before = last["before"]
            assert not any(last[name][:before]), name
            assert repr(last[name][before:]) == repr(heard[name][before:]), name
        for (book, actions), (rest, taken) in zip(heard["books"], last["books"], strict=True):
            at = len(book) - len(rest)
            assert (book[at:], actions[at:]) == (rest, taken)
