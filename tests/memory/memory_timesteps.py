"""Timesteps that the tests put into memories."""

import numpy as np

FLAGS = {"terminated": False, "truncated": False}


def timestep(number, *, terminated=False, truncated=False, **more):
    """A timestep whose state and reward are its number."""
    return {
        "state": np.full([2], number, np.float32),
        "reward": np.float32(number),
        "terminated": terminated,
        "truncated": truncated,
        **more,
    }


def fill(memory, lengths, start=0):
    """Episodes of the given lengths; timesteps are numbered from `start`."""
    number = start
    for length in lengths:
        for index in range(length):
            memory.step(**timestep(number, terminated=index == length - 1))
            number += 1
    return number


def vector(rewards, terminated=None, truncated=None, **more):
    """A timestep of several environments, one a reward."""
    size = len(rewards)
    return {
        "reward": np.asarray(rewards, np.float32),
        "terminated": np.zeros([size], np.bool_) if terminated is None else np.asarray(terminated),
        "truncated": np.zeros([size], np.bool_) if truncated is None else np.asarray(truncated),
        **more,
    }
