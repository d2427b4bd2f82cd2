"""Curves of runs read back from real event files, and what is drawn of them."""

import sys

import matplotlib
import numpy as np
import pytest
from click.testing import CliRunner

import pgest
from pgest import hooks
from pgest.commands import program
from pgest.hooks import curves, monitor, plots
from tests.hooks.hooks_driver import PayEnv, Run, Update

matplotlib.use("Agg")


def write_run(directory, returns, every=10, unfinished=()):
    """A run with an update every so many timesteps, and episodes of a batch that was not filled."""
    run = Run(directory)
    hook = hooks.SummarySaverHook(monitor.Every(steps=1))
    hook.begin(run)
    for number, total in enumerate(returns, 1):
        run._act([hook], Update(timesteps=every, returns=[total]))
        run._update([hook], Update(metrics={"loss": 1.0 / number}))
    run._act([hook], Update(timesteps=3, returns=list(unfinished)))
    hook.end(run)
    run.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds of one kind, and a single run of another."""
    directory = tmp_path_factory.mktemp("runs")
    for seed, slope in enumerate((1.0, 2.0, 6.0)):
        write_run(directory / "ppo" / f"seed{seed}", slope * np.arange(1, 6))
    write_run(directory / "vpg", [5.0, 7.0], every=20)
    return directory


def test_the_points_of_a_run(tmp_path):
    write_run(tmp_path, [10.0, 20.0], unfinished=[1.0, 2.0])
    found = curves.read(tmp_path, ["episode/return", "loss", "nothing"], "timestep")
    assert set(found) == {"episode/return", "loss"}
    assert found["loss"].tolist() == [[10.0, 1.0], [20.0, 0.5]]
    # The episodes after the last update are those that fitted into what was left of the batch.
    assert found["episode/return"].tolist() == [[10.0, 10.0], [20.0, 20.0]]
    seconds = curves.read(tmp_path, ["episode/return"], "seconds")["episode/return"]
    assert seconds[0, 0] == 0.0 and seconds[1, 0] > 0.0


def test_evaluations_are_read_from_their_directory(tmp_path):
    agent = pgest.PGAgent(
        pgest.models.VPG(hidden_sizes=(4,)),
        pgest.BatchMemory(10),
        model_dir=tmp_path,
        config=pgest.RunConfig(tf_random_seed=0, jit_compile=False),
    )
    agent.train("CartPole-v1", timesteps=20)
    result = agent.evaluate("CartPole-v1", episodes=2)
    found = curves.read(tmp_path, ["eval/episode/return"], "timestep")
    assert found["eval/episode/return"].tolist() == [[20.0, result["return_mean"]]]


def test_runs_of_several_seeds_belong_together(runs, tmp_path):
    found = curves.groups(runs)
    assert found == {
        "ppo": [str(runs / "ppo" / f"seed{seed}") for seed in range(3)],
        "vpg": [str(runs / "vpg")],
    }
    assert curves.groups([runs / "ppo" / "seed1", runs]) == {
        "ppo": [str(runs / "ppo" / f"seed{seed}") for seed in (1, 0, 2)],
        "vpg": [str(runs / "vpg")],
    }
    assert list(curves.groups({"mine": runs / "ppo", "other": [runs / "vpg"]})) == ["mine", "other"]
    for name in ("a", "b"):
        write_run(tmp_path / name / "ppo" / "seed0", [1.0])
    assert sorted(curves.groups(tmp_path)) == ["a/ppo", "b/ppo"]
    with pytest.raises(ValueError, match="holds no run"):
        curves.groups(runs / "nowhere")


def test_the_median_and_the_quartiles_of_seeds():
    """Three lines from 10 to 50 of slopes 1, 2 and 6; one of them ends at 40."""
    rows = [np.array([[x, slope * x] for x in (10.0, 30.0, 50.0)]) for slope in (1.0, 2.0, 6.0)]
    rows[1] = np.array([[0.0, 0.0], [40.0, 80.0]])
    grid, middle, low, high = plots.summary(rows, "median")
    assert (grid[0], grid[-1]) == (10.0, 40.0)
    np.testing.assert_allclose(middle, 2 * grid)
    np.testing.assert_allclose(low, 1.5 * grid)
    np.testing.assert_allclose(high, 4 * grid)


def test_the_figure_has_a_line_for_each_kind(runs):
    figure = pgest.plot_runs(runs, "episode/return", "loss")
    top, bottom = figure.axes
    assert (top.get_ylabel(), bottom.get_ylabel()) == ("episode/return", "loss")
    assert bottom.get_xlabel() == "timestep"
    (ppo, vpg) = top.get_lines()
    assert (ppo.get_label(), vpg.get_label()) == ("ppo (3 seeds)", "vpg")
    np.testing.assert_allclose(ppo.get_ydata(), 0.2 * ppo.get_xdata())  # 2 in ten timesteps
    np.testing.assert_array_equal(vpg.get_xydata(), [[20, 5.0], [40, 7.0]])
    assert len(top.collections) == 1, "a band"
    assert [axes.get_ylabel() for axes in pgest.plot_runs(runs).axes] == ["episode/return"]


def test_smoothing_draws_the_points_pale_behind(runs):
    (axes,) = pgest.plot_runs(runs / "vpg", smooth=2).axes
    smooth, points = axes.get_lines()
    assert smooth.get_ydata().tolist() == [5.0, 6.0] and points.get_ydata().tolist() == [5.0, 7.0]
    assert points.get_alpha() < 1 and points.get_color() == smooth.get_color()


def test_what_cannot_be_drawn_is_told(runs, monkeypatch):
    with pytest.raises(ValueError, match="No run has points of 'episode/retrun'"):
        pgest.plot_runs(runs, "episode/retrun")
    with pytest.raises(ValueError, match="statistic='mean'; expected median or iqm"):
        pgest.plot_runs(runs, statistic="mean")
    with pytest.raises(ValueError, match="x='step'; expected timestep or seconds"):
        pgest.plot_runs(runs, x="step")
    monkeypatch.setitem(sys.modules, "rliable", None)
    monkeypatch.setitem(sys.modules, "rliable.library", None)
    with pytest.raises(ImportError, match=r"needs rliable.*pip install 'pgest\[plot\]'"):
        pgest.plot_runs(runs, statistic="iqm")


def test_the_history_is_drawn_without_a_batch_that_was_not_filled():
    history, run = hooks.HistoryHook(), Run()
    evaluation = hooks.EvaluationHook(PayEnv(), monitor.Every(steps=2), episodes=1)
    chosen = [evaluation, history]
    for hook in chosen:
        hook.begin(run)
    for total in (10.0, 20.0, 60.0):
        run._act(chosen, Update(timesteps=10, returns=[total]))
        run._update(chosen, Update(metrics={"loss": total}))
    run._act(chosen, Update(timesteps=3, returns=[1.0]))
    for hook in chosen:
        hook.end(run)
    assert [record["timestep"] for record in history.records] == [10, 20, 30, 33]
    returns, evaluations, losses = history.plot().axes
    np.testing.assert_array_equal(
        returns.get_lines()[0].get_xydata(), [[10, 10], [20, 20], [30, 60]]
    )
    assert losses.get_lines()[0].get_xdata().tolist() == [10, 20, 30]
    assert evaluations.get_lines()[0].get_xdata().tolist() == [20, 33]
    (axes,) = history.plot("episode/return", smooth=2).axes
    smooth, points = (line.get_ydata().tolist() for line in axes.get_lines())
    assert (smooth, points) == ([10.0, 15.0, 40.0], [10.0, 20.0, 60.0])
    with pytest.raises(ValueError, match=r"plot\(smooth=…\) takes a positive integer; got 0"):
        history.plot(smooth=0)


def test_the_history_between_updates_is_drawn_where_it_was_asked_for():
    history, run = hooks.HistoryHook(monitor.Every(timesteps=5)), Run()
    run.drive([history], [Update(timesteps=5, returns=[float(n)], steps=0) for n in range(1, 4)])
    (axes,) = history.plot("episode/return").axes
    assert axes.get_lines()[0].get_ydata().tolist() == [1.0, 2.0, 3.0]


def test_the_command_writes_a_picture_or_says_why_not(runs, tmp_path):
    def call(*arguments):
        return CliRunner().invoke(program.pgest, ["plot", *map(str, arguments)])

    picture = tmp_path / "new" / "curves.png"
    done = call(runs, "-o", picture, "--smooth", 2, "--tag", "loss", "episode/return")
    assert (done.exit_code, done.output.strip()) == (0, str(picture))
    assert matplotlib.image.imread(picture).shape[2] == 4
    wrong = call(runs / "nowhere")
    assert wrong.exit_code == 2 and "holds no run" in wrong.output
    wrong = call(runs, "-o", tmp_path / "curves.txt")
    assert wrong.exit_code == 1 and "cannot be written" in wrong.output
    assert call(runs, "--statistic", "mean").exit_code == 2
