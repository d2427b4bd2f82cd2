import csv
import json
import resource

import pytest

from pgest import hooks
from pgest.hooks import monitor
from tests.hooks.hooks_driver import PayEnv, Run, Update

UPDATES = [
    Update(timesteps=10, seconds=2.0, metrics={"loss": 0.5}),
    Update(timesteps=10, returns=[1.0, 3.0], seconds=2.0, metrics={"loss": 0.25}),
]


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def objects(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_row_an_update_and_columns_that_come_later(tmp_path):
    hook = hooks.CSVLoggerHook()
    Run(tmp_path).drive([hook], UPDATES)
    assert hook.path == str(tmp_path / "updates.csv")
    assert (tmp_path / "updates.csv").read_text() == (
        "step,timestep,episode,seconds,loss,episode/return,episode/length\n"
        "1,10,0,2.0,0.5,,\n"
        "2,20,2,4.0,0.25,2.0,10.0\n"
    )


def test_a_row_an_episode(tmp_path):
    info = {"is_success": 1.0, "of, course": 0.5}
    updates = [Update(timesteps=10, returns=[1.0], info=info), Update(timesteps=7, returns=[3.0])]
    updates.append(Update(timesteps=5, returns=[9.0], complete=False))
    chosen = [hook(rows="episodes") for hook in (hooks.CSVLoggerHook, hooks.JSONLinesHook)]
    Run(tmp_path).drive(chosen, updates)
    first, second = rows(tmp_path / "episodes.csv")
    assert (first["timestep"], first["episode/return"]) == ("10", "1.0")
    assert (first["episode/is_success"], first["episode/of, course"]) == ("1.0", "0.5")
    assert (second["episode"], second["episode/return"]) == ("2", "3.0")
    assert second["episode/is_success"] == ""
    assert [row["episode/return"] for row in objects(tmp_path / "episodes.jsonl")] == [1.0, 3.0]
    assert "episode/is_success" not in objects(tmp_path / "episodes.jsonl")[1]


def test_the_last_evaluation_has_its_row(tmp_path):
    evaluation = hooks.EvaluationHook(PayEnv(), monitor.Every(steps=2), episodes=1)
    updates = [Update(weight=float(step)) for step in (1, 2, 3)]
    Run(tmp_path).drive([evaluation, hooks.CSVLoggerHook()], updates)
    found = [row["eval/return_mean"] for row in rows(tmp_path / "updates.csv")]
    assert found == ["", "2.0", "", "3.0"]


def test_json_has_null_for_what_is_no_number(tmp_path):
    hook = hooks.JSONLinesHook(tmp_path / "new" / "log.jsonl")
    Run().drive([hook], [Update(metrics={"loss": float("nan"), "other": float("inf")})])
    (row,) = objects(tmp_path / "new" / "log.jsonl")
    assert row["loss"] is None and row["other"] is None and row["step"] == 1


def test_a_row_is_there_as_soon_as_it_is_known(tmp_path):
    class Looks(monitor.BaseMonitor):
        def after_run(self, context):
            assert rows(tmp_path / "updates.csv")[-1]["step"] == str(context.step)

    Run(tmp_path).drive([hooks.CSVLoggerHook(), Looks()], UPDATES)


@pytest.mark.parametrize("kind", [hooks.CSVLoggerHook, hooks.JSONLinesHook])
def test_a_second_run_appends_and_a_new_model_begins_anew(kind, tmp_path):
    path = tmp_path / "rows"
    run = Run()
    run.drive([kind(path)], UPDATES)
    once = path.read_text().splitlines()
    run.drive([kind(path)], [Update()])
    assert path.read_text().splitlines()[: len(once)] == once
    assert len(path.read_text().splitlines()) == len(once) + 1
    Run().drive([kind(path)], UPDATES)
    assert path.read_text().splitlines() == once


@pytest.mark.parametrize("kind", [hooks.CSVLoggerHook, hooks.JSONLinesHook])
def test_half_a_row_of_a_dead_writer_is_cut_off(kind, tmp_path):
    path, run = tmp_path / "rows", Run()
    run.drive([kind(path)], UPDATES)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 3,3')
    run.drive([kind(path)], [])
    assert path.read_bytes() == whole
    path.write_bytes(whole[:10])  # within the first line
    run.drive([kind(path)], [])
    assert path.read_bytes() == b""


@pytest.mark.parametrize("kind", [hooks.CSVLoggerHook, hooks.JSONLinesHook])
def test_another_file_is_left_as_it_is(kind, tmp_path):
    path = tmp_path / "rows"
    path.write_text("my notes\nand more\n")
    with pytest.raises(ValueError, match="holds something else .* choose another path"):
        Run().drive([kind(path)], UPDATES)
    assert path.read_text() == "my notes\nand more\n"


def test_a_full_disk_is_told_and_leaves_whole_rows(tmp_path):
    """Files cannot grow beyond what is set: writing fails in the middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "rows"
    message = r"JSONLinesHook could not write to .*rows.: .*too large.* and train again"
    run = Run()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        with pytest.raises(OSError, match=message):
            run.drive([hooks.JSONLinesHook(path)], UPDATES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [row["step"] for row in objects(path)] == [1]
    run.error = None
    run.drive([hooks.JSONLinesHook(path)], UPDATES)
    assert [row["step"] for row in objects(path)] == [1, 3, 4]


def test_other_rows_are_refused():
    with pytest.raises(ValueError, match='takes rows="updates" or rows="episodes"; got .steps.'):
        hooks.CSVLoggerHook(rows="steps")
