"""The code that steps environments on the host: act, step, store, until the memory has a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from pgest.contract import callers, episodes
from pgest.environments import view as environment_view
from pgest.memory import memory as memory_lib
from pgest.tracing import acting
from pgest.variables import counters as counters_lib

EpisodeStatistics = episodes.EpisodeStatistics
_ARRAYS = ("_reset", "done", "_totals", "_lengths", "_highest", "_lowest")


class LoopActor(Protocol):
    """What a loop needs of who acts: a model's compiled program, or a policy."""

    program: Any

    @property
    def recurrent(self) -> bool:
        """Whether the memory has to keep a policy state."""

    @property
    def predicts_value(self) -> bool:
        """Whether `Acted.predictions` holds `value`."""

    def initial_state(self) -> Any:
        """The policy state at the start of an episode."""

    def __call__(
        self,
        observation: Any,
        timestep: int,
        mask: Any = None,
        policy_state: Any = (),
        reset: np.ndarray | None = None,
    ) -> acting.Acted:
        """Acts on observations `[B, ...]`."""


class HostLoop:
    """Steps one view of environments and fills a memory, a timestep at a time.

    It stays between two calls of `train` as long as the same environment is given, so an episode
    under way goes on.

    Args:
      actor: the compiled acting program for this view.
      view: the environments.
      memory: where timesteps go; None keeps nothing, for evaluation.
      counters: of the model, or counters of its own for evaluation.
      overlapped: whether updates run while the next batch is collected. Their weights are newer
        than those that acted, which then value what follows the horizon as well.

    Attributes:
      broken: whether a timestep failed half way; the episodes under way cannot go on then.
    """

    def __init__(
        self,
        actor: LoopActor,
        view: environment_view.EnvironmentView,
        memory: memory_lib.BatchMemory | None,
        counters: counters_lib.Counters,
        overlapped: bool = False,
    ):
        self.actor = actor
        self.view = view
        self.memory = memory
        self.counters = counters
        self.batch_state: Any = ()
        # For exploration that model_fn anneals; the actor itself keeps the timestep right.
        self._episode_variable = counters.variables[counters_lib.GLOBAL_EPISODE]
        self._keeps_episode = actor.program.reads(self._episode_variable)
        # Whether training has still to say that it cuts episodes without a value.
        self.warns_of_cuts = False
        self.loss: float | None = None
        self.broken = False
        # Of the first environment alone, where it is the only one.
        self._rewards: list[float] = []
        # Where the horizon cuts, the update makes the values itself: a call for them would take as
        # long as a timestep, and a horizon may be of five.
        self.leaves_horizon_to_update = (
            isinstance(memory, memory_lib.RolloutMemory)
            and not view.resets_take_steps
            and actor.predicts_value
            and not overlapped
        )
        self._following: tuple[Any, Any, Any] = (None, None, ())
        self.done = np.zeros([view.num_envs], np.bool_)
        self._reset = np.ones([view.num_envs], np.bool_)
        self._recurrent, self._predicts_value = actor.recurrent, actor.predicts_value
        self._state = actor.initial_state()
        self._totals = np.zeros([view.num_envs])
        self._lengths = np.zeros([view.num_envs], np.int64)
        self._highest = np.full([view.num_envs], -np.inf)
        self._lowest = np.full([view.num_envs], np.inf)
        self._total, self._largest, self._smallest = 0.0, -np.inf, np.inf

    def step(self) -> environment_view.Transition:
        """Takes one timestep in every environment and stores it; counters are the caller's."""
        view, memory = self.view, self.memory
        try:
            observation = view.observe()
            mask = view.action_mask
            reset = self._reset
            if self._recurrent and memory is not None and len(memory) == 0:
                self.batch_state = self._state
            if self._keeps_episode:
                self._episode_variable.assign(self.counters.episode)
            acted = self.actor(observation, self.counters.timestep, mask, self._state, reset)
            transition = view.step(acted.environment_action)
            view.prepare()
            self._state = acted.policy_state
            if memory is not None:
                self._store(memory, observation, mask, acted, transition, reset)
            self._note(transition)
        except BaseException:
            self.broken = True
            raise
        return transition

    def ended(self, transition: environment_view.Transition) -> list[EpisodeStatistics]:
        """Statistics of the episodes that ended with `transition`, and a fresh start for them."""
        return [self._statistics(int(index), transition) for index in np.flatnonzero(self.done)]

    @property
    def following(self) -> dict[str, Any]:
        """The features `[B, ...]` that the last timestep led to, as `following_spec` says."""
        observation, mask, state = self._following
        features = {"state": observation}
        if mask is not None:
            features["action_mask"] = mask
        if self._recurrent:
            features["policy_state"] = state
        return features

    def state(self) -> dict[str, np.ndarray]:
        """Numbers by name: what the loop itself knows of the episodes under way."""
        parts = {"state": self._state, "batch_state": self.batch_state}
        parts["following"] = self._following
        state = {
            f"{name}/{number}": np.asarray(leaf)
            for name, part in parts.items()
            for number, leaf in enumerate(tf.nest.flatten(part))
            if leaf is not None
        }
        for name in _ARRAYS:
            state[name] = np.array(getattr(self, name))
        state["rewards"] = np.array(self._rewards, np.float64)
        one = [self._total, self._largest, self._smallest]
        state["one"] = np.array([*one, np.nan if self.loss is None else self.loss])
        return state

    def restore(self, state: Mapping[str, np.ndarray], observed: tuple[Any, Any]) -> None:
        """Takes over what `state` gave in another process; `observed`: observation, mask specs."""
        like = self.actor.initial_state()
        self._state = _packed(like, state, "state")
        self.batch_state = _packed(like, state, "batch_state")
        if "following/0" in state:
            self._following = _packed((*observed, like), state, "following")
        for name in _ARRAYS:
            setattr(self, name, state[name].copy())
        self._rewards = state["rewards"].tolist()
        self._total, self._largest, self._smallest, loss = state["one"].tolist()
        self.loss = None if np.isnan(loss) else loss

    def under_way(self) -> EpisodeStatistics:
        """Statistics of the first environment's episode so far."""
        return self._summarize(0, complete=False)

    def collect(
        self,
        must_pause: Callable[[], bool],
        episodes_ended: Callable[[list[EpisodeStatistics]], None],
    ) -> None:
        """Steps until `must_pause()` says so.

        Args:
          must_pause: asked before each timestep.
          episodes_ended: called with those that end in one timestep.
        """
        counters = self.counters
        try:
            while not must_pause():
                transition = self.step()
                counters.timestep += self._count(transition)
                if transition.infos:
                    finished = self.ended(transition)
                    counters.episode += len(finished)
                    episodes_ended(finished)
        finally:
            self.view.settle()  # somebody else may step them before the loop goes on

    def _count(self, transition: environment_view.Transition) -> int:
        if self.view.resets_take_steps:
            return int(transition.acted.sum())
        # Of environments at rest too: what is drawn follows this count, whoever rests.
        return self.view.num_envs * self.counters.workers

    def _store(
        self,
        memory: memory_lib.BatchMemory,
        observation: Any,
        mask: Any,
        acted: acting.Acted,
        transition: environment_view.Transition,
        reset: np.ndarray,
    ) -> None:
        values = {
            "state": observation,
            "action": acted.action,
            "reward": transition.reward,
            "terminated": transition.terminated,
            "truncated": transition.truncated,
            **acted.predictions,
        }
        if mask is not None:
            values["action_mask"] = mask
        if self._recurrent:
            values["reset"] = reset
        everyone = not self.view.some_rest or bool(transition.acted.all())
        memory.step_vector(values, None if everyone else transition.acted)
        self._following = (transition.next_observation, transition.next_mask, acted.policy_state)
        cut = memory.columns_to_cut()
        if not (cut.size or transition.infos):
            return  # no episode has ended, which is so nearly always
        valued = cut[:0] if self.leaves_horizon_to_update else cut
        if not self._predicts_value:
            if self.warns_of_cuts and (cut.size or np.count_nonzero(transition.truncated)):
                self._warn_of_cut(cut, transition)
        elif valued.size or np.count_nonzero(transition.truncated):
            truncated = transition.truncated & ~transition.terminated
            truncated[valued] = True
            if truncated.any():
                following = self._following_values(acted.policy_state, transition)
                memory.bootstrap(np.flatnonzero(truncated), following[truncated])
        if cut.size:
            memory.cut(cut)

    def _warn_of_cut(self, cut: np.ndarray, transition: environment_view.Transition) -> None:
        if cut.size:
            warn_of_cuts(f"{self.memory!r} cuts episodes")
        elif (transition.truncated & ~transition.terminated).any():
            warn_of_cuts("the environment truncates episodes (a time limit)")
        else:
            return
        self.warns_of_cuts = False

    def _note(self, transition: environment_view.Transition) -> None:
        """Adds a timestep to the statistics of the episodes under way."""
        acted, rewards = transition.acted, transition.reward
        self.done = transition.terminated
        if transition.infos:
            self.done = np.logical_or(transition.terminated, transition.truncated)
        if not self.view.is_vector:
            # Half a dozen operations on arrays of one number would take as long as its step.
            self._reset = self.done
            reward = rewards.item()
            self._rewards.append(reward)
            self._total += reward
            if reward > self._largest:
                self._largest = reward
            if reward < self._smallest:
                self._smallest = reward
            return
        if not self.view.some_rest or acted.all():
            self._reset = self.done
            self._totals += rewards
            self._lengths += 1
            np.maximum(self._highest, rewards, out=self._highest)
            np.minimum(self._lowest, rewards, out=self._lowest)
            return
        # An environment that used the step to reset has its first observation still to come.
        self._reset = np.where(acted, self.done, self._reset)
        rows = np.flatnonzero(acted)
        self._totals[rows] += rewards[rows]
        self._lengths[rows] += 1
        self._highest[rows] = np.maximum(self._highest[rows], rewards[rows])
        self._lowest[rows] = np.minimum(self._lowest[rows], rewards[rows])

    def _following_values(self, state: Any, transition: environment_view.Transition) -> np.ndarray:
        """The values of the observations that the actions led to, float32 `[B]`."""
        following = self.actor(
            transition.next_observation,
            self.counters.timestep,
            transition.next_mask,
            state,
            np.zeros_like(self._reset),
        )
        return following.predictions["value"].reshape([self.view.num_envs])

    def _statistics(self, index: int, transition: environment_view.Transition) -> EpisodeStatistics:
        statistics = self._summarize(
            index,
            complete=True,
            terminated=bool(transition.terminated[index]),
            truncated=bool(transition.truncated[index]),
            info=dict(transition.infos.get(index, {})),
        )
        self._totals[index], self._lengths[index] = 0.0, 0
        self._highest[index], self._lowest[index] = -np.inf, np.inf
        self._rewards = []
        self._total, self._largest, self._smallest = 0.0, -np.inf, np.inf
        return statistics

    def _summarize(self, index: int, **known: Any) -> EpisodeStatistics:
        total, length = self._total, len(self._rewards)
        largest, smallest = self._largest, self._smallest
        if self.view.is_vector:
            total, length = float(self._totals[index]), int(self._lengths[index])
            largest, smallest = float(self._highest[index]), float(self._lowest[index])
        return EpisodeStatistics(
            total=total,
            length=length,
            max=largest,
            min=smallest,
            avg=total / max(length, 1),
            # A short horizon pauses a long episode often: nothing here may take its length's time.
            rewards=self._rewards,
            loss=self.loss,
            env_index=index,
            **known,
        )


