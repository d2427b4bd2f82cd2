"""Values computed once, at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from pgest.hooks import monitor


class FinalOpsHook(monitor.BaseMonitor):
    """Computes something when the run has ended regularly, and keeps it.

    Args:
      final_ops: a function of the `RunContext`, or a nest (dict, list, tuple) of such functions.
        It may return anything; tensors and variables become numpy arrays.

    Attributes:
      final_ops_values: the results in the structure of `final_ops`; None before the end, and
        after a run that failed.

    Raises:
      TypeError: something in `final_ops` cannot be called.

    Example:
      >>> hook = FinalOpsHook({"steps": lambda context: context.step})
      >>> hook.end(monitor.RunContext())
      >>> hook.final_ops_values
      {'steps': 0}
    """

    def __init__(self, final_ops: Callable[[monitor.RunContext], Any] | Any) -> None:
        for function in tf.nest.flatten(final_ops):
            if not callable(function):
                raise TypeError(
                    "FinalOpsHook takes functions of the context; got "
                    f"{function!r} of type {type(function).__name__}. Wrap a value: "
                    "lambda context: value."
                )
        self._final_ops = final_ops
        self.final_ops_values: Any = None

    def begin(self, context: monitor.RunContext) -> None:
        """Forgets what an earlier run left."""
        self.final_ops_values = None

    def end(self, context: monitor.RunContext) -> None:
        """Computes the values."""
        if context.error is not None:
            return
        self.final_ops_values = tf.nest.map_structure(
            lambda function: tf.nest.map_structure(_on_the_host, function(context)),
            self._final_ops,
        )


def _on_the_host(value: Any) -> Any:
    return value.numpy() if isinstance(value, tf.Tensor | tf.Variable) else value
