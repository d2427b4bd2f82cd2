"""What the workers of a run decide together: where it stands, when it pauses, when it ends."""

from __future__ import annotations

import logging
import signal
import zlib
from collections.abc import Sequence
from typing import Any

from pgest.hooks import monitor
from pgest.memory import memory as memory_lib
from pgest.variables import checkpoints
from pgest.variables import workers as workers_lib

_LOGGER = logging.getLogger(__name__)
_LIMITS = ("max_steps", "max_timesteps", "max_episodes")
_COUNTS = ("step", "timestep", "episode")
_EXCHANGED = ("timestep", "episode")
_CHECKED_EVERY = 100  # updates


class Agreement:
    """One run's part of what its workers agree on; the same calls in the same order on each.

    Between two exchanges a worker knows its own episodes alone. Where all workers act in step,
    timesteps need no exchange; where not, each has a quota of the timesteps and episodes that are
    left.

    Args:
      workers: of the run.
      run: the `Run`.

    Raises:
      ValueError: the workers do not stand at the same counters, or have other limits.

    Attributes:
      all_ready: whether each of them has had a batch at the last exchange.
    """

    def __init__(self, workers: workers_lib.Workers, run: Any):
        self.workers = workers
        self._run = run
        self._counters = run.agent.counters
        self._asked: str | None = None
        self._updates = 0
        counts = {f"global_{kind}": getattr(self._counters, kind) for kind in _COUNTS}
        limits = {name: _number(getattr(run.limits, name)) for name in _LIMITS}
        self._num_envs = 1  # of all workers
        workers.compare({**counts, **limits}, "where the run begins and ends")
        self._in_step = True
        self._chief_has_saved = False
        self.all_ready = False
        self._known = dict.fromkeys(_EXCHANGED, 0)  # counts at the last exchange
        for kind in _EXCHANGED:
            self._known[kind] = getattr(self._counters, kind)
        self._quotas: dict[str, int] = {}
        self._look_at = self._counters.timestep

    def begin(self, trainer: Any) -> None:
        """Compares what is trained and takes the chief's limits, which hooks may have tightened.

        Raises:
          ValueError: the workers differ in sizes or in variables.
        """
        agent, run = self._run.agent, self._run
        num_envs, memory = trainer.view.num_envs, agent.memory
        self._in_step = in_step(memory, trainer.view)
        settings = {
            "num_envs": num_envs,
            f"memory {memory!r}": _checksum(repr(memory)),
            "optimizer_params": _checksum(repr(agent.update_config)),
        }
        self.workers.compare(settings, "their settings")
        self.compare_variables("when the run begins")
        self._num_envs = num_envs * self.workers.count
        limits = [_number(getattr(run.limits, name)) for name in _LIMITS]
        given = zip(_LIMITS, self.workers.of_chief(limits), strict=True)
        run.limits = monitor.Limits(**{n: None if v < 0 else int(v) for n, v in given})
        _LOGGER.info("%s", _sizes(self.workers.count, num_envs, agent))

    def ask(self, reason: str) -> None:
        """Asks all workers to end the run; they do after the next exchange."""
        self._asked = self._asked or reason or "a hook asked to stop"

    def must_pause(self) -> bool:
        """Asked before each timestep: whether this worker, or all in step, pause here."""
        run, counters, limits = self._run, self._counters, self._run.limits
        if run.should_stop:
            return True
        if not self._in_step:
            return any(
                getattr(counters, kind) - self._known[kind] >= quota
                for kind, quota in self._quotas.items()
            )
        if limits.max_timesteps is not None and counters.timestep >= limits.max_timesteps:
            return True
        if limits.max_episodes is None:
            return False
        if counters.timestep >= self._look_at:
            self.exchange()
        return run.should_stop or counters.episode >= limits.max_episodes

    def exchange(self) -> None:
        """Adds up what all workers have counted, and ends the run where one of them wants to."""
        run, counters = self._run, self._counters
        number = run.interrupt
        signals = [number == signal.SIGTERM, number == signal.SIGINT]
        counts = [0 if self._in_step else self._own("timestep"), self._own("episode")]
        lacks = [0] * self.workers.count
        lacks[self.workers.rank] = int(not run.agent.memory.can_sample())
        saved = self.workers.is_chief and run.has_saved
        sums = self.workers.sum_now([*counts, self._asked is not None, saved, *signals, *lacks])
        timesteps, episodes, asked, saved, *signalled = sums[:6]
        self._chief_has_saved = saved > 0
        if not self._in_step:
            counters.timestep = self._known["timestep"] + int(timesteps)
        counters.episode = self._known["episode"] + int(episodes)
        self._known = {kind: getattr(counters, kind) for kind in _EXCHANGED}
        self.all_ready = not any(sums[6:])
        self._share_out(sums[6:])
        if signalled[0] or signalled[1]:
            run.interrupt = run.interrupt or (signal.SIGTERM if signalled[0] else signal.SIGINT)
        if asked and not run.should_stop:
            run.stop_with_others(self._asked or "another worker asked to stop")

    def _own(self, kind: str) -> int:
        """What this worker has counted since the last exchange."""
        return getattr(self._counters, kind) - self._known[kind]

    def _share_out(self, lacks: Sequence[float]) -> None:
        """Looks how far the workers may go before the next exchange.

        Args:
          lacks: of each worker, whether it has no batch yet.
        """
        limits = self._run.limits
        if self._in_step:
            if limits.max_episodes is not None:
                # So many timesteps later at the earliest all episodes that are left have ended.
                steps = max((limits.max_episodes - self._known["episode"]) // self._num_envs, 1)
                self._look_at = self._known["timestep"] + steps * self._num_envs
            return
        waiting, before = int(sum(lacks)), int(sum(lacks[: self.workers.rank]))
        for kind in _EXCHANGED:
            limit = getattr(limits, f"max_{kind}s")
            if limit is not None and waiting:
                each, more = divmod(max(limit - self._known[kind], 0), waiting)
                self._quotas[kind] = each + (before < more)

    def updated(self) -> None:
        """To be called after each update, and after its hooks.

        Raises:
          ValueError: the update moved the workers' variables apart.
        """
        if self._updates % _CHECKED_EVERY == 0:
            self.compare_variables(
                "after an update: the train_op changes them by what this worker alone has seen. "
                "Use pgest.minimize, or pgest.mean_over_workers on gradients of your own"
            )
        self._updates += 1
        self.exchange()
        if self._chief_has_saved:
            self._run.save_own()

    def all_of_us(self, fact: bool) -> bool:
        """Whether something is so on every worker."""
        return self.workers.sum_now([not fact])[0] == 0

    def compare_variables(self, when: str) -> None:
        """Raises `ValueError` where a variable of the model is not the same on all workers."""
        names = self._run.agent.model.store.variables
        self.workers.compare(
            {
                name: zlib.crc32(names[name].numpy().tobytes())
                for name in sorted(names)
                if not name.startswith(checkpoints.ENVIRONMENT)
            },
            f"the variables {when}",
        )


def any_wants(workers: workers_lib.Workers | None, wish: bool) -> bool:
    """Whether this or any other worker has a wish."""
    return wish if workers is None else workers.sum_now([wish])[0] > 0


def every_workers(
    workers: workers_lib.Workers | None, hooks: Sequence[monitor.BaseMonitor]
) -> list[monitor.BaseMonitor]:
    """The hooks that this worker has to run."""
    if workers is None or workers.is_chief:
        return list(hooks)
    return [hook for hook in hooks if hook.every_worker]


def _number(limit: int | None) -> int:
    return -1 if limit is None else limit


def _checksum(text: str) -> int:
    return zlib.crc32(text.encode())


def _sizes(count: int, num_envs: int, agent: Any) -> str:
    """One line that says what a batch is."""
    start = f"{count} workers x {num_envs} environments"
    memory = agent.memory
    if not isinstance(memory, memory_lib.RolloutMemory):
        return f"{start}; a batch is what all workers' memories hold, {memory!r} each."
    batch = count * num_envs * memory.horizon
    size = agent.update_config.minibatch_size
    step = batch if size is None else min(size * count, batch)
    return f"{start} x {memory.horizon} timesteps: {batch:,} a batch, {step:,} a step."


def in_step(memory: memory_lib.BatchMemory, view: Any) -> bool:
    """Whether all workers have their batches after the same number of timesteps."""
    # Environments in the graph never do.
    resets_take_steps = getattr(view, "resets_take_steps", False)
    return isinstance(memory, memory_lib.RolloutMemory) and not resets_take_steps


def check_trainable(agent: Any, base: type) -> None:
    """Raises `ValueError` where several workers could not train the agent's model together.

    Args:
      agent: who trains.
      base: the agent's class whose `run_episode` a subclass may override.
    """
    start = "train_distribute: several workers take their steps together, "
    size = agent.update_config.minibatch_size
    if not isinstance(agent.memory, memory_lib.RolloutMemory) and size is not None:
        raise ValueError(
            f"{start}and of whole episodes each has another number of minibatches "
            f"(minibatch_size={size}): leave minibatch_size out, or use "
            "pgest.RolloutMemory(horizon=…)."
        )
    if type(agent).run_episode is not base.run_episode:  # type: ignore[attr-defined]
        raise ValueError(
            f"{start}and {type(agent).__name__} overrides run_episode: use a hook with "
            "every_worker = True in place of the override."
        )
