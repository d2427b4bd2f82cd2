"""Random programs of `train`, and what has to hold whatever they do.

An environment keeps a book of what was done to it. A program makes an agent, trains it in several
calls with random limits, breaks off, comes back from the checkpoint, and evaluates. Afterwards the
book says what the counters, the batches, the hooks, TensorBoard and the evaluation have to say.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import strategies

import pgest
from pgest.memory import memory as memory_lib
from tests.agents.booked_environments import (
    ACTIONS,
    SPACES,
    BookedEnv,
    episodes_of,
    follows,
    since_reset,
)
from tests.agents.test_tensorboard import read

KINDS = ("one", "loop", "NEXT_STEP", "SAME_STEP", "DISABLED")


@dataclasses.dataclass(frozen=True)
class Program:
    """What one program does; hypothesis prints it where it fails."""

    algorithm: str
    observation: str
    action: str
    episodes: list[tuple[int, bool]]
    kind: str
    keeps: bool
    num_envs: int
    memory: tuple[str, int]
    update: dict[str, Any]
    calls: list[tuple[str, int]]
    comes_back: list[bool]
    seed: int


@strategies.composite
def programs(draw) -> Program:
    """Any program that is small."""
    integers, booleans = strategies.integers, strategies.booleans()
    kind = draw(strategies.sampled_from(KINDS))
    size = draw(integers(1, 24))
    limit = strategies.one_of(
        strategies.tuples(
            strategies.sampled_from(("steps", "max_steps", "breaks")), integers(1, 4)
        ),
        strategies.tuples(strategies.sampled_from(("timesteps", "max_timesteps")), integers(1, 40)),
        strategies.tuples(strategies.sampled_from(("episodes", "max_episodes")), integers(1, 8)),
    )
    calls = draw(strategies.lists(limit, min_size=2, max_size=5))
    return Program(
        algorithm=draw(strategies.sampled_from(("VPG", "A2C", "PPO"))),
        observation=draw(strategies.sampled_from(tuple(SPACES))),
        action=draw(strategies.sampled_from(ACTIONS)),
        episodes=draw(
            strategies.lists(strategies.tuples(integers(1, 9), booleans), min_size=1, max_size=4)
        ),
        kind=kind,
        keeps=draw(booleans),
        num_envs=1 if kind == "one" else draw(integers(1, 3)),
        memory=(draw(strategies.sampled_from(("timesteps", "episodes", "horizon"))), size),
        update={
            "epochs": draw(integers(1, 3)),
            "minibatch_size": draw(strategies.none() | integers(1, 16)),
            "discount": draw(strategies.sampled_from((0.0, 0.9, 1.0))),
            "gae_lambda": draw(strategies.sampled_from((0.0, 0.95, 1.0))),
            "normalize_advantage": draw(booleans),
        },
        calls=calls,
        comes_back=draw(
            strategies.lists(booleans, min_size=len(calls) - 1, max_size=len(calls) - 1)
        ),
        seed=draw(integers(0, 2**31 - 1)),
    )


class BreaksOffError(Exception):
    """What a hook raises in the middle of a run."""


class Notes(pgest.BaseMonitor):
    """Notes episodes and updates, and breaks off where it is told to."""

    def __init__(self):
        self.episodes: list[tuple[int, float, int, bool, bool]] = []
        self.updates: list[tuple[int, int, float]] = []
        self.breaks_at: int | None = None

    def after_episode(self, context):
        (it,) = context.episodes
        self.episodes.append((it.env_index, it.total, it.length, it.terminated, it.truncated))

    def after_run(self, context):
        self.updates.append((context.step, context.timestep, context.metrics["loss"]))
        if self.breaks_at is not None and context.step >= self.breaks_at:
            raise BreaksOffError


def _recording(kind):
    class Recording(kind):
        """Keeps a copy of what it hands over."""

        def __init__(self, *arguments, **keywords):
            super().__init__(*arguments, **keywords)
            self.batches = []

        def sample(self, *arguments, **keywords):
            batch = super().sample(*arguments, **keywords)
            self.batches.append({key: np.array(batch[key]) for key in batch if key in _KEPT})
            return batch

    return Recording


_KEPT = ("reward", "terminated", "truncated", memory_lib.ENV_INDEX)
_BATCHES, _ROLLOUTS = _recording(pgest.BatchMemory), _recording(pgest.RolloutMemory)


class Life:
    """One process's part of a program: an agent, its environments and what they saw."""

    def __init__(self, program: Program, model_dir):
        self.made: list[BookedEnv] = []
        self.notes, self.history = Notes(), pgest.HistoryHook()
        config = pgest.RunConfig(
            tf_random_seed=program.seed, save_summary_steps=1, jit_compile=False,
            log_step_count_steps=None,
        )  # fmt: skip
        self.memory = memory_of(program, _BATCHES, _ROLLOUTS)
        model_fn = getattr(pgest.models, program.algorithm)(hidden_sizes=(3,))
        self.agent = pgest.PGAgent(
            model_fn, self.memory, program.update, model_dir=model_dir, config=config
        )
        self.env = environment_of(program, self.made)
        self.starts: list[int] = []  # where the books begin in those of all lives

    @property
    def books(self):
        """The books by environment; gymnasium's vectors make none beside them."""
        return [env.book for env in self.made]


