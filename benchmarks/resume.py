"""Kills runs at random moments, starts them again, and compares how they end.

    python benchmarks/resume.py [--quick] [--rows "LSTM"]

Of each kind, one run is left alone. Then, as often as `KILLS` says, the same run is started in a
process of its own, killed by SIGKILL at a random moment, started again with the same command until
it ends, and compared with the one that was left alone: weights, episodes, and the points that
TensorBoard shows. The goal is no difference. Checkpoints go by steps, seconds and episodes in turn.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import glob
import json
import logging
import random
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from support import measuring

KILLS, QUICK = 100, 2
_CLOCKS = ({"steps": 3}, {"seconds": 0.05}, {"episodes": 7})


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of run.

    Attributes:
      label: in the table.
      model: of `pgest.models`, and its arguments.
      rollout: the horizon; 0: whole episodes.
      make: what `pgest.make` gets besides; None: one environment.
      config: fields of the RunConfig.
      update: fields of the UpdateConfig.
      timesteps: of the whole run.
    """

    label: str
    model: tuple[str, Mapping[str, Any]]
    rollout: int
    make: Mapping[str, Any] | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    update: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    timesteps: int = 2000


_NORMAL = {"normalize_observation": True, "normalize_reward": True, "learning_rate": "falls"}
_PPO = {"epochs": 2, "minibatch_size": 32}
KINDS = (
    Kind("VPG, whole episodes", ("VPG", {}), 0),
    Kind("VPG, whole episodes, 4 environments", ("VPG", {}), 0, {"num_envs": 4}),
    Kind("A2C, 8 environments", ("A2C", {}), 8, {"num_envs": 8}),
    Kind("PPO", ("PPO", {}), 64, update=_PPO),
    Kind("PPO, 8 environments", ("PPO", {}), 16, {"num_envs": 8}, update=_PPO),
    Kind(
        "PPO, 2 environments in processes", ("PPO", {}), 32,
        {"num_envs": 2, "vectorization": "async"}, update=_PPO,
    ),
    Kind("PPO, running means, falling rate", ("PPO", _NORMAL), 64, update=_PPO),
    Kind("PPO, overlapped", ("PPO", {}), 64, config={"overlap_updates": True}, update=_PPO),
    Kind(
        "A2C, 4 environments, overlapped", ("A2C", {}), 16, {"num_envs": 4},
        {"overlap_updates": True},
    ),
    Kind("TRPO, 4 environments", ("TRPO", {}), 32, {"num_envs": 4}),
    Kind("A2C with an LSTM", ("A2C", {"cell": "lstm", "cell_size": 8}), 32),
    Kind("A2C with a GRU, 4 environments", ("A2C", {"cell": "gru", "cell_size": 8}), 16,
         {"num_envs": 4}),
)  # fmt: skip


def train(kind: Kind, directory: Path, clock: Mapping[str, float]) -> None:
    """The run itself, in a process of its own; what it ended with is in `end.npz` and `.json`."""
    import pgest

    logging.disable(logging.CRITICAL)
    name, given = kind.model
    arguments = {"hidden_sizes": (16,), **given}
    if arguments.get("learning_rate") == "falls":
        arguments["learning_rate"] = pgest.schedules.linear(1e-3, 0.0)
    config = pgest.RunConfig(
        tf_random_seed=1, save_summary_steps=1, log_step_count_steps=None, jit_compile=False,
        **kind.config,
    )  # fmt: skip
    memory = pgest.RolloutMemory(kind.rollout) if kind.rollout else pgest.BatchMemory(200)
    agent = pgest.PGAgent(
        getattr(pgest.models, name)(**arguments), memory, dict(kind.update),
        model_dir=directory / "run", config=config,
    )  # fmt: skip
    env = "CartPole-v1" if kind.make is None else pgest.make("CartPole-v1", **kind.make)
    history = pgest.HistoryHook(pgest.Every(episodes=1))
    saver = pgest.CheckpointSaverHook(pgest.Every(**clock))
    begun = time.perf_counter()
    agent.train(env, hooks=[history, saver], max_timesteps=kind.timesteps)
    seconds = time.perf_counter() - begun
    values = {name: agent.get_variable_value(name) for name in agent.get_variable_names()}
    np.savez(directory / "end.npz", **{name.replace("/", "|"): v for name, v in values.items()})
    records = [[record["timestep"], record["episode"]] for record in history.records]
    returns = [record.get("episode/return") for record in history.records]
    document = {"seconds": seconds, "records": [records, returns]}
    (directory / "end.json").write_text(json.dumps(document), encoding="utf-8")


