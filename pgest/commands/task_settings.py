"""Settings of a task: YAML files, one an algorithm and task, and what they are made into.

A file is flat: keys are the fields of the ready-made model and of `UpdateConfig`, those of the
memory (`horizon`, `batch_size`, `episodes`), `num_envs`, `vectorization`, `timesteps`, what is put
around an environment (`preprocessing`, `frame_stack`), and the fields of `RunConfig`.
`linear(0.001)` is a schedule that falls to 0 over the run, and `linear(0.001, 0.0001)` one that
ends elsewhere. The file of an environment is `tuned/<algorithm>/<id>.yaml`; those of a namespace
(`ALE/…`) share `tuned/<algorithm>/<namespace>/default.yaml`.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from pgest import models, schedules
from pgest.contract import run_config, update_config
from pgest.memory import memory as memory_lib

MODELS: Mapping[str, type[models.PolicyGradientModel]] = {
    "a2c": models.A2C,
    "ppo": models.PPO,
    "trpo": models.TRPO,
    "vpg": models.VPG,
}
"""The ready-made models by the names that `--algo` takes."""

_MEMORY_KEYS = ("horizon", "batch_size", "episodes")
_ENVIRONMENT_KEYS = ("preprocessing", "frame_stack")
_RUN_KEYS = ("num_envs", "vectorization", "timesteps", *_ENVIRONMENT_KEYS, *_MEMORY_KEYS)
_DEFAULT = "default"
_LINEAR = re.compile(r"linear\(\s*([^,()]+?)\s*(?:,\s*([^,()]+?)\s*)?\)")


class SettingsError(ValueError):
    """Settings that do not fit: an unknown key, a value that is none, a file that is missing."""


def field_names(kind: type) -> list[str]:
    """The names of a dataclass's fields, in order."""
    return [field.name for field in dataclasses.fields(kind)]


