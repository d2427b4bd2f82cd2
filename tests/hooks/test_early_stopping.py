"""Estimator's hooks that stop on a metric of evaluations."""

import pytest

import pgest
from pgest import hooks
from pgest.hooks import monitor
from tests import model_fns
from tests.hooks.hooks_driver import PayEnv, Run, Update

EACH_STEP = monitor.Every(steps=1)
AGENT = pgest.PGAgent(model_fns.policy_gradient, pgest.BatchMemory(episodes=1))


def stopped(hook, returns, *, steps=10, name=None):
    """The step and the reason where a run ends whose evaluations, each `steps` apart, are these."""
    run = Run()
    evaluation = hooks.EvaluationHook(PayEnv(), EACH_STEP, episodes=1, name=name)
    run.drive([evaluation, hook], [Update(weight=value, steps=steps) for value in returns])
    return run.step, run.stop_reason


def test_higher_and_lower_than_a_threshold():
    higher = pgest.stop_if_higher_hook(AGENT, "return_mean", 2.0)
    assert stopped(higher, [1.0, 2.0, 2.5, 9.0]) == (30, "return_mean 2.5 > 2")
    lower = pgest.stop_if_lower_hook(AGENT, "return_mean", 2.0)
    assert stopped(lower, [3.0, 2.0, 1.5, 0.0]) == (30, "return_mean 1.5 < 2")


def test_evaluations_before_min_steps_do_not_count():
    hook = pgest.stop_if_higher_hook(AGENT, "return_mean", 2.0, min_steps=30)
    assert stopped(hook, [5.0, 5.0, 5.0, 5.0])[0] == 30


def test_no_increase_counts_steps_since_the_highest():
    hook = pgest.stop_if_no_increase_hook(AGENT, "return_mean", 20)
    # The highest stands at step 20; at step 40 it is 20 steps old.
    expected = (40, "return_mean has not risen above 2 in 20 steps")
    assert stopped(hook, [1.0, 2.0, 2.0, 1.9, 9.0]) == expected
    assert stopped(hook, [1.0, 2.0, 2.0, 2.1, 2.2])[1] is None


def test_no_decrease_counts_steps_since_the_lowest():
    hook = pgest.stop_if_no_decrease_hook(AGENT, "return_mean", 20, min_steps=20)
    # The evaluation at step 10, which would be the lowest, does not count.
    expected = (50, "return_mean has not fallen below 1.5 in 20 steps")
    assert stopped(hook, [1.0, 2.0, 1.5, 1.5, 1.5]) == expected


def test_other_evaluations_are_left_alone():
    hook = pgest.stop_if_higher_hook(AGENT, "return_mean", 2.0, name="other")
    assert stopped(hook, [5.0, 5.0])[1] is None
    assert stopped(hook, [5.0, 5.0], name="other")[0] == 10


def test_it_goes_on_with_what_it_saw():
    first = pgest.stop_if_no_increase_hook(AGENT, "return_mean", 20)
    stopped(first, [1.0, 2.0])
    again = pgest.stop_if_no_increase_hook(AGENT, "return_mean", 20)
    again.begin(Run())
    again.restore(first.state())
    assert again.state() == first.state() and again.state()["best"] == (2.0, 20)


def test_a_metric_that_no_evaluation_has():
    hook = pgest.stop_if_no_increase_hook(AGENT, "accuracy", 20)
    with pytest.raises(ValueError, match="no metric 'accuracy'; they have return_mean, return_std"):
        stopped(hook, [1.0])


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (
            lambda: pgest.stop_if_higher_hook("loss", "loss", 1.0),
            TypeError,
            "takes the agent first",
        ),
        (lambda: pgest.stop_if_lower_hook(AGENT, "loss", float("nan")), ValueError, "threshold"),
        (lambda: pgest.stop_if_lower_hook(AGENT, "loss", "1"), TypeError, "of 'loss'.*got '1'"),
        (lambda: pgest.stop_if_no_decrease_hook(AGENT, "loss", 0), ValueError, "of 'loss'"),
        (
            lambda: pgest.stop_if_no_decrease_hook(AGENT, "loss", 9, run_every_secs=3),
            TypeError,
            "not needed: the hook looks at each evaluation once",
        ),
    ],
)
def test_what_does_not_fit_is_told(make, error, match):
    with pytest.raises(error, match=match):
        make()
