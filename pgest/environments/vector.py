"""gymnasium's vector environments behind `EnvironmentView`, in all three autoreset modes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from typing_extensions import override

from pgest.environments import (
    action_masks,
    own_states,
    played,
    processes,
    restorable,
    results,
    vector_failures,
    worker,
)
from pgest.environments import infos as infos_lib
from pgest.environments.action_masks import allow_everything, batch_masks, mask_method
from pgest.environments.declarations import autoreset_mode, single_spaces
from pgest.environments.spaces import Misfit, Nest, row_of
from pgest.environments.view import (
    EnvironmentFailure,
    EnvironmentView,
    Transition,
    all_finite,
    reason,
)

# Where others than gymnasium's own vector environments put the last observation of an episode.
_OTHER_KEYS = ("final_observation", "terminal_observation", "last_observation")


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

    Raises:
        ValueError: An autoreset mode that is missing or unknown, spaces that are missing or that
            pgest does not take, one that steps a part of its environments at a time.
    """

    is_vector = True

    def __init__(
        self,
        env: VectorEnv,
        *,
        given: Any,
        seed: int | None,
        owned: bool,
    ) -> None:
        super().__init__(given, single_spaces(env), num_envs=env.num_envs, seed=seed, owned=owned)
        self._vector = env
        self._may_wrap = isinstance(env.unwrapped, SyncVectorEnv) and self._observations.is_narrow
        self._mode = autoreset_mode(env)
        self.resets_take_steps = self.some_rest = self._mode is AutoresetMode.NEXT_STEP
        self._takes_seeds = isinstance(env.unwrapped, (SyncVectorEnv, AsyncVectorEnv))
        self._is_envpool = hasattr(env.unwrapped, "all_env_ids")
        self._episodes = np.zeros(env.num_envs, np.int64)
        self._observation: Nest | None = None
        self._ended = np.zeros(env.num_envs, np.bool_)
        self._masked = False
        self._mask_method = mask_method(env)
        # Who gives the state of all of them, where somebody does.
        is_native = isinstance(env, CartPoleVectorEnv)
        self._stateful: Any = restorable.RestorableVectorEnv(env) if is_native else env

    @override
    def reset(self, episode: int = 0) -> None:
        self._observation = None
        self._episodes[:] = episode
        self._ended = np.zeros(self.num_envs, np.bool_)
        self._reset(None, np.ones(self.num_envs, np.bool_))

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
            result = self._vector.step(action)
            raw, reward, terminated, truncated, infos = results.batch_values(result, self.num_envs)
            observation = self._observations.copy(raw)
            self._check_narrow()
        except Misfit as error:
            raise self._misfit(error) from error
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
                self._check_observation(observation)
                next_observation = self._final_observations(observation, infos, rows)
        if not all_finite(reward):
            index = int(np.isfinite(reward).argmin())
            wrong = f"gave the reward {results.too_large(result[1], index)}"
            raise self._failure(wrong + self._blame(action, index), index)
        self._check_observation(next_observation, action)
        next_mask = self._masks_after_step(infos, ended, terminated)
        self.timestep += self.num_envs if acted is self._all_acted else int(acted.sum())
        self._observation, self._ended = observation, ended
        return Transition(
            reward, terminated, truncated, next_observation, acted, last_infos, next_mask
        )

    @override
    def state(self) -> dict[str, np.ndarray] | None:
        if self._observation is None or self.seed is None:
            return None
        if not own_states.offers(self._stateful):
            return None
        try:
            given = own_states.leaves([self._stateful.get_state()])
        except Exception as error:
            raise self._raised(error, "get_state") from error
        return {**self._where_they_stand(), **given}

    @override
    def restore(self, state: Mapping[str, np.ndarray]) -> str | None:
        states = own_states.of(state, 1)
        if not (states and own_states.are_offered(self._stateful)):
            return super().restore(state)
        why = played.mismatch(self, state)
        if why is not None:
            return why
        self.reset()
        why, shown = own_states.bring_back(self._stateful, states[0])
        return why or self._stand(state, None if shown is None else self._observations.copy(shown))

    def _where_they_stand(self) -> dict[str, np.ndarray]:
        """What this view knows of the episodes under way."""
        return {
            **played.header(self, self._episodes),
            "ended": self._ended.copy(),
            **played.leaves(self._observations, self._observation, "observation"),
            **action_masks.leaves(self._next_mask),
        }

    def _stand(self, state: Mapping[str, np.ndarray], shown: Nest | None) -> str | None:
        """Takes over what `_where_they_stand` gave, after a reset."""
        if shown is not None and not played.same(self._observations, shown, state):
            return "with its state set, it shows another observation"
        observation = self._observations.empty()
        self._observation = played.fill(self._observations, observation, state, "observation")
        action_masks.fill(self._next_mask, state)
        self._episodes, self._ended = state["episodes"].copy(), state["ended"].copy()
        self.timestep = int(state["timestep"])
        return None

    def _reset(self, options: dict[str, Any] | None, mask: np.ndarray) -> None:
        seed = self._reset_seed(mask)
        self._episodes[mask] += 1
        try:
            result = self._vector.reset(seed=seed, options=options)
            raw_observation, infos = results.reset_values(result)
            observation = self._observations.copy(raw_observation)
            self._check_narrow()
        except Misfit as error:
            raise self._misfit(error) from error
        except Exception as error:
            raise self._raised(error, "reset") from error
        self._began(observation, infos, mask)

    def _began(self, observation: Nest, infos: Any, mask: np.ndarray) -> None:
        """Goes on with what a reset of the environments in `mask` gave."""
        self._check_observation(observation)
        self._masked = self._mask_method is not None or "action_mask" in infos
        if self._has_masks(infos):
            self._follow_masks(*self._given_masks(infos), self._none, mask)
        self._observation = observation

    def _reset_seed(self, mask: np.ndarray) -> Any:
        if self.seed is None or self._is_envpool:
            return None
        first = self.first_index
        if not self._takes_seeds:  # one for everything, and only where everything resets
            whole = worker.episode_seed(self.seed, first, int(self._episodes[0]))
            return whole if mask.all() else None
        return [
            worker.episode_seed(self.seed, first + index, int(self._episodes[index]))
            if mask[index]
            else None
            for index in range(self.num_envs)
        ]

    def _final_observations(self, observation: Nest, infos: Any, rows: np.ndarray) -> Nest:
        final = infos.get("final_obs")
        if final is None:
            found = [key for key in _OTHER_KEYS if key in infos]
            instead = f" (it gave infos[{found[0]!r}]: rename it in a wrapper)" if found else ""
            raise self._failure(
                "ended an episode without infos['final_obs'], which its autoreset mode SAME_STEP "
                f"promises{instead},",
                int(rows[0]),
            )
        next_observation = self._observations.copy(observation)
        for row in rows:
            # gymnasium: an object array of single observations; others: a nest of batches.
            value = final[row] if isinstance(final, np.ndarray) else row_of(final, row)
            try:
                self._observations.write(next_observation, int(row), value)
            except Misfit as error:
                message = f"gave a wrong infos['final_obs']: {error},"
                raise self._failure(message, int(row)) from error
        return next_observation

    def _last_infos(self, infos: Any, rows: np.ndarray) -> dict[int, dict[str, float]]:
        if self._mode is AutoresetMode.SAME_STEP:
            # At the top stand the infos of the reset, but for what RecordEpisodeStatistics adds.
            top = {key: infos[key] for key in ("episode", "_episode") if key in infos}
            infos = {**top, **infos.get("final_info", {})}
        last_infos: dict[int, dict[str, float]] = {row: {} for row in rows.tolist()}
        for name, values, masks in infos_lib.columns(infos, self.num_envs):
            numbers = infos_lib.numbers(values, rows)
            for (row, last), number in zip(last_infos.items(), numbers, strict=True):
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

    def _check_narrow(self) -> None:
        """Raises where a SyncVectorEnv has wrapped integers round on the way into its array."""
        if self._may_wrap:
            wrapped = vector_failures.misfit(self._vector, self._observations)
            if wrapped is not None:
                raise wrapped

    def _raised(self, error: Exception, method: str) -> EnvironmentFailure:
        if vector_failures.is_after_the_loop(self._vector, error):
            found = vector_failures.misfit(self._vector, self._observations)
            if found is not None:
                return self._misfit(found)
        index = vector_failures.failed_index(self._vector, error)
        why = reason(error) + vector_failures.hint(self._vector, error)
        index, why = processes.cause(self._vector.unwrapped, error) or (index, why)
        return self._failure(f"failed in {method}(): {why},", index)

    @override
    def _close_environments(self) -> None:
        unwrapped: Any = self._vector.unwrapped
        if processes.crashed(unwrapped) is not None:
            processes.kill(unwrapped)
        elif processes.is_pending(unwrapped):
            processes.end(unwrapped)
        self._vector.close()
