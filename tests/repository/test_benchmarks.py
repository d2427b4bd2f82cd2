"""What the benchmarks share: pieces in turn, ratios of neighbours, results that stay."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
PROGRAMS = ("training_speed", "limits", "loop_profile", "footprint", "resume")


@pytest.fixture
def measuring(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from support import measuring

    monkeypatch.setattr(measuring, "RESULTS", tmp_path)
    return measuring


def test_contestants_take_turns_and_neighbours_make_the_ratio(measuring):
    turns, seconds = [], iter([9.0, 9.0, 1.0, 2.0, 10.0, 30.0, 1.0, 4.0])

    def contestant(name):
        def piece():
            turns.append(name)
            return measuring.Piece(100, next(seconds), 0.5)

        return piece

    timings = measuring.alternate({"a": contestant("a"), "b": contestant("b")}, rounds=3)
    assert turns == ["a", "b"] * 4  # the first pair warms up
    row = measuring.compared("work", timings, "a", "b", goal=2.0)
    assert (row["ratio lowest"], row["ratio"], row["ratio highest"]) == (2.0, 3.0, 4.0)
    assert (row["a timesteps/s"], row["b timesteps/s"]) == (100, 25)
    assert row["a CPU us/timestep"] == 5000.0


def test_a_limit_of_time_leaves_three_rounds(measuring):
    pieces = {"a": lambda: measuring.Piece(1, 1.0, 1.0)}
    assert len(measuring.alternate(pieces, rounds=9, seconds=0.0)["a"].rates) == 3


def test_rows_are_kept_and_those_measured_again_replaced(measuring, tmp_path):
    measuring.store("speed", [{"work": "x", "not measured": "no JAX"}, {"work": "y", "n": 1}], {})
    measuring.store("speed", [{"work": "x", "ratio": 2.0}], {})
    measuring.store("speed", [{"work": "x", "return": 7}], {})
    measuring.store("speed", [{"work": "y", "n": 9}], {}, keep=False)
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [(row["work"], row.get("n")) for row in rows] == [("x", None), ("y", 1)]
    assert (rows[0]["ratio"], rows[0]["return"]) == (2.0, 7)
    assert "not measured" not in rows[0]


def test_a_contestant_answers_and_says_why_it_ended(measuring, tmp_path, monkeypatch):
    from support import serving

    package = tmp_path / "contestants"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "support").symlink_to(BENCHMARKS / "support")
    (package / "counting.py").write_text(
        "from support import serving\n"
        "class Trainer:\n"
        "    def __init__(self, work): self.timesteps = work.num_envs\n"
        "    def train(self, timesteps):\n"
        "        print('no answer')\n"
        "        self.timesteps += timesteps // (timesteps != 13)\n"
        "    def recent_return(self): return 5.0\n"
        "serving.serve(Trainer)\n"
    )
    monkeypatch.setattr(serving, "_BENCHMARKS", tmp_path)
    contestant = serving.Contestant("counting", serving.Work(algorithm="A2C", num_envs=3))
    assert contestant.make().timesteps == 0
    assert contestant.train(10).timesteps == contestant.timesteps == 10
    assert contestant.recent_return == 5.0
    with pytest.raises(serving.ContestantError, match="counting ended.*ZeroDivisionError"):
        contestant.train(13)
    contestant.close()


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_says_how_it_is_called(program):
    command = [sys.executable, str(BENCHMARKS / f"{program}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout and "--rows" in done.stdout


@pytest.mark.slow
def test_a_row_of_the_profile_is_measured_quickly():
    command = [sys.executable, str(BENCHMARKS / "loop_profile.py"), "--quick", "--rows", "steps, 1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "environment" in done.stdout and "update" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PPO, running means", "PPO, overlapped", "LSTM"])
def test_killed_processes_come_back_equal(kind):
    """SIGKILL at random moments, and the same command again."""
    command = [sys.executable, str(BENCHMARKS / "resume.py"), "--quick", "--rows", kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^  (\S.*?) {2,}(\S.*)$", done.stdout, re.MULTILINE))
    assert found["runs"] == found["came back equal"] != "0"
    assert (found["other episodes"], found["other curves"]) == ("0", "0")
