import numpy as np
import pytest

from pgest import hooks
from pgest.hooks import monitor
from tests.hooks.hooks_driver import PayEnv, Run, Update


def counters(run):
    return run.step, run.timestep, run.episode


# --- at a count ---


def test_num_steps_is_this_many_more():
    run = Run()
    run.step = 7
    run.drive([hooks.StopAtStepHook(num_steps=5)], [Update()] * 20)
    assert run.step == 12 and run.stop_reason == "step 12 of 12 reached"


def test_last_step_is_up_to_this_many():
    run = Run()
    run.step = 7
    run.drive([hooks.StopAtStepHook(last_step=10)], [Update()] * 20)
    assert run.step == 10


def test_one_hook_in_two_runs_counts_from_where_each_begins():
    hook, run = hooks.StopAtStepHook(num_steps=10), Run()
    run.drive([hook], [Update()] * 20)
    second = Run()
    second.step = run.step
    second.drive([hook], [Update()] * 20)
    assert second.step == 20


def test_a_last_step_that_is_behind_stops_before_anything_is_done():
    run = Run()
    run.step = 100
    run.drive([hooks.StopAtStepHook(last_step=100)], [Update(timesteps=5)] * 20)
    assert counters(run) == (100, 0, 0)


def test_a_stop_hook_enters_the_limits_so_that_a_long_update_can_be_cut():
    run = Run(limits=monitor.Limits(max_steps=100))
    run.step, run.timestep, run.episode = 10, 20, 30
    chosen = [
        hooks.StopAtStepHook(num_steps=5),
        hooks.StopAtTimestepHook(num_timesteps=5),
        hooks.StopAtEpisodeHook(last_episode=50),
    ]
    for hook in chosen:
        hook.begin(run)
    assert run.limits == monitor.Limits(max_steps=15, max_timesteps=25, max_episodes=50)


def test_episodes_stop_in_the_middle_of_collecting():
    run = Run().drive(
        [hooks.StopAtEpisodeHook(num_episodes=5)], [Update(timesteps=30, returns=[1.0] * 3)] * 9
    )
    assert counters(run) == (1, 60, 5)


def test_timesteps_stop():
    run = Run().drive([hooks.StopAtTimestepHook(last_timestep=250)], [Update(timesteps=100)] * 9)
    assert run.timestep == 300


@pytest.mark.parametrize(
    "make", [hooks.StopAtStepHook, hooks.StopAtEpisodeHook, hooks.StopAtTimestepHook]
)
def test_stop_hooks_take_exactly_one_positive_count(make):
    with pytest.raises(ValueError, match="exactly one of them"):
        make()
    with pytest.raises(ValueError, match="num_.*=1.*last_.*=2"):
        make(1, 2)
    with pytest.raises(ValueError, match="positive integer; got 0"):
        make(0)
    with pytest.raises(TypeError, match="bool"):
        make(None, True)
    with pytest.raises(TypeError, match="float"):
        make(1.0)


# --- on a return ---


def test_stop_on_the_mean_training_return_of_a_full_window():
    # Means over three: 10, 40, 70, 100. The first two episodes alone would pass 60 too early.
    returns = [90.0, -60.0, 0.0, 180.0, 30.0, 90.0, 90.0]
    run = Run().drive(
        [hooks.StopOnReturnHook(70.0, window=3)], [Update(returns=[value]) for value in returns]
    )
    assert run.episode == 5
    assert run.stop_reason == "mean training return 70 >= 70"


def test_an_episode_that_was_cut_short_does_not_count():
    updates = [Update(returns=[100.0], complete=False), Update(returns=[0.0])]
    assert not Run().drive([hooks.StopOnReturnHook(70.0, window=1)], updates).should_stop


def test_stop_on_an_evaluation_return():
    updates = [Update(weight=value) for value in (1.0, 5.0, 3.0)]
    run = Run().drive(
        [
            hooks.EvaluationHook(PayEnv(), monitor.Every(steps=1), episodes=2),
            hooks.StopOnReturnHook(5.0, on="evaluation"),
        ],
        updates,
    )
    assert run.step == 2 and run.stop_reason == "mean evaluation return 5 >= 5"


