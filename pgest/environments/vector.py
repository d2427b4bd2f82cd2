"""gymnasium's vector environments behind `EnvironmentView`, in all three autoreset modes."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from typing_extensions import override

from pgest.environments import processes, worker
from pgest.environments.action_masks import allow_everything, batch_masks, mask_method
from pgest.environments.spaces import Nest
from pgest.environments.view import (
    EnvironmentFailure,
    EnvironmentView,
    Transition,
    as_number,
    describe,
    reason,
)


class VectorEnvironments(EnvironmentView):
    """A ``gymnasium.vector.VectorEnv``; no Python work per environment unless an episode ends.

    What becomes of the three autoreset modes:

    - NEXT_STEP: the step that resets an environment ignores its action; it comes out with ``acted``
      False and a reward of 0.
    - SAME_STEP: ``next_observation`` is the true last one, from ``infos["final_obs"]``; the reset
      one comes out of the next ``observe()``. (SyncVectorEnv keeps no copy of the last one: of an
      environment that always gives the same array, it shows the reset one instead.)
    - DISABLED: ``observe()`` resets what ended, through ``options={"reset_mask": …}``.

    Seeds: every reset of everything is seeded. gymnasium's own SyncVectorEnv and AsyncVectorEnv get
    one seed per environment, and in mode DISABLED also at every later reset; any other VectorEnv
    gets one seed as a whole, and an EnvPool none, since it takes its own when it is made. What a
    vector environment resets by itself cannot be seeded, save in the environments that pgest makes
    (see `asynchronous`).

    Args:
        env: The vector environment.
        given: What the user gave.
        seed: The run's seed.
        owned: Whether pgest made it.
        reseeding: Whether its environments are `worker.WorkerEnvironment`s.

    Raises:
        ValueError: An autoreset mode that is missing or unknown, spaces that pgest does not take,
            an EnvPool in asynchronous mode.
    """

    is_vector = True

    def __init__(
        self,
        env: VectorEnv,
        *,
        given: Any,
        seed: int | None,
        owned: bool,
        reseeding: bool = False,
    ) -> None:
        single_spaces = (env.single_observation_space, env.single_action_space)
        super().__init__(given, single_spaces, num_envs=env.num_envs, seed=seed, owned=owned)
        if getattr(env, "is_async", False):
            raise ValueError(
                f"{describe(env)} steps some of its environments at a time (EnvPool, batch_size "
                "below num_envs); pgest steps all of them: make it with batch_size=num_envs."
            )
        self._vector = env
        self._mode = autoreset_mode(env)
        self.resets_take_steps = self._mode is AutoresetMode.NEXT_STEP
        self._reseeding = reseeding
        self._takes_seeds = isinstance(env.unwrapped, (SyncVectorEnv, AsyncVectorEnv))
        self._is_envpool = hasattr(env.unwrapped, "all_env_ids")
        self._episodes = np.zeros(env.num_envs, np.int64)
        self._observation: Nest | None = None
        self._ended = np.zeros(env.num_envs, np.bool_)
        self._masked = False
        self._mask_method = mask_method(env)

    @override
    def reset(self, episode: int = 0) -> None:
        self._observation = None
        self._episodes[:] = episode
        self._ended = np.zeros(self.num_envs, np.bool_)
        options = None
        if self._reseeding:
            options = {worker.RESEED: (self.seed, int(episode))}
        self._reset(options, np.ones(self.num_envs, np.bool_))

    @override
    def observe(self) -> Nest:
        if self._observation is None:
            self.reset()
        elif self._mode is AutoresetMode.DISABLED and self._ended.any():
            self._observation = None
            # A copy each: gymnasium takes the mask out of the options, and may keep it.
            self._reset({"reset_mask": self._ended.copy()}, self._ended)
            self._ended = np.zeros(self.num_envs, np.bool_)
        self.action_mask = self._next_mask
        return self._observation

    @override
    def step(self, action: Nest) -> Transition:
        if self._observation is None or (
            self._mode is AutoresetMode.DISABLED and self._ended.any()
        ):
            raise RuntimeError("step() before observe(): observe what to act on first.")
        action = self._actions.copy(action)
        self._observation = None  # what an exception below leaves behind: reset everything
        try:
            raw_observation, raw_reward, raw_terminated, raw_truncated, infos = self._vector.step(
                action
            )
            observation = self._observations.copy(raw_observation)
            reward = np.array(raw_reward, np.float32).reshape(self.num_envs)
            terminated = np.array(raw_terminated, np.bool_).reshape(self.num_envs)
            truncated = np.array(raw_truncated, np.bool_).reshape(self.num_envs)
        except Exception as error:
            raise self._raised(error, "step") from error
        acted = self._all_acted
        if self._mode is AutoresetMode.NEXT_STEP and self._ended.any():
            acted = ~self._ended
            reward[self._ended] = 0.0
            terminated[self._ended] = truncated[self._ended] = False
        ended = terminated | truncated
        rows = np.flatnonzero(ended)
        next_observation = observation
        last_infos: dict[int, dict[str, float]] = {}
        if rows.size:
            last_infos = self._last_infos(infos, rows)
            if self._mode is AutoresetMode.SAME_STEP:
                self._check_finite(observation)
                next_observation = self._final_observations(observation, infos, rows)
        self._check_finite(next_observation, reward, action)
        next_mask = self._masks_after_step(infos, ended, terminated)
        self.timestep += self.num_envs if acted is self._all_acted else int(acted.sum())
        self._observation, self._ended = observation, ended
        return Transition(
            reward, terminated, truncated, next_observation, acted, last_infos, next_mask
        )

    def _reset(self, options: dict[str, Any] | None, mask: np.ndarray) -> None:
        seed = self._reset_seed(mask)
        self._episodes[mask] += 1
        try:
            raw_observation, infos = self._vector.reset(seed=seed, options=options)
            observation = self._observations.copy(raw_observation)
        except Exception as error:
            raise self._raised(error, "reset") from error
        self._began(observation, infos, mask)

    def _began(self, observation: Nest, infos: Any, mask: np.ndarray) -> None:
        """Goes on with what a reset of the environments in `mask` gave."""
        self._check_finite(observation)
        self._masked = self._mask_method is not None or "action_mask" in infos
        if self._has_masks(infos):
            self._follow_masks(*self._given_masks(infos), self._none, mask)
        self._observation = observation

    def _reset_seed(self, mask: np.ndarray) -> Any:
        if self.seed is None or self._is_envpool:
            return None
        if not self._takes_seeds:  # one for everything, and only where everything resets
            whole = worker.episode_seed(self.seed, 0, int(self._episodes[0]))
            return whole if mask.all() else None
        return [
            worker.episode_seed(self.seed, index, int(self._episodes[index]))
            if mask[index]
            else None
            for index in range(self.num_envs)
        ]

    def _final_observations(self, observation: Nest, infos: Any, rows: np.ndarray) -> Nest:
        final = infos.get("final_obs")
        if final is None:
            raise self._failure(
                "ended an episode without infos['final_obs'], which its autoreset mode SAME_STEP "
                "promises,",
                int(rows[0]),
            )
        next_observation = self._observations.copy(observation)
        for row in rows:
            # gymnasium: an object array of single observations; others: a nest of batches.
            value = final[row] if isinstance(final, np.ndarray) else row_of(final, row)
            try:
                self._observations.check(value)
            except ValueError as error:
                message = f"gave a wrong infos['final_obs']: {error} It was given"
                raise self._failure(message, int(row)) from error
            self._observations.write(next_observation, int(row), value)
        return next_observation

    def _last_infos(self, infos: Any, rows: np.ndarray) -> dict[int, dict[str, float]]:
        if self._mode is AutoresetMode.SAME_STEP:
            # At the top stand the infos of the reset, but for what RecordEpisodeStatistics adds.
            top = {key: infos[key] for key in ("episode", "_episode") if key in infos}
            infos = {**top, **infos.get("final_info", {})}
        last_infos: dict[int, dict[str, float]] = {row: {} for row in rows.tolist()}
        for name, values, masks in _columns(infos, self.num_envs):
            for (row, last), number in zip(last_infos.items(), _numbers(values, rows), strict=True):
                if number is not None and all(mask[row] for mask in masks):
                    last[name] = number
        return last_infos

    def _has_masks(self, infos: Any) -> bool:
        if not self._masked and "action_mask" in infos:
            raise self._failure("gave an action_mask, but had none after reset()", None)
        return self._masked

    def _given_masks(self, infos: Any) -> tuple[Nest, np.ndarray]:
        """The masks that came with `infos`, and in which rows, bool ``[B]``, there is one."""
        if "action_mask" in infos:
            return batch_masks(infos["action_mask"]), infos.get("_action_mask", self._all_acted)
        if self._mask_method is not None:
            return batch_masks(self._mask_method()), self._all_acted
        return self._next_mask, self._none

    def _follow_masks(
        self, masks: Nest, present: np.ndarray, ended: np.ndarray, stepped: np.ndarray
    ) -> None:
        """Keeps a mask for each environment: of those that `stepped`, the new one.

        Where an episode `ended` nothing is left to choose: NEXT_STEP ignores the next action,
        DISABLED resets first. SAME_STEP has the mask of the new episode.
        """
        free = ended & (self._mode is not AutoresetMode.SAME_STEP)
        missing = stepped & ~present & ~free
        if missing.any():
            index = int(missing.argmax())
            raise self._failure("gave no action_mask, though it had one before,", index)
        if not stepped.all() or free.any():
            masks = self._merge_masks(masks, self._next_mask, stepped)
            allow_everything(masks, free)
        self._set_mask(masks)

    def _masks_after_step(
        self, infos: Any, ended: np.ndarray, terminated: np.ndarray
    ) -> Nest | None:
        """Keeps the masks to act on next, and gives those of the observations that followed.

        Args:
            infos: Of the step.
            ended: bool ``[B]``: whose episode ended.
            terminated: bool ``[B]``: whose end has no future, where no mask is of any use.
        """
        if not self._has_masks(infos):
            return None
        masks, present = self._given_masks(infos)
        self._follow_masks(masks, present, ended, self._all_acted)
        if not ended.any():
            return self._next_mask
        cut = ended & ~terminated
        if self._mode is AutoresetMode.SAME_STEP:
            # At the top stand the masks of the reset, and a method could give no others.
            final, last, present = infos.get("final_info", {}), masks, self._none
            if "action_mask" in final and cut.any():
                last, present = batch_masks(final["action_mask"]), final.get("_action_mask", ended)
            masks = self._merge_masks(last, masks, cut & present)
        return self._mask_that_followed(masks, ~ended | (cut & present))

    def _raised(self, error: Exception, method: str) -> EnvironmentFailure:
        index, why = _failed_index(self._vector, error), reason(error)
        if isinstance(error, (EOFError, ConnectionError)):  # what a broken pipe raises
            found = processes.crashed(self._vector.unwrapped, wait=True)
            if found is not None:
                index, why = found[0], f"its process died with the exit code {found[1]}"
        return self._failure(f"failed in {method}(): {why},", index)

    @override
    def _close_environments(self) -> None:
        unwrapped: Any = self._vector.unwrapped
        if processes.crashed(unwrapped) is not None:
            processes.kill(unwrapped)
        self._vector.close()


def asynchronous(
    factory: Callable[[], Any], num_envs: int, *, given: Any, seed: int | None
) -> VectorEnvironments:
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
    cloudpickle.register_pickle_by_value(worker)
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
        cloudpickle.unregister_pickle_by_value(worker)
    return VectorEnvironments(vector, given=given, seed=seed, owned=True, reseeding=True)


def autoreset_mode(env: VectorEnv) -> AutoresetMode:
    """The autoreset mode that a vector environment declares, as the enum or as its name or value.

    Raises:
        ValueError: The mode is missing or unknown.

    >>> import gymnasium
    >>> autoreset_mode(gymnasium.make_vec("CartPole-v1", num_envs=2)).name
    'NEXT_STEP'
    """
    declared = (env.metadata or {}).get("autoreset_mode")
    for mode in AutoresetMode:
        if declared in (mode, mode.value, mode.name):
            return mode
    raise ValueError(
        f"{describe(env)}.metadata['autoreset_mode'] is {declared!r}, expected one of "
        f"{', '.join(f'AutoresetMode.{mode.name}' for mode in AutoresetMode)} of gymnasium.vector: "
        "set it to what the vector environment does when an episode ends."
    )


def row_of(values: Any, row: int | np.ndarray) -> Any:
    """The part of one environment, or of several, of batched arrays, dicts or tuples of them."""
    if isinstance(values, Mapping):
        return {key: row_of(value, row) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(row_of(value, row) for value in values)
    return values[row]


def _columns(
    infos: Mapping[Any, Any], num_envs: int, prefix: str = "", masks: tuple[Any, ...] = ()
) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """The name, the batched values and the masks of each entry of gymnasium's batched infos.

    Beside ``key`` stands a mask ``_key`` of the environments that have it, at every level. What
    does not have one value per environment is left out.
    """
    named = {str(key): values for key, values in infos.items()}
    for key, values in named.items():
        if key in ("final_obs", "final_info") or (key[:1] == "_" and key[1:] in named):
            continue
        present = (*masks, named[f"_{key}"]) if f"_{key}" in named else masks
        if isinstance(values, Mapping):
            yield from _columns(values, num_envs, f"{prefix}{key}/", present)
        elif _has_rows(values, num_envs):
            yield prefix + key, values, present


def _has_rows(values: Any, num_envs: int) -> bool:
    is_sequence = isinstance(values, list) or (isinstance(values, np.ndarray) and values.ndim > 0)
    return is_sequence and len(values) == num_envs


def _numbers(values: Any, rows: np.ndarray) -> list[float | None]:
    """What `as_number` gives of some rows; all at once, since hundreds may end together."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf" and values.ndim == 1:
        return values[rows].astype(np.float64).tolist()
    return [as_number(values[row]) for row in rows]


def _failed_index(env: VectorEnv, error: Exception) -> int | None:
    """Which environment raised, as far as gymnasium lets one know."""
    unwrapped = env.unwrapped
    if isinstance(unwrapped, AsyncVectorEnv):  # it drops the pipes of those that failed
        failed = [index for index, pipe in enumerate(unwrapped.parent_pipes) if pipe is None]
        return failed[0] if failed else None
    if isinstance(unwrapped, SyncVectorEnv):  # it loops over them with the index `i`
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_locals.get("self") is unwrapped and "i" in frame.f_locals:
                return int(frame.f_locals["i"])
    return None
