import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

from pgest import hooks, schedules
from pgest.hooks import monitor, speed, summaries
from tests.hooks.hooks_driver import Run, Update, read_scalars

METRICS = {"loss": 0.5, "policy/entropy": 0.25}


def written(directory, chosen, updates, **arguments):
    run = Run(directory, **arguments)
    run.drive(chosen, updates)
    run.close()
    return read_scalars(directory)


def hparams_of(directory):
    """The hyper-parameters in the event files, as the HParams page reads them, and their row."""
    found, row = {}, None
    for path in directory.glob("events.*"):
        for event in event_file_loader.EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name != "hparams":
                    continue
                data = plugin_data_pb2.HParamsPluginData.FromString(
                    value.metadata.plugin_data.content
                )
                row = data.session_start_info.group_name or row
                for name, parameter in data.session_start_info.hparams.items():
                    found[name] = getattr(parameter, parameter.WhichOneof("kind"))
    return found, row


# --- SummarySaverHook ---


def test_episodes_and_metrics_are_written_against_timesteps(tmp_path):
    updates = [Update(timesteps=100, returns=[10.0, 20.0], metrics=METRICS)] * 2
    scalars = written(tmp_path, [hooks.SummarySaverHook(monitor.Every(steps=1))], updates)
    assert scalars == {
        "episode/return": [(100, 15.0), (200, 15.0)],
        "episode/length": [(100, 10.0), (200, 10.0)],
        "loss": [(100, 0.5), (200, 0.5)],
        "policy/entropy": [(100, 0.25), (200, 0.25)],
    }


def test_the_x_axis_may_be_steps(tmp_path):
    saver = hooks.SummarySaverHook(monitor.Every(steps=1), x_axis="global_step")
    scalars = written(tmp_path, [saver], [Update(steps=3, timesteps=100, metrics=METRICS)] * 2)
    assert scalars["loss"] == [(3, 0.5), (6, 0.5)]


def test_a_point_is_the_mean_over_the_episodes_since_the_last_point(tmp_path):
    updates = [Update(timesteps=10, returns=[value]) for value in (1.0, 2.0, 3.0, 5.0, 7.0)]
    scalars = written(tmp_path, [hooks.SummarySaverHook(monitor.Every(steps=2))], updates)
    # The first update, steps 2 and 4, and what is left at the end.
    assert scalars["episode/return"] == [(10, 1.0), (20, 2.0), (40, 4.0), (50, 7.0)]


def test_an_episode_that_was_cut_short_does_not_count(tmp_path):
    updates = [Update(timesteps=10, returns=[9.0], complete=False), Update(returns=[1.0])]
    scalars = written(tmp_path, [hooks.SummarySaverHook(monitor.Every(steps=2))], updates)
    assert scalars["episode/return"] == [(10, 1.0)]


def test_no_episode_no_point(tmp_path):
    updates = [Update(timesteps=10), Update(timesteps=10, returns=[4.0]), Update(timesteps=10)]
    scalars = written(tmp_path, [hooks.SummarySaverHook(monitor.Every(steps=1))], updates)
    assert scalars["episode/return"] == [(20, 4.0)]
    assert [step for step, _ in scalars["loss"]] == [10, 20, 30]


def test_numeric_info_keys_are_written_over_the_episodes_that_have_them(tmp_path):
    updates = [
        Update(timesteps=1, returns=[1.0], info={"is_success": 1.0, "length": 3.0}),
        Update(timesteps=1, returns=[1.0], info={"is_success": 0.0}),
        Update(timesteps=1, returns=[1.0]),
    ]
    saver = hooks.SummarySaverHook(monitor.Every(timesteps=3))
    updates.insert(0, Update(timesteps=0))
    scalars = written(tmp_path, [saver], updates)
    assert scalars["episode/is_success"] == [(3, 0.5)]
    # The environment's own "length" does not hide the episode's.
    assert scalars["episode/info/length"] == [(3, 3.0)]
    assert scalars["episode/length"] == [(3, 10.0)]


