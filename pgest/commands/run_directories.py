"""A run of the command line: its directory says by itself what was trained, and how."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pgest import models
from pgest.agents import agent as agent_lib
from pgest.commands import task_environments, task_settings
from pgest.environments import making
from pgest.variables import checkpoints

_FILE = "settings.yaml"


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """What was trained, or is to be.

    Attributes:
      directory: the model_dir.
      env_id: the environment.
      settings: the settings.
      seed: the seed; None draws one.
      model: `package.module:model_fn` where the model is the user's own.
    """

    directory: Path
    env_id: str
    settings: task_settings.Settings
    seed: int | None = None
    model: str | None = None

    def agent(self) -> agent_lib.PGAgent:
        """An agent that goes on from what the directory holds.

        Raises:
          SettingsError: the settings do not fit the model.
        """
        settings = self.settings
        model: Any
        params: Mapping[str, Any] | None = None
        if self.model is None:
            model = settings.model()
        else:
            model, params = own_model(self.model, settings.params())
        return agent_lib.PGAgent(
            model,
            settings.memory(),
            settings.update(),
            model_dir=self.directory,
            config=settings.config(self.seed),
            params=params,
        )

    def environments(self) -> Any:
        """New environments to train in."""
        values = self.settings.values
        kind = values.get("vectorization", "sync")
        trained_in = task_environments.environment(self.env_id, values, training=True)
        return making.make(trained_in, num_envs=self.settings.num_envs, vectorization=kind)

    def played(self) -> Any:
        """What to play outside of training: an id or a factory, as `PGAgent.evaluate` takes it."""
        return task_environments.environment(self.env_id, self.settings.values, training=False)

    def write(self) -> None:
        """Writes down what is run; an earlier run of the directory must have been the same.

        Raises:
          SettingsError: the directory holds a run of another kind.
        """
        file = self.directory / _FILE
        if file.exists():
            _expect_same(read(self.directory), self)
        self.directory.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(task_settings.written(self._described()), encoding="utf-8")
        unfinished.replace(file)  # so that a reader never sees half of it

    def _described(self) -> dict[str, Any]:
        return {
            "algorithm": self.settings.algorithm,
            "model": self.model,
            "env": self.env_id,
            "seed": self.seed,
            "settings": dict(self.settings.values),
        }


def read(directory: str | os.PathLike[str]) -> TrainingRun:
    """The run that a directory holds.

    Raises:
      SettingsError: it holds none of the command line.
    """
    directory = Path(directory)
    file = directory / _FILE
    if not file.is_file():
        inside = sorted(path.parent for path in directory.glob(f"*/{_FILE}"))
        hint = f" Perhaps {inside[0]}?" if inside else ""
        raise task_settings.SettingsError(
            f"{directory} holds no run of `pgest train`: there is no {_FILE} in it.{hint}"
        )
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        settings = task_settings.Settings(found["algorithm"], found["settings"], str(file))
        return TrainingRun(directory, found["env"], settings, found["seed"], found["model"])
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise task_settings.SettingsError(f"{file} cannot be read: {error!r}") from error


def checkpoint(run: TrainingRun, best: bool) -> str | None:
    """The checkpoint to take: None for the newest.

    Raises:
      SettingsError: there is none.
    """
    directory = run.directory / "best" if best else run.directory
    found = checkpoints.latest(directory)
    if found is None:
        hint = " (`pgest train --eval-every` keeps the best)" if best else ""
        raise task_settings.SettingsError(f"{directory} holds no checkpoint{hint}.")
    return found if best else None


def own_model(name: str, params: dict[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """A user's model by its name, and the params that are left for it.

    Args:
      name: `package.module:model_fn`, looked for from the working directory too. It names a
        model_fn, a `PolicyGradientModel`, or a class of one.
      params: settings that are nothing of pgest's; fields, where it is such a model.

    Raises:
      SettingsError: there is none of that name, or it has not these fields.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise task_settings.SettingsError(
            f"The model is {name!r}; expected package.module:model_fn."
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise task_settings.SettingsError(f"There is no model {name!r}: {error}.") from error
    is_kind = isinstance(found, type) and issubclass(found, models.PolicyGradientModel)
    if not is_kind and not isinstance(found, models.PolicyGradientModel):
        return found, params
    known = task_settings.field_names(found if isinstance(found, type) else type(found))
    unknown = [key for key in params if key not in known]
    if unknown:
        raise task_settings.SettingsError(
            f"{name} has no field {unknown[0]!r}{task_settings.suggestion(unknown[0], known)} "
            f"Expected any of {', '.join(known)}."
        )
    params = {key: tuple(v) if isinstance(v, list) else v for key, v in params.items()}
    if isinstance(found, type):
        return found(**params), None
    return dataclasses.replace(found, **params), None


def _expect_same(before: TrainingRun, now: TrainingRun) -> None:
    """A longer run is the same run; anything else is another one."""
    old, new = before._described(), now._described()
    old_values, new_values = dict(old.pop("settings")), dict(new.pop("settings"))
    old_values.pop("timesteps", None), new_values.pop("timesteps", None)
    differing = [key for key in old if old[key] != new[key]]
    differing += [
        key
        for key in dict.fromkeys([*old_values, *new_values])
        if old_values.get(key) != new_values.get(key)
    ]
    if differing:
        key = differing[0]
        was, is_now = ({**old, **old_values}.get(key), {**new, **new_values}.get(key))
        raise task_settings.SettingsError(
            f"{now.directory} holds a run with {key} {was!r}, now it is {is_now!r}: choose another "
            "--model-dir, or delete that one. (timesteps may differ: a run can go on.)"
        )
