"""The statistics of benchmarks/learning.py, and where its table goes."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "benchmarks"))
from support import learning_report, learning_tasks, tables  # noqa: E402


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.0, 1.0, 2.0, 100.0], 1.5),
        ([3.0, 1.0, 2.0], (0.25 * 1 + 2 + 0.25 * 3) / 1.5),
        (list(range(10)), 4.5),
        ([7.0], 7.0),
    ],
)
def test_the_interquartile_mean_is_of_the_middle_half(scores, expected):
    assert learning_report.interquartile_mean(np.array(scores)) == pytest.approx(expected)


def test_the_interval_holds_the_difference_and_shrinks_with_more_seeds():
    generator = np.random.default_rng(1)
    widths = []
    for seeds in (5, 50):
        ours, theirs = generator.normal(3, 1, seeds), generator.normal(0, 1, seeds)
        low, high = learning_report.difference_interval(ours, theirs)
        assert low < 3 < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def rows(**scores):
    return [
        {"task": "cartpole-ppo", "library": library, "seed": str(seed), "return_mean": str(score)}
        for library, found in scores.items()
        for seed, score in enumerate(found)
    ]


@pytest.mark.parametrize(("ours", "holds"), [([100.0] * 4, "yes"), ([80.0] * 4, "**no**")])
def test_the_bound_is_a_tenth_of_what_the_peer_gains(ours, holds):
    found = rows(pgest=ours, random=[20.0]) + [
        {**row, "library": "stable-baselines3"} for row in rows(theirs=[100.0] * 4)
    ]
    (line,) = learning_report.compared(learning_tasks.TASKS, found)
    assert (line["bound"], line["holds"]) == ("-8.0", holds)


def test_a_table_goes_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n", encoding="utf-8")
    for _ in range(2):
        tables.put(page, "x", tables.markdown([{"name": "n", "mean": 1}]))
    text = "| name | mean |\n| --- | --- |\n| n | 1 |"
    assert page.read_text() == f"a\n<!-- x:begin -->\n{text}\n<!-- x:end -->\nb\n"
    with pytest.raises(ValueError, match="has no <!-- y:begin -->"):
        tables.put(page, "y", "")


def test_rows_are_appended_under_one_header(tmp_path):
    path = tmp_path / "results" / "table.csv"
    for value in "12":
        tables.append(path, ("a", "b"), [{"a": value, "b": "x,y"}])
    assert tables.read(path) == [{"a": "1", "b": "x,y"}, {"a": "2", "b": "x,y"}]
    assert tables.read(tmp_path / "none.csv") == []


def test_tasks_are_what_both_libraries_can_run():
    for name, task in learning_tasks.TASKS.items():
        assert name == f"{task.env_id.split('-')[0].lower()}-{task.algorithm.lower()}"
        assert task.seeds >= 3
        batch = task.horizon * task.num_envs
        # Else Stable-Baselines3 would make a last minibatch that pgest makes another way.
        whole = task.algorithm == "A2C" or task.minibatch_size >= batch
        assert whole or batch % task.minibatch_size == 0


def test_equal_libraries_show_the_bound_where_seeds_agree():
    steady, spread = np.full([4], 100.0), np.array([0.0, 100.0, 0.0, 100.0])
    assert learning_report.shown_by_equals(steady, steady, random=20.0) == 1.0
    few = learning_report.shown_by_equals(spread, spread, random=-20.0)
    assert few < 0.5
