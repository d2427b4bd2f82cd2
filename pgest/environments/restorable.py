"""Wrappers that give the whole state of an environment, and take it."""

from __future__ import annotations

from collections.abc import Collection

import gymnasium

from pgest.environments import plain_state


class RestorableEnv(gymnasium.Wrapper):
    """Lets a run that was killed go on from the environment's state, without playing it again.

    It belongs around all other wrappers: their state is kept too. What it keeps is what Python
    objects hold in plain numbers, texts and arrays (gymnasium's own wrappers and classic
    environments do), MuJoCo's data and ALE's machine. A MuJoCo model or a ROM that was changed
    after the environment was made is not kept.

    It is worth its while where a timestep takes long: without it, the episode under way is played
    again, from its seed and its actions.

    Args:
        env: The environment.
        ignore: Names of attributes that nothing depends on; they stay as they are.

    >>> import gymnasium
    >>> env = RestorableEnv(gymnasium.make("Acrobot-v1"))
    >>> observation, _ = env.reset(seed=1)
    >>> state = env.get_state()
    >>> first = env.step(2)
    >>> env.set_state(state)
    >>> bool((env.step(2)[0] == first[0]).all())
    True
    """

    def __init__(self, env: gymnasium.Env, ignore: Collection[str] = ()) -> None:
        super().__init__(env)
        self._ignore = tuple(ignore)

    def get_state(self) -> bytes:
        """The state of the environment and of its wrappers.

        Raises:
            TypeError: It holds something whose state cannot be kept; the message says where.
        """
        return plain_state.pack(self.env, self._ignore)

    def set_state(self, state: bytes) -> None:
        """Brings the environment to a state that `get_state` gave, in another process perhaps.

        Raises:
            ValueError: The state is not one of this kind of environment.
        """
        plain_state.unpack(state, self.env)


class RestorableVectorEnv(gymnasium.vector.VectorWrapper):
    """As `RestorableEnv`, for vector environments that live in this process.

    gymnasium's native vector of CartPole needs none, `pgest` keeps its state anyhow. A
    ``gymnasium.vector.SyncVectorEnv`` resets its environments from their own generators, so that
    its episodes cannot be played again: in this wrapper they come back.

    Args:
        env: The vector environment.
        ignore: Names of attributes that nothing depends on; they stay as they are.

    >>> import numpy as np
    >>> make = [lambda: gymnasium.make("CartPole-v1")] * 2
    >>> env = RestorableVectorEnv(gymnasium.vector.SyncVectorEnv(make))
    >>> observations, _ = env.reset(seed=1)
    >>> state = env.get_state()
    >>> first = env.step(np.array([0, 1]))
    >>> env.set_state(state)
    >>> bool((env.step(np.array([0, 1]))[0] == first[0]).all())
    True
    """

    def __init__(self, env: gymnasium.vector.VectorEnv, ignore: Collection[str] = ()) -> None:
        super().__init__(env)
        self._ignore = tuple(ignore)

    def get_state(self) -> bytes:
        """The state of all environments; errors as `RestorableEnv.get_state`."""
        return plain_state.pack(self.env, self._ignore)

    def set_state(self, state: bytes) -> None:
        """Brings all environments to a state that `get_state` gave; errors as `RestorableEnv`."""
        plain_state.unpack(state, self.env)
