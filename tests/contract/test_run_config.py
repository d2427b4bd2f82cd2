"""RunConfig: frozen, checked when made."""

import dataclasses
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

import pgest


def test_the_defaults():
    config = pgest.RunConfig()
    assert config.model_dir is None and config.tf_random_seed is None
    assert config.keep_checkpoint_max == 5
    assert config.keep_checkpoint_every_n_hours == 10000
    assert config.log_step_count_steps == 100
    assert config.jit_compile == "auto"


def test_it_is_frozen_and_replaced():
    config = pgest.RunConfig(tf_random_seed=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.tf_random_seed = 2
    assert dataclasses.replace(config, tf_random_seed=2).tf_random_seed == 2
    with pytest.raises(ValueError, match="tf_random_seed is -1; expected 0 or more"):
        dataclasses.replace(config, tf_random_seed=-1)


@pytest.mark.parametrize("path", ["runs/a", pathlib.Path("runs/a")])
def test_a_path_is_a_model_dir(path):
    assert pgest.RunConfig(model_dir=path).model_dir == path


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"model_dir": 3}, TypeError, "model_dir is 3; expected a path or None"),
        ({"model_dir": ""}, ValueError, "model_dir is empty"),
        ({"model_dir": "runs/lr[1e-3]"}, ValueError, "model_dir is 'runs/lr.*use another name"),
        ({"tf_random_seed": 1.5}, TypeError, "tf_random_seed is 1.5; expected an integer"),
        ({"tf_random_seed": True}, TypeError, "tf_random_seed is True"),
        ({"tf_random_seed": 2**31}, ValueError, "expected less than 2"),
        ({"save_checkpoints_steps": 0}, ValueError, "expected more than 0"),
        ({"save_checkpoints_steps": 1.5}, TypeError, "expected an integer"),
        ({"save_checkpoints_secs": "1"}, TypeError, "expected a number"),
        ({"save_checkpoints_secs": float("nan")}, ValueError, "expected more than 0"),
        ({"save_checkpoints_episodes": -1}, ValueError, "expected more than 0"),
        ({"keep_checkpoint_max": -1}, ValueError, "expected 0 or more"),
        ({"keep_checkpoint_every_n_hours": None}, TypeError, "expected a number"),
        ({"keep_checkpoint_every_n_hours": 0}, ValueError, "expected more than 0"),
        ({"save_summary_steps": 1.5}, TypeError, "expected an integer"),
        ({"log_step_count_steps": False}, TypeError, "expected an integer"),
        ({"jit_compile": "yes"}, ValueError, "expected 'auto', True or False"),
        ({"jit_compile": 1}, ValueError, "expected 'auto', True or False"),
        ({"overlap_updates": 1}, TypeError, "expected True or False"),
        ({"evaluate_in_copies": 1}, TypeError, "expected None, True or False"),
        ({"iterations_per_loop": None}, TypeError, "expected an integer"),
        ({"iterations_per_loop": 0}, ValueError, "expected more than 0"),
        ({"intra_op_parallelism_threads": 0}, ValueError, "expected more than 0"),
    ],
)
def test_what_is_out_of_range_is_an_error(settings, error, message):
    with pytest.raises(error, match=f"RunConfig.*{message}"):
        pgest.RunConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"save_checkpoints_secs": 0.5},
        {"save_checkpoints_steps": np.int64(3)},
        {"keep_checkpoint_max": None},
        {"keep_checkpoint_max": 0},
        {"save_summary_steps": None},
        {"log_step_count_steps": 0},
        {"jit_compile": True},
        {"tf_random_seed": 0},
    ],
)
def test_what_is_in_range_is_taken(settings):
    assert pgest.RunConfig(**settings) == dataclasses.replace(pgest.RunConfig(), **settings)


def test_one_clock_for_checkpoints():
    with pytest.raises(ValueError, match="save_checkpoints_steps and save_checkpoints_secs"):
        pgest.RunConfig(save_checkpoints_steps=1, save_checkpoints_secs=1)


@pytest.mark.slow
def test_threads_are_limited_before_tensorflow_starts_and_not_silently_later():
    """In a process of its own: TensorFlow makes its threads once."""
    program = textwrap.dedent(
        """
        import warnings
        import tensorflow as tf
        import pgest
        warnings.simplefilter("error")
        def make(threads):
            config = pgest.RunConfig(intra_op_parallelism_threads=threads)
            pgest.PGAgent(lambda features, labels: None, pgest.BatchMemory(5), config=config)
        make(1)
        print(tf.config.threading.get_intra_op_parallelism_threads())
        make(1)
        try:
            make(2)
        except UserWarning as warning:
            print(warning)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    threads, warning = done.stdout.splitlines()
    assert threads == "1"
    assert "intra_op_parallelism_threads=2 comes too late" in warning


@pytest.mark.parametrize(
    ("strategy", "error", "message"),
    [
        (lambda: "mirrored", TypeError, "'mirrored', a str; expected a tf.distribute.Multi"),
        (lambda: tf.distribute.MirroredStrategy, TypeError, "the class MirroredStrategy; make one"),
        (lambda: tf.distribute.MirroredStrategy(["/cpu:0"]), TypeError, "a process for each"),
        (lambda: tf.distribute.OneDeviceStrategy("/cpu:0"), TypeError, "a process for each"),
        (
            lambda: tf.compat.v1.distribute.experimental.ParameterServerStrategy(),
            ValueError,
            "gradients of old weights, as parameter servers get them, are not built",
        ),
    ],
)
def test_other_ways_to_distribute_are_refused(strategy, error, message):
    with pytest.raises(error, match=f"RunConfig.train_distribute is .*{message}"):
        pgest.RunConfig(train_distribute=strategy())