def test_the_first_update_and_the_last_are_written_however_short_the_run(tmp_path):
    updates = [Update(timesteps=10, returns=[1.0])] * 3
    scalars = written(tmp_path, [hooks.SummarySaverHook(monitor.Every(steps=1000))], updates)
    assert [step for step, _ in scalars["loss"]] == [10, 30]
    assert scalars["episode/return"] == [(10, 1.0), (30, 1.0)]


def test_between_two_updates_metrics_are_written_once(tmp_path):
    updates = [Update(timesteps=10, returns=[1.0] * 4, metrics=METRICS)] * 2
    scalars = written(tmp_path, [hooks.SummarySaverHook(monitor.Every(episodes=2))], updates)
    assert scalars["loss"] == [(10, 0.5), (20, 0.5)]
    assert len(scalars["episode/return"]) == 4


def test_summaries_of_the_model_fn_are_asked_for_at_the_first_update_and_after_each_firing(
    tmp_path,
):
    run = Run(tmp_path)
    run.drive([hooks.SummarySaverHook(monitor.Every(steps=3))], [Update()] * 8)
    run.close()
    # The first update writes; steps 3 and 6 fire, so updates 2, 4 and 7 carry the request.
    assert run.summary_requests == [True, True, False, True, False, False, True, False]


def test_a_restart_continues_the_curves(tmp_path):
    saver = hooks.SummarySaverHook(monitor.Every(steps=2))
    first = Run(tmp_path)
    first.drive([saver], [Update(timesteps=10)] * 4)
    first.close()
    second = Run(tmp_path)
    second.step, second.timestep = first.step, first.timestep
    second.drive([saver], [Update(timesteps=10)] * 4)
    second.close()
    # Two files of one second may be read in either order.
    assert sorted(step for step, _ in read_scalars(tmp_path)["loss"]) == [10, 20, 40, 50, 60, 80]


def test_without_a_model_dir_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = [
        hooks.SummarySaverHook(monitor.Every(steps=1)),
        hooks.StepCounterHook(monitor.Every(steps=1)),
    ]
    Run(hyperparameters={"a": 1}).drive(chosen, [Update(seconds=1.0, returns=[1.0])] * 3)
    assert list(tmp_path.iterdir()) == []


def test_record_if_of_the_caller_does_not_swallow_points(tmp_path):
    run = Run(tmp_path)
    with tf.summary.record_if(False):
        summaries.write_scalars(run, {"loss": 1.0})
    run.close()
    assert read_scalars(tmp_path) == {"loss": [(0, 1.0)]}


def test_a_point_is_what_tf_summary_writes(tmp_path):
    run = Run(tmp_path / "hooks")
    summaries.write_scalars(run, {"loss": 0.1})
    run.close()
    with tf.summary.create_file_writer(str(tmp_path / "tensorflow")).as_default(step=0):
        tf.summary.scalar("loss", 0.1, description=hooks.TAGS["loss"])
    ours, theirs = (
        event.summary.value[0]
        for name in ("hooks", "tensorflow")
        for path in (tmp_path / name).iterdir()
        for event in event_file_loader.RawEventFileLoader(str(path)).Load()
        for event in [event_pb2.Event.FromString(event)]
        if event.summary.value
    )
    assert ours.metadata == theirs.metadata and ours.tag == theirs.tag
    assert tensor_util.make_ndarray(ours.tensor) == tensor_util.make_ndarray(theirs.tensor)
    assert (ours.tensor.dtype, ours.tensor.tensor_shape) == (
        theirs.tensor.dtype,
        theirs.tensor.tensor_shape,
    )


@pytest.mark.parametrize("make", [hooks.SummarySaverHook, hooks.StepCounterHook])
def test_an_unknown_x_axis_is_an_error(make):
    with pytest.raises(ValueError, match="\"global_timestep\" or .*; got 'steps'"):
        make(monitor.Every(steps=1), x_axis="steps")


def test_every_tag_written_by_the_hooks_is_documented(tmp_path):
    chosen = [
        hooks.SummarySaverHook(monitor.Every(steps=1)),
        hooks.StepCounterHook(monitor.Every(steps=1)),
    ]
    updates = [Update(timesteps=10, returns=[1.0], seconds=1.0, metrics={"loss": 1.0})] * 2
    tags = set(written(tmp_path, chosen, updates))
    assert tags <= set(hooks.TAGS)
    own = {tag for tag in hooks.TAGS if tag.startswith(("episode/", "speed/"))} - {"episode/<key>"}
    assert own <= tags


