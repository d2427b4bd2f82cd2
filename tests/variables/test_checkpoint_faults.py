"""What power cuts, kills and full disks leave in a directory of checkpoints."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import tensorflow as tf

from pgest.variables import checkpoints


def variables(first=1.0):
    return {"a": tf.Variable([first, 2.0])}


def steps(directory):
    return [os.path.basename(path)[11:] for path in checkpoints.all_checkpoints(directory)]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"no: proto {", b"\x00" * 64])
def test_a_state_file_of_a_power_cut_is_as_none_and_written_anew(tmp_path, content):
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, variables(float(step)), step=step, keep_max=3)
    (tmp_path / "checkpoint").write_bytes(content)
    path, values = checkpoints.read_newest(tmp_path)
    assert path.endswith("model.ckpt-3") and values["a"][0] == 3.0
    checkpoints.save(tmp_path, variables(4.0), step=4, keep_max=3)
    assert steps(tmp_path) == ["2", "3", "4"], "what was there before still counts and is swept"
    assert tf.train.latest_checkpoint(tmp_path).endswith("model.ckpt-4")
    assert not os.path.exists(tmp_path / "model.ckpt-1.index")


KILLED = textwrap.dedent("""
    import os, signal, sys
    sys.path[:0] = {path!r}
    import tensorflow as tf
    from pgest.variables import checkpoints, whole_files

    rename, replace = whole_files.rename, os.replace

    def killed_before(pairs):
        os.kill(os.getpid(), signal.SIGKILL)

    def killed_after(pairs):
        rename(pairs)
        os.kill(os.getpid(), signal.SIGKILL)

    def killed_between(present, new):
        replace(present, new)
        os.kill(os.getpid(), signal.SIGKILL)

    if {moment!r} == "between":
        os.replace = killed_between
    else:
        whole_files.rename = killed_before if {moment!r} == "before" else killed_after
    checkpoints.save({directory!r}, {{"a": tf.Variable([2.0, 2.0])}}, step=2)
""")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_what_a_killed_writer_leaves_is_taken_where_complete_and_else_swept(tmp_path, moment):
    checkpoints.save(tmp_path, variables(), step=1)
    script = KILLED.format(path=sys.path, directory=str(tmp_path), moment=moment)
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    assert process.returncode == -signal.SIGKILL
    left = checkpoints.sweep(tmp_path)
    assert len(left) == {"before": 2, "between": 2, "after": 0}[moment], left
    path, values = checkpoints.read_newest(tmp_path)
    complete = moment == "after"
    assert (os.path.basename(path), values["a"][0]) == (
        ("model.ckpt-2", 2.0) if complete else ("model.ckpt-1", 1.0)
    )
    checkpoints.save(tmp_path, variables(3.0), step=3)
    assert steps(tmp_path) == (["1", "2", "3"] if complete else ["1", "3"])
    names = {"checkpoint"} | {
        f"model.ckpt-{step}.{kind}"
        for step in steps(tmp_path)
        for kind in ("index", "data-00000-of-00001")
    }
    assert set(os.listdir(tmp_path)) == names


def test_one_that_was_kept_for_ever_is_not_taken_for_the_newest(tmp_path):
    """It is complete and unregistered too, but older: also where a copy gave all files one time."""
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, variables(float(step)), step=step, keep_max=1,
                         keep_every_n_hours=0.0 if step == 2 else 1e6)  # fmt: skip
    now = time.time()
    for name in os.listdir(tmp_path):
        os.utime(tmp_path / name, (now, now))
    assert os.path.exists(tmp_path / "model.ckpt-1.index")
    assert checkpoints.latest(tmp_path) == str(tmp_path / "model.ckpt-3")


@pytest.fixture
def a_full_disk():
    """Files cannot grow beyond what is set: writing fails in the middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_cannot_be_written_names_itself_and_leaves_the_others(
    tmp_path, a_full_disk
):
    checkpoints.save(tmp_path, variables(), step=1)
    before = sorted(os.listdir(tmp_path))
    large = {"a": tf.Variable(np.ones(100_000, np.float32))}
    a_full_disk(65536)
    with pytest.raises(OSError, match="model.ckpt-2' could not be written: .*[Ll]arge.*Earlier"):
        checkpoints.save(tmp_path, large, step=2)
    a_full_disk(resource.RLIM_INFINITY)
    assert sorted(os.listdir(tmp_path)) == before
    assert checkpoints.latest(tmp_path) == str(tmp_path / "model.ckpt-1")
    assert checkpoints.save(tmp_path, large, step=2) == checkpoints.latest(tmp_path)
