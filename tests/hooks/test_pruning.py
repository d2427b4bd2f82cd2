"""Optuna's own studies over real runs, whose return is the weight of a policy."""

import sys

import pytest

from pgest import hooks
from pgest.hooks import monitor
from tests.hooks.hooks_driver import PayEnv, Run, Update

optuna = pytest.importorskip("optuna")

TENTH = monitor.Every(timesteps=10)


def new_study():
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=0)
    return optuna.create_study(direction="maximize", pruner=pruner)


def climb(trial, slope, size=5, run=None):
    """Forty timesteps of a policy whose return is `slope` a timestep; batches of `size`."""
    hook = hooks.OptunaPruningHook(trial, PayEnv(), TENTH, episodes=1)
    updates = [Update(timesteps=size, weight=slope * t) for t in range(size, 41, size)]
    (run or Run()).drive([hook], updates)
    return hook.value


def test_a_good_trial_ends_with_its_value_and_a_worse_one_is_pruned():
    study, runs = new_study(), []

    def objective(trial):
        runs.append(Run())
        slope, size = [(2.0, 5), (1.0, 15), (3.0, 5)][trial.number]
        return climb(trial, slope, size, runs[-1])

    study.optimize(objective, n_trials=3)
    good, bad, best = study.trials
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert good.intermediate_values == {1: 20.0, 2: 40.0, 3: 60.0, 4: 80.0}
    assert (good.value, best.value) == (80.0, 120.0)
    # Its first batch crosses 10 at timestep 15: that is the look at 10.
    assert bad.intermediate_values == {1: 15.0}
    assert runs[1].timestep == 15 and runs[1].stop_reason.startswith("Optuna prunes the trial")


def test_the_other_hooks_end_when_a_trial_is_pruned():
    study = new_study()
    study.optimize(lambda trial: climb(trial, 2.0), n_trials=1)
    history = hooks.HistoryHook()
    trial = study.ask()
    hook = hooks.OptunaPruningHook(trial, PayEnv(), TENTH, episodes=1)
    with pytest.raises(optuna.TrialPruned, match="return 1 at look 1"):
        Run().drive([hook, history], [Update(timesteps=10, weight=1.0)] * 4)
    assert history.records[-1]["eval/return_mean"] == 1.0 and hook.value == 1.0


def test_a_run_that_goes_on_reports_no_look_twice(recwarn):
    study = new_study()
    trial = study.ask()
    run, hook = Run(), hooks.OptunaPruningHook(trial, PayEnv(), TENTH, episodes=1)
    hook.begin(run)
    run.timestep, run.step = 12, 1
    hook.after_run(run)
    state = hook.state()
    again = hooks.OptunaPruningHook(trial, PayEnv(), TENTH, episodes=1)
    again.begin(run)
    again.restore(state)
    run.timestep, run.step = 15, 2
    again.end(run)
    assert study.trials[0].intermediate_values == {1: 0.0} and again.value == 0.0
    assert not [warning for warning in recwarn if "already reported" in str(warning.message)]


def test_what_does_not_fit_is_told(monkeypatch):
    trial = new_study().ask()
    with pytest.raises(ValueError, match="could not be compared at one moment"):
        hooks.OptunaPruningHook(trial, PayEnv(), monitor.Every(seconds=10))
    with pytest.raises(TypeError, match="takes every=Every"):
        hooks.OptunaPruningHook(trial, PayEnv(), 10)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'pgest\[tune\]'"):
        hooks.OptunaPruningHook(trial, PayEnv(), TENTH)
