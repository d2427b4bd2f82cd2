"""Runs that are copied whenever they have written a checkpoint, as a kill would leave them."""

import shutil

import numpy as np

import pgest
from tests import model_fns


def run_config(overlap=False):
    """What is saved is what the test asks for, and all of it is kept."""
    return pgest.RunConfig(
        tf_random_seed=3,
        log_step_count_steps=None,
        save_summary_steps=None,
        jit_compile=False,
        overlap_updates=overlap,
        keep_checkpoint_max=None,
    )


def copy_as_killed(model_dir, copy):
    """Copies the directory of a run under way, as a kill at this moment would leave it.

    Exports are written in the background: a file that was listed may have moved to its place before
    it is copied. No kill leaves such a half view, so the copy is made again.
    """
    for _ in range(20):
        try:
            return shutil.copytree(model_dir, copy)
        except (shutil.Error, FileNotFoundError):
            shutil.rmtree(copy, ignore_errors=True)
    return shutil.copytree(model_dir, copy)


class Snapshots(pgest.CheckpointSaverListener):
    """Copies the model_dir after each checkpoint."""

    def __init__(self, directory):
        self._directory = directory
        self.paths = []

    def after_save(self, context, path):
        copy = self._directory / f"snapshot-{len(self.paths)}"
        copy_as_killed(context.model_dir, copy)
        self.paths.append(copy)


def run_with_snapshots(new_agent, environment, directory, every, hooks=lambda: [], **limits):
    """A run that is never stopped, and copies of it on its way."""
    snapshots = Snapshots(directory)
    saver = pgest.CheckpointSaverHook(every, listeners=[snapshots])
    agent = new_agent(directory / "whole")
    agent.train(environment(), hooks=[saver, *hooks()], **limits)
    return agent, snapshots.paths


def assert_same(first, second):
    """Weights, counters and all other variables, bit for bit."""
    wanted, found = model_fns.weights(first), model_fns.weights(second)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def middle(paths, count=2):
    """`count` of the snapshots, from the middle of the run."""
    assert len(paths) >= count + 1, "the run wrote too few checkpoints to test with"
    return [paths[(at + 1) * (len(paths) - 1) // (count + 1)] for at in range(count)]
