"""Recurrent networks: one step while acting, `[T, B]` in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from pgest.networks import gated_cells


def unroll(
    cell: tf_keras.layers.Layer,
    inputs: tf.Tensor,
    features: Mapping[str, Any],
    *,
    state_key: str | None = None,
) -> tuple[tf.Tensor, Any]:
    """Runs a recurrent cell: one step while acting, along time in training.

    The state is zeroed where episodes start.
    Gradients flow through the whole of `[T, B]` and stop at its first row and at resets (truncated
    back-propagation through time, Williams & Peng 1990).

    Args:
        cell: `tf_keras.layers.LSTMCell(units, name=...)`, `GRUCell`, or any Keras cell; made by the
            caller, so that its name is the model's.
        inputs: float `[B, features]` (acting) or `[T, B, features]` (training, time first).
        features: of the model_fn: `"policy_state"`, the state before the first step, as
            `next_state` had it (absent: zeros); `"reset"`, bool of the leading shape of inputs,
            True where the state is zeroed before the step (absent: never).
        state_key: where the policy state is a dict of several cells' states, this cell's.

    Returns:
        (outputs, next_state): outputs `[B, units]` or `[T, B, units]`; next_state, a tensor `[B,
        units]` (GRU) or a tuple of them (LSTM), for the spec's `policy_state`.

    Raises:
        ValueError: inputs of another rank, or a policy state of another number of tensors.

    >>> outputs, state = unroll(tf_keras.layers.GRUCell(4), tf.ones([5, 2, 3]), {})
    >>> outputs.shape, state.shape
    (TensorShape([5, 2, 4]), TensorShape([2, 4]))
    """
    if inputs.shape.rank not in (2, 3):
        raise ValueError(
            f"unroll takes inputs [B, features] or [T, B, features], got {inputs.shape}. "
            "Encode observations to vectors first: flatten_observation, mlp, cnn."
        )
    state = _initial_state(cell, inputs, features.get("policy_state"), state_key)
    reset = features.get("reset")
    if inputs.shape.rank == 2:
        outputs, state = _cell_step(cell, inputs, state, reset)
    else:
        outputs, state = _unroll_time(cell, inputs, state, reset)
    return outputs, state[0] if len(state) == 1 else tuple(state)


def _initial_state(
    cell: tf_keras.layers.Layer, inputs: tf.Tensor, given: Any, state_key: str | None
) -> list[tf.Tensor]:
    sizes = tf.nest.flatten(cell.state_size)
    if given is None:
        batch = tf.shape(inputs)[-2]
        zeros = [tf.zeros(tf.stack([batch, size]), inputs.dtype) for size in sizes]
        return [tf.ensure_shape(zero, [inputs.shape[-2], zero.shape[-1]]) for zero in zeros]
    if state_key is not None:
        given = given[state_key]
    state = tf.nest.flatten(given)
    if len(state) != len(sizes):
        raise ValueError(
            f"The policy state of {cell.name} must be {len(sizes)} tensors [B, units] of sizes "
            f"{sizes}, got {tf.nest.map_structure(lambda part: part.shape, given)}."
            " With several cells, keep a dict of states and pass state_key."
        )
    return state


def _cell_step(
    cell: tf_keras.layers.Layer,
    inputs: tf.Tensor,
    state: list[tf.Tensor],
    reset: tf.Tensor | None,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    outputs, state = cell(inputs, gated_cells.zeroed(state, reset))
    return outputs, tf.nest.flatten(state)


def _unroll_time(
    cell: tf_keras.layers.Layer,
    inputs: tf.Tensor,
    state: list[tf.Tensor],
    reset: tf.Tensor | None,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    if not cell.built:
        # A call makes the weights under the cell's name, which inside the loop could not be; its
        # result is unused.
        cell(tf.zeros_like(inputs[0]), [tf.zeros_like(part) for part in state])
    if gated_cells.takes(cell):
        return gated_cells.unroll(cell, inputs, state, reset)
    steps = gated_cells.steps_of(inputs)
    outputs = tf.TensorArray(inputs.dtype, steps, element_shape=[inputs.shape[1], cell.output_size])

    def step(time: tf.Tensor, outputs: tf.TensorArray, *state: tf.Tensor) -> tuple[Any, ...]:
        row_reset = None if reset is None else reset[time]
        output, next_state = _cell_step(cell, inputs[time], list(state), row_reset)
        return (time + 1, outputs.write(time, output), *next_state)

    # XLA needs the bound to size what the backward pass keeps.
    _, outputs, *state = tf.while_loop(
        lambda time, *_: time < steps,
        step,
        (tf.constant(0), outputs, *state),
        maximum_iterations=steps,
    )
    return tf.ensure_shape(outputs.stack(), [*inputs.shape[:2], cell.output_size]), list(state)
