"""What the agent does around a `train_op`: returns, advantages, epochs and minibatches."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

from pgest import schedules
from pgest.contract import foreign_names


@foreign_names.told_fields
@dataclasses.dataclass(frozen=True)
class UpdateConfig:
    """Settings of an update; `PGAgent(optimizer_params=...)` takes one, or a dict of its fields.

    Attributes:
      discount: gamma, a timestep; a number or a schedule (see `pgest.schedules`).
      gae_lambda: lambda of generalised advantage estimation, where the model predicts `value`
        (Schulman et al. 2016, https://arxiv.org/abs/1506.02438); a number or a schedule.
      normalize_advantage: advantages of each minibatch get mean 0 and standard deviation 1.
      epochs: passes over a batch.
      minibatch_size: timesteps a step; None takes the whole batch at once.
      target_kl: the update ends after the step that finds the policy further than 1.5 times this
        from the one that acted; None never (as in Stable-Baselines3's PPO). A number or a schedule.

    Raises:
      ValueError: a value is out of range.
      TypeError: a value is of another type.

    Example:

    >>> UpdateConfig(epochs=4, minibatch_size=64).discount
    0.99
    """

    discount: Any = 0.99
    gae_lambda: Any = 0.95
    normalize_advantage: bool = True
    epochs: int = 1
    minibatch_size: int | None = None
    target_kl: Any = None

    def __post_init__(self) -> None:
        for name in ("discount", "gae_lambda"):
            if not schedules.is_schedule(getattr(self, name)):
                _check_real(name, getattr(self, name), 0.0, 1.0)
        if self.target_kl is not None and not schedules.is_schedule(self.target_kl):
            _check_real("target_kl", self.target_kl, 0.0, float("inf"))
        if not isinstance(self.normalize_advantage, bool):
            raise TypeError(
                f"normalize_advantage is {self.normalize_advantage!r}; expected a bool."
            )
        for name in ("epochs", "minibatch_size"):
            value = getattr(self, name)
            if value is None and name == "minibatch_size":
                continue
            if isinstance(value, bool) or not isinstance(value, numbers.Integral):
                raise TypeError(f"{name} is {value!r}; expected a positive integer.")
            if value <= 0:
                raise ValueError(f"{name} is {value}; expected a positive integer.")

    @classmethod
    def of(cls, given: UpdateConfig | Mapping[str, Any] | None) -> UpdateConfig:
        """Returns `given` as an UpdateConfig.

        Raises:
          ValueError: a key is unknown; the message lists those that exist.
          TypeError: it is neither a mapping nor an UpdateConfig.
        """
        if isinstance(given, cls):
            return given
        if given is None:
            return cls()
        if not isinstance(given, Mapping):
            raise TypeError(
                f"optimizer_params is {type(given).__name__}; expected a dict or an UpdateConfig."
            )
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ValueError(
                f"optimizer_params has unknown {', '.join(unknown)}; expected any of "
                f"{', '.join(known)}. The learning rate and the like belong to the optimizer that "
                f"model_fn makes: pass them in params.{foreign_names.hints(unknown)}"
            )
        return cls(**given)


def _check_real(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; expected a number.")
    if not low <= float(value) <= high:
        raise ValueError(f"{name} is {value}; expected {low} to {high}.")
