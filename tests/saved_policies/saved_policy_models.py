"""Small policies of Keras layers, as users write them, for the tests of saving and loading."""

from __future__ import annotations

import contextlib
import subprocess

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

from pgest import specs
from pgest.distributions import bounded
from pgest.policies import ready_made, time_steps
from pgest.policies.time_steps import PolicyStep

tfd = tfp.distributions


def vector_spec(size=4):
    return time_steps.time_step_spec(tf.TensorSpec([size], tf.float32, "observation"))


def discrete_spec(n=2, start=0):
    return specs.BoundedTensorSpec([], tf.int64, start, start + n - 1, "action")


def box_spec(size=2, bound=1.0):
    return specs.BoundedTensorSpec([size], tf.float32, -bound, bound, "action")


class DiscretePolicy(ready_made.TFPolicy):
    """A feed-forward net over one vector; Categorical."""

    def __init__(self, size=4, n=2, hidden=8, seed=0, **options):
        super().__init__(vector_spec(size), discrete_spec(n), **options)
        init = tf_keras.initializers.GlorotUniform(seed)
        self._net = tf_keras.Sequential(
            [
                tf_keras.layers.Dense(hidden, "tanh", kernel_initializer=init),
                tf_keras.layers.Dense(n, kernel_initializer=init),
            ]
        )
        self._net.build([None, size])

    def _distribution(self, time_step, policy_state):
        return PolicyStep(tfd.Categorical(logits=self._net(time_step.observation)), policy_state)


class BoxPolicy(ready_made.TFPolicy):
    """A feed-forward net; a diagonal Gaussian, clipped to the bounds, or a squashed one."""

    def __init__(self, size=4, actions=2, family="gaussian", **options):
        super().__init__(vector_spec(size), box_spec(actions), **options)
        self._net = tf_keras.Sequential(
            [tf_keras.layers.Dense(8, "tanh"), tf_keras.layers.Dense(actions)]
        )
        self._net.build([None, size])
        self._log_std = tf.Variable(np.full([actions], -0.5, np.float32), name="log_std")
        self._family = family

    def _distribution(self, time_step, policy_state):
        loc = self._net(time_step.observation)
        scale = tf.exp(self._log_std) * tf.ones_like(loc)
        if self._family == "squashed":
            component = bounded.SquashedNormal(loc, scale, -1.0, 1.0)
        elif self._family == "beta":
            component = bounded.BoundedBeta(1.0 + tf.nn.softplus(loc), 1.0 + scale, -1.0, 1.0)
        else:
            component = tfd.Normal(loc, scale)
        return PolicyStep(tfd.Independent(component, 1), policy_state)


class RecurrentPolicy(ready_made.TFPolicy):
    """An LSTM cell whose state is a dict; Categorical."""

    def __init__(self, size=4, n=3, units=5, **options):
        state = {
            "c": tf.TensorSpec([units], tf.float32, "c"),
            "h": tf.TensorSpec([units], tf.float32, "h"),
        }
        super().__init__(vector_spec(size), discrete_spec(n), state, **options)
        self._cell = tf_keras.layers.LSTMCell(units)
        self._cell.build([None, size])
        self._head = tf_keras.layers.Dense(n)
        self._head.build([None, units])

    def _distribution(self, time_step, policy_state):
        output, (h, c) = self._cell(time_step.observation, [policy_state["h"], policy_state["c"]])
        return PolicyStep(tfd.Categorical(logits=self._head(output)), {"c": c, "h": h})

    def _get_initial_state(self, batch_size):
        zeros = super()._get_initial_state(batch_size)
        return {"c": zeros["c"] + 0.25, "h": zeros["h"]}


class DictPolicy(ready_made.TFPolicy):
    """A Dict observation with an action mask in it, a dict of actions."""

    def __init__(self, **options):
        observation = {
            "position": specs.BoundedTensorSpec([2], tf.float32, -1, 1, "position"),
            "level": tf.TensorSpec([], tf.int64, "level"),
            "action_mask": tf.TensorSpec([3], tf.bool, "action_mask"),
        }
        action = {"move": discrete_spec(3, start=0), "force": box_spec(1)}
        super().__init__(time_steps.time_step_spec(observation), action, **options)
        self._net = tf_keras.layers.Dense(4)
        self._net.build([None, 3])

    def _distribution(self, time_step, policy_state):
        observation = time_step.observation
        level = tf.cast(observation["level"], tf.float32)[:, tf.newaxis]
        outputs = self._net(tf.concat([observation["position"], level], -1))
        logits = tf.where(observation["action_mask"], outputs[:, :3], -1e9)
        action = {
            "move": tfd.Categorical(logits=logits, dtype=tf.int64),
            "force": tfd.Independent(tfd.Normal(outputs[:, 3:], 0.5), 1),
        }
        return PolicyStep(action, policy_state)


# One of every kind that a saver writes, by name.
ALL_POLICIES = {
    "discrete": DiscretePolicy,
    "box": BoxPolicy,
    "squashed": lambda: BoxPolicy(family="squashed"),
    "beta": lambda: BoxPolicy(family="beta"),
    "recurrent": RecurrentPolicy,
    "dict": DictPolicy,
    "greedy": lambda: ready_made.GreedyPolicy(DictPolicy()),
}


def observation_of(policy, batch=None, seed=0):
    """A random observation of a policy's spec: arrays, with a batch axis where asked for."""
    generator = np.random.default_rng(seed)
    outer = () if batch is None else (batch,)

    def draw(spec):
        shape = (*outer, *spec.shape)
        if spec.dtype == tf.bool:
            mask = generator.random(shape) < 0.5
            mask[..., 0] = True
            return mask
        if spec.dtype.is_integer:
            return generator.integers(0, 3, shape).astype(spec.dtype.as_numpy_dtype)
        return generator.uniform(-1, 1, shape).astype(spec.dtype.as_numpy_dtype)

    return tf.nest.map_structure(draw, policy.time_step_spec.observation)


def time_step_of(policy, batch=None, seed=0, first=True):
    """A time step of numpy arrays that the policy takes."""
    observation = observation_of(policy, batch, seed)
    if first:
        return time_steps.restart(observation, batch_size=batch)
    outer = None if batch is None else (batch,)
    reward = np.zeros(outer or (), np.float32)
    return time_steps.transition(observation, reward, outer_dims=outer)


@contextlib.contextmanager
def tiny_disk(place):
    """A file system of 256 kB at `place`; skips the test where none may be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small file system: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
