"""Environments that pgest makes in processes of their own."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.utils import iterate
from typing_extensions import override

from pgest.environments import (
    own_states,
    plain_state,
    played,
    restorable,
    results,
    spaces,
    worker,
)
from pgest.environments.spaces import Nest, row_of
from pgest.environments.vector import VectorEnvironments
from pgest.environments.view import EnvironmentFailure, Transition, describe


class ProcessEnvironments(VectorEnvironments):
    """An AsyncVectorEnv of `worker.WorkerEnvironment`s, in mode SAME_STEP.

    Each episode begins with a seed of its own, so that those under way can be played again.

    Args:
        env: The vector environment.
        given: What the user gave.
        seed: The run's seed.
        owned: Whether pgest made it.
    """

    def __init__(self, env: VectorEnv, *, given: Any, seed: int | None, owned: bool) -> None:
        super().__init__(env, given=given, seed=seed, owned=owned)
        self._played = played.Played(env.num_envs)
        self._own: bool | None = None  # whether each gives its own state; None: not known yet

    @override
    def reset(self, episode: int = 0) -> None:
        self._observation = None
        self._episodes[:] = episode
        self._ended = np.zeros(self.num_envs, np.bool_)
        self._played = type(self._played)(self.num_envs)
        options = {worker.RESEED: (self.seed, [int(episode)] * self.num_envs, self.first_index)}
        self._reset(options, np.ones(self.num_envs, np.bool_))

    @override
    def step(self, action: Nest) -> Transition:
        transition = super().step(action)
        self._played.note(action, transition.reward)
        self._episodes[self._ended] += 1
        for row in np.flatnonzero(self._ended).tolist():  # it has begun the next one already
            self._played.begin(row)
        return transition

    @override
    def state(self) -> dict[str, np.ndarray] | None:
        if self._observation is None or self.seed is None:
            return None
        if self._own is None:
            self._own = all(self._call("offers_state"))
            if self._own:
                self._played = played.Unneeded(self.num_envs)
        if self._own:
            states = self._call("own_state")
            return {**self._where_they_stand(), **own_states.leaves(states)}
        played_since = self._played.state(self._actions)
        return None if played_since is None else {**self._where_they_stand(), **played_since}

    @override
    def restore(self, state: Mapping[str, np.ndarray]) -> str | None:
        why = played.mismatch(self, state)
        if why is not None:
            return why
        again = self._played
        seeds = (self.seed, (state["episodes"] - 1).tolist(), self.first_index)
        options: dict[str, Any] = {worker.RESEED: seeds}
        if "lengths" in state:
            again = played.Played(self.num_envs)
            again.restore(self._actions, state)
            options[worker.PLAY_AGAIN] = [self._steps(again, i) for i in range(self.num_envs)]
        else:
            options[worker.TAKE_STATE] = own_states.of(state, self.num_envs)
        self._observation = None
        try:
            raw_observation, infos = self._vector.reset(options=options)
            observation = self._observations.copy(raw_observation)
        except Exception as error:
            return f"it failed when it was played again ({self._raised(error, 'reset')})"
        went_wrong = [why for why in infos.pop(worker.WENT_WRONG) if why]
        if went_wrong:
            return went_wrong[0]
        shown = infos.pop(worker.SHOWN)
        if not shown.all():
            kept = played.fill(self._observations, self._observations.empty(), state, "observation")
            for index in np.flatnonzero(~shown).tolist():
                self._observations.write(observation, index, row_of(kept, index))
        if not played.same(self._observations, observation, state):
            return "played again, it stands elsewhere"
        self._began(observation, infos, np.ones(self.num_envs, np.bool_))
        self._played = again
        return self._stand(state, None)

    def _call(self, method: str) -> tuple[Any, ...]:
        try:
            return self._vector.call(method)  # type: ignore[attr-defined]
        except Exception as error:
            raise self._raised(error, "get_state") from error

    def _steps(self, again: played.Played, index: int) -> tuple[list[Any], list[Any]]:
        """The actions of one environment, as its process takes them, and its rewards."""
        space, steps = self._vector.action_space, again.of(index)
        actions = [next(itertools.islice(iterate(space, a), index, None)) for a, _ in steps]
        return actions, [reward[index] for _, reward in steps]


def asynchronous(
    factory: Callable[[], Any], num_envs: int, *, given: Any, seed: int | None
) -> ProcessEnvironments:
    """Environments in processes of their own: spawned, since a fork of TensorFlow's threads hangs.

    They reset themselves within the step that ends an episode (SAME_STEP: no round trip between
    processes is lost) and reseed themselves from (seed, index, episode) each time.

    Args:
        factory: Makes one environment; pickled with cloudpickle.
        num_envs: How many.
        given: What the user gave.
        seed: The run's seed.

    Raises:
        EnvironmentFailure: The processes did not start.
    """
    import cloudpickle  # type: ignore[import-untyped]  # a dependency of gymnasium

    makers = [
        functools.partial(worker.make_worker_environment, factory, index)
        for index in range(num_envs)
    ]
    by_value = (
        worker,
        own_states,
        results,
        spaces,
        restorable,
        plain_state,
    )  # what runs there imports nothing of pgest
    for module in by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        vector: VectorEnv = AsyncVectorEnv(
            makers, context="spawn", autoreset_mode=AutoresetMode.SAME_STEP
        )
    except (EOFError, ConnectionError) as error:  # what a pipe raises when its process is gone
        raise EnvironmentFailure(
            f"The processes for {num_envs} environments ({describe(given)}) ended while starting; "
            "they said why above. Spawned processes import the main script again: it must make "
            'environments only under `if __name__ == "__main__":`.'
        ) from error
    finally:
        for module in by_value:
            cloudpickle.unregister_pickle_by_value(module)
    return ProcessEnvironments(vector, given=given, seed=seed, owned=True)
