import pytest

from pgest import hooks
from pgest.contract.run_config import RunConfig
from pgest.hooks import monitor
from tests.hooks.hooks_driver import PayEnv, Run, Update, read_scalars


def names(config, given=()):
    return [type(hook).__name__ for hook in hooks.default_hooks(config, given)]


DEFAULTS = [
    "NanTensorHook",
    "CheckpointSaverHook",
    "SummarySaverHook",
    "StepCounterHook",
    "LoggingTensorHook",
]


def test_the_defaults():
    assert names(RunConfig()) == DEFAULTS


@pytest.mark.parametrize(
    "own",
    [
        hooks.NanTensorHook(False),
        hooks.CheckpointSaverHook(monitor.Every(steps=5)),
        hooks.SummarySaverHook(monitor.Every(steps=5)),
        hooks.StepCounterHook(monitor.Every(steps=5)),
        hooks.LoggingTensorHook(monitor.Every(steps=5)),
    ],
    ids=DEFAULTS,
)
def test_a_default_is_left_out_where_the_user_gave_their_own(own):
    chosen = hooks.default_hooks(RunConfig(), [own])
    assert [hook for hook in chosen if isinstance(hook, type(own))] == [own]
    assert len(chosen) == 5


def test_a_subclass_counts_as_their_own():
    class Quiet(hooks.LoggingTensorHook):
        pass

    own = Quiet(monitor.Every(steps=1))
    assert names(RunConfig(), [own]).count("LoggingTensorHook") == 0


def test_the_nan_guard_is_first_and_evaluations_come_before_what_stops_on_them():
    given = [
        hooks.ProgressBarHook(),
        hooks.StopOnReturnHook(5.0, on="evaluation"),
        hooks.CheckpointSaverHook(monitor.Every(steps=1)),
        hooks.EvaluationHook(PayEnv(), monitor.Every(steps=1)),
        hooks.NanTensorHook(),
    ]
    assert names(RunConfig(), given) == [
        "NanTensorHook",
        "EvaluationHook",
        "StopOnReturnHook",
        "CheckpointSaverHook",
        "SummarySaverHook",
        "StepCounterHook",
        "LoggingTensorHook",
        "ProgressBarHook",
    ]


@pytest.mark.parametrize("never", [0, None])
def test_what_the_configuration_turns_off_is_left_out(never):
    assert names(RunConfig(save_summary_steps=never)) == [
        name for name in DEFAULTS if name != "SummarySaverHook"
    ]
    assert names(RunConfig(log_step_count_steps=never)) == DEFAULTS[:3]


@pytest.mark.parametrize(
    ("config", "written"),
    [
        (RunConfig(save_checkpoints_steps=3), [3, 6, 8]),
        # By episodes and by seconds it is due when an episode ends, before that update's step.
        (RunConfig(save_checkpoints_episodes=4), [1, 3, 5, 7, 8]),
        (RunConfig(save_checkpoints_secs=50), [4, 8]),
        (RunConfig(), [8]),
    ],
)
def test_the_configuration_says_how_often_checkpoints_are_written(tmp_path, config, written):
    run = Run(tmp_path)
    updates = [Update(returns=[1.0] * 2, seconds=10.0)] * 8
    run.drive(hooks.default_hooks(config), updates)
    run.close()
    found = sorted(int(path.stem.split("-")[1]) for path in tmp_path.glob("*.index"))
    assert found == written


def test_a_default_run_writes_documented_tags_and_a_checkpoint(tmp_path):
    run = Run(tmp_path)
    config = RunConfig(save_summary_steps=2, log_step_count_steps=2)
    updates = [Update(timesteps=100, returns=[1.0], seconds=1.0)] * 4
    run.drive(hooks.default_hooks(config), updates)
    run.close()
    scalars = read_scalars(tmp_path)
    assert set(scalars) == set(hooks.TAGS) & {
        "loss",
        "episode/return",
        "episode/length",
        "speed/steps_per_second",
        "speed/timesteps_per_second",
        "speed/episodes_per_second",
    }
    assert run.last_checkpoint == f"{tmp_path}/ckpt-4"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda context: None, "BaseMonitor instances; got .* of type function"),
        (hooks.NanTensorHook, "Pass an instance, not the class"),
    ],
)
def test_a_hook_that_is_no_monitor_is_an_error(wrong, words):
    with pytest.raises(TypeError, match=words):
        hooks.default_hooks(RunConfig(), [wrong])
