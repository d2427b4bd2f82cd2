"""What model_fn is given by name: a name that is not there is told with those that are."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

_ADVICE = {
    "features": "Write features['state']: an observation is one entry, whatever its space; "
    "where that is a Dict, features['state']['key'].",
    "labels": "What model_fn predicts while acting comes back here under its own name: "
    "EstimatorSpec(predictions={%r: ...}).",
    "params": "Pass PGAgent(..., params={%r: ...}).",
}


class MissingNameError(KeyError):
    """A name that model_fn was not given; its text is a sentence, unlike a KeyError's."""

    def __init__(self, name: Any, sentence: str):
        super().__init__(name)
        self._sentence = sentence

    def __str__(self) -> str:
        return self._sentence


class Given(dict[str, Any]):
    """A dict that says, where a name is missing, which mode is traced and which names there are.

    Args:
      entries: by name.
      what: the argument of model_fn: "features", "labels" or "params".
      mode: that is traced.

    Example:
      >>> given = Given({"rate": 0.1}, "params", "TRAIN")
      >>> given["learning_rate"]
      Traceback (most recent call last):
      ...
      pgest.contract.given.MissingNameError: params has no 'learning_rate' in Modes.TRAIN; it has
      rate. Pass PGAgent(..., params={'learning_rate': ...}).
    """

    def __init__(self, entries: Any = (), what: str = "", mode: str = ""):
        super().__init__(entries)
        self._what = what
        self._mode = mode

    def __missing__(self, name: Any) -> Any:
        if not self._what:  # TensorFlow makes copies of a nest
            raise KeyError(name)
        raise MissingNameError(name, self._sentence(name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not self._what:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        if name in self:
            raise AttributeError(f"{self._what} is a dict: write {self._what}[{name!r}].")
        raise AttributeError(f"{self._what} is a dict, and {self._sentence(name)}")

    def _sentence(self, name: Any) -> str:
        close = difflib.get_close_matches(str(name), map(str, self), n=1)
        advice = _ADVICE[self._what]
        if close:
            advice = f"Write {self._what}[{close[0]!r}]."
        elif name == "action_mask":
            advice = "This environment offers no action mask: read features.get('action_mask')."
        elif "%r" in advice:
            advice %= name
        there = described(self) if self else "nothing"
        return f"{self._what} has no {name!r} in Modes.{self._mode}; it has {there}. {advice}"


def described(entries: Mapping[str, Any]) -> str:
    """The names, with dtype and shape where the values are tensors.

    >>> described({"rate": 0.1, "units": 8})
    'rate, units'
    """
    return ", ".join(f"{name}{_kind(value)}" for name, value in entries.items())


def _kind(value: Any) -> str:
    if not isinstance(value, tf.Tensor) or value.shape.rank is None:
        return ""
    sizes = ["?" if size is None else str(size) for size in value.shape]
    return f" ({value.dtype.name} [{', '.join(sizes)}])"
