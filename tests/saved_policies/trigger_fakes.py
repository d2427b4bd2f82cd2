"""An agent for triggers, and what lies in the directories that they write."""

import os
import types
from pathlib import Path

import tensorflow as tf

from pgest.policies import ready_made
from pgest.variables import counters
from tests.saved_policies import saved_policy_models as models


def make_agent(policy=None, **options):
    """What a trigger asks of an agent: two policies of the same variables, and counters."""
    policy = policy if policy is not None else models.DiscretePolicy(**options)
    return types.SimpleNamespace(
        policy=ready_made.GreedyPolicy(policy), collect_policy=policy, counters=counters.Counters()
    )


def make_step(value=0):
    return tf.Variable(value, dtype=tf.int64)


def checkpoint_names(directory):
    """The names of the saved checkpoints, oldest first."""
    return sorted(os.listdir(Path(directory) / "checkpoints"))


def inode(tmp_path, name="policy"):
    """Differs where a directory was written anew."""
    return os.stat(tmp_path / name).st_ino
