"""Histograms of weights, gradients and actions for TensorBoard, written inside an update."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from pgest.tracing import model as model_lib
from pgest.variables import sharing


class Histograms:
    """What an update on a summary step writes where `RunConfig.save_histograms` asks for it.

    Weights and actions are those that the update begins with; gradients are those of its first
    step, before they are clipped: more would make files large and curves no clearer.

    Args:
      model: the model.
      writer: a summary writer; without one nothing is written.
    """

    def __init__(self, model: model_lib.Model, writer: Any):
        self._writer = writer
        self._wanted = writer is not None and model.config.save_histograms
        self._counters = model.counters.variables
        self._weights: dict[str, tf.Variable] = {}
        self._began: Any = None
        if self._wanted:
            with tf.init_scope():  # the global_step at which the update began
                self._began = tf.Variable(-1, trainable=False, dtype=tf.int64)

    def without_own(self, variables: Sequence[tf.Variable]) -> list[tf.Variable]:
        """The variables of a trace, but for what is needed here and is no part of the model."""
        return [variable for variable in variables if variable is not self._began]

    def write_update(self, labels: dict[str, Any]) -> None:
        """Writes actions and weights; before the first step, whose trace has been made."""
        if not self._wanted:
            return
        self._began.assign(self._counters["global_step"])
        with self._writing(True):
            actions = tf.nest.flatten(labels["action"])
            for number, action in enumerate(actions):
                tag = "actions" if len(actions) == 1 else f"actions/{number}"
                tf.summary.histogram(tag, action)
            for name, variable in self._weights.items():
                tf.summary.histogram(f"weights/{name}", variable)

    def write_step(self, step: tf.Tensor, build: sharing.Build) -> None:
        """Writes the gradients that `minimize` has computed.

        Args:
          step: the global_step before this one.
          build: the call of model_fn.
        """
        if not self._wanted:
            return
        self._weights = {_name(variable): variable for variable in build.trainable_variables}
        with self._writing(tf.equal(step, self._began)):
            for number, pairs in enumerate(build.gradients):
                prefix = "gradients" if number == 0 else f"gradients_{number}"
                for gradient, variable in pairs:
                    values = tf.convert_to_tensor(gradient)  # of an embedding: slices
                    tf.summary.histogram(f"{prefix}/{_name(variable)}", values)

    @contextlib.contextmanager
    def _writing(self, condition: Any) -> Iterator[None]:
        step = self._counters["global_timestep"]
        with self._writer.as_default(step=step), tf.summary.record_if(condition):
            yield


def _name(variable: tf.Variable) -> str:
    return variable.name.partition(":")[0]
