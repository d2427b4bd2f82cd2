"""Exports of a run that was killed are those of one that was left alone."""

import pathlib
import time

import numpy as np
import pytest
import tensorflow as tf

import pgest
from pgest.saved_policies.policy_saver import PolicySaver
from tests import model_fns
from tests.agents.test_hooks_going_on import CopiesLater

pytestmark = pytest.mark.slow


def train(directory, *more):
    config = pgest.RunConfig(
        tf_random_seed=5, log_step_count_steps=None, save_summary_steps=None, jit_compile=False
    )
    agent = pgest.PGAgent(model_fns.actor_critic, pgest.RolloutMemory(8), None, directory, config)
    exports = pgest.PolicySaverHook(pgest.Every(steps=2), save_collect_policy=False, keep_max=None)
    saver = pgest.CheckpointSaverHook(pgest.Every(steps=3))
    agent.train("CartPole-v1", hooks=[saver, exports, *more], max_steps=8)


def exports_of(directory):
    """The weights of each export, by name; not of those that a kill left half written."""
    found = {}
    for index in sorted(pathlib.Path(directory).glob("policies/checkpoints/[!.]*/**/*.index")):
        reader = tf.train.load_checkpoint(str(index.with_suffix("")))
        names = [name for name in reader.get_variable_to_shape_map() if name[0] != "_"]
        found[index.parent.parent.name] = {name: reader.get_tensor(name) for name in names}
    return found


def test_exports_on_the_way_are_those_of_a_run_that_was_left_alone(tmp_path):
    copies = CopiesLater(tmp_path)
    train(tmp_path / "whole", copies)
    wanted = exports_of(tmp_path / "whole")
    assert len(wanted) == 4  # at steps 2, 4, 6 and 8
    copy = copies.paths[4]  # killed after step 5, saved at 3: the export of 4 is written again
    train(copy)
    found = exports_of(copy)
    assert found.keys() == wanted.keys()
    for name, weights in wanted.items():
        for variable, value in weights.items():
            np.testing.assert_array_equal(found[name][variable], value, err_msg=name + variable)


def test_a_checkpoint_waits_for_the_exports_before_it(tmp_path, monkeypatch):
    """A run that goes on from step 3 does not write the export of step 2 again."""
    write = PolicySaver.write_checkpoint

    def slow(self, *arguments):
        time.sleep(1.0)
        write(self, *arguments)

    monkeypatch.setattr(PolicySaver, "write_checkpoint", slow)
    saved = []

    class Listener(pgest.CheckpointSaverListener):
        def after_save(self, context, path):
            saved.append((context.step, sorted(exports_of(tmp_path))))

    config = pgest.RunConfig(tf_random_seed=5, save_summary_steps=None, jit_compile=False)
    agent = pgest.PGAgent(model_fns.actor_critic, pgest.RolloutMemory(8), None, tmp_path, config)
    saver = pgest.CheckpointSaverHook(pgest.Every(steps=3), listeners=[Listener()])
    exports = pgest.PolicySaverHook(pgest.Every(steps=2), save_collect_policy=False)
    agent.train("CartPole-v1", hooks=[saver, exports], max_steps=4)
    assert saved[0] == (3, ["policy_checkpoint_0000000002"])
