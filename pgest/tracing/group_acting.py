"""Greedy acting for several groups of environments, each as if it were alone."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from typing_extensions import override

from pgest.tracing import acting, programs
from pgest.tracing import model as model_lib

# How many environments of all groups one call acts for, which is also how many there are at most.
MOST = 32
# Parts of the names of ops that change something, or whose result is no function of their inputs:
# called for each group, they would do it in another order. Those that draw from a seed too: it may
# be made of the timestep, which groups do not share.
_OF_THEIR_OWN = ("Assign", "Random", "Rng", "StatefulStandardNormal", "PyFunc", "Print", "Queue")


class GroupActor(acting.EvaluationActor):
    """Acts for one group of environments after the other, all inside of one program.

    A product of matrices rounds otherwise for one row than for several. Here each group gets what
    an `Actor` of as many environments would give it, bit for bit, and one call costs little more
    for many groups than for one.

    Args:
      model: the model.
      observation_space: of one environment.
      action_space: of one environment.
      size: environments in a group.
      mask_spec: a nest of specs of the action mask of one environment, or None.

    Raises:
      NotImplementedError: the model does not suit a loop, or draws, counts or prints something.
    """

    def __init__(
        self,
        model: model_lib.Model,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        size: int,
        mask_spec: Any = None,
    ):
        self.size, self.most = size, MOST // size
        self._rows = rows = size * self.most
        super().__init__(model, observation_space, action_space, rows, mask_spec, explore=False)
        self._buffers: list[np.ndarray] = []

    @override
    def _act(self, leaves: list[Any], policy_state: Any, timestep: int) -> acting.Acted:
        """Acts on `[n, ...]`, of groups one after the other; the policy state is of all rows."""
        # Nothing is drawn: in place of the time the program is told how many groups there are.
        del timestep
        rows = len(leaves[0])
        if not self._buffers:
            self._buffers = [np.zeros([self._rows, *x.shape[1:]], x.dtype) for x in leaves]
        for buffer, leaf in zip(self._buffers, leaves, strict=True):
            buffer[:rows] = leaf
        leaves = list(self._buffers)
        if self.recurrent:
            leaves[-1:-1] = tf.nest.flatten(policy_state)
        outputs = self.program.run_flat([*leaves, -(-rows // self.size)])
        arrays = [output.numpy()[:rows] for output in outputs[: self._num_arrays]]
        return self._acted(arrays, outputs[self._num_arrays :])

    @property
    @override
    def _jit_compile(self) -> bool:
        return True  # a loop pays within one compiled program alone

    @override
    def _run(self, *arguments: Any) -> tuple[list[tf.Tensor], Any]:
        *batches, count = arguments
        leaves, size, most = tf.nest.flatten(batches), self.size, self.most
        found: list[Any] = []

        def act(*rows: tf.Tensor) -> list[tf.Tensor]:
            group = tf.nest.pack_sequence_as(batches, rows)
            found[:] = [super(GroupActor, self)._run(*group, tf.zeros([], tf.int64))]
            return tf.nest.flatten(found)

        specs = [tf.TensorSpec([size, *leaf.shape[1:]], leaf.dtype) for leaf in leaves]
        one = tf.function(act, input_signature=specs, autograph=False).get_concrete_function()
        _check(one)

        def body(group: tf.Tensor, *written: tf.TensorArray) -> tuple[Any, ...]:
            parts = [tf.reshape(leaf, [most, size, *leaf.shape[1:]])[group] for leaf in leaves]
            outputs = one(*parts)
            pairs = zip(written, outputs, strict=True)
            return (group + 1, *[array.write(group, output) for array, output in pairs])

        arrays = [tf.TensorArray(x.dtype, most, element_shape=x.shape) for x in one.outputs]
        count = tf.cast(count, tf.int32)
        start = (tf.zeros([], tf.int32), *arrays)
        _, *written = tf.while_loop(lambda group, *_: group < count, body, start)
        self.outputs = tf.nest.map_structure(
            lambda spec: tf.TensorSpec([size * most, *spec.shape[1:]], spec.dtype), self.outputs
        )
        batch = [
            tf.reshape(array.stack(), [size * most, *output.shape[1:]])
            for array, output in zip(written, one.outputs, strict=True)
        ]
        return tf.nest.pack_sequence_as(found[0], batch)


def _check(one: Any) -> None:
    """Raises NotImplementedError where groups are not to be taken one by one in a loop."""
    types = programs.operation_types(one)
    if any(part in name for name in types for part in (*_OF_THEIR_OWN, "Assert", "CheckNumerics")):
        raise NotImplementedError(f"groups of {', '.join(sorted(types))}")
    if programs.convolves(one):
        raise NotImplementedError("convolutions in a loop")


def group_actor(
    model: model_lib.Model,
    spaces: tuple[gymnasium.Space, gymnasium.Space],
    mask_spec: Any,
    observation: Any,
    mask: Any,
) -> GroupActor | None:
    """A `GroupActor` that has acted once; None where the model is none for it.

    What is wrong with the model itself, an `Actor` says.

    Args:
      model: the model.
      spaces: of observations and actions, of one environment.
      mask_spec: as `GroupActor` takes it.
      observation: of one group, `[B, ...]`.
      mask: the action masks of one group, or None.
    """
    size = len(tf.nest.flatten(observation)[0])
    try:
        actor = GroupActor(model, *spaces, size, mask_spec)
        actor(observation, 0, mask, actor.initial_state(), np.ones([size], np.bool_))
    except (NotImplementedError, TypeError, ValueError, tf.errors.OpError):
        return None
    return actor