def test_every_tag_has_a_sentence():
    texts = [*hooks.TAGS.values(), *hooks.EVALUATION_TAGS.values()]
    assert all(text.endswith(".") and len(text) > 20 for text in texts)


# --- hyper-parameters ---


def test_hyperparameters_are_written_when_the_run_begins(tmp_path):
    params = {
        "learning_rate": 1e-2,
        "update": {"epochs": 4, "normalize": True},
        "activation": "tanh",
        "clip": np.float32(0.25),
        "width": np.int64(64),
        "schedule": lambda step: step,
        "layers": [64, 64],
        "nothing": None,
    }
    written(tmp_path, [hooks.SummarySaverHook(monitor.Every(steps=1))], [], hyperparameters=params)
    found, row = hparams_of(tmp_path)
    folder = tmp_path.parent
    row_wanted = f"{folder.name}/{tmp_path.name} ({folder.parent})"
    assert row == row_wanted, "two runs of one setting are two rows"
    assert found == {
        "learning_rate": 1e-2,
        "update.epochs": 4.0,
        "update.normalize": True,
        "activation": "tanh",
        "clip": 0.25,
        "width": 64.0,
        "layers": "[64, 64]",
        "nothing": "None",
    }


def test_write_hparams_returns_what_it_wrote():
    writer = tf.summary.create_noop_writer()
    assert hooks.write_hparams(writer, {"a": {"b": {"c": 1}}, "d": object()}) == {"a.b.c": 1}
    assert hooks.write_hparams(writer, {"d": object(), "long": "x" * 1000}) == {}


def test_write_hparams_says_what_a_schedule_does():
    writer = tf.summary.create_noop_writer()
    params = {
        "rate": schedules.linear(1e-3, 1e-4),
        "clip": schedules.Schedule(lambda step: 0.5 + step, clock="global_step"),
    }
    assert hooks.write_hparams(writer, params) == {
        "rate": "0.001 to 0.0001 by progress",
        "clip": "0.5 at first, by global_step",
    }


# --- speed ---


def test_speeds_are_measured_between_firings(tmp_path):
    updates = [Update(steps=2, timesteps=100, returns=[1.0], seconds=0.5)] * 4
    scalars = written(tmp_path, [hooks.StepCounterHook(monitor.Every(steps=4))], updates)
    assert scalars == {
        "speed/steps_per_second": [(200, 4.0), (400, 4.0)],
        "speed/timesteps_per_second": [(200, 200.0), (400, 200.0)],
        "speed/episodes_per_second": [(200, 2.0), (400, 2.0)],
    }


def test_what_is_left_is_measured_at_the_end_and_only_then(tmp_path):
    updates = [Update(timesteps=100, seconds=1.0)] * 3 + [Update(timesteps=500, seconds=1.0)]
    scalars = written(tmp_path, [hooks.StepCounterHook(monitor.Every(steps=3))], updates)
    assert scalars["speed/timesteps_per_second"] == [(300, 100.0), (800, 500.0)]


def test_the_speed_of_a_run_that_goes_on_is_its_own(tmp_path):
    run = Run(tmp_path)
    run.step, run.timestep, run.episode = 1000, 1_000_000, 5000
    run.drive([hooks.StepCounterHook(monitor.Every(steps=1))], [Update(timesteps=50, seconds=2.0)])
    run.close()
    assert read_scalars(tmp_path)["speed/timesteps_per_second"] == [(1_000_050, 25.0)]


def test_speeds_are_logged(caplog):
    with caplog.at_level("INFO", logger="pgest"):
        Run().drive(
            [hooks.StepCounterHook(monitor.Every(steps=1))],
            [Update(timesteps=30, seconds=2.0, returns=[1.0])],
        )
    assert "0.5 steps/s, 15 timesteps/s, 0.5 episodes/s" in caplog.text


def test_no_time_no_speed():
    run = Run()
    speedometer = speed.Speedometer(run)
    run.timestep = 100
    assert speedometer.read(run) == {}
    run.clock.now += 4.0
    assert speedometer.read(run)["timesteps"] == 25.0
