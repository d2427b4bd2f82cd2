import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from pgest import hooks
from pgest.hooks import intervals, monitor
from tests.hooks.hooks_driver import Clock, PayEnv, Recorder, Run, Update, read_scalars


def fired(every, updates, *, start=None):
    run = Run()
    for counter, value in (start or {}).items():
        setattr(run, counter, value)
    recorder = Recorder(every)
    run.drive([recorder], updates)
    return recorder.fired


# --- Every ---


def test_every_fires_when_a_counter_crosses_a_multiple():
    steps = fired(monitor.Every(steps=3), [Update(steps=2)] * 6)
    assert [step for step, _, _ in steps] == [4, 6, 10, 12]


def test_a_call_of_ten_thousand_timesteps_fires_once():
    seen = fired(monitor.Every(timesteps=1000), [Update(timesteps=10_000)] * 2)
    assert [timestep for _, timestep, _ in seen] == [10_000, 20_000]


def test_a_run_that_goes_on_at_a_non_multiple_fires_at_the_next_multiple():
    seen = fired(
        monitor.Every(timesteps=1000), [Update(timesteps=100)] * 9, start={"timestep": 1234}
    )
    assert [timestep for _, timestep, _ in seen] == [2034]


def test_a_run_that_goes_on_at_a_multiple_does_not_fire_for_it_again():
    seen = fired(monitor.Every(steps=10), [Update()] * 10, start={"step": 20})
    assert [step for step, _, _ in seen] == [30]


def test_every_counts_episodes():
    seen = fired(monitor.Every(episodes=4), [Update(returns=[1.0] * 3)] * 4)
    assert [episode for _, _, episode in seen] == [6, 9, 12]


def test_every_seconds_fires_that_long_after_it_last_fired():
    # Looks at 4, 8, 12, … seconds: fires at 12, then not before 22.
    seen = fired(monitor.Every(seconds=10), [Update(seconds=4.0)] * 6)
    assert [step for step, _, _ in seen] == [3, 6]


def test_counters_beyond_the_exact_floats_do_not_lose_units():
    start = 2**53
    seen = fired(monitor.Every(timesteps=1), [Update(timesteps=1)] * 3, start={"timestep": start})
    assert [timestep - start for _, timestep, _ in seen] == [1, 2, 3]


def test_two_timers_of_one_every_do_not_know_of_each_other():
    every, run = monitor.Every(steps=1), Run()
    first, second = every.timer(run), every.timer(run)
    run.step = 1
    assert first.due(run) and second.due(run)


def test_every_is_a_frozen_value():
    assert monitor.Every(steps=5) == monitor.Every(steps=5)
    assert monitor.Every(steps=5).unit == "steps" and monitor.Every(seconds=2.5).period == 2.5
    with pytest.raises(dataclasses.FrozenInstanceError):
        monitor.Every(steps=5).steps = 6


def test_every_takes_numpy_integers():
    assert monitor.Every(steps=np.int64(5)) == monitor.Every(steps=5)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, "exactly one of steps, timesteps, episodes and seconds; got none"),
        ({"steps": 1, "seconds": 2}, ValueError, "exactly one.*'steps': 1, 'seconds': 2"),
        ({"steps": 0}, ValueError, r"Every\(steps=…\) takes a positive integer; got 0"),
        ({"episodes": -1}, ValueError, "got -1"),
        ({"timesteps": 1.5}, TypeError, "got 1.5 of type float"),
        ({"timesteps": True}, TypeError, "got the bool True"),
        ({"seconds": 0.0}, ValueError, "positive number of seconds; got 0.0"),
        ({"seconds": float("inf")}, ValueError, "got inf"),
        ({"seconds": "1"}, TypeError, "got '1' of type str"),
        ({"seconds": True}, TypeError, "got True of type bool"),
    ],
)
def test_every_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        monitor.Every(**arguments)


def test_a_bare_number_instead_of_an_every_is_an_error_that_shows_how_to_write_it():
    with pytest.raises(TypeError, match=r"every=Every\(steps=…\).*got 100 of type int"):
        intervals.require_every("SomeHook", 100)


@pytest.mark.parametrize(
    "make",
    [
        hooks.CheckpointSaverHook,
        hooks.LoggingTensorHook,
        hooks.SummarySaverHook,
        hooks.StepCounterHook,
        hooks.HistoryHook,
        lambda every: hooks.EvaluationHook("CartPole-v1", every),
        lambda every: hooks.ProfilerHook(every=every),
    ],
)
def test_every_hook_refuses_a_bare_number(make):
    with pytest.raises(TypeError, match="got 100 of type int"):
        make(100)


# --- RunContext ---


def test_the_first_reason_to_stop_is_kept():
    run = Run()
    assert not run.should_stop and run.stop_reason is None
    run.request_stop("first")
    run.request_stop("second")
    assert run.should_stop and run.stop_reason == "first"


