"""LSTM and GRU along time, with all that need not be in the loop taken out of it.

A step of time multiplies a few rows with a matrix, so a loop over steps is bound by how often the
matrices are read. The product of the inputs waits for nothing: it is one product of all steps. So
is the gradient of the weights, which added up step by step would read and write as much memory as
the weights take, twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

# From the products of the inputs and of the state, [B, gates * units] each, and the state before
# to the state after.
_Gates = Callable[[tf.Tensor, tf.Tensor, Sequence[tf.Tensor]], list[tf.Tensor]]


def takes(cell: tf_keras.layers.Layer) -> bool:
    """Whether a cell computes what is written here: Keras's LSTM or GRU with its usual settings."""
    # A subclass may compute something else.
    if type(cell) not in (tf_keras.layers.LSTMCell, tf_keras.layers.GRUCell):
        return False
    return (
        getattr(cell, "reset_after", True)
        and cell.activation is tf_keras.activations.tanh
        and cell.recurrent_activation is tf_keras.activations.sigmoid
        and not cell.dropout
        and not cell.recurrent_dropout
        and cell.compute_dtype == cell.variable_dtype
    )


def unroll(
    cell: tf_keras.layers.Layer,
    inputs: tf.Tensor,
    state: Sequence[tf.Tensor],
    reset: tf.Tensor | None,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Runs a cell along time.

    Args:
      cell: that `takes` accepts, built.
      inputs: float `[T, B, features]`.
      state: before the first step, `[B, units]` each, the output first.
      reset: bool `[T, B]`, True where the state is zeroed before the step; None: never.

    Returns:
      (outputs, state): `[T, B, units]`, and the state after the last step.
    """
    gates = _lstm if isinstance(cell, tf_keras.layers.LSTMCell) else _gru
    projected = tf.tensordot(inputs, tf.convert_to_tensor(cell.kernel), 1)
    kernel = tf.convert_to_tensor(cell.recurrent_kernel)
    bias = tf.zeros([kernel.shape[1]], kernel.dtype)
    if cell.use_bias:
        # A GRU has two, the first for the product of the inputs.
        *first, bias = tf.unstack(tf.reshape(cell.bias, [-1, kernel.shape[1]]))
        projected = projected + first[0] if first else projected

    @tf.custom_gradient
    def run(projected: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, *state: tf.Tensor) -> Any:
        given = _Given(projected, kernel, bias, state, reset)
        passed = _forwards(gates, given)

        def gradient(of_outputs: tf.Tensor, *of_last: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return _backwards(gates, given, passed, of_outputs, of_last)

        return (passed.states[0], *passed.last), gradient

    outputs, *last = run(projected, kernel, bias, *state)
    return outputs, last


class _Given(NamedTuple):
    """What a pass along time starts from.

    Attributes:
      projected: the product of the inputs, `[T, B, gates * units]`.
      kernel: of the product of the state, `[units, gates * units]`.
      bias: of that product, `[gates * units]`.
      state: before the first step, `[B, units]` each.
      reset: bool `[T, B]`, or None.
    """

    projected: tf.Tensor
    kernel: tf.Tensor
    bias: tf.Tensor
    state: Sequence[tf.Tensor]
    reset: tf.Tensor | None


class _Passed(NamedTuple):
    """What a pass along time leaves for the one back.

    Attributes:
      products: of the state, `[T, B, gates * units]`.
      states: after each step, `[T, B, units]` each.
      last: the state after the last step, `[B, units]` each.
    """

    products: tf.Tensor
    states: list[tf.Tensor]
    last: list[tf.Tensor]


def _forwards(gates: _Gates, given: _Given) -> _Passed:
    projected, kernel, bias, start, reset = given

    def step(time: tf.Tensor, arrays: Any, state: Any) -> Any:
        state = zeroed(state, reset, time)
        product = tf.matmul(state[0], kernel) + bias
        state = gates(projected[time], product, state)
        written = zip(arrays, [product, *state], strict=True)
        arrays = [array.write(time, value) for array, value in written]
        return time + 1, arrays, state

    steps = steps_of(projected)
    arrays = [_array(projected, part) for part in (bias, *start)]
    _, arrays, last = tf.while_loop(
        lambda time, *_: time < steps,
        step,
        (tf.constant(0), arrays, list(start)),
        maximum_iterations=steps,  # XLA needs it to size what the backward pass keeps
    )
    products, *states = [array.stack() for array in arrays]
    return _Passed(products, states, last)


def _backwards(
    gates: _Gates,
    given: _Given,
    passed: _Passed,
    of_outputs: tf.Tensor,
    of_last: Sequence[tf.Tensor],
) -> tuple[tf.Tensor, ...]:
    """The gradients by projected, kernel, bias and the parts of state."""
    projected, kernel, _, start, reset = given
    before = [
        tf.concat([first[tf.newaxis], after[:-1]], axis=0)
        for first, after in zip(start, passed.states, strict=True)
    ]
    before = zeroed(before, reset)
    transposed = tf.transpose(kernel)

    def step(time: tf.Tensor, arrays: Any, of_state: Any) -> Any:
        seen = [projected[time], passed.products[time], *(part[time] for part in before)]
        with tf.GradientTape() as tape:
            tape.watch(seen)
            after = gates(seen[0], seen[1], seen[2:])
        of_state = [of_state[0] + of_outputs[time], *of_state[1:]]
        of_projected, of_product, *of_state = tape.gradient(
            after, seen, of_state, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        of_state[0] += tf.matmul(of_product, transposed)
        written = zip(arrays, [of_projected, of_product], strict=True)
        arrays = [array.write(time, value) for array, value in written]
        return time - 1, arrays, zeroed(of_state, reset, time)

    steps = steps_of(projected)
    arrays = [_array(projected, kernel[0]) for _ in range(2)]
    _, arrays, of_state = tf.while_loop(
        lambda time, *_: time >= 0,
        step,
        (steps - 1, arrays, list(of_last)),
        maximum_iterations=steps,
    )
    of_projected, of_products = [array.stack() for array in arrays]
    of_kernel = tf.tensordot(before[0], of_products, [[0, 1], [0, 1]])
    return of_projected, of_kernel, tf.reduce_sum(of_products, axis=[0, 1]), *of_state


def steps_of(inputs: tf.Tensor) -> int | tf.Tensor:
    """How many steps of time `[T, B, ...]` has."""
    return inputs.shape[0] if inputs.shape[0] is not None else tf.shape(inputs)[0]


def _array(projected: tf.Tensor, like: tf.Tensor) -> tf.TensorArray:
    """For a value of every step, of the last axis of `like`."""
    shape = [projected.shape[1], like.shape[-1]]
    return tf.TensorArray(projected.dtype, steps_of(projected), element_shape=shape)


def zeroed(
    state: Sequence[tf.Tensor], reset: tf.Tensor | None, time: tf.Tensor | None = None
) -> list[tf.Tensor]:
    """The state with zeros where it is reset.

    Args:
      state: parts `[B, units]`, or `[T, B, units]` where `reset` has all times and `time` is None.
      reset: bool `[B]` or `[T, B]`; None: never.
      time: of `reset`, that the state is of.
    """
    if reset is None:
        return list(state)
    started = tf.cast(reset if time is None else reset[time], tf.bool)[..., tf.newaxis]
    return [tf.where(started, tf.zeros_like(part), part) for part in state]


def _lstm(projected: tf.Tensor, product: tf.Tensor, state: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000."""
    into, forget, candidate, out = tf.split(projected + product, 4, axis=-1)
    cell = tf.sigmoid(forget) * state[1] + tf.sigmoid(into) * tf.tanh(candidate)
    return [tf.sigmoid(out) * tf.tanh(cell), cell]


def _gru(projected: tf.Tensor, product: tf.Tensor, state: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Cho et al. 2014, with the reset gate after the product."""
    keep, reset, candidate = tf.split(projected, 3, axis=-1)
    keep_too, reset_too, memory = tf.split(product, 3, axis=-1)
    keep = tf.sigmoid(keep + keep_too)
    candidate = tf.tanh(candidate + tf.sigmoid(reset + reset_too) * memory)
    return [keep * state[0] + (1.0 - keep) * candidate]
