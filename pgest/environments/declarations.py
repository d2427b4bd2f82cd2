"""What a vector environment says about itself: its spaces, its autoreset mode, its batches."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from pgest.environments.view import describe


def single_spaces(env: VectorEnv) -> tuple[spaces.Space, spaces.Space]:
    """The observation and the action space of one of the environments.

    Raises:
        ValueError: The vector environment does not tell them, or steps a part of its environments
            at a time.
    """
    missing = [
        name
        for name in ("single_observation_space", "single_action_space")
        if not isinstance(getattr(env, name, None), spaces.Space)
    ]
    if missing:
        raise ValueError(
            f"{describe(env)} has no {' and no '.join(missing)}, which gymnasium's VectorEnv gives "
            "beside the spaces of the whole. Of SuperSuit's, make one with the adapter in pgest's "
            "documentation (Environments, PettingZoo)."
        )
    batch_size = getattr(env.unwrapped, "batch_size", None)
    partial = isinstance(batch_size, int) and 0 < batch_size < env.num_envs
    if partial or getattr(env, "is_async", False):
        raise ValueError(
            f"{describe(env)} steps some of its environments at a time (batch_size below num_envs, "
            "as EnvPool and ALE have it); pgest steps all of them: make it with "
            "batch_size=num_envs."
        )
    return env.single_observation_space, env.single_action_space


def autoreset_mode(env: VectorEnv) -> AutoresetMode:
    """The autoreset mode that a vector environment declares, as the enum or as its name or value.

    It is the ``autoreset_mode`` of the environment or of what it wraps, and else its metadata. The
    metadata of gymnasium's own class count for nothing: all vector environments without metadata of
    their own share them, so whoever wrote into them spoke for all the others too.

    Raises:
        ValueError: The mode is missing or unknown, or the two differ.

    >>> import gymnasium
    >>> autoreset_mode(gymnasium.make_vec("CartPole-v1", num_envs=2)).name
    'NEXT_STEP'
    """
    found = _own_mode(env)
    shared = env.metadata is VectorEnv.metadata
    in_metadata = None if shared else (env.metadata or {}).get("autoreset_mode")
    own, declared = _as_mode(found), _as_mode(in_metadata)
    if None not in (own, declared) and own is not declared:
        raise ValueError(
            f"{describe(env)}.autoreset_mode is {found!r}, but its metadata['autoreset_mode'] is "
            f"{in_metadata!r}: set both to what it does when an episode ends."
        )
    if own is None and declared is None:
        raise ValueError(
            f"{describe(env)}.metadata['autoreset_mode'] is {in_metadata!r}, expected one of "
            f"{', '.join(f'AutoresetMode.{mode.name}' for mode in AutoresetMode)} of "
            "gymnasium.vector: set it, in metadata of its own, to what the vector environment does "
            "when an episode ends."
        )
    return declared if own is None else own  # type: ignore[return-value]  # one of them is known


def _own_mode(env: Any) -> Any:
    """The attribute of the outermost wrapper that has one."""
    while env is not None:
        mode = getattr(env, "autoreset_mode", None)
        if mode is not None:
            return mode
        env = getattr(env, "env", None)
    return None


def _as_mode(declared: Any) -> AutoresetMode | None:
    for mode in AutoresetMode:
        if declared in (mode, mode.value, mode.name):
            return mode
    return None
