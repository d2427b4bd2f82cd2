import pytest
import tensorflow as tf

from pgest import hooks
from pgest.hooks import monitor
from tests.hooks.hooks_driver import Run, Update

METRICS = {"loss": 0.123456789, "policy/entropy": 0.5}


def lines(caplog, chosen, updates):
    with caplog.at_level("INFO", logger="pgest"):
        Run().drive(chosen, updates)
    return [record.getMessage() for record in caplog.records]


def test_a_line_holds_counters_metrics_and_the_episodes_since_the_last(caplog):
    updates = [Update(timesteps=10, returns=[1.0, 3.0], metrics=METRICS)] * 2
    assert lines(caplog, [hooks.LoggingTensorHook(monitor.Every(steps=2))], updates) == [
        "step = 2, timestep = 20, episode = 4, loss = 0.123457, policy/entropy = 0.5, "
        "episode/return = 2, episode/length = 10"
    ]


def test_names_choose_and_order(caplog):
    hook = hooks.LoggingTensorHook(monitor.Every(steps=1), ["episode/return", "loss", "value/loss"])
    updates = [Update(returns=[4.0], metrics=METRICS)]
    assert lines(caplog, [hook], updates) == [
        "step = 1, timestep = 0, episode = 1, episode/return = 4, loss = 0.123457"
    ]


def test_a_formatter_makes_the_line(caplog):
    hook = hooks.LoggingTensorHook(
        monitor.Every(steps=1), formatter=lambda values: f"<{values['step']}: {values['loss']}>"
    )
    assert lines(caplog, [hook], [Update()]) == ["<1: 1.0>"]


def test_a_last_line_follows_at_the_end_where_something_is_left(caplog):
    hook = hooks.LoggingTensorHook(monitor.Every(steps=2), ["loss"])
    found = lines(caplog, [hook], [Update()] * 3)
    assert [line.split(",")[0] for line in found] == ["step = 2", "step = 3"]


def test_lines_by_episodes_do_not_wait_for_an_update(caplog):
    hook = hooks.LoggingTensorHook(monitor.Every(episodes=2), ["episode/return"])
    found = lines(caplog, [hook], [Update(returns=[1.0, 2.0, 3.0, 4.0])])
    assert found == [
        "step = 0, timestep = 0, episode = 2, episode/return = 1.5",
        "step = 0, timestep = 0, episode = 4, episode/return = 3.5",
        "step = 1, timestep = 0, episode = 4",
    ]


def test_one_string_as_names_is_an_error():
    with pytest.raises(TypeError, match=r"sequence of names; got 'loss': write \['loss'\]"):
        hooks.LoggingTensorHook(monitor.Every(steps=1), "loss")


# --- FinalOpsHook ---


def test_final_ops_are_computed_once_at_the_end():
    hook = hooks.FinalOpsHook(lambda context: context.step)
    run = Run()
    hook.begin(run)
    assert hook.final_ops_values is None
    run.drive([hook], [Update()] * 3)
    assert hook.final_ops_values == 3


def test_final_ops_may_be_a_nest_and_give_tensors():
    hook = hooks.FinalOpsHook(
        {
            "weight": lambda context: context.weight,
            "several": [lambda context: {"twice": 2 * context.weight}, lambda context: "text"],
        }
    )
    Run().drive([hook], [Update(weight=1.5)])
    assert hook.final_ops_values == {"weight": 1.5, "several": [{"twice": 3.0}, "text"]}
    assert not tf.is_tensor(hook.final_ops_values["weight"])


def test_final_ops_are_left_out_where_the_run_failed():
    hook = hooks.FinalOpsHook(lambda context: context.step)
    with pytest.raises(hooks.NanLossDuringTrainingError):
        Run().drive([hook, hooks.NanTensorHook()], [Update(metrics={"loss": float("nan")})])
    assert hook.final_ops_values is None


def test_a_value_as_a_final_op_is_an_error():
    with pytest.raises(TypeError, match="got 3 of type int. Wrap a value: lambda"):
        hooks.FinalOpsHook([3])


def test_estimators_way_of_saying_it(caplog):
    expected = ["step = 2, timestep = 0, episode = 0, H = 0.5, loss = 0.123457"]
    tensors = {"H": "policy/entropy", "loss": "loss"}
    for hook in (
        hooks.LoggingTensorHook(tensors, every_n_iter=2),
        hooks.LoggingTensorHook(tensors=tensors, every_n_iter=2),
    ):
        caplog.clear()
        assert lines(caplog, [hook], [Update(metrics=METRICS)] * 2) == expected
    caplog.clear()
    hook = hooks.LoggingTensorHook(["loss"], every_n_secs=60)
    found = lines(caplog, [hook], [Update(metrics=METRICS, seconds=40)] * 3)
    assert [line.split(",")[0] for line in found] == ["step = 2", "step = 3"]


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (
            lambda: hooks.LoggingTensorHook({"loss": tf.zeros([])}, every_n_iter=1),
            TypeError,
            r"for 'loss'; expected the name of a metric: put the tensor into EstimatorSpec",
        ),
        (lambda: hooks.LoggingTensorHook(["loss"]), TypeError, r"takes every=Every\(steps=…\)"),
        (
            lambda: hooks.LoggingTensorHook(monitor.Every(steps=1), every_n_iter=1),
            ValueError,
            "every and every_n_iter or every_n_secs, which say the same",
        ),
        (
            lambda: hooks.LoggingTensorHook(monitor.Every(steps=1), ["a"], tensors=["a"]),
            ValueError,
            "names and tensors, which say the same",
        ),
        (
            lambda: hooks.LoggingTensorHook(["a"], every_n_iter=1, at_end=True),
            TypeError,
            "a last line follows at the end",
        ),
        (
            lambda: hooks.SummarySaverHook(save_steps=100),
            TypeError,
            r"save_steps is every=pgest.Every\(steps=100\)",
        ),
        (lambda: hooks.StepCounterHook(every_n_secs=9), TypeError, r"Every\(seconds=60\)"),
        (lambda: hooks.CheckpointSaverHook(save_secs=9), TypeError, r"Every\(seconds=600\)"),
        (lambda: hooks.NanTensorHook(loss_tensor=None), TypeError, "every other metric"),
    ],
)
def test_what_estimators_arguments_are_here(make, error, match):
    with pytest.raises(error, match=match):
        make()
