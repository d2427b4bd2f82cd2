"""What a batch looks like, told before there is one: programs are traced for these specs."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from pgest.environments import view as environment_view
from pgest.memory import memory as memory_lib
from pgest.tracing import acting


def batch_signature(
    actor: acting.Actor,
    memory: memory_lib.BatchMemory,
    view: environment_view.EnvironmentView,
) -> dict[str, Any]:
    """Specs of the batches that `memory` will hand over, `[T, B, ...]`; T None where it varies."""
    if not isinstance(memory, memory_lib.RolloutMemory):
        return _end_to_end_signature(actor, None)
    if view.resets_take_steps:
        return _end_to_end_signature(actor, memory.horizon * view.num_envs)
    return fixed_signature(actor, memory.horizon, view.num_envs)


def _end_to_end_signature(actor: acting.Actor, rows: int | None) -> dict[str, Any]:
    """Specs of batches in which the environments' timesteps stand end to end, `[N, 1, ...]`."""
    env_index = tf.TensorSpec([rows, 1], tf.int32)
    return {**fixed_signature(actor, rows, 1), memory_lib.ENV_INDEX: env_index}


def fixed_signature(actor: acting.Actor, horizon: int | None, columns: int) -> dict[str, Any]:
    """Specs of batches of `horizon` timesteps and `columns` columns, by name."""
    leading = [horizon, columns]

    def stored(leaf: Any) -> tf.TensorSpec:
        return tf.TensorSpec([*leading, *leaf.shape[1:]], leaf.dtype)

    flags = ["terminated", "truncated", memory_lib.CUT]
    signature: dict[str, Any] = {
        "state": tf.nest.map_structure(stored, actor.observation_spec),
        "action": tf.nest.map_structure(stored, actor.outputs["action"]),
        **tf.nest.map_structure(stored, actor.outputs["predictions"]),
        "reward": tf.TensorSpec(leading, tf.float32),
        memory_lib.BOOTSTRAP_VALUE: tf.TensorSpec(leading, tf.float32),
    }
    if actor.mask_spec is not None:
        signature["action_mask"] = tf.nest.map_structure(stored, actor.mask_spec)
    if actor.recurrent:
        flags.append("reset")
        signature["policy_state"] = tf.nest.map_structure(
            lambda leaf: tf.TensorSpec([leading[1], *leaf.shape[1:]], leaf.dtype), actor.state_spec
        )
    return {**signature, **{name: tf.TensorSpec(leading, tf.bool) for name in flags}}


def following_spec(actor: acting.Actor) -> dict[str, Any]:
    """Specs of the features that a batch's last timestep led to, `[B, ...]` by name."""
    specs = {"state": actor.observation_spec}
    if actor.mask_spec is not None:
        specs["action_mask"] = actor.mask_spec
    if actor.recurrent:
        specs["policy_state"] = actor.state_spec
    return specs


def mask_spec(mask: Any) -> Any:
    """Specs of one environment's action mask, from masks or specs `[B, ...]`; None without."""
    if mask is None:
        return None
    return tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape[1:], tf.bool), mask)
