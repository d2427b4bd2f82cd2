import math

import numpy as np
import pytest
import tensorflow as tf

from pgest import hooks
from pgest.contract import run_config
from pgest.hooks import monitor
from tests.hooks.hooks_driver import Run, Update

NAN = float("nan")


def test_a_nan_loss_fails_and_names_it():
    with pytest.raises(
        hooks.NanLossDuringTrainingError, match="After step 2.*metric 'loss' is nan"
    ):
        Run().drive([hooks.NanTensorHook()], [Update(), Update(metrics={"loss": NAN})])


def test_the_loss_is_named_first():
    metrics = {"policy/kl": math.inf, "loss": NAN, "policy/entropy": 0.5}
    with pytest.raises(hooks.NanLossDuringTrainingError) as raised:
        Run().drive([hooks.NanTensorHook()], [Update(metrics=metrics)])
    message = str(raised.value)
    assert "metric 'loss' is nan. Not finite: policy/kl = inf, loss = nan" in message
    assert "finite: policy/entropy = 0.5" in message


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
def test_every_metric_is_looked_at(value):
    metrics = {"loss": 1.0, "policy/kl": value}
    with pytest.raises(hooks.NanLossDuringTrainingError, match="'policy/kl' is -?(nan|inf)"):
        Run().drive([hooks.NanTensorHook()], [Update(metrics=metrics)])


def test_a_metric_may_be_ignored():
    metrics = {"loss": 1.0, "value/explained_variance": -math.inf}
    hook = hooks.NanTensorHook(ignore=["value/explained_variance"])
    assert Run().drive([hook], [Update(metrics=metrics)]).healthy


def test_it_can_stop_instead_of_failing():
    run = Run().drive(
        [hooks.NanTensorHook(fail_on_nan_loss=False)], [Update(metrics={"loss": NAN})] * 5
    )
    assert run.step == 1 and run.stop_reason == "metric 'loss' is nan" and run.error is None


def test_finite_metrics_pass():
    run = Run().drive([hooks.NanTensorHook()], [Update(metrics={"loss": -1e30, "n": 3})] * 2)
    assert run.healthy and run.step == 2


def test_one_string_to_ignore_is_an_error():
    with pytest.raises(TypeError, match=r"write ignore=\['loss'\]"):
        hooks.NanTensorHook(ignore="loss")


@pytest.mark.parametrize("fail", [True, False])
def test_the_last_good_checkpoint_stays(tmp_path, fail):
    # The saver would write after every step and at the end, and is listed first on purpose.
    saver = hooks.CheckpointSaverHook(monitor.Every(steps=1))
    config = run_config.RunConfig(model_dir=str(tmp_path))
    run = Run(tmp_path)
    updates = [
        Update(weight=1.0),
        Update(weight=2.0),
        Update(weight=NAN, metrics={"loss": NAN}),
        Update(weight=NAN, metrics={"loss": NAN}),
    ]
    chosen = hooks.default_hooks(config, [saver, hooks.NanTensorHook(fail)])
    if fail:
        with pytest.raises(hooks.NanLossDuringTrainingError, match=f"is {tmp_path}/ckpt-2"):
            run.drive(chosen, updates)
    else:
        run.drive(chosen, updates)
    run.close()
    assert run.last_checkpoint == f"{tmp_path}/ckpt-2"
    assert sorted(path.name for path in tmp_path.glob("*.index")) == [
        "ckpt-1.index",
        "ckpt-2.index",
    ]
    restored = tf.Variable(NAN)
    tf.train.Checkpoint(weight=restored).read(f"{tmp_path}/ckpt-2").assert_consumed()
    assert restored.numpy() == np.float32(2.0)


def test_weights_that_broke_while_the_loss_was_finite_are_found_at_the_save(tmp_path):
    # A finite loss with an infinite gradient: the metrics tell nothing in the first update.
    chosen = [hooks.NanTensorHook(), hooks.CheckpointSaverHook(monitor.Every(steps=2))]
    run = Run(tmp_path)
    updates = [Update(weight=1.0), Update(weight=NAN), Update()]
    with pytest.raises(hooks.NanLossDuringTrainingError, match="NaN or infinity in variables wei"):
        run.drive(chosen, updates)
    assert run.step == 3 and list(tmp_path.glob("*.index")) == []


def test_a_run_does_not_end_well_with_broken_weights(tmp_path):
    chosen = [hooks.NanTensorHook(), hooks.CheckpointSaverHook(monitor.Every(steps=1))]
    run = Run(tmp_path)
    with pytest.raises(hooks.NanLossDuringTrainingError, match="ckpt-1"):
        run.drive(chosen, [Update(weight=1.0), Update(weight=NAN)])
    assert sorted(path.name for path in tmp_path.glob("*.index")) == ["ckpt-1.index"]


def test_where_told_to_stop_only_broken_weights_are_told_at_the_end(tmp_path, caplog):
    run = Run(tmp_path).drive([hooks.NanTensorHook(False)], [Update(weight=NAN)])
    assert not run.healthy and "NaN or infinity in variables weight" in caplog.text


def test_a_run_that_failed_for_another_reason_keeps_that_error():
    class Failing(monitor.BaseMonitor):
        def after_run(self, context):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Run().drive([hooks.NanTensorHook(), Failing()], [Update(weight=NAN)])
