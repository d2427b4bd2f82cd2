"""Saves policies, opens them again, compares what they give."""

import numpy as np
import tensorflow as tf

from pgest.saved_policies import eager_policy, policy_saver


def assert_close(first, second):
    """Asserts that nests of arrays differ by rounding alone."""
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), first, second
    )


def save(policy, path, **options):
    """Saves with a PolicySaver of these options; returns the path."""
    policy_saver.PolicySaver(policy, **options).save(path)
    return path


def open_policy(path, **options):
    """The policy with numpy on both sides, its specs from its own file."""
    return eager_policy.SavedModelPyTFEagerPolicy(path, load_specs_from_pbtxt=True, **options)


def unbatched(nest):
    """The first row of every leaf."""
    return tf.nest.map_structure(lambda leaf: np.asarray(leaf)[0], nest)