def memory_of(program, batches, rollouts):
    """The memory of a program, of one of two classes."""
    what, size = program.memory
    if what == "horizon":
        return rollouts(size)
    return batches(size) if what == "timesteps" else batches(episodes=1 + size // 4)


def environment_of(program, made, kind=BookedEnv):
    """The environments of a program, of a kind; each of them is added to `made`."""

    def make():
        observation, action = SPACES[program.observation], SPACES[program.action]
        made.append(kind(observation, action, program.episodes))
        return pgest.RestorableEnv(made[-1]) if keeps_each else made[-1]

    keeps_each = program.keeps and program.kind in ("one", "loop")
    if program.kind == "one":
        return make()
    if program.kind == "loop":
        return pgest.make(make, num_envs=program.num_envs)
    mode = AutoresetMode[program.kind]
    vector = SyncVectorEnv([make] * program.num_envs, autoreset_mode=mode)
    return pgest.RestorableVectorEnv(vector) if program.keeps else vector


class Lives:
    """All lives of a program; a later one begins where the one before ended, or anew.

    Attributes:
      books: what all of them did, nothing twice, by environment.
      begun_anew: before which timesteps of a book an episode was dropped.
    """

    def __init__(self, program: Program, model_dir):
        self.program, self.model_dir = program, model_dir
        self.all = [Life(program, model_dir)]
        self.books: list[list[Any]] = [[] for _ in range(program.num_envs)]
        self.begun_anew: list[list[int]] = [[] for _ in range(program.num_envs)]

    @property
    def now(self):
        """The one that trains."""
        return self.all[-1]

    @property
    def begins_anew(self):
        """Whether a new life cannot go on with the episodes under way."""
        return not self.program.keeps and self.program.kind not in ("one", "loop")

    def come_back(self):
        """Begins another life."""
        self.all.append(Life(self.program, self.model_dir))

    def train(self, kind, count):
        """One call of `train`, and what its book says."""
        with warnings.catch_warnings():
            if self.begins_anew and len(self.all) > 1 and not any(self.now.books):
                warnings.filterwarnings("ignore", ".*start anew")
            _train(self.now, kind, count, self.program.num_envs)
        if any(self.now.books):
            self._add()

    def _add(self):
        if not self.now.starts:
            before = next((life for life in self.all[-2::-1] if life.starts), None)
            for index, book in enumerate(self.books):
                start = len(book)
                if self.begins_anew and before is not None:
                    self.begun_anew[index].append(start)
                elif before is not None:
                    keeps = self.program.keeps
                    start = before.starts[index] if keeps else start - since_reset(book)
                self.now.starts.append(start)
        for book, start, now in zip(self.books, self.now.starts, self.now.books, strict=True):
            again = book[start:]
            assert now[: len(again)] == again, "what is played again is what was played"
            book[start:] = now


def run(program: Program, model_dir) -> list[Life]:
    """Runs a program and checks after every call what has to hold.

    Returns:
      The lives, in order.
    """
    lives = Lives(program, model_dir)
    for number, (kind, count) in enumerate(program.calls):
        lives.train(kind, count)
        _check_counters(lives)
        if number < len(program.comes_back) and program.comes_back[number]:
            lives.come_back()
            lives.now.agent.evaluate(_fresh(program), episodes=1, name="on_return")
    _check_batches(lives)
    _check_episodes(lives)
    _check_tensorboard(lives.all, model_dir)
    _check_evaluation(program, lives.now)
    return lives.all


calls = itertools.count()  # of `train`, in this process


def _train(life, kind, count, num_envs):
    next(calls)
    agent = life.agent
    counter = kind.removeprefix("max_").removesuffix("s")
    before = agent.global_step if kind == "breaks" else getattr(agent, f"global_{counter}")
    hooks = [life.notes, life.history]
    if kind == "breaks":
        life.notes.breaks_at = before + count
        try:
            agent.train(life.env, hooks=hooks)
        except BreaksOffError:
            pass
        life.notes.breaks_at = None
        assert agent.global_step >= before + count
        return
    agent.train(life.env, hooks=hooks, **{kind: count})
    after = getattr(agent, f"global_{counter}")
    wanted = max(before, count) if kind.startswith("max_") else before + count
    # Several environments act at once.
    slack = 0 if counter == "step" else num_envs - 1
    assert wanted <= after <= wanted + slack, (kind, count, before, after)


def _check_counters(lives):
    agent = lives.now.agent
    ended = sum(any(row[1:]) for book in lives.books for row in book)
    assert agent.global_timestep == sum(map(len, lives.books))
    assert agent.global_episode == ended


def _check_batches(lives):
    """What the updates got is the beginning of each book, in order, nothing left out or doubled."""
    seen = [[] for _ in lives.books]
    for batch in (batch for life in lives.all for batch in life.memory.batches):
        rewards = batch["reward"]
        if rewards.ndim == 2:
            index = np.broadcast_to(np.arange(rewards.shape[1]), rewards.shape)
        else:
            index = batch.get(memory_lib.ENV_INDEX, np.zeros(len(rewards), np.int32))
        columns = (index, rewards, batch["terminated"], batch["truncated"])
        for env, *row in zip(*(column.ravel().tolist() for column in columns), strict=True):
            seen[env].append(tuple(row))
    for rows, book, anew in zip(seen, lives.books, lives.begun_anew, strict=True):
        assert follows(rows, book, anew)
    for life in lives.all:
        assert len(life.memory.batches) >= len(life.notes.updates)


def _check_episodes(lives):
    """Hooks hear of each episode once, and of what it was."""
    heard = [[] for _ in lives.books]
    for env, *episode in (episode for life in lives.all for episode in life.notes.episodes):
        heard[env].append(tuple(episode))
    for book, anew, episodes in zip(lives.books, lives.begun_anew, heard, strict=True):
        assert episodes == episodes_of(book, anew)
    told = [episode[0] for episodes in heard for episode in episodes]
    records = [record for life in lives.all for record in life.history.records]
    means = [record["episode/return"] for record in records if "episode/return" in record]
    assert bool(told) == bool(means)
    if told:
        assert min(told) <= min(means) <= max(means) <= max(told)


def _check_tensorboard(lives, model_dir):
    """One point for each update, at its timestep, with its loss."""
    updates = [update for life in lives for update in life.notes.updates]
    points = read(model_dir).get("loss", [])
    assert [step for step, _ in points] == [timestep for _, timestep, _ in updates]
    losses = np.array([value for _, value in points], np.float32)
    np.testing.assert_array_equal(losses, np.array([loss for *_, loss in updates], np.float32))


def _fresh(program):
    observation, action = SPACES[program.observation], SPACES[program.action]
    return BookedEnv(observation, action, program.episodes)


def _check_evaluation(program, life):
    agent, env = life.agent, _fresh(program)
    before = agent.global_step, agent.global_timestep, agent.global_episode
    results = agent.evaluate(env, episodes=3)
    played = episodes_of(env.book)
    assert len(played) == 3 and len(env.book) == sum(length for _, length, *_ in played)
    assert results["return_mean"] == np.mean([total for total, *_ in played])
    assert results["length_max"] == max(length for _, length, *_ in played)
    assert (agent.global_step, agent.global_timestep, agent.global_episode) == before
