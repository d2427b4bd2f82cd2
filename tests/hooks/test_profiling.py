import pytest
import tensorflow as tf

from pgest import hooks
from pgest.hooks import monitor
from tests.hooks.hooks_driver import Run, Update


def traces(directory):
    return sorted(directory.glob("plugins/profile/*/*.xplane.pb"))


class Work(monitor.BaseMonitor):
    """Something to be seen in a trace: named by the update that does it."""

    def before_run(self, context):
        with tf.profiler.experimental.Trace(f"update_{context.step}_of_the_run"):
            tf.linalg.matmul(tf.ones([8, 8]), tf.ones([8, 8]))


def test_only_the_chosen_updates_are_in_the_trace(tmp_path):
    Run(tmp_path).drive([hooks.ProfilerHook(start=2, end=4), Work()], [Update()] * 6)
    (trace,) = traces(tmp_path)
    content = trace.read_bytes()
    seen = [number for number in range(6) if f"update_{number}_of_the_run".encode() in content]
    assert seen == [2, 3]


def test_updates_are_counted_from_the_beginning_of_the_run(tmp_path):
    run = Run(tmp_path)
    run.step = 1000
    run.drive([hooks.ProfilerHook(start=0, end=1), Work()], [Update()] * 2)
    (trace,) = traces(tmp_path)
    assert b"update_1000_of_the_run" in trace.read_bytes()


def test_a_run_that_ends_while_profiling_writes_what_there_is(tmp_path):
    Run(tmp_path).drive([hooks.ProfilerHook(start=1, end=100), Work()], [Update()] * 3)
    assert len(traces(tmp_path)) == 1
    # The profiler is free again: a second start would fail otherwise.
    tf.profiler.experimental.start(str(tmp_path / "again"))
    tf.profiler.experimental.stop(save=False)


def test_it_starts_again_every_so_often(tmp_path):
    started = []

    class Witness(hooks.ProfilerHook):
        def before_run(self, context):
            before = self._running
            super().before_run(context)
            if self._running and not before:
                started.append(context.step)

    hook = Witness(start=1, end=2, every=monitor.Every(steps=4), log_dir=tmp_path / "elsewhere")
    Run().drive([hook], [Update()] * 10)
    # Update 1, then the update after each crossing of four steps.
    assert started == [1, 4, 8]
    assert traces(tmp_path / "elsewhere")


def test_it_needs_a_directory():
    with pytest.raises(ValueError, match="needs a log_dir where the run has no model_dir"):
        Run().drive([hooks.ProfilerHook()], [])


def test_start_comes_before_end():
    with pytest.raises(ValueError, match="0 <= start < end; got start=5, end=5"):
        hooks.ProfilerHook(5, 5)
