"""Small trained agents, one of every family of policy, and what their exports give."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium import spaces

import pgest

OBSERVATIONS = 1000
VECTOR = spaces.Box(-1.0, 1.0, (5,), np.float32)
ARM = spaces.Box(np.float32([-2.0, 0.0]), np.float32([2.0, 3.0]))


class Sampling(gymnasium.Env):
    """Observations of any space, at random; longer actions pay more; masks where asked for."""

    def __init__(self, observation_space, action_space, masked=False):
        self.observation_space, self.action_space = observation_space, action_space
        self._masked, self._at = masked, 0

    def _given(self):
        if not self._masked:
            return self.observation_space.sample(), {}
        mask = np.arange(self.action_space.n) != self._at % self.action_space.n
        return self.observation_space.sample(), {"action_mask": mask.astype(np.int8)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self._at = 0
        return self._given()

    def step(self, action):
        self._at += 1
        leaves = tf.nest.flatten(action)
        reward = float(sum(np.sum(np.asarray(leaf, np.float64)) for leaf in leaves))
        observation, info = self._given()
        return observation, reward, False, self._at >= 8, info


class Family(NamedTuple):
    """A kind of policy: spaces, and the settings of the model."""

    action: gymnasium.Space
    observation: gymnasium.Space = VECTOR
    settings: Mapping[str, Any] = types.MappingProxyType({})
    masked: bool = False

    def environment(self):
        return Sampling(self.observation, self.action, self.masked)


FAMILIES = {
    "categorical": Family(spaces.Discrete(4)),
    "gaussian": Family(ARM),
    "squashed": Family(ARM, settings={"box": "squashed_gaussian"}),
    "beta": Family(ARM, settings={"box": "beta"}),
    "multi_discrete": Family(spaces.MultiDiscrete([3, 4])),
    "dict": Family(spaces.Dict({"arm": ARM, "grip": spaces.Discrete(3)})),
    "masks": Family(spaces.Discrete(4), masked=True),
    "lstm": Family(spaces.Discrete(4), settings={"cell": "lstm", "cell_size": 8}),
    "normalised": Family(ARM, settings={"normalize_observation": True}),
    "images": Family(
        spaces.Discrete(6),
        spaces.Box(0, 255, (36, 36, 2), np.uint8),
        settings={"learning_rate": 1e-6},  # what it begins with differs more
    ),
    "binary": Family(spaces.MultiBinary(3)),
    "gru": Family(ARM, settings={"cell": "gru", "cell_size": 8}),
    "own_std": Family(ARM, settings={"state_dependent_std": True}),
    "gsde": Family(ARM, settings={"noise_interval": 4}),
    "nested": Family(
        spaces.Tuple(
            (spaces.MultiDiscrete([2, 3]), spaces.Dict({"x": ARM, "y": spaces.Discrete(2)}))
        ),
        spaces.Dict({"a": VECTOR, "b": spaces.Box(-1.0, 1.0, (2, 3))}),
        settings={"box": "beta", "share_network": True, "activation": "relu"},
    ),
    "float64": Family(
        spaces.Box(-2.0, 2.0, (2,), np.float64), spaces.Box(-1.0, 1.0, (5,), np.float64)
    ),
}


def train(family: Family) -> pgest.PGAgent:
    """An agent of a few updates, whose actions differ from observation to observation."""
    config = pgest.RunConfig(tf_random_seed=3, log_step_count_steps=None, jit_compile=False)
    settings = {"hidden_sizes": (16,), "learning_rate": 0.02, **family.settings}
    agent = pgest.PGAgent(
        pgest.models.PPO(**settings),
        pgest.RolloutMemory(horizon=32),
        {"epochs": 4},
        config=config,
    )
    return agent.train(family.environment(), steps=8)


def observations(family: Family, signature: Any) -> dict[str, np.ndarray]:
    """A thousand inputs of a signature, by name."""
    generator = np.random.default_rng(0)
    found = {}
    for name, spec in sorted(signature.structured_input_signature[1].items()):
        shape = (OBSERVATIONS, *spec.shape[1:])
        if "mask" in name:
            mask = generator.random(shape) < 0.5
            mask[np.arange(OBSERVATIONS), generator.integers(0, shape[1], OBSERVATIONS)] = True
            found[name] = mask
        elif spec.dtype == tf.uint8:
            # Noise alone looks the same everywhere: bright and dark parts of a few pixels.
            parts = generator.uniform(0, 256, (OBSERVATIONS, 4, 4, shape[-1]))
            found[name] = parts.repeat(shape[1] // 4, 1).repeat(shape[2] // 4, 2).astype(np.uint8)
        else:
            found[name] = generator.uniform(-1, 1, shape).astype(spec.dtype.as_numpy_dtype)
    return found


def export(family: Family, directory: str) -> dict[str, str]:
    """Exports a family's agent, with inputs, and what TensorFlow makes of them, beside it.

    Returns:
      The paths of the `export`, of the one of a `fixed` batch, of `inputs` and of `wanted`.
    """
    agent = train(family)
    path = agent.export_saved_model(f"{directory}/any")
    fixed = agent.export_saved_model(f"{directory}/fixed", batch_size=OBSERVATIONS)
    signature = tf.saved_model.load(path).signatures["serving_default"]
    inputs = observations(family, signature)
    outputs = signature(**{name: tf.constant(value) for name, value in inputs.items()})
    job = {"export": path, "fixed": fixed}
    arrays = {
        "inputs": {_in_file(name): rows for name, rows in inputs.items()},
        "wanted": {name: leaf.numpy() for name, leaf in outputs.items()},
    }
    for name, contents in arrays.items():
        job[name] = f"{directory}/{name}.npz"
        np.savez(job[name], **contents)
    return job


def _in_file(argument: str) -> str:
    """An input's name in the file, of which Python's argument has no slash."""
    for word in ("observation", "policy_state"):
        argument = re.sub(f"^{word}_", f"{word}/", argument)
    return argument