def test_training_returns_do_not_count_on_evaluation():
    run = Run().drive([hooks.StopOnReturnHook(5.0, on="evaluation")], [Update(returns=[100.0])] * 3)
    assert not run.should_stop


def test_only_the_evaluation_of_that_name_counts():
    chosen = [
        hooks.EvaluationHook(PayEnv(), monitor.Every(steps=1), name="easy"),
        hooks.StopOnReturnHook(5.0, on="evaluation", name="hard"),
    ]
    assert not Run().drive(chosen, [Update(weight=9.0)]).should_stop
    chosen[1] = hooks.StopOnReturnHook(5.0, on="evaluation", name="easy")
    assert Run().drive(chosen, [Update(weight=9.0)]).should_stop


def test_a_second_run_starts_with_an_empty_window():
    hook = hooks.StopOnReturnHook(50.0, window=2)
    assert Run().drive([hook], [Update(returns=[100.0, 100.0])]).should_stop
    assert not Run().drive([hook], [Update(returns=[100.0])]).should_stop


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"threshold": 1.0, "on": "test"}, ValueError, "on=\"training\".*got 'test'"),
        ({"threshold": float("nan")}, ValueError, "finite number; got nan.*StopAtStepHook"),
        ({"threshold": "475"}, TypeError, "threshold.*finite number; got '475' of type str"),
        ({"threshold": np.complex64(1)}, TypeError, "finite number; got .* of type complex64"),
        ({"threshold": 1.0, "window": 0}, ValueError, "positive integer; got 0"),
        ({"threshold": 1.0, "name": "hard"}, ValueError, 'pass on="evaluation"'),
    ],
)
def test_stop_on_return_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        hooks.StopOnReturnHook(**arguments)


# --- on no improvement ---


def evaluated(hook, weights):
    evaluation = hooks.EvaluationHook(PayEnv(), monitor.Every(steps=1), episodes=1)
    return Run().drive([evaluation, hook], [Update(weight=weight) for weight in weights])


def test_no_improvement_waits_for_its_patience():
    # Best 3 at step 2; steps 3, 4, 5 are no better.
    run = evaluated(hooks.StopOnNoImprovementHook(patience=3), [1.0, 3.0, 2.0, 3.0, 1.0, 9.0])
    assert run.step == 5 and "not risen above 3" in run.stop_reason


def test_an_improvement_starts_the_patience_again():
    run = evaluated(hooks.StopOnNoImprovementHook(patience=2), [1.0, 0.0, 2.0, 0.0, 3.0, 0.0])
    assert not run.should_stop


def test_a_rise_smaller_than_min_delta_is_none():
    weights = [1.0, 1.4, 1.8, 2.2]
    assert evaluated(hooks.StopOnNoImprovementHook(2, min_delta=1.0), weights).step == 3
    assert not evaluated(hooks.StopOnNoImprovementHook(2, min_delta=0.3), weights).should_stop


def test_a_first_return_of_minus_infinity_does_not_stop_the_clock():
    run = evaluated(hooks.StopOnNoImprovementHook(patience=2), [-5.0, -6.0, -7.0, -8.0])
    assert run.step == 3


def test_no_improvement_of_the_training_return():
    hook = hooks.StopOnNoImprovementHook(patience=4, on="training", window=2)
    # Means over two: 1, 2, 2, 2, 2, 2: four looks without improvement after the second mean.
    returns = [1.0, 1.0, 3.0, 1.0, 3.0, 1.0, 3.0, 1.0, 3.0]
    run = Run().drive([hook], [Update(returns=[value]) for value in returns])
    assert run.episode == 7


def test_no_improvement_refuses():
    with pytest.raises(ValueError, match="min_delta.* takes 0 or more; got -1"):
        hooks.StopOnNoImprovementHook(3, -1)
    with pytest.raises(ValueError, match=r"patience=…\) takes a positive integer; got 0"):
        hooks.StopOnNoImprovementHook(0)
