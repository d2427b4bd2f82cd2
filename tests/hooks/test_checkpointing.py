import pytest

from pgest import hooks
from pgest.hooks import monitor
from tests.hooks.hooks_driver import Run, Update


class Witness(hooks.CheckpointSaverListener):
    def __init__(self):
        self.seen = []

    def begin(self, context):
        self.seen.append(("begin", context.step))

    def before_save(self, context):
        self.seen.append(("before", context.step, context.last_checkpoint))

    def after_save(self, context, path):
        self.seen.append(("after", context.step, path))

    def end(self, context):
        self.seen.append(("end", context.step))


def saved(directory):
    return sorted(int(path.stem.split("-")[1]) for path in directory.glob("*.index"))


def test_checkpoints_at_crossings_and_at_the_end(tmp_path):
    run = Run(tmp_path)
    run.drive([hooks.CheckpointSaverHook(monitor.Every(steps=4))], [Update(steps=3)] * 5)
    assert saved(tmp_path) == [6, 9, 12, 15]
    assert run.last_checkpoint == f"{tmp_path}/ckpt-15"


def test_the_end_does_not_write_what_was_just_written(tmp_path):
    run = Run(tmp_path)
    run.drive([hooks.CheckpointSaverHook(monitor.Every(steps=5))], [Update()] * 10)
    assert saved(tmp_path) == [5, 10] and run.write_count == 2


def test_listeners_see_each_checkpoint_once_in_order(tmp_path):
    witness = Witness()
    saver = hooks.CheckpointSaverHook(monitor.Every(steps=2), listeners=[witness])
    Run(tmp_path).drive([saver], [Update()] * 3)
    two, three = f"{tmp_path}/ckpt-2", f"{tmp_path}/ckpt-3"
    assert witness.seen == [
        ("begin", 0),
        ("before", 2, None),
        ("after", 2, two),
        ("before", 3, two),
        ("after", 3, three),
        ("end", 3),
    ]


def test_listeners_do_not_hear_at_the_end_of_a_checkpoint_again(tmp_path):
    witness = Witness()
    saver = hooks.CheckpointSaverHook(monitor.Every(steps=2), listeners=[witness])
    Run(tmp_path).drive([saver], [Update()] * 2)
    assert [event[:2] for event in witness.seen[1:]] == [("before", 2), ("after", 2), ("end", 2)]


def test_listeners_hear_of_a_checkpoint_that_another_hook_wrote(tmp_path):
    class SaveFirst(monitor.BaseMonitor):
        def after_run(self, context):
            context.save_checkpoint()

    witness = Witness()
    saver = hooks.CheckpointSaverHook(monitor.Every(steps=1), listeners=[witness])
    run = Run(tmp_path).drive([SaveFirst(), saver], [Update()])
    assert ("after", 1, f"{tmp_path}/ckpt-1") in witness.seen and run.write_count == 1


def test_what_was_learnt_before_an_error_is_saved(tmp_path):
    class Failing(monitor.BaseMonitor):
        def before_run(self, context):
            if context.step == 3:
                raise OSError("environment broke")

    saver = hooks.CheckpointSaverHook(monitor.Every(steps=100))
    with pytest.raises(OSError, match="environment broke"):
        Run(tmp_path).drive([saver, Failing()], [Update()] * 5)
    assert saved(tmp_path) == [3]


def test_checkpoints_by_episodes_do_not_wait_for_an_update(tmp_path):
    run = Run(tmp_path)

    class Counting(hooks.CheckpointSaverListener):
        seen = []

        def after_save(self, context, path):
            self.seen.append((context.step, context.episode))

    saver = hooks.CheckpointSaverHook(monitor.Every(episodes=4), listeners=[Counting()])
    run.drive([saver], [Update(returns=[1.0] * 10)] * 2)
    assert Counting.seen == [(0, 4), (0, 8), (1, 12), (1, 16), (1, 20), (2, 20)]


def test_checkpoints_by_seconds(tmp_path):
    saver = hooks.CheckpointSaverHook(monitor.Every(seconds=60))
    Run(tmp_path).drive([saver], [Update(seconds=25.0)] * 6)
    assert saved(tmp_path) == [3, 6]


def test_without_a_model_dir_nothing_is_saved_and_no_listener_told_of_a_save():
    witness = Witness()
    saver = hooks.CheckpointSaverHook(monitor.Every(steps=1), listeners=[witness])
    Run().drive([saver], [Update()])
    assert witness.seen == [("begin", 0), ("end", 1)]


def test_a_listener_may_stop_the_run(tmp_path):
    class Enough(hooks.CheckpointSaverListener):
        def after_save(self, context, path):
            context.request_stop("one checkpoint is enough")

    saver = hooks.CheckpointSaverHook(monitor.Every(steps=3), listeners=[Enough()])
    assert Run(tmp_path).drive([saver], [Update()] * 9).step == 3


def test_a_listener_of_another_class_is_an_error():
    with pytest.raises(TypeError, match="CheckpointSaverListeners; got .* of type function"):
        hooks.CheckpointSaverHook(monitor.Every(steps=1), listeners=[lambda: None])
