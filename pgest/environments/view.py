"""What pgest's loops see of any environment, and what every kind of view shares."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from typing_extensions import Self

from pgest.environments import action_masks, results
from pgest.environments import spaces as environment_spaces
from pgest.environments.spaces import Misfit, Nest

# How often each environment is stepped before its Discrete observations are trusted.
FIRST_STEPS = 1000


class EnvironmentFailure(RuntimeError):
    """An environment raised, or gave something that nothing can be learnt from.

    The exception of the environment, if there was one, is the ``__cause__``.

    Attributes:
        env_index: Which of the environments; None where a vector environment does not tell.
        timestep: How many timesteps the view had taken before.
    """

    def __init__(
        self, message: str, *, env_index: int | None = None, timestep: int | None = None
    ) -> None:
        super().__init__(message)
        self.env_index = env_index
        self.timestep = timestep


class Transition(NamedTuple):
    """What B environments gave back for one action each.

    Every array is new: nothing that happens later changes it.

    Attributes:
        reward: float32 ``[B]``.
        terminated: bool ``[B]``: the episode ended in a state without a future.
        truncated: bool ``[B]``: the episode was cut; its last state has a future.
        next_observation: nest ``[B, …]``; the true last observation where the episode ended.
        acted: bool ``[B]``; False where a vector environment ignored the action because it was
            resetting (autoreset mode NEXT_STEP): nothing of that row may be used or counted.
        infos: The numeric entries of the last info of each episode that ended, by environment
            index; nested ones as ``"outer/inner"``, for example ``"episode/r"``. Empty where none
            has ended, and only there.
        next_mask: The action mask of ``next_observation``, as ``EnvironmentView.action_mask``; None
            where there are no masks. Where the episode ended without a future, or without a mask
            that allows anything, it is the mask that the action obeyed.
    """

    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    next_observation: Nest
    acted: np.ndarray
    infos: Mapping[int, Mapping[str, float]]
    next_mask: Nest | None = None


class EnvironmentView(abc.ABC):
    """B environments, B = 1 included, behind two calls: ``observe()`` and ``step(action)``.

    Make one with `pgest.make` or `environments.view`. A view is a context manager; leaving it
    closes the environments that pgest made and no others.

    Args:
        given: What the user gave.
        single_spaces: The observation and the action space of one environment.
        num_envs: B.
        seed: The run's seed; None: unseeded.
        owned: Whether pgest made the environments, hence closes them.

    Attributes:
        env: What the user gave: an environment, an id or a factory.
        num_envs: B.
        observation_space: Of one environment.
        action_space: Of one environment.
        is_vector: False for one plain environment.
        resets_take_steps: Whether an environment whose episode ended ignores the next action
            (autoreset mode NEXT_STEP).
        some_rest: Whether a step may leave environments out: those that reset meanwhile, and those
            that were told to `rest`.
        owned: Whether pgest made the environments.
        seed: The seed that reset seeds are made from; None: unseeded.
        timestep: How many timesteps were taken through this view, over all B environments.
        first_index: The index of the first environment, for its seeds: that of a second worker
            are told apart from those of the first.
        action_mask: bool ``[B, n]`` (or a tuple of them), True where an action is allowed; belongs
            to the last ``observe()``; None where the environment offers none. An environment
            offers one in ``info["action_mask"]`` or through a method ``action_masks()``.

    Raises:
        ValueError: A space that pgest does not take; a seed that is no non-negative integer.
    """

    is_vector: bool
    resets_take_steps = False
    some_rest = False

    def __init__(
        self,
        given: Any,
        single_spaces: tuple[spaces.Space, spaces.Space],
        *,
        num_envs: int,
        seed: int | None,
        owned: bool,
    ) -> None:
        self.env = given
        self.num_envs = num_envs
        self.observation_space, self.action_space = single_spaces
        self.owned = owned
        self.seed = checked_seed(seed)
        self.timestep = 0
        self.first_index = 0
        self.action_mask: Nest | None = None
        self._next_mask: Nest | None = None
        self._observations = environment_spaces.batched(
            self.observation_space, num_envs, "observation_space"
        )
        self._actions = environment_spaces.batched(self.action_space, num_envs, "action_space")
        self._counts = environment_spaces.counts(self.observation_space)
        # Shared by all transitions, hence read-only.
        self._all_acted, self._none = np.ones(num_envs, np.bool_), np.zeros(num_envs, np.bool_)
        self._all_acted.setflags(write=False)
        self._none.setflags(write=False)
        self._closed = False

    @abc.abstractmethod
    def reset(self, episode: int = 0) -> None:
        """Starts a new episode in every environment.

        Args:
            episode: The number of this episode, for its seed: each environment's reset seed is a
                function of (seed, environment index, episode + its resets since).

        Raises:
            EnvironmentFailure: An environment raised, or gave an observation unlike its space.
        """

    @abc.abstractmethod
    def observe(self) -> Nest:
        """What to act on now: a nest of arrays ``[B, …]`` in the space's dtype.

        Starts the next episode where one ended, if that is up to pgest; the first call resets
        everything if ``reset`` was not called.

        Raises:
            EnvironmentFailure: An environment raised in reset, or its observation is not finite.
        """

    @abc.abstractmethod
    def step(self, action: Nest) -> Transition:
        """Takes one action in each environment.

        Args:
            action: A nest of arrays ``[B, …]`` in the environment's own terms; see
                `actions.environment_action`.

        Raises:
            ValueError: The action's shape or structure is not that of the action space.
            EnvironmentFailure: An environment raised, or gave a reward or observation that is not
                finite. The next ``observe()`` resets everything.
        """

    def prepare(self) -> None:  # noqa: B027 - most environments do nothing by themselves
        """Starts what the next ``observe()`` will wait for, where it goes on by itself meanwhile.

        Only the view may be used from here until ``observe()``, ``settle()`` or ``reset()``.
        """

    def rest(self, index: int) -> None:  # noqa: B027 - what steps by itself goes on
        """Lets one environment take no further steps until everything is reset.

        Its row of what ``step()`` gives is then no timestep (`acted`). When all rest, the next
        ``observe()`` resets them. Where environments cannot be stepped without each other they go
        on, and nobody needs to look.
        """

    def settle(self) -> None:  # noqa: B027
        """Waits for what ``prepare()`` has started, so that others may use the environments.

        Raises:
            EnvironmentFailure: As in ``observe()``.
        """

    def state(self) -> dict[str, np.ndarray] | None:
        """Numbers by name that bring the episodes under way back; None where nothing can."""
        return None

    def restore(self, state: Mapping[str, np.ndarray]) -> str | None:
        """Brings the episodes under way back, and compares where they stand now, bit for bit.

        Args:
            state: What `state()` gave, in another process perhaps.

        Returns:
            None, or one clause that says why they are not back; `reset()` has to follow then.
        """
        del state
        return "it resets itself from a generator of its own (pgest.RestorableVectorEnv keeps it)"

    @abc.abstractmethod
    def _close_environments(self) -> None:
        """Closes every environment."""

    def close(self) -> None:
        """Closes the environments if pgest made them; does nothing the second time."""
        if self.owned and not self._closed:
            self._closed = True
            self._close_environments()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.env!r}, num_envs={self.num_envs}, seed={self.seed})"

    def _set_mask(self, mask: Nest) -> None:
        """Keeps the `action_mask` of the next `observe()`; nothing allowed is a failure."""
        if isinstance(self.action_space, spaces.Discrete):
            expected = (self.num_envs, int(self.action_space.n))
            if np.shape(mask) != expected:
                message = f"gave an action_mask of shape {np.shape(mask)[1:]}, not {expected[1:]},"
                raise self._failure(message, None)
        for choices in action_masks.allowed_choices(self.action_space, mask):
            allowed = choices.reshape(self.num_envs, -1).all(axis=1)
            if not allowed.all():
                raise self._failure("allows no action at all (action_mask)", int(allowed.argmin()))
        self._next_mask = mask

    def _mask_that_followed(self, masks: Nest, known: np.ndarray) -> Nest:
        """`Transition.next_mask`: `masks` in the rows that are `known`, else those acted on.

        Where an episode was cut, many environments allow nothing more; a distribution without a
        choice may be NaN, and the value with it.
        """
        acted_on = self.action_mask
        if not known.any():
            return acted_on
        followed = self._merge_masks(masks, acted_on, known)
        for choices in action_masks.allowed_choices(self.action_space, followed):
            known = known & choices.reshape(self.num_envs, -1).all(axis=1)
        return self._merge_masks(followed, acted_on, known)

    def _merge_masks(self, new: Nest, old: Nest, rows: np.ndarray) -> Nest:
        try:
            return action_masks.merge_masks(new, old, rows)
        except ValueError as error:
            raise self._failure(f"gave a wrong action_mask: {error},", None) from error

    def _failure(self, message: str, index: int | None) -> EnvironmentFailure:
        which = "One of the environments" if index is None else f"Environment {index}"
        return EnvironmentFailure(
            f"{which} ({describe(self.env)}) {message} at timestep {self.timestep}.",
            env_index=index,
            timestep=self.timestep,
        )

    def _misfit(
        self, error: Misfit, index: int | None = None, action: Nest | None = None
    ) -> EnvironmentFailure:
        """The failure of an environment that gave what does not fit."""
        index = error.index if index is None else index
        is_result = isinstance(error, results.WrongResult)
        kind = "" if is_result else "gave what its space does not hold: "
        return self._failure(f"{kind}{error}{self._blame(action, index)},", index)

    def _check_observation(self, observation: Nest, action: Nest | None = None) -> None:
        """Raises EnvironmentFailure where an observation is not finite, or not in a counting space.

        Args:
            observation: Nest ``[B, …]``.
            action: What it followed; None after a reset.
        """
        if self._counts and (action is None or self.timestep < self.num_envs * FIRST_STEPS):
            self._check_counted(observation)
        if self._observations.is_float:  # one array, the usual case
            if not all_finite(observation):
                self._raise_not_finite("observation", observation, action)
            return
        for part, leaf in self._observations.leaves(observation):
            if part.is_float and not all_finite(leaf):
                self._raise_not_finite(part.path, leaf, action)

    def _check_counted(self, observation: Nest) -> None:
        for part, leaf in self._observations.leaves(observation):
            found = part.outside(leaf)
            if found is not None:
                index, value = found
                message = f"gave an observation that is not in its space: {value} in {part.path},"
                raise self._failure(f"{message} {part.space},", index)

    def _raise_not_finite(self, what: str, values: np.ndarray, action: Nest | None) -> None:
        finite = np.isfinite(values.reshape(self.num_envs, -1)).all(axis=1)
        index = int(finite.argmin())
        wrong = values[index][~np.isfinite(values[index])]
        article = "an" if what[0] in "aeiou" else "a"
        message = f"gave {article} {what} with {wrong.size} of {values[index].size} values not"
        message += f" finite (the first: {wrong.flat[0]}); the space is {self.observation_space}"
        raise self._failure(message + self._blame(action, index), index)

    def _blame(self, action: Nest | None, index: int | None) -> str:
        """What to add to a message where the action was no number either."""
        if action is None or index is None:
            return ""
        if all(np.isfinite(leaf[index]).all() for _, leaf in self._actions.leaves(action)):
            return ""
        return "; the action was not finite either: look at the policy first"


def all_finite(array: np.ndarray) -> bool:
    """Whether no element of a float array is NaN or infinite.

    Runs at every timestep. Python's own sum is a fifth of the price of a numpy reduction for the
    handful of numbers of a usual observation, and never warns; NaN and infinity never sum to
    anything finite.

    >>> all_finite(np.array([1.0, 2.0])), all_finite(np.array([np.inf, -np.inf]))
    (True, False)
    """
    if array.size <= 64 and math.isfinite(sum(array.ravel().tolist())):
        return True
    return bool(np.isfinite(array).all())


def describe(env: Any) -> str:
    """A short name of an environment for messages: its id, else its class.

    >>> describe("CartPole-v1")
    'CartPole-v1'
    """
    if isinstance(env, str):
        return env
    spec = getattr(env, "spec", None)
    if spec is not None and getattr(spec, "id", None):
        return str(spec.id)
    if isinstance(env, (gymnasium.Env, gymnasium.vector.VectorEnv)):
        return type(env.unwrapped).__name__
    return getattr(env, "__name__", type(env).__name__)


def reason(error: BaseException) -> str:
    """What an exception says, in one phrase.

    >>> reason(KeyError("speed"))
    "KeyError: 'speed'"
    """
    return f"{type(error).__name__}: {error}".rstrip(".: ")


def checked_seed(seed: int | None) -> int | None:
    """The seed as an int; ValueError unless it is None or a non-negative integer."""
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed is {seed!r}, expected a non-negative integer or None.")
    return int(seed)