def _packed(like: Any, state: Mapping[str, np.ndarray], name: str) -> Any:
    """The leaves `name/0`, `name/1`, … of a state, in the structure of `like`; () without any."""
    leaves = iter(range(len(tf.nest.flatten(like))))
    if not any(key.startswith(f"{name}/") for key in state):
        return ()
    return tf.nest.map_structure(
        lambda leaf: _leaf(leaf, state.get(f"{name}/{next(leaves)}")), like
    )


def _leaf(like: Any, value: np.ndarray | None) -> Any:
    return tf.constant(value) if tf.is_tensor(like) else value


def warn_of_cuts(how: str) -> None:
    """Warns that episodes are cut while the model has no value to bootstrap from."""
    callers.warn(
        f"The model predicts no value, and {how}: what would have followed counts as 0 in the "
        "returns, which are too small near a cut, and the more so the longer episodes could go on. "
        "Predict one, as pgest.models.A2C and PPO do: EstimatorSpec(mode, predictions={'value': "
        "value}, ...); or take whole episodes, with a BatchMemory without max_episode_length and "
        "an environment that terminates."
    )


def play_episode(
    loop: HostLoop,
    must_pause: Callable[[], bool],
    count_episode: Callable[[], None],
    count_timestep: Callable[[], None],
) -> EpisodeStatistics:
    """Plays one environment's episode to its end, or to where acting has to pause.

    Args:
      loop: of one environment.
      must_pause: asked before each timestep.
      count_episode: called when the episode has ended.
      count_timestep: called after each timestep.

    Returns:
      Statistics; `complete` is False where it was cut, and the next call goes on with it.
    """
    while not must_pause():
        transition = loop.step()
        count_timestep()
        if loop.done[0]:
            count_episode()
            return loop.ended(transition)[0]
    return loop.under_way()
