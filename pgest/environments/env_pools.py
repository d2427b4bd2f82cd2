"""EnvPool's environments behind `EnvironmentView`: reset as soon as they end, not a step later."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from typing_extensions import override

from pgest.environments.spaces import Misfit, Nest, row_of
from pgest.environments.vector import VectorEnvironments
from pgest.environments.view import Transition


class EnvPoolEnvironments(VectorEnvironments):
    """An EnvPool without wrappers around it.

    An EnvPool spends a timestep on resetting an environment whose episode has ended (NEXT_STEP). It
    takes actions for a part of its environments too, so that pgest lets those that have ended
    reset alone: no timestep is spent, and the columns of a memory stay in step. They do it in
    EnvPool's threads, between ``prepare()`` and ``observe()``.

    Args:
        env: The EnvPool.
        given: What the user gave.
        seed: The run's seed; an EnvPool takes its own when it is made.
        owned: Whether pgest made it.

    Raises:
        ValueError: As `VectorEnvironments`.
    """

    def __init__(self, env: VectorEnv, *, given: Any, seed: int | None, owned: bool) -> None:
        super().__init__(env, given=given, seed=seed, owned=owned)
        self._pool: Any = env
        self._mode = AutoresetMode.DISABLED
        self.resets_take_steps = self.some_rest = False
        self._last_action: Nest = None
        self._resetting = False

    @override
    def reset(self, episode: int = 0) -> None:
        if self._resetting:  # what was sent has to be received, or it comes with the next call
            self._receive()
        super().reset(episode)

    @override
    def observe(self) -> Nest:
        self.prepare()
        self.settle()
        return super().observe()

    @override
    def step(self, action: Nest) -> Transition:
        transition = super().step(action)
        self._last_action = action
        return transition

    @override
    def prepare(self) -> None:
        if self._resetting or self._observation is None or not self._ended.any():
            return
        rows = np.flatnonzero(self._ended).astype(np.int32)
        # An environment that has ended resets at whatever action.
        self._pool.send(row_of(self._last_action, rows), rows)
        self._resetting = True

    @override
    def settle(self) -> None:
        if not self._resetting:
            return
        previous, self._observation = self._observation, None
        ended, self._ended = self._ended, self._none
        self._episodes[ended] += 1
        try:
            observation, infos = self._receive()
            observation = self._observations.copy(_with_rows(previous, ended, observation))
        except Misfit as error:
            raise self._misfit(error) from error
        except Exception as error:
            raise self._raised(error, "reset") from error
        self._began(observation, infos, ended)

    def _receive(self) -> tuple[Nest, Any]:
        """The observations and infos of the environments that were sent to reset, theirs alone."""
        self._resetting = False
        observation, *_, infos = self._pool.recv()
        return observation, infos


def is_env_pool(env: VectorEnv) -> bool:
    """Whether it is an EnvPool itself: what a wrapper makes of a part is not known.

    >>> import gymnasium
    >>> is_env_pool(gymnasium.make_vec("CartPole-v1", num_envs=2))
    False
    """
    return env is env.unwrapped and all(
        hasattr(env, name) for name in ("all_env_ids", "send", "recv")
    )


def _with_rows(whole: Nest, mask: np.ndarray, part: Any) -> Nest:
    """A copy of `whole`, `[B, ...]`, with the rows of `part` where `mask` is True."""
    if isinstance(whole, dict):
        return {key: _with_rows(whole[key], mask, part[key]) for key in whole}
    if isinstance(whole, tuple):
        pairs = zip(whole, part, strict=True)
        return tuple(_with_rows(old, mask, new) for old, new in pairs)
    copied = whole.copy()
    copied[mask] = part
    return copied
