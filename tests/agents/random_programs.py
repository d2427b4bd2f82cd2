"""Random programs of `train`, and what has to hold whatever they do.

An environment keeps a book of what was done to it. A program makes an agent, trains it in several
calls with random limits, breaks off, comes back from the checkpoint, and evaluates. Afterwards the
book says what the counters, the batches, the hooks, TensorBoard and the evaluation have to say.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import strategies

import pgest
from pgest.memory import memory as memory_lib
from tests.agents.test_tensorboard import read

SPACES = {
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "double": spaces.Box(-2.0, 3.0, (1,), np.float64),
    "bytes": spaces.Box(0, 255, (3,), np.uint8),
    "discrete": spaces.Discrete(3),
    "switches": spaces.MultiBinary(2),
    "several": spaces.MultiDiscrete([2, 3]),
    "nest": spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1.0, 1.0, (1,), np.float32)}),
}
ACTIONS = ("box", "double", "discrete", "switches", "several")
KINDS = ("one", "loop", "NEXT_STEP", "SAME_STEP", "DISABLED")


class BookedEnv(gymnasium.Env):
    """Writes down every timestep: its reward, whether it ended the episode, and how."""

    def __init__(self, observation_space, action_space, episodes):
        self.observation_space, self.action_space = observation_space, action_space
        self.episodes = episodes  # (length, truncates), taken in turn
        self.book: list[tuple[float, bool, bool]] = []
        self.actions: list[Any] = []
        self.begun, self.steps = 0, 0

    def observe(self):
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.begun, self.steps = self.begun + 1, 0
        return self.observe(), {}

    def step(self, action):
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.steps += 1
        length, truncates = self.episodes[self.begun % len(self.episodes)]
        ended = self.steps >= length
        # No two neighbours are alike, and float32 holds each of them exactly.
        reward = float((len(self.book) * 37) % 101 - 50)
        self.book.append((reward, ended and not truncates, ended and truncates))
        self.actions.append(np.asarray(action).tolist())
        return self.observe(), reward, *self.book[-1][1:], {"steps": self.steps}


@dataclasses.dataclass(frozen=True)
class Program:
    """What one program does; hypothesis prints it where it fails."""

    algorithm: str
    observation: str
    action: str
    episodes: list[tuple[int, bool]]
    kind: str
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
        what, size = program.memory
        self.memory = {
            "timesteps": lambda: _BATCHES(size),
            "episodes": lambda: _BATCHES(episodes=1 + size // 4),
            "horizon": lambda: _ROLLOUTS(size),
        }[what]()
        model_fn = getattr(pgest.models, program.algorithm)(hidden_sizes=(3,))
        self.agent = pgest.PGAgent(
            model_fn, self.memory, program.update, model_dir=model_dir, config=config
        )
        self.env = self._environment(program)

    def _environment(self, program):
        make = functools.partial(self._one, program)
        if program.kind == "one":
            return make()
        if program.kind == "loop":
            return pgest.make(make, num_envs=program.num_envs)
        mode = AutoresetMode[program.kind]
        return SyncVectorEnv([make] * program.num_envs, autoreset_mode=mode)

    def _one(self, program):
        observation, action = SPACES[program.observation], SPACES[program.action]
        self.made.append(BookedEnv(observation, action, program.episodes))
        return self.made[-1]

    @property
    def books(self):
        """The books by environment; gymnasium's vectors make none beside them."""
        return [env.book for env in self.made]


def run(program: Program, model_dir) -> list[Life]:
    """Runs a program and checks after every call what has to hold.

    Returns:
      The lives, in order.
    """
    lives = [Life(program, model_dir)]
    before = (0, 0)  # timesteps and episodes of earlier lives
    for number, (kind, count) in enumerate(program.calls):
        life = lives[-1]
        _train(life, kind, count, program.num_envs)
        _check_counters(life, before)
        if number < len(program.comes_back) and program.comes_back[number]:
            before = (life.agent.global_timestep, life.agent.global_episode)
            lives.append(Life(program, model_dir))
            lives[-1].agent.evaluate(_fresh(program), episodes=1, name="on_return")
    for life in lives:
        _check_batches(life)
        _check_episodes(life)
    _check_tensorboard(lives, model_dir)
    _check_evaluation(program, lives[-1])
    return lives


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


def _check_counters(life, before):
    timesteps, episodes = before
    ended = sum(terminated or truncated for book in life.books for _, terminated, truncated in book)
    assert life.agent.global_timestep == timesteps + sum(map(len, life.books))
    assert life.agent.global_episode == episodes + ended


def _check_batches(life):
    """What the updates got is the beginning of each book, in order, nothing left out or doubled."""
    seen = [[] for _ in life.books]
    for batch in life.memory.batches:
        rewards = batch["reward"]
        if rewards.ndim == 2:
            index = np.broadcast_to(np.arange(rewards.shape[1]), rewards.shape)
        else:
            index = batch.get(memory_lib.ENV_INDEX, np.zeros(len(rewards), np.int32))
        columns = (index, rewards, batch["terminated"], batch["truncated"])
        for env, *row in zip(*(column.ravel().tolist() for column in columns), strict=True):
            seen[env].append(tuple(row))
    for book, rows in zip(life.books, seen, strict=True):
        assert rows == book[: len(rows)]
    assert len(life.memory.batches) >= len(life.notes.updates)


def _check_episodes(life):
    """Hooks hear of each episode once, and of what it was."""
    heard = [[] for _ in life.books]
    for env, *episode in life.notes.episodes:
        heard[env].append(tuple(episode))
    for book, episodes in zip(life.books, heard, strict=True):
        assert episodes == _episodes(book)
    told = [total for _, total, *_ in life.notes.episodes]
    means = [r["episode/return"] for r in life.history.records if "episode/return" in r]
    assert bool(told) == bool(means)
    if told:
        assert min(told) <= min(means) <= max(means) <= max(told)


def _episodes(book):
    """(return, length, terminated, truncated) of the episodes of a book that ended."""
    found, total, length = [], 0.0, 0
    for reward, terminated, truncated in book:
        total, length = total + reward, length + 1
        if terminated or truncated:
            found.append((total, length, terminated, truncated))
            total, length = 0.0, 0
    return found


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
    played = _episodes(env.book)
    assert len(played) == 3 and len(env.book) == sum(length for _, length, *_ in played)
    assert results["return_mean"] == np.mean([total for total, *_ in played])
    assert results["length_max"] == max(length for _, length, *_ in played)
    assert (agent.global_step, agent.global_timestep, agent.global_episode) == before
