"""The environment of a task: which package brings it, and what its settings put around it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import wrappers

from pgest.commands import task_settings
from pgest.hooks import extras

# By the namespace of an id: the module that registers its environments, and the extra it is in.
_PACKAGES = {"ALE": ("ale_py", "atari"), "MinAtar": ("minatar.gym", "minatar")}


def environment(
    env_id: str, values: Mapping[str, Any], *, training: bool
) -> str | Callable[..., gymnasium.Env]:
    """What to give to `pgest.make`, `train` or `evaluate`.

    Args:
      env_id: the id.
      values: settings, of which `preprocessing` and `frame_stack` are looked at.
      training: whether it is trained in; scores of a game are whole and unclipped elsewhere.

    Returns:
      The id; a factory (picklable, its arguments are those of `gymnasium.make`) where the settings
      put something around the environment.

    Raises:
      SettingsError: a value that is none.
      gymnasium.error.Error: the package of the environment is not installed.
    """
    preprocessing, frames = values.get("preprocessing"), values.get("frame_stack", 1)
    if preprocessing not in (None, "atari"):
        raise task_settings.SettingsError(
            f"preprocessing is {preprocessing!r}; expected atari or null."
        )
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
        raise task_settings.SettingsError(
            f"frame_stack is {frames!r}; expected how many observations, a positive integer."
        )
    _register(env_id)
    if preprocessing is None and frames == 1:
        return env_id
    return functools.partial(_make, env_id, preprocessing == "atari", frames, training)


def made(env_or_factory: str | Callable[..., gymnasium.Env], **arguments: Any) -> gymnasium.Env:
    """One environment of what `environment` gave."""
    if isinstance(env_or_factory, str):
        return gymnasium.make(env_or_factory, **arguments)
    return env_or_factory(**arguments)


def _make(env_id: str, atari: bool, frames: int, training: bool, **arguments: Any) -> gymnasium.Env:
    _register(env_id)  # also in a process of its own
    if atari:
        env = _atari(env_id, training, **arguments)
    else:
        env = gymnasium.make(env_id, **arguments)
    return wrappers.FrameStackObservation(env, frames) if frames > 1 else env


def _atari(env_id: str, training: bool, **arguments: Any) -> gymnasium.Env:
    """As Mnih et al. 2015: grey, 84 × 84, every fourth frame; trained on a life and on signs."""
    _imported("cv2", "preprocessing: atari", "atari")  # for the resizing
    # The wrapper skips frames itself.
    env = gymnasium.make(env_id, frameskip=1, repeat_action_probability=0.0, **arguments)
    env = wrappers.AtariPreprocessing(_Serving(env), terminal_on_life_loss=training)
    return wrappers.TransformReward(env, _sign) if training else env


class _Serving(gymnasium.Wrapper):
    """Presses FIRE where a game begins and where a life was lost: many games wait for it.

    A greedy policy that has not learnt to press it would wait for as long as the episode may last.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._game = cast(Any, env.unwrapped)  # gymnasium's Env has no `ale`
        meanings = self._game.get_action_meanings()
        self._fire = meanings.index("FIRE") if "FIRE" in meanings else None
        self._lives = 0

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begins a game."""
        observation, info = self.env.reset(**arguments)
        if self._fire is not None:
            observation, _, _, _, info = self.env.step(self._fire)
        self._lives = self._game.ale.lives()
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Plays a frame."""
        lives = self._game.ale.lives()
        if self._fire is not None and lives < self._lives:
            action = self._fire
        self._lives = lives
        return self.env.step(action)


def _sign(reward: Any) -> float:
    return float(np.sign(reward))


def _register(env_id: str) -> None:
    """Imports the package that an id's namespace belongs to, which gymnasium does not do."""
    namespace = task_settings.namespace(env_id)
    if namespace not in _PACKAGES or env_id in gymnasium.registry or ":" in env_id:
        return
    module = _imported(_PACKAGES[namespace][0], env_id, _PACKAGES[namespace][1])
    if env_id not in gymnasium.registry and hasattr(module, "register_envs"):
        module.register_envs()


def _imported(name: str, user: str, extra: str) -> Any:
    try:
        return extras.imported(name, user, extra)
    except ImportError as error:
        raise gymnasium.error.DependencyNotInstalled(str(error)) from error
