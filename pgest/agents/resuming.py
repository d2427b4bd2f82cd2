"""What a checkpoint holds of a run, beside the weights, and how another process goes on with it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pgest.agents import event_files
from pgest.contract import callers
from pgest.environments import view as environment_view

_LOGGER = logging.getLogger(__name__)
_HOOKS, _EVENT_FILES = "hooks", "event_files"
_OF_TRAINERS = {"overlaps", "environments_are_variables"}  # what each kind always has


def state_of(trainer: Any, run: Any) -> dict[str, np.ndarray]:
    """Numbers by name for a checkpoint; empty where nothing can go on from this very moment.

    Args:
      trainer: the agent's, or None.
      run: the run under way, or None.
    """
    state: dict[str, np.ndarray] = {}
    if trainer is not None and (trainer.at_rest or (run is not None and run.turns.are_under_way)):
        state |= trainer.state()
    if run is not None:  # its updates and its acting saw this, until the next update
        state["limits"] = _limits(run)
        state["progress"] = run.agent.counters.progress.numpy()
        state |= run.memory()
    return state


def memory_of(run: Any) -> dict[str, np.ndarray]:
    """What hooks remember, and how long the event files are."""
    texts = {_HOOKS: run.turns.state(), _EVENT_FILES: json.dumps(run.agent.events.sizes())}
    return {name: np.frombuffer(text.encode(), np.uint8) for name, text in texts.items()}


def is_left_open(run: Any, path: str | None, state: Mapping[str, Any]) -> bool:
    """Whether the run that gave `state` has reached its limits, and was killed before it ended.

    Some hooks may not have been told of its last update then, and none that the run ends.
    """
    return _memory(run, path, state) is not None and np.array_equal(state["limits"], _limits(run))


def _memory(run: Any, path: str | None, state: Mapping[str, Any]) -> str | None:
    """What hooks knew when a checkpoint was written; None where the run has ended in order since.

    Where the last update was followed by one, the end wrote no other.
    """
    if path is None or _HOOKS not in state or event_files.noted(run.model_dir, path) is not None:
        return None
    return state[_HOOKS].tobytes().decode()


def begin(
    trainer: Any, run: Any, hooks: Sequence[Any], path: str | None, state: Mapping[str, Any]
) -> None:
    """Begins a run's hooks, and brings a new trainer to where the one stood that was killed.

    Args:
      trainer: of the same kind of environments.
      run: that begins.
      hooks: in the order to call them.
      path: of the checkpoint that nobody has gone on from yet; None: there is none.
      state: what `state_of` gave.
    """
    memory = _memory(run, path, state)
    sizes = None
    if memory is not None:
        sizes = json.loads(state[_EVENT_FILES].tobytes())
        run.turns.restore_evaluations(memory)
    elif path is not None:
        sizes = event_files.noted(run.model_dir, path)
    elif not (run.agent.events.is_open or run.step or run.timestep):
        sizes = {}  # the one before was killed before its first checkpoint
    if sizes is not None:
        event_files.cut_back(run.model_dir, sizes)
    run.turns.begin(hooks)
    if run.agreement is not None:
        run.agreement.begin(trainer)
    if path is not None:
        _restore(trainer, run, path, state)
    if memory is not None:
        run.turns.restore(memory)
        run.holds(path)
        run.turns.go_on()
    if run.agreement is not None:
        run.agreement.exchange()  # a hook may have asked to stop
    if memory is not None and run.is_over() and trainer.ready(run):
        trainer.update(run)  # it was killed between its last timestep and its last update


def _restore(trainer: Any, run: Any, path: str, state: Mapping[str, Any]) -> None:
    """Brings the trainer to where it stood; says what it did."""
    counts = f"{path} at step {run.step}, timestep {run.timestep}, episode {run.episode}"
    # With other limits the run is another one, which is as far as `train` has published.
    if "limits" in state and np.array_equal(state["limits"], _limits(run)):
        run.agent.counters.progress.assign(state["progress"])
    found = bool(_OF_TRAINERS & state.keys())
    if run.agreement is not None:  # episodes go on on every worker, or on none
        found = run.agreement.all_of_us(found)
    if not found:
        _LOGGER.info("Going on from %s; it holds no episodes under way, new ones begin.", counts)
        return
    start = time.perf_counter()
    why = trainer.restore(run, state)
    if run.agreement is not None and not run.agreement.all_of_us(why is None) and why is None:
        why = "those of another worker do not go on"
        trainer.start_anew()
    seconds = time.perf_counter() - start
    if why is not None:
        env = getattr(trainer.view, "env", trainer.view)
        callers.warn(
            f"The run goes on from {counts}, but the episodes under way start anew: of "
            f"{environment_view.describe(env)}, {why}. So it will not end as a run "
            "that was never stopped.",
        )
    lengths = state.get("environments/lengths", np.zeros([0])) if why is None else np.zeros([0])
    _LOGGER.info(
        "Going on from %s: %s; %d timesteps of %d environments played again, %.3f s.",
        counts, trainer.describe_restored(), int(lengths.sum()), len(lengths), seconds,
    )  # fmt: skip


def _limits(run: Any) -> np.ndarray:
    """A run's limits, int64 `[3]`; -1 where there is none."""
    limits = run.limits
    given = (limits.max_steps, limits.max_timesteps, limits.max_episodes)
    return np.array([-1 if limit is None else limit for limit in given], np.int64)
