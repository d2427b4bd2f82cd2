"""gymnasium environments, each kind behind the same view: one, several in a loop, vectorized.

`make` makes environments, `view` takes what a user gave:

====================================  ===========================================================
given                                 behind the view
====================================  ===========================================================
a ``gymnasium.Env``                   itself; not closed by pgest
an id or a factory                    one environment made by pgest
an id or a factory and ``num_envs``   that many, stepped in a loop, in processes or natively
a ``gymnasium.vector.VectorEnv``      itself, in any of the three autoreset modes; not closed
====================================  ===========================================================

Seeds. Environments that pgest makes reset with a seed made from (seed, environment index, episode),
and so does a single ``gymnasium.Env``. A native vector environment draws all its episodes from one
generator, so there (and in a VectorEnv made by the user, as far as it resets itself) only the
resets of everything at once are seeded: a run is still a function of its seed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from pgest.environments.asynchronous import asynchronous
from pgest.environments.env_pools import EnvPoolEnvironments, is_env_pool
from pgest.environments.in_process import InProcessEnvironments, SingleEnvironment
from pgest.environments.running_statistics import warn_of_statistics
from pgest.environments.vector import VectorEnvironments
from pgest.environments.view import EnvironmentFailure, EnvironmentView, Transition, describe

__all__ = ["EnvironmentFailure", "EnvironmentView", "Transition", "make", "view"]

Factory: TypeAlias = Callable[..., "gymnasium.Env | VectorEnv"]
Vectorization: TypeAlias = Literal["sync", "async", "native"]


def view(
    env: gymnasium.Env | VectorEnv | str | Factory | EnvironmentView,
    *,
    seed: int | None,
    num_envs: int | None = None,
) -> EnvironmentView:
    """The view of what a user gave.

    Args:
        env: An environment, a vector environment, an id, a factory without arguments, or a view,
            which is returned as it is (and takes `seed` if it has none).
        seed: Where reset seeds come from; None: unseeded.
        num_envs: How many environments to make of an id or a factory (in this process; `make` has
            other ways); None: one plain environment.

    Raises:
        TypeError: `env` is nothing of these.
        ValueError: A number of environments that `env` does not have; spaces or an autoreset mode
            that pgest does not take.

    >>> with view("CartPole-v1", seed=0) as cartpole:
    ...     cartpole.num_envs, cartpole.is_vector, cartpole.owned
    (1, False, True)
    """
    if isinstance(env, EnvironmentView):
        _expect_num_envs(env, env.num_envs, num_envs)
        if env.seed is None:
            env.seed = seed
        return env
    if isinstance(env, VectorEnv):
        warn_of_statistics(env)
        _expect_num_envs(env, env.num_envs, num_envs)
        return _vector(env, given=env, seed=seed, owned=False)
    if isinstance(env, gymnasium.Env):
        warn_of_statistics(env)
        _expect_num_envs(env, 1, num_envs)
        return SingleEnvironment(env, given=env, seed=seed, owned=False)
    if isinstance(env, str) or callable(env):
        return make(env, num_envs, seed=seed)
    raise TypeError(
        f"env is {env!r} of type {type(env).__name__}, expected a gymnasium.Env, a "
        "gymnasium.vector.VectorEnv, the id of an environment or a factory without arguments."
    )


def make(
    env_or_factory: str | Factory,
    num_envs: int | None = 1,
    *,
    vectorization: Vectorization = "sync",
    seed: int | None = None,
    **kwargs: Any,
) -> EnvironmentView:
    """Makes one or several environments; the view closes them.

    Args:
        env_or_factory: The id of an environment, or what makes one.
        num_envs: How many; 1 (or None) with ``"sync"`` gives one plain environment.
        vectorization: ``"sync"``: in a loop in this process, the fastest for light environments.
            ``"async"``: each in a process of its own, spawned; a script then needs the usual
            ``if __name__ == "__main__":``. ``"native"``: the environment's own vector
            implementation, by far the fastest where there is one, as for CartPole-v1; ids only.
        seed: Where reset seeds come from. The agent gives its own to a view that has none.
        **kwargs: For ``gymnasium.make`` (for example ``max_episode_steps``), or for the factory.

    Raises:
        TypeError: `env_or_factory` is neither an id nor callable, or makes no environment.
        ValueError: `num_envs` below 1, an unknown `vectorization`, a factory that gives one
            environment twice.
        EnvironmentFailure: The processes did not start.

    >>> with make("CartPole-v1", num_envs=8, vectorization="native", seed=0) as cartpoles:
    ...     cartpoles.observe().shape
    (8, 4)
    """
    if not isinstance(env_or_factory, str) and not callable(env_or_factory):
        raise TypeError(
            f"env_or_factory is {env_or_factory!r}, expected the id of an environment or a "
            "factory; an environment that exists goes to the agent as it is."
        )
    if num_envs is not None and (
        isinstance(num_envs, bool) or not isinstance(num_envs, (int, np.integer)) or num_envs < 1
    ):
        raise ValueError(f"num_envs is {num_envs!r}, expected a positive integer.")
    if vectorization == "sync":
        return _in_process(_factory(env_or_factory, kwargs), num_envs, env_or_factory, seed)
    if vectorization == "async":
        factory = _factory(env_or_factory, kwargs)
        return asynchronous(factory, num_envs or 1, given=env_or_factory, seed=seed)
    if vectorization != "native":
        raise ValueError(
            f"vectorization is {vectorization!r}, expected 'sync', 'async' or 'native'."
        )
    if not isinstance(env_or_factory, str):
        raise ValueError(
            f"vectorization='native' takes the id of an environment, not {env_or_factory!r}: make "
            "the vector environment yourself and give it to the agent."
        )
    vector: VectorEnv = gymnasium.make_vec(
        env_or_factory, num_envs or 1, vectorization_mode="vector_entry_point", **kwargs
    )
    return _vector(vector, given=env_or_factory, seed=seed, owned=True)


def _in_process(
    factory: Factory, num_envs: int | None, given: str | Factory, seed: int | None
) -> EnvironmentView:
    with contextlib.ExitStack() as stack:  # closes what was made, should anything below raise

        def made() -> Any:
            env = factory()
            if not isinstance(env, (gymnasium.Env, VectorEnv)):
                raise TypeError(f"The factory {given!r} made {env!r}, expected a gymnasium.Env.")
            stack.callback(env.close)
            return env

        first = made()
        warn_of_statistics(first)
        several = num_envs is not None and num_envs > 1
        view_: EnvironmentView
        if isinstance(first, VectorEnv):
            _expect_num_envs(first, first.num_envs, num_envs if several else None)
            view_ = _vector(first, given=given, seed=seed, owned=True)
        elif num_envs is None or not several:
            view_ = SingleEnvironment(first, given=given, seed=seed, owned=True)
        else:
            envs = [first, *(made() for _ in range(num_envs - 1))]
            if len({id(env.unwrapped) for env in envs}) < num_envs:
                raise ValueError(
                    f"The factory {given!r} gave one environment twice: it must make a new one "
                    "each time."
                )
            view_ = InProcessEnvironments(envs, given=given, seed=seed, owned=True)
        stack.pop_all()
        if isinstance(view_, InProcessEnvironments):
            view_.factory = factory
    return view_


def _vector(env: VectorEnv, **rest: Any) -> VectorEnvironments:
    kind = EnvPoolEnvironments if is_env_pool(env) else VectorEnvironments
    return kind(env, **rest)


def _factory(env_or_factory: str | Factory, kwargs: dict[str, Any]) -> Factory:
    if not isinstance(env_or_factory, str):
        return functools.partial(env_or_factory, **kwargs) if kwargs else env_or_factory
    if ":" in env_or_factory:  # "module:id": making it imports the module, in each process
        return functools.partial(gymnasium.make, env_or_factory, **kwargs)
    # A spec, unlike an id, can be made in a process that knows nothing of the registration.
    return functools.partial(gymnasium.make, gymnasium.spec(env_or_factory), **kwargs)


def _expect_num_envs(env: Any, actual: int, expected: int | None) -> None:
    if expected is not None and expected != actual:
        raise ValueError(
            f"num_envs is {expected}, but {describe(env)} comes as {actual}: leave out num_envs, "
            "or give an id or a factory of one environment."
        )