_CONFIG_KEYS = tuple(
    name
    for name in field_names(run_config.RunConfig)
    if name not in ("model_dir", "tf_random_seed")
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one run, flat, and what they are for.

    Attributes:
      algorithm: "a2c", "ppo", "trpo" or "vpg"; None where the model_fn is the user's own.
      values: settings by key, as a YAML file holds them.
      source: where they are from, for people.
    """

    algorithm: str | None
    values: Mapping[str, Any]
    source: str = ""

    def __post_init__(self) -> None:
        given = [key for key in _MEMORY_KEYS if self.values.get(key) is not None]
        if len(given) > 1:
            raise SettingsError(
                f"The settings have {' and '.join(given)}; expected one of "
                f"{', '.join(_MEMORY_KEYS)}: set the other to null."
            )
        if self.algorithm is not None:
            _check_keys(self.values, self.known_keys())

    def known_keys(self) -> list[str]:
        """The keys that settings of this algorithm may have."""
        keys = [*_RUN_KEYS, *field_names(update_config.UpdateConfig), *_CONFIG_KEYS]
        if self.algorithm is not None:
            keys += field_names(MODELS[self.algorithm])
        return list(dict.fromkeys(keys))

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """The same with other values; another kind of memory takes the place of the one set."""
        values = dict(self.values)
        if any(changes.get(key) is not None for key in _MEMORY_KEYS):
            for key in _MEMORY_KEYS:
                values.pop(key, None)
        return dataclasses.replace(self, values={**values, **changes})

    @property
    def num_envs(self) -> int:
        """How many environments are stepped at once."""
        return int(self.values.get("num_envs", 1))

    @property
    def timesteps(self) -> int:
        """How many timesteps the run takes in all."""
        return int(self.values.get("timesteps", 100_000))

    def memory(self) -> memory_lib.BatchMemory:
        """A new memory."""
        if self.values.get("horizon") is not None:
            return memory_lib.RolloutMemory(self.values["horizon"])
        return memory_lib.BatchMemory(
            self.values.get("batch_size"), episodes=self.values.get("episodes")
        )

    def model(self) -> models.PolicyGradientModel:
        """The ready-made model.

        Raises:
          SettingsError: the model is the user's own, or refuses a value.
        """
        if self.algorithm is None:
            raise SettingsError("These settings have no algorithm: they are of a model_fn.")
        kind = MODELS[self.algorithm]
        chosen = {key: made(value) for key, value in self._of(field_names(kind)).items()}
        if "hidden_sizes" in chosen:
            chosen["hidden_sizes"] = tuple(chosen["hidden_sizes"])
        if chosen.get("normalize_reward") and "reward_discount" not in chosen:
            discount = self.values.get("discount", update_config.UpdateConfig().discount)
            if not isinstance(discount, str):  # a schedule; the statistics run on one number
                chosen["reward_discount"] = discount
        try:
            return kind(**chosen)
        except (TypeError, ValueError) as error:
            raise SettingsError(str(error)) from error

    def update(self) -> update_config.UpdateConfig:
        """What the agent does around the `train_op`."""
        names = field_names(update_config.UpdateConfig)
        if self.algorithm is not None:  # TRPO's target_kl is its trust region
            names = [name for name in names if name not in field_names(MODELS[self.algorithm])]
        try:
            return update_config.UpdateConfig(
                **{key: made(value) for key, value in self._of(names).items()}
            )
        except (TypeError, ValueError) as error:
            raise SettingsError(str(error)) from error

    def config(self, seed: int | None) -> run_config.RunConfig:
        """How the run is carried out."""
        try:
            return run_config.RunConfig(tf_random_seed=seed, **self._of(_CONFIG_KEYS))
        except (TypeError, ValueError) as error:
            raise SettingsError(str(error)) from error

    def params(self) -> dict[str, Any]:
        """What is nothing of pgest's: the `params` of a model_fn of the user's own."""
        known = set(self.known_keys())
        return {key: made(value) for key, value in self.values.items() if key not in known}

    def _of(self, names: Iterable[str]) -> dict[str, Any]:
        return {name: self.values[name] for name in names if name in self.values}


def tasks() -> list[tuple[str, str]]:
    """The (algorithm, environment id) that have settings of their own, in order.

    `ALE/*` stands for all environments of a namespace.
    """
    found = []
    for algorithm in MODELS:
        for entry in (_folder() / algorithm).iterdir():
            if entry.is_dir():
                files = [f"{entry.name}/{file.name}" for file in entry.iterdir()]
                found += [(algorithm, name.replace(f"{_DEFAULT}.yaml", "*")) for name in files]
            elif entry.name != f"{_DEFAULT}.yaml":
                found.append((algorithm, entry.name))
    return sorted((algorithm, name.removesuffix(".yaml")) for algorithm, name in found)


def namespace(env_id: str) -> str:
    """What stands before the / of an environment's id; "" without one.

    >>> namespace("ALE/Breakout-v5"), namespace("ale_py:ALE/Breakout-v5"), namespace("CartPole-v1")
    ('ALE', 'ALE', '')
    """
    return _without_module(env_id).rpartition("/")[0]


def tuned(algorithm: str, env_id: str) -> Settings:
    """The settings of a task: its own, those of its namespace, or those the algorithm starts from.

    Raises:
      SettingsError: there is no such algorithm.
    """
    if algorithm not in MODELS:
        raise SettingsError(f"There is no algorithm {algorithm!r}; expected {', '.join(MODELS)}.")
    known, source, name = tasks(), f"{algorithm.upper()}'s defaults", _DEFAULT
    for task in (_without_module(env_id), f"{namespace(env_id)}/*"):
        if (algorithm, task) in known:
            source, name = f"tuned for {task}", task.replace("*", _DEFAULT)
            break
    text = _folder().joinpath(algorithm, *f"{name}.yaml".split("/")).read_text(encoding="utf-8")
    return Settings(algorithm, parsed(text, source), source)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings of a user's own file.

    Raises:
      SettingsError: it cannot be read, or is no YAML mapping.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return parsed(file.read(), os.fspath(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{os.fspath(path)} cannot be read: {error}") from error


def parsed(text: str, source: str) -> dict[str, Any]:
    """The mapping in a YAML text.

    Raises:
      SettingsError: it is no mapping.
    """
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{source} is no YAML: {error}") from error
    found = {} if found is None else found
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise SettingsError(
            f"{source} holds {type(found).__name__}; expected lines of `key: value`."
        )
    return {key: _number_or(value) for key, value in found.items()}


def assignment(text: str) -> tuple[str, Any]:
    """The key and the value of `key=value`, the value read as YAML.

    Raises:
      SettingsError: it is none.

    Example:

    >>> assignment("learning_rate=1e-3"), assignment("hidden_sizes=[32, 32]")
    (('learning_rate', 0.001), ('hidden_sizes', [32, 32]))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingsError(
            f"{text!r} is no setting; expected key=value, as in learning_rate=1e-3."
        )
    try:
        return key.strip(), _number_or(yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise SettingsError(f"The value of {text!r} cannot be read: {error}") from error


def made(value: Any) -> Any:
    """A setting as the library takes it: `linear(…)` becomes a schedule.

    Raises:
      SettingsError: what stands in the brackets is no number.

    Example:

    >>> float(made("linear(1.0, 0.5)").function(1.0))
    0.5
    """
    match = _LINEAR.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return value
    try:
        return schedules.linear(float(match[1]), float(match[2] or 0.0))
    except ValueError as error:
        raise SettingsError(
            f"{value!r} is no schedule; expected linear(from) or linear(from, to), in numbers."
        ) from error


def written(values: Mapping[str, Any]) -> str:
    """Settings as a YAML text, in their order."""
    return yaml.safe_dump(dict(values), sort_keys=False, default_flow_style=False)


def suggestion(key: str, known: Iterable[str]) -> str:
    """`: did you mean …?` where a known key is near."""
    near = difflib.get_close_matches(key, list(known), n=1)
    return f": did you mean {near[0]!r}?" if near else "."


def _without_module(env_id: str) -> str:
    """`ALE/Breakout-v5` of `ale_py:ALE/Breakout-v5`."""
    return env_id.rpartition(":")[2]


def _check_keys(values: Mapping[str, Any], known: list[str]) -> None:
    for key in values:
        if key not in known:
            raise SettingsError(
                f"There is no setting {key!r}{suggestion(key, known)} Expected any of "
                f"{', '.join(sorted(known))}."
            )


def _number_or(value: Any) -> Any:
    """YAML 1.1 takes 1e-3, without a point, for a text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _folder() -> Any:
    return importlib.resources.files("pgest.commands") / "tuned"
