"""Hyper-parameters that change during a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import tensorflow as tf
import tf_keras

from pgest.variables import counters as counters_lib
from pgest.variables import sharing

Clock = Literal["global_step", "global_timestep", "progress"]


@dataclasses.dataclass(frozen=True, repr=False)
class Schedule:
    """A hyper-parameter as a function of a counter or of a run's progress.

    Attributes:
      function: from the clock's value, a float32 scalar tensor, to the hyper-parameter's; made of
        TensorFlow ops, since it runs inside the compiled program.
      clock: "global_step", "global_timestep", or "progress": how near the run is to the nearest of
        its limits, 0 to 1: a counter divided by its limit, both since the model was born; 0 in a
        run without limits.

    Raises:
      ValueError: an unknown clock.
      TypeError: `function` cannot be called.

    Example:

    >>> halving = Schedule(lambda timestep: 0.5 ** (timestep / 1000), clock="global_timestep")
    >>> float(halving.function(2000.0))
    0.25
    """

    function: Callable[[Any], Any]
    clock: Clock = "progress"

    def __post_init__(self) -> None:
        if self.clock not in get_args(Clock):
            raise ValueError(
                f"Schedule got clock={self.clock!r}; expected one of {', '.join(get_args(Clock))}."
            )
        if not callable(self.function):
            raise TypeError(f"Schedule got the function {self.function!r}, which cannot be called.")

    def __repr__(self) -> str:
        if not isinstance(self.function, _Line):
            return f"Schedule({self.function!r}, clock={self.clock!r})"
        line = self.function
        over = "" if line.over == 1.0 else f", over={line.over}"
        clock = "" if self.clock == "progress" else f", clock={self.clock!r}"
        return f"linear({line.initial}, {line.final}{over}{clock})"


@dataclasses.dataclass(frozen=True, eq=False)
class _Line:
    """A function that says what it is, where a lambda would show its place in memory."""

    initial: float
    final: float
    over: float

    def __call__(self, time: Any) -> Any:
        return self.initial + (self.final - self.initial) * tf.minimum(time / self.over, 1.0)


def linear(
    initial: float, final: float, *, over: float = 1.0, clock: Clock = "progress"
) -> Schedule:
    """A schedule that goes from `initial` to `final` on a line, and stays there.

    Args:
      initial: where the clock is 0.
      final: where the clock has reached `over`.
      over: of the clock's units; 1 is the whole of a run's progress.
      clock: see `Schedule`.

    Raises:
      ValueError: `over` is not positive.

    Example:

    >>> decay = linear(1.0, 0.1, over=10_000, clock="global_timestep")
    >>> round(float(decay.function(5000.0)), 3)
    0.55
    """
    if not over > 0:
        raise ValueError(f"linear got over={over}; expected more than 0.")
    return Schedule(_Line(initial, final, over), clock)


def value(hyperparameter: Any, counters: counters_lib.Counters | None = None) -> Any:
    """The present value of a hyper-parameter: a number as it is, a schedule's as a tensor.

    Args:
      hyperparameter: a number, a `Schedule`, or a `tf_keras` learning-rate schedule (of
        `global_step`).
      counters: of the model; those of the model_fn call under way if None.
    """
    if not is_schedule(hyperparameter):
        return hyperparameter
    counters = sharing.current().counters if counters is None else counters
    if not isinstance(hyperparameter, Schedule):
        step = counters.variables[counters_lib.GLOBAL_STEP].read_value()
        return tf.cast(hyperparameter(step), tf.float32)
    clock = (
        counters.progress
        if hyperparameter.clock == "progress"
        else counters.variables[hyperparameter.clock]
    )
    return tf.cast(hyperparameter.function(tf.cast(clock, tf.float32)), tf.float32)


def learning_rate(hyperparameter: Any) -> Any:
    """A learning rate as a tf_keras optimizer takes it.

    A schedule follows its own clock, whatever the optimizer's count of steps: a `Schedule` the one
    that it names, one of `tf_keras` the `global_step`.
    """
    return _Clocked(hyperparameter) if is_schedule(hyperparameter) else hyperparameter


def is_schedule(hyperparameter: Any) -> bool:
    """Whether it changes during a run: a `Schedule`, or a learning-rate schedule of `tf_keras`."""
    return isinstance(
        hyperparameter, (Schedule, tf_keras.optimizers.schedules.LearningRateSchedule)
    )


class _Clocked(tf_keras.optimizers.schedules.LearningRateSchedule):
    """A Schedule behind the interface of Keras, which knows steps alone."""

    def __init__(self, schedule: Any):
        super().__init__()
        self._schedule = schedule
        self._counters = sharing.current().counters

    def __call__(self, step: Any) -> tf.Tensor:
        del step
        return value(self._schedule, self._counters)

    def get_config(self) -> dict[str, Any]:
        return {"schedule": self._schedule}
