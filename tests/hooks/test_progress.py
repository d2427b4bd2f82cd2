import io

import numpy as np
import pytest
from tqdm import auto

from pgest import hooks
from pgest.hooks import monitor
from tests.hooks.hooks_driver import Run, Update


def last_line(limits, updates, *, chosen=(), start=None, **arguments):
    """What the terminal shows when the run has ended."""
    screen = io.StringIO()
    run = Run(limits=limits)
    for counter, value in (start or {}).items():
        setattr(run, counter, value)
    run.drive([hooks.ProgressBarHook(file=screen, **arguments), *chosen], updates)
    return screen.getvalue().replace("\r", "\n").strip().splitlines()[-1].strip()


UPDATES = [Update(timesteps=100, returns=[10.0, 20.0], seconds=0.5)] * 5


@pytest.mark.parametrize(
    ("limits", "progress"),
    [
        (monitor.Limits(max_timesteps=1000), "50%|#####     | 500/1000 timesteps ["),
        (monitor.Limits(max_steps=20), "25%|##5       | 5/20 steps ["),
        (monitor.Limits(max_episodes=10), "100%|##########| 10/10 episodes ["),
        # Steps are at 25 %, episodes at 50 %: the episodes end the run first.
        (monitor.Limits(max_steps=20, max_episodes=20), "50%|#####     | ["),
    ],
)
def test_the_bar_counts_what_the_run_is_limited_by(limits, progress):
    line = last_line(limits, UPDATES)
    assert line.startswith(
        f"train:  {progress}" if "100%" not in progress else f"train: {progress}"
    )


def test_the_figures_are_the_return_and_the_speed():
    line = last_line(monitor.Limits(max_timesteps=1000), UPDATES)
    assert line.endswith("return 15.0, 200 timesteps/s]")


def test_the_speed_while_it_runs_is_that_of_the_last_seconds_and_at_the_end_that_of_all(
    monkeypatch,
):
    bars, shown = [], []

    class Kept(auto.tqdm):
        def __init__(self, *arguments, **keywords):
            bars.append(self)
            super().__init__(*arguments, **keywords)

    class Witness(monitor.BaseMonitor):
        def after_run(self, context):
            shown.append(bars[0].postfix)

    monkeypatch.setattr(auto, "tqdm", Kept)
    chosen = [hooks.ProgressBarHook(file=io.StringIO()), Witness()]
    slow, fast = Update(timesteps=100, seconds=1.0), Update(timesteps=300, seconds=1.0)
    Run(limits=monitor.Limits(max_steps=80)).drive(chosen, [slow] * 40 + [fast] * 40)
    assert (shown[39], shown[79]) == ("100 timesteps/s", "300 timesteps/s")
    # 100 to 300, without jumps: no update is shown by itself.
    speeds = np.array([int(text.split()[0]) for text in shown])
    assert np.max(np.abs(np.diff(speeds))) <= 12
    assert bars[0].postfix == "200 timesteps/s"


def test_the_time_left_is_shown():
    line = last_line(monitor.Limits(max_timesteps=1000), UPDATES)
    elapsed, left = line.split("[")[1].split(",")[0].split("<")
    assert elapsed == "00:00" and left == "00:00"


def test_the_return_is_over_the_latest_episodes():
    updates = [Update(returns=[value]) for value in (0.0, 0.0, 7.0, 9.0)]
    assert "return 8.0" in last_line(monitor.Limits(max_steps=9), updates, window=2)


def test_without_limits_there_is_no_bar_but_the_figures():
    line = last_line(None, UPDATES)
    assert line.startswith("train: 500 timesteps [") and "|" not in line
    assert line.endswith("return 15.0, 200 timesteps/s]")


def test_a_run_that_goes_on_starts_its_bar_there():
    line = last_line(
        monitor.Limits(max_timesteps=2000), UPDATES, start={"timestep": 1000, "step": 9}
    )
    assert "75%" in line and "1500/2000" in line and "200 timesteps/s" in line


def test_the_limit_of_a_stop_hook_counts_although_it_begins_later():
    line = last_line(None, UPDATES, chosen=[hooks.StopAtTimestepHook(num_timesteps=1000)])
    assert "500/1000 timesteps" in line


def test_a_run_past_its_limit_ends_at_a_hundred_percent():
    # Vector environments may end a few episodes past the limit.
    assert "300/300" in last_line(monitor.Limits(max_timesteps=300), UPDATES)


def test_a_run_without_an_update_shows_a_bar_and_ends():
    assert "0/10 steps" in last_line(monitor.Limits(max_steps=10), [])


def test_the_bar_is_drawn_with_what_suits_the_screen(monkeypatch):
    # In a notebook `tqdm.auto.tqdm` is the widget; the hook must take whatever stands there.
    made = []

    class Widget(auto.tqdm):
        def __init__(self, *arguments, **keywords):
            made.append(keywords)
            super().__init__(*arguments, **keywords)

    monkeypatch.setattr(auto, "tqdm", Widget)
    last_line(monitor.Limits(max_steps=10), UPDATES)
    assert [keywords["total"] for keywords in made] == [10]


def test_a_limit_set_by_a_hook_that_begins_later_draws_the_bar_anew_in_its_place():
    screen = io.StringIO()
    chosen = [hooks.ProgressBarHook(file=screen), hooks.StopAtStepHook(num_steps=4)]
    Run().drive(chosen, UPDATES)
    # One line is left on the screen: the first, without a bar, was wiped.
    assert screen.getvalue().count("\n") == 1 and "4/4 steps" in screen.getvalue()


def test_a_failed_run_leaves_a_closed_bar():
    screen = io.StringIO()
    hook = hooks.ProgressBarHook(file=screen)
    with pytest.raises(hooks.NanLossDuringTrainingError):
        Run(limits=monitor.Limits(max_steps=5)).drive(
            [hook, hooks.NanTensorHook()], [Update(metrics={"loss": float("nan")})]
        )
    assert screen.getvalue().endswith("\n") and "1/5 steps" in screen.getvalue()


def test_a_window_must_be_positive():
    with pytest.raises(ValueError, match=r"window=…\) takes a positive integer; got 0"):
        hooks.ProgressBarHook(window=0)
