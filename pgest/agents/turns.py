"""The turns of a run's hooks: who has been told of what, so that nobody misses or repeats it."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pgest.contract import episodes as episodes_lib
from pgest.hooks import monitor

EpisodeStatistics = episodes_lib.EpisodeStatistics
_EPISODE, _UPDATE = "after_episode", "after_run"


class Turns:
    """Tells hooks what happened, one event after the other, one hook after the other.

    A checkpoint is written while one of them has its turn: what the others have not been told by
    then is in its `state`, and they are told by the run that goes on from it.

    Args:
      context: what hooks see.
    """

    def __init__(self, context: monitor.RunContext):
        self._context = context
        self._hooks: dict[str, monitor.BaseMonitor] = {}
        # The first of them is being told; a call in the graph may end thousands of episodes.
        self._untold: collections.deque[tuple[str, Any]] = collections.deque()
        self._to_come: list[str] = []  # hooks that have not been told of the first
        self._finished: list[EpisodeStatistics] = []  # since the last update

    @property
    def are_under_way(self) -> bool:
        """Whether hooks are being told: everything stands where a run can go on."""
        return bool(self._untold)

    @property
    def update_of(self) -> int | None:
        """The context's `batch_timestep` while hooks are told of an update; else None."""
        telling = bool(self._untold) and self._untold[0][0] == _UPDATE
        return self._context.batch_timestep if telling else None

    def begin(self, hooks: Sequence[monitor.BaseMonitor]) -> None:
        """Begins every hook, in order; `state` and `restore` call them by class and number."""
        counts: dict[str, int] = {}
        for hook in hooks:
            kind = type(hook).__qualname__
            counts[kind] = counts.get(kind, 0) + 1
            self._hooks[f"{kind}/{counts[kind]}"] = hook
            hook.begin(self._context)

    def begun(self) -> list[monitor.BaseMonitor]:
        """Hooks whose `begin` was called, in order."""
        return list(self._hooks.values())

    def tell(
        self,
        finished: Sequence[EpisodeStatistics] = (),
        metrics: Mapping[str, float] | None = None,
        batch_timestep: int | None = None,
    ) -> None:
        """Tells of episodes that ended, and then of an update.

        Args:
          finished: all that ended since this was last called, since the counters have them all.
          metrics: of the update; None: there was none.
          batch_timestep: see `RunContext`.
        """
        self._untold.extend((_EPISODE, statistics) for statistics in finished)
        if metrics is not None:
            self._context.batch_timestep = batch_timestep
            self._untold.append((_UPDATE, metrics))
        self._to_come = list(self._hooks)
        self.go_on()

    def go_on(self) -> None:
        """Tells what has not been told yet."""
        context = self._context
        while self._untold:
            kind, what = self._untold[0]
            if kind == _UPDATE:
                context.metrics, context.episodes = what, tuple(self._finished)
            else:
                context.episodes = (what,)
            while self._to_come:
                # One that fails, or that saves a checkpoint, has had its turn.
                getattr(self._hooks[self._to_come.pop(0)], kind)(context)
            self._untold.popleft()
            self._to_come = list(self._hooks)
            if kind == _UPDATE:
                self._finished.clear()
            else:
                self._finished.append(what)
            context.episodes = ()

    def state(self) -> str:
        """What hooks remember and what is still to be told, as JSON."""
        context = self._context
        document = {
            "hooks": {name: _state(hook) for name, hook in self._hooks.items()},
            "to_come": self._to_come,
            "untold": [[kind, _plain(what)] for kind, what in self._untold],
            "finished": [_plain(statistics) for statistics in self._finished],
            "metrics": dict(context.metrics),
            "batch_timestep": context.batch_timestep,
            "evaluations": [dataclasses.asdict(made) for made in context.evaluations],
        }
        return json.dumps(document)

    def restore_evaluations(self, state: str) -> None:
        """Takes over the evaluations made; before `begin`, where hooks look how many there are."""
        made = json.loads(state)["evaluations"]
        self._context.evaluations = [monitor.Evaluation(**values) for values in made]

    def restore(self, state: str) -> None:
        """Takes over what `state` gave in another process; `go_on` is to follow.

        Hooks that are not in it, or that are gone, are left out.
        """
        document = json.loads(state)
        for name, hook in self._hooks.items():
            remembered = document["hooks"].get(name)
            if remembered is not None:
                hook.restore(remembered)
        new = [name for name in self._hooks if name not in document["hooks"]]
        known = {*document["to_come"], *new} if document["untold"] else {}
        self._to_come = [name for name in self._hooks if name in known]
        untold = [(kind, _event(kind, what)) for kind, what in document["untold"]]
        self._untold = collections.deque(untold)
        self._finished = [EpisodeStatistics(**values) for values in document["finished"]]
        self._context.metrics = document["metrics"]
        self._context.batch_timestep = document.get("batch_timestep")  # earlier versions had none


def _state(hook: monitor.BaseMonitor) -> Any:
    """What a hook remembers, if JSON can hold it."""
    state = hook.state()
    try:
        return None if state is None else json.loads(json.dumps(state))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{type(hook).__name__}.state() gave what JSON cannot hold ({error}): return None, or "
            "a dict of numbers, strings, lists and dicts of them by strings."
        ) from error


def _plain(what: Any) -> Any:
    if isinstance(what, EpisodeStatistics):
        return {**dataclasses.asdict(what), "rewards": list(what.rewards), "info": dict(what.info)}
    return {name: float(value) for name, value in what.items()}


def _event(kind: str, what: Any) -> Any:
    return EpisodeStatistics(**what) if kind == _EPISODE else what
