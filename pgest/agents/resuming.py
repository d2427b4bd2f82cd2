"""What a checkpoint holds of a run, beside the weights, and how another process goes on with it."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from pgest.environments import view as environment_view

_LOGGER = logging.getLogger(__name__)


def state_of(trainer: Any, run: Any) -> dict[str, np.ndarray]:
    """Numbers by name for a checkpoint; empty where nothing can go on from this very moment.

    Args:
      trainer: the agent's, or None.
      run: the run under way, or None.
    """
    if trainer is None or not (trainer.at_rest or (run is not None and run.is_telling)):
        return {}
    state = trainer.state()
    if run is not None:  # its updates and its acting saw this, until the next update
        state["limits"] = _limits(run)
        state["progress"] = run.agent.counters.progress.numpy()
    return state


def go_on(trainer: Any, run: Any, path: str | None, state: Mapping[str, np.ndarray]) -> None:
    """Brings a new trainer to where the one stood that wrote a checkpoint; says what it did.

    Args:
      trainer: of the same kind of environments.
      run: that begins.
      path: of the checkpoint; None: there is none.
      state: what `state_of` gave; empty where it gave nothing.
    """
    if path is None:
        return
    counts = f"{path} at step {run.step}, timestep {run.timestep}, episode {run.episode}"
    if not state:
        _LOGGER.info("Going on from %s; it holds no episodes under way, new ones begin.", counts)
        return
    start = time.perf_counter()
    # With other limits the run is another one, which is as far as `train` has published.
    if "limits" in state and np.array_equal(state["limits"], _limits(run)):
        run.agent.counters.progress.assign(state["progress"])
    why = trainer.restore(run, state)
    seconds = time.perf_counter() - start
    if why is not None:
        warnings.warn(
            f"The run goes on from {counts}, but the episodes under way start anew: of "
            f"{environment_view.describe(trainer.view.env)}, {why}. So it will not end as a run "
            "that was never stopped.",
            stacklevel=4,
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
