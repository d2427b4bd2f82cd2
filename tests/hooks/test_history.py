import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

from pgest import hooks
from pgest.hooks import monitor
from tests.hooks.hooks_driver import PayEnv, Run, Update

matplotlib.use("Agg")

UPDATES = [
    Update(timesteps=10, returns=[1.0, 3.0], seconds=2.0, metrics={"loss": 0.5}),
    Update(timesteps=10, seconds=2.0, metrics={"loss": 0.25}),
]


def test_a_record_for_each_update():
    history = hooks.HistoryHook()
    Run().drive([history], UPDATES)
    assert history.records == [
        {
            "step": 1,
            "timestep": 10,
            "episode": 2,
            "seconds": 2.0,
            "loss": 0.5,
            "episode/return": 2.0,
            "episode/length": 10.0,
        },
        {"step": 2, "timestep": 20, "episode": 2, "seconds": 4.0, "loss": 0.25},
    ]


def test_records_every_so_often_and_at_the_end():
    history = hooks.HistoryHook(monitor.Every(steps=2))
    Run().drive([history], [Update(returns=[float(i)]) for i in range(5)])
    assert [record["step"] for record in history.records] == [2, 4, 5]
    assert [record["episode/return"] for record in history.records] == [0.5, 2.5, 4.0]


def test_evaluations_are_recorded():
    history = hooks.HistoryHook()
    chosen = [
        hooks.EvaluationHook(PayEnv(), monitor.Every(steps=2)),
        hooks.EvaluationHook(PayEnv(), monitor.Every(steps=2), name="hard"),
        history,
    ]
    Run().drive(chosen, [Update(weight=float(i)) for i in range(3)])
    assert [record.get("eval/return_mean") for record in history.records] == [None, 1.0, None, 2.0]
    assert history.records[1]["eval_hard/return_mean"] == 1.0


def test_a_second_run_goes_on_in_the_same_records():
    history, run = hooks.HistoryHook(), Run()
    run.drive([history], UPDATES)
    run.drive([history], UPDATES)
    assert [record["step"] for record in history.records] == [1, 2, 3, 4]


def test_to_pandas():
    history = hooks.HistoryHook()
    Run().drive([history], UPDATES)
    frame = history.to_pandas()
    assert frame["loss"].tolist() == [0.5, 0.25]
    assert frame["episode/return"][0] == 2.0 and np.isnan(frame["episode/return"][1])


def test_plot_draws_the_points_there_are():
    history = hooks.HistoryHook()
    Run().drive([history], UPDATES)
    figure = history.plot()
    assert [axes.get_ylabel() for axes in figure.axes] == ["episode/return", "loss"]
    (returns,), (loss,) = [axes.get_lines() for axes in figure.axes]
    np.testing.assert_array_equal(returns.get_xydata(), [[10, 2.0]])
    np.testing.assert_array_equal(loss.get_xydata(), [[10, 0.5], [20, 0.25]])


def test_plot_shows_a_single_point_and_evaluations():
    history = hooks.HistoryHook()
    evaluation = hooks.EvaluationHook(PayEnv(), monitor.Every(steps=2), episodes=1)
    Run().drive([evaluation, history], UPDATES)
    figure = history.plot()
    names = [axes.get_ylabel() for axes in figure.axes]
    assert names == ["episode/return", "eval/return_mean", "loss"]
    assert all(axes.get_lines()[0].get_marker() == "." for axes in figure.axes)


def test_a_notebook_shows_a_plot_once(monkeypatch):
    history = hooks.HistoryHook()
    Run().drive([history], UPDATES)
    figure = history.plot()
    assert pyplot.fignum_exists(figure.number)
    monkeypatch.setattr(pyplot, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    assert not pyplot.fignum_exists(history.plot().number)


def test_plot_against_something_else():
    history = hooks.HistoryHook()
    Run().drive([history], UPDATES)
    (axes,) = history.plot("loss", x="seconds").axes
    np.testing.assert_array_equal(axes.get_lines()[0].get_xydata(), [[2, 0.5], [4, 0.25]])


def test_plot_of_an_unknown_name_lists_those_there_are():
    history = hooks.HistoryHook()
    Run().drive([history], UPDATES)
    with pytest.raises(KeyError, match="no record of .'los'.; there are: .*episode/return, loss"):
        history.plot("los")
    with pytest.raises(KeyError, match="no records yet"):
        hooks.HistoryHook().plot()


@pytest.mark.parametrize(
    ("module", "call"), [("pandas", "to_pandas"), ("matplotlib.pyplot", "plot")]
)
def test_a_missing_library_is_named_with_what_installs_it(monkeypatch, module, call):
    # None in sys.modules makes the import machinery itself raise, as where it is not installed.
    monkeypatch.setitem(sys.modules, module, None)
    history = hooks.HistoryHook()
    Run().drive([history], UPDATES)
    with pytest.raises(ImportError, match=rf"{call} needs .*pip install 'pgest\[notebook\]'"):
        getattr(history, call)()


def test_recording_needs_neither_library(monkeypatch):
    for module in ("pandas", "matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, module, None)
    history = hooks.HistoryHook()
    Run().drive([history], UPDATES)
    assert len(history.records) == 2
