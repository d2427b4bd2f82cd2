"""How often something happens: `Every` and its timer."""

from __future__ import annotations

import dataclasses
import math
import numbers
import operator
from collections.abc import Callable, Mapping
from typing import Any, Protocol

_COUNTER_OF_UNIT = {"steps": "step", "timesteps": "timestep", "episodes": "episode"}


class Clocks(Protocol):
    """The four clocks that an `Every` can go by; a `RunContext` has them."""

    step: int
    timestep: int
    episode: int
    clock: Callable[[], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Every:
    """How often something happens: exactly one of four clocks.

    On the counters it fires when the counter *crosses* a multiple: a single update that takes
    10,000 timesteps fires `Every(timesteps=1000)` once, and a run that goes on from timestep
    1,500 fires next at 2,000. On `seconds` it fires when at least that long has passed since it
    last fired or was started.

    Args:
      steps: fires at multiples of this many steps (`global_step`).
      timesteps: fires at multiples of this many timesteps (`global_timestep`).
      episodes: fires at multiples of this many episodes (`global_episode`).
      seconds: fires this many seconds after it last did.

    Raises:
      ValueError: not exactly one was given, or one that is not positive.
      TypeError: a count that is no integer, or seconds that are no number.

    Example:
      >>> from pgest.hooks import monitor
      >>> context = monitor.RunContext()
      >>> timer = Every(timesteps=1000).timer(context)
      >>> context.timestep = 10_400
      >>> timer.due(context), timer.due(context)
      (True, False)
    """

    steps: int | None = None
    timesteps: int | None = None
    episodes: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        given = self._given()
        if len(given) != 1:
            raise ValueError(
                "Every takes exactly one of steps, timesteps, episodes and seconds; got "
                f"{given or 'none'}. For two clocks, use two hooks."
            )
        ((unit, value),) = given.items()
        check = _positive_seconds if unit == "seconds" else positive_count
        object.__setattr__(self, unit, check(f"Every({unit}=…)", value))

    @property
    def unit(self) -> str:
        """Which clock it goes by: "steps", "timesteps", "episodes" or "seconds"."""
        return next(iter(self._given()))

    @property
    def period(self) -> float:
        """How many of `unit` lie between two firings."""
        return float(getattr(self, self.unit))

    def _given(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {unit: value for unit, value in values.items() if value is not None}

    def timer(self, context: Clocks) -> EveryTimer:
        """A timer that starts at the context's present counters and time."""
        return EveryTimer(self, context)


class EveryTimer:
    """Tells when an `Every` is due; made by `Every.timer`."""

    def __init__(self, every: Every, context: Clocks) -> None:
        self._period = every.period
        self._counter = _COUNTER_OF_UNIT.get(every.unit)
        self._clock = context.clock
        self._next = self._following(self._now(context))

    def due(self, context: Clocks) -> bool:
        """True once for each time that the clock has crossed; the next one is set then."""
        now = self._now(context)
        if now < self._next:
            return False
        self._next = self._following(now)
        return True

    def state(self) -> dict[str, float]:
        """When it is due, in words that mean the same in another process."""
        if self._counter is None:
            return {"seconds": self._next - self._clock()}
        return {self._counter: self._next}

    def restore(self, state: Mapping[str, float]) -> None:
        """Is due when the timer that gave `state` is, unless it is sooner by itself."""
        if self._counter is None:
            if "seconds" in state:
                self._next = min(self._next, self._clock() + state["seconds"])
        elif self._counter in state:
            self._next = min(self._next, state[self._counter])

    def _now(self, context: Clocks) -> float:
        return context.clock() if self._counter is None else getattr(context, self._counter)

    def _following(self, now: float) -> float:
        if self._counter is None:
            return now + self._period
        # Integers throughout: floats would lose units beyond 2**53.
        period = int(self._period)
        return (int(now) // period + 1) * period


def _positive_seconds(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"{what} takes a positive number; got {value!r} of type {type(value).__name__}."
        )
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{what} takes a positive number of seconds; got {value!r}.")
    return float(value)


def positive_count(what: str, value: Any) -> int:
    """`value` as an int, checked where a hook is made.

    Args:
      what: the name of the argument, for the error.
      value: any integer (numpy's too), larger than zero; no bool.

    Raises:
      TypeError: no integer.
      ValueError: zero or negative.

    Example:
      >>> positive_count("episodes", 3)
      3
    """
    if isinstance(value, bool):
        raise TypeError(f"{what} takes a positive integer; got the bool {value!r}.")
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{what} takes a positive integer; got {value!r} of type {type(value).__name__}."
        ) from None
    if count <= 0:
        raise ValueError(f"{what} takes a positive integer; got {count}.")
    return count


def finite_number(what: str, value: Any, advice: str = "") -> float:
    """`value` as a float, checked where a hook is made.

    Args:
      what: the name of the argument, for the error.
      value: any real number (numpy's too); no bool.
      advice: what else to do, for the error about one that is not finite.

    Raises:
      TypeError: no number.
      ValueError: infinite or NaN.

    Example:
      >>> finite_number("threshold", 475)
      475.0
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{what} takes a finite number; got {value!r} of type {type(value).__name__}."
        )
    if not math.isfinite(value):
        raise ValueError(f"{what} takes a finite number; got {value!r}. {advice}".rstrip())
    return float(value)


def require_every(hook: str, every: Any) -> Every:
    """`every`, if it is one: `SomeHook(100)` does not say of what.

    Raises:
      TypeError: `every` is no `Every`; the message shows how to write it.
    """
    if not isinstance(every, Every):
        raise TypeError(
            f"{hook} takes every=Every(steps=…), Every(timesteps=…), Every(episodes=…) or "
            f"Every(seconds=…); got {every!r} of type {type(every).__name__}."
        )
    return every