def test_a_stop_without_a_reason_is_a_stop():
    run = Run()
    run.request_stop()
    assert run.should_stop


def test_limits_are_tightened_and_never_loosened():
    limits = monitor.Limits(max_steps=10)
    assert limits.tightened(max_steps=20) == limits
    assert limits.tightened(max_steps=5, max_timesteps=7) == monitor.Limits(5, 7, None)


def test_limits_are_reached_by_any_counter():
    run, limits = Run(), monitor.Limits(max_timesteps=100, max_episodes=3)
    assert not limits.reached(run) and not monitor.Limits().reached(run)
    run.episode = 3
    assert limits.reached(run)
    run.episode, run.timestep = 0, 101
    assert limits.reached(run)


def test_saving_twice_at_the_same_counters_writes_once(tmp_path):
    run = Run(tmp_path)
    run.step = 3
    first = run.save_checkpoint()
    assert run.save_checkpoint() == first == run.last_checkpoint == f"{tmp_path}/ckpt-3"
    assert run.write_count == 1
    run.timestep += 1
    run.save_checkpoint()
    assert run.write_count == 2


def test_saving_without_a_model_dir_gives_no_path():
    assert Run().save_checkpoint() is None


def test_an_unhealthy_run_writes_no_checkpoint(tmp_path, caplog):
    run = Run(tmp_path)
    run.mark_unhealthy("metric 'loss' is nan")
    assert run.save_checkpoint() is None
    assert list(tmp_path.iterdir()) == []
    assert "metric 'loss' is nan" in caplog.text


def test_weights_that_are_not_finite_are_not_saved_though_no_metric_told(tmp_path, caplog):
    run = Run(tmp_path)
    run.weight.assign(2.0)
    good = run.save_checkpoint()
    run.step = 1
    run.weight.assign(float("nan"))
    assert run.save_checkpoint() is None
    assert not run.healthy and "weight:0" in run.unhealthy_reason
    assert run.last_checkpoint == good and good in caplog.text
    # Also not at the counters of the good one: the state is another by now.
    run.step = 0
    assert run.save_checkpoint() is None


def test_evaluations_are_noted_with_their_counters():
    run = Run()
    run.step, run.timestep, run.episode = 5, 60, 7
    run.weight.assign(2.5)
    results = run.evaluate(PayEnv(), episodes=3, name="easy")
    (noted,) = run.evaluations
    assert results["return_mean"] == noted.mean_return == 2.5
    assert (noted.name, noted.step, noted.timestep, noted.episode) == ("easy", 5, 60, 7)


def test_a_context_that_cannot_evaluate_says_so():
    with pytest.raises(NotImplementedError, match="RunContext does not override run_evaluation"):
        monitor.RunContext().evaluate("CartPole-v1")


def test_a_summary_request_holds_for_one_update():
    run = Run()
    assert not run.take_summary_request()
    run.request_summaries()
    assert run.take_summary_request() and not run.take_summary_request()


def test_the_writer_is_opened_on_first_use_and_closed(tmp_path):
    run = Run(tmp_path)
    run.flush_summaries()
    run.close()
    assert list(tmp_path.iterdir()) == []
    with run.summary_writer.as_default(step=1):
        tf.summary.scalar("something", 1.0)
    run.close()
    assert [path.name[:10] for path in tmp_path.iterdir()] == ["events.out"]
    assert Run().summary_writer is None


def test_a_checkpoint_flushes_the_summaries(tmp_path):
    run = Run(tmp_path)
    # Leaving `as_default` flushes as well, so look before: a model_fn may be in the middle of it.
    with run.summary_writer.as_default(step=1):
        tf.summary.scalar("something", 4.0)
        run.flush_summaries()
        tf.summary.scalar("something", 5.0, step=2)
        assert read_scalars(tmp_path) == {"something": [(1, 4.0)]}
        run.save_checkpoint()
        assert read_scalars(tmp_path) == {"something": [(1, 4.0), (2, 5.0)]}
    run.close()


# --- BaseMonitor ---


def test_a_monitor_that_overrides_nothing_does_nothing():
    run = Run().drive([monitor.BaseMonitor()], [Update(returns=[1.0])])
    assert (run.step, run.episode, run.should_stop) == (1, 1, False)


def test_end_is_called_with_the_error():
    class Failing(monitor.BaseMonitor):
        def after_run(self, context):
            raise OSError("disk full")

    class Witness(monitor.BaseMonitor):
        def end(self, context):
            self.error = context.error

    witness = Witness()
    with pytest.raises(OSError, match="disk full"):
        Run().drive([Failing(), witness], [Update()])
    assert isinstance(witness.error, OSError)


def test_the_clock_of_a_context_can_be_given():
    clock = Clock()
    run = Run(clock=clock)
    timer = monitor.Every(seconds=1).timer(run)
    clock.now += 0.9
    assert not timer.due(run)
    clock.now += 0.1
    assert timer.due(run)
