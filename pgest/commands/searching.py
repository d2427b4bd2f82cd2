"""What `pgest tune` varies: ranges of settings, as YAML files and the command line write them."""

from __future__ import annotations

import dataclasses
import importlib.resources
import re
from collections.abc import Mapping
from typing import Any

from pgest.commands import task_settings

_RANGE = re.compile(r"(log|uniform|int)\(\s*([^,()]+?)\s*,\s*([^,()]+?)\s*\)")
_PLAIN = (type(None), bool, int, float, str)  # what a study keeps as it is


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that a setting may have.

    Attributes:
      kind: "log" and "uniform": floats between the two `values`, even in the logarithm or not;
        "int": integers between them; "choice": one of `values`.
      values: see there.
    """

    kind: str
    values: tuple[Any, ...]

    def suggest(self, trial: Any, key: str) -> Any:
        """What an Optuna trial tries."""
        if self.kind == "choice":
            shown = [value if isinstance(value, _PLAIN) else str(value) for value in self.values]
            return self.values[shown.index(trial.suggest_categorical(key, shown))]
        low, high = self.values
        if self.kind == "int":
            return trial.suggest_int(key, low, high)
        return trial.suggest_float(key, low, high, log=self.kind == "log")


def parsed(key: str, value: Any) -> Range:
    """The range that a text or a list says.

    Args:
      key: the setting.
      value: `log(low, high)`, `uniform(low, high)`, `int(low, high)`, or a list of choices.

    Raises:
      SettingsError: it is nothing of these, or has no values in it.

    Example:

    >>> parsed("learning_rate", "log(1e-5, 1e-2)")
    Range(kind='log', values=(1e-05, 0.01))
    """
    if isinstance(value, list) and value:
        return Range("choice", tuple(value))
    match = _RANGE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise task_settings.SettingsError(
            f"The range of {key} is {value!r}; expected log(low, high), uniform(low, high), "
            "int(low, high), or a list of choices such as [64, 128]."
        )
    kind = match[1]
    try:
        low, high = (int(text) if kind == "int" else float(text) for text in match.groups()[1:])
    except ValueError as error:
        raise task_settings.SettingsError(f"The range of {key} has a bad number: {error}") from None
    if not low < high or (kind == "log" and low <= 0):
        positive = ", both above 0" if kind == "log" else ""
        raise task_settings.SettingsError(
            f"The range of {key} is {value}; expected a low end below the high one{positive}."
        )
    return Range(kind, (low, high))


def of(
    settings: task_settings.Settings, changes: Mapping[str, Any], fixed: Mapping[str, Any]
) -> dict[str, Range]:
    """The ranges of a study, by setting.

    Args:
      settings: what stays where nothing is varied.
      changes: the user's ranges; None takes a setting out.
      fixed: what the user has set: it is not varied unless `changes` says so.

    Raises:
      SettingsError: a range is none, a key is no setting, or there is nothing to vary.
    """
    ranges: dict[str, Any] = {}
    if settings.algorithm is not None:
        name = f"{settings.algorithm}.yaml"
        file = importlib.resources.files("pgest.commands") / "searched" / name
        ranges = task_settings.parsed(file.read_text(encoding="utf-8"), name)
        ranges = {key: value for key, value in ranges.items() if key not in fixed}
    chosen = {**ranges, **changes}
    found = {key: parsed(key, value) for key, value in chosen.items() if value is not None}
    if not found:
        raise task_settings.SettingsError(
            "There is nothing to vary: give -s KEY=RANGE, as in -s 'learning_rate=log(1e-5, 1e-2)'."
        )
    # Raises where a key is no setting.
    settings.changed({key: range_.values[0] for key, range_ in found.items()})
    return found