def start(kind: Kind, directory: Path, clock: Mapping[str, float]) -> int:
    """Starts the run; the process id. It is forked, so that TensorFlow is imported but once."""
    child = os.fork()
    if child:
        return child
    try:
        warnings.simplefilter("error", UserWarning)  # what does not come back
        train(kind, directory, clock)
        status = 0
    except BaseException as error:
        print(f"{kind.label}: {error!r}", file=sys.stderr, flush=True)
        status = 1
    os._exit(status)


def kill_once(kind: Kind, directory: Path, clock: Mapping[str, float], seconds: float) -> float:
    """Kills the run after so long, and lets it end then.

    Returns:
      Seconds between the newest checkpoint and the kill: what is done again. NaN where the run had
      ended already.
    """
    child = start(kind, directory, clock)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    killed = time.time()
    os.waitpid(child, 0)
    if (directory / "end.json").exists():
        return float("nan")
    written = [os.path.getmtime(path) for path in glob.glob(f"{directory}/run/*.index")]
    if os.waitpid(start(kind, directory, clock), 0)[1]:
        raise RuntimeError(f"{kind.label} failed where it went on.")
    if not json.loads((directory / "end.json").read_text())["records"][0]:
        return float("nan")  # its last checkpoint was written: nothing was left to do
    return killed - max(written, default=killed - seconds)


def points(directory: Path) -> dict[str, list[tuple[int, bytes]]]:
    """(x, value) by tag of a run's event files."""
    from tensorboard.backend.event_processing import event_accumulator

    found: dict[str, list[tuple[int, bytes]]] = {}
    for file in sorted(glob.glob(f"{directory}/run/*tfevents*")):
        events = event_accumulator.EventAccumulator(file, size_guidance={"tensors": 0}).Reload()
        for tag in events.Tags()["tensors"]:
            # Pages of settings, which each process writes when it begins, are no curves.
            if not tag.startswith("_hparams_") and tag != "run":
                found.setdefault(tag, []).extend(
                    (event.step, event.tensor_proto.SerializeToString())
                    for event in events.Tensors(tag)
                )
    return found


def differences(whole: Path, other: Path) -> tuple[float, bool, bool]:
    """The largest difference of a weight; whether episodes, and whether curves, are others."""
    with np.load(whole / "end.npz") as wanted, np.load(other / "end.npz") as found:
        apart = [np.abs(wanted[name].astype(float) - found[name].astype(float)) for name in wanted]
    weights = max(float(np.max(difference, initial=0.0)) for difference in apart)
    records = [json.loads((path / "end.json").read_text())["records"] for path in (whole, other)]
    return weights, records[0] != records[1], points(whole) != points(other)


def row_of(kind: Kind, kills: int) -> dict[str, Any]:
    """The line of one kind."""
    chance = random.Random(kind.label)
    weights, episodes, curves, lost = [], 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        whole.mkdir()
        if os.waitpid(start(kind, whole, _CLOCKS[0]), 0)[1]:
            return {"work": kind.label, "not measured": "the run failed"}
        seconds = json.loads((whole / "end.json").read_text())["seconds"]
        attempt = 0
        while len(lost) < kills:
            attempt += 1
            directory = Path(folder) / str(attempt)
            directory.mkdir()
            clock = _CLOCKS[attempt % len(_CLOCKS)]
            again = kill_once(kind, directory, clock, chance.uniform(0.1, 1.1) * seconds)
            if np.isnan(again):
                continue
            lost.append(again)
            difference, other_episodes, other_curves = differences(whole, directory)
            weights.append(difference)
            episodes += other_episodes
            curves += other_curves
    return {
        "work": kind.label,
        "kills": len(lost),
        "came back equal": sum(difference == 0.0 for difference in weights),
        "largest difference of a weight": max(weights),
        "other episodes": episodes,
        "other curves": curves,
        "seconds lost, median": round(statistics.median(lost), 2),
    }


def main() -> None:
    """Measures the rows that were asked for."""
    import pgest  # noqa: F401 - its children are forked with it

    options = measuring.arguments(__doc__)
    kills = QUICK if options.quick else KILLS
    rows = []
    for kind in KINDS:
        if options.rows in kind.label:
            rows.append(row_of(kind, kills))
            measuring.show(rows[-1:])
    measuring.store("resume", rows, {"kills": kills}, keep=not options.quick)


if __name__ == "__main__":
    main()
