"""Kills runs at random moments, starts them again, and compares how they end.

    python benchmarks/resume.py [--quick] [--rows "LSTM"] [--kills 20]

Of each kind, one run is left alone. Then the same run is started in a process of its own, killed by
SIGKILL at a random moment, started again with the same command, killed again, up to four times, and
at last left to its end. It is compared with the one that was left alone: weights, episodes, the
points that TensorBoard shows, the best checkpoint and the exports. The goal is no difference. So it
goes on until there were as many kills as `--kills` says. Checkpoints go by steps, seconds and
episodes in turn.
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from support import measuring

KILLS, QUICK = 100, 2
_KILLS_OF_A_RUN = 4
_CLOCKS = ({"steps": 3}, {"seconds": 0.05}, {"episodes": 7})


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of run.

    Attributes:
      label: in the table.
      model: of `pgest.models`, or a model_fn below, and its arguments.
      rollout: the horizon; 0: whole episodes.
      make: what `pgest.make` gets besides; None: one environment.
      masked: whether the environment forbids actions.
      exports: whether policies are exported on the way.
      config: fields of the RunConfig.
      update: fields of the UpdateConfig.
      timesteps: of the whole run.
    """

    label: str
    model: tuple[str, Mapping[str, Any]]
    rollout: int
    make: Mapping[str, Any] | None = None
    masked: bool = False
    exports: bool = False
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    update: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    timesteps: int = 2000


class Masked(gymnasium.Wrapper):
    """Forbids an action at every third timestep."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        self._time = 0

    def _mask(self) -> np.ndarray:
        return np.array([self._time % 3 != 0, True])

    def reset(self, **arguments: Any) -> Any:
        self._time = 0
        observation, info = self.env.reset(**arguments)
        return observation, {**info, "action_mask": self._mask()}

    def step(self, action: Any) -> Any:
        *rest, info = self.env.step(action)
        self._time += 1
        return *rest, {**info, "action_mask": self._mask()}


def own_model_fn(features, labels, mode):
    """An actor-critic of a user's own, whose learning rate follows the steps."""
    import tensorflow as tf
    import tensorflow_probability as tfp
    import tf_keras

    import pgest

    hidden = tf_keras.layers.Dense(16, activation="tanh")(features["state"])
    distribution = tfp.distributions.Categorical(logits=tf_keras.layers.Dense(2)(hidden))
    value = tf.squeeze(tf_keras.layers.Dense(1)(hidden), -1)
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, {"value": value}, distribution=distribution)
    loss = tf.reduce_mean(
        (value - labels["value_target"]) ** 2
        - distribution.log_prob(labels["action"]) * labels["advantage"]
    )
    rate = tf_keras.optimizers.schedules.ExponentialDecay(1e-2, 20, 0.5)
    train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(rate))
    return pgest.EstimatorSpec(mode, loss=loss, train_op=train_op)


_NORMAL = {"normalize_observation": True, "normalize_reward": True, "learning_rate": "falls"}
_PPO = {"epochs": 2, "minibatch_size": 32}
KINDS = (
    Kind("VPG, whole episodes", ("VPG", {}), 0),
    Kind("model_fn, whole episodes", ("own_model_fn", {}), 0),
    Kind("model_fn, 4 environments", ("own_model_fn", {}), 16, {"num_envs": 4}),
    Kind("A2C, masks, 3 environments", ("A2C", {}), 16, {"num_envs": 3}, masked=True),
    Kind("PPO, masks, whole episodes", ("PPO", {}), 0, masked=True, update=_PPO),
    Kind(
        "A2C, native vector", ("A2C", {}), 16, {"num_envs": 4, "vectorization": "native"}
    ),
    Kind(
        "VPG, 2 environments in processes", ("VPG", {}), 0,
        {"num_envs": 2, "vectorization": "async"},
    ),
    Kind("PPO, exports", ("PPO", {}), 64, exports=True, update=_PPO),
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
        config={"overlap_updates": True},
    ),
    Kind(
        "TRPO, overlapped, whole episodes", ("TRPO", _NORMAL), 0,
        config={"overlap_updates": True},
    ),
    Kind("TRPO, 4 environments", ("TRPO", {}), 32, {"num_envs": 4}),
    Kind("A2C with an LSTM", ("A2C", {"cell": "lstm", "cell_size": 8}), 32),
    Kind(
        "VPG with a GRU, whole episodes, overlapped", ("VPG", {"cell": "gru", "cell_size": 8}), 0,
        config={"overlap_updates": True},
    ),
    Kind("A2C with a GRU, 4 environments", ("A2C", {"cell": "gru", "cell_size": 8}), 16,
         {"num_envs": 4}),
)  # fmt: skip


def train(kind: Kind, directory: Path, clock: Mapping[str, float]) -> None:
    """The run itself, in a process of its own; what it ended with is in `end.npz` and `.json`."""
    import pgest

    logging.disable(logging.CRITICAL)
    name, given = kind.model
    model_fn: Any = own_model_fn
    if name != "own_model_fn":
        arguments = {"hidden_sizes": (16,), **given}
        if arguments.get("learning_rate") == "falls":
            arguments["learning_rate"] = pgest.schedules.linear(1e-3, 0.0)
        model_fn = getattr(pgest.models, name)(**arguments)
    config = pgest.RunConfig(
        tf_random_seed=1, save_summary_steps=1, log_step_count_steps=None, jit_compile=False,
        **kind.config,
    )  # fmt: skip
    memory = pgest.RolloutMemory(kind.rollout) if kind.rollout else pgest.BatchMemory(200)
    agent = pgest.PGAgent(
        model_fn, memory, dict(kind.update), model_dir=directory / "run", config=config
    )
    given_env: Any = Masked if kind.masked else "CartPole-v1"
    env = given_env if kind.make is None else pgest.make(given_env, **kind.make)
    history = pgest.HistoryHook(pgest.Every(episodes=1))
    saver = pgest.CheckpointSaverHook(pgest.Every(**clock))
    evaluation = pgest.EvaluationHook(given_env, pgest.Every(timesteps=500), episodes=1)
    hooks = [history, saver, evaluation]
    if kind.exports:
        hooks.append(pgest.PolicySaverHook(pgest.Every(timesteps=400)))
    begun = time.perf_counter()
    agent.train(env, hooks=hooks, max_timesteps=kind.timesteps)
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
        # What does not come back; TensorFlow warns of its exports too.
        warnings.filterwarnings("error", "The run goes on", UserWarning)
        train(kind, directory, clock)
        status = 0
    except BaseException as error:
        print(f"{kind.label}: {error!r}", file=sys.stderr, flush=True)
        status = 1
    os._exit(status)


def _ends_within(child: int, seconds: float) -> bool:
    """Waits so long, or until the process has ended by itself."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    return False


def kill(
    kind: Kind, directory: Path, clock: Mapping[str, float], moments: Sequence[float]
) -> list[float]:
    """Kills the run after so many seconds of each of its processes, and lets it end then.

    Returns:
      Of each kill, seconds between the newest checkpoint and the kill: what is done again. Fewer
      than `moments` where the run had ended before.
    """
    lost = []
    for seconds in moments:
        child = start(kind, directory, clock)
        if _ends_within(child, seconds):
            break
        os.kill(child, signal.SIGKILL)
        killed = time.time()
        os.waitpid(child, 0)
        if (directory / "end.json").exists():
            break
        written = [os.path.getmtime(path) for path in glob.glob(f"{directory}/run/*.index")]
        lost.append(min(killed - max(written, default=0.0), seconds))
    else:
        if os.waitpid(start(kind, directory, clock), 0)[1]:
            raise RuntimeError(f"{kind.label} failed where it went on.")
    if not json.loads((directory / "end.json").read_text())["records"][0]:
        return []  # its last checkpoint was written: nothing was left to do
    return lost


def points(directory: Path) -> dict[str, list[tuple[int, bytes]]]:
    """(x, value) by tag of a run's event files."""
    from tensorboard.backend.event_processing import event_accumulator

    found: dict[str, list[tuple[int, bytes]]] = {}
    files = glob.glob(f"{directory}/run/*tfevents*") + glob.glob(f"{directory}/run/*/*tfevents*")
    for file in sorted(files):
        folder = os.path.dirname(os.path.relpath(file, directory / "run"))
        events = event_accumulator.EventAccumulator(file, size_guidance={"tensors": 0}).Reload()
        for tag in events.Tags()["tensors"]:
            # Pages of settings, which each process writes when it begins, are no curves.
            if not tag.startswith(("_hparams_", "speed")) and tag != "run":
                found.setdefault(f"{folder}/{tag}", []).extend(
                    (event.step, event.tensor_proto.SerializeToString())
                    for event in events.Tensors(tag)
                )
    return found


def kept(directory: Path) -> dict[str, Any]:
    """The best checkpoint, and the weights of each export."""
    import tensorflow as tf

    def weights(checkpoint: Path) -> dict[str, bytes]:
        reader = tf.train.load_checkpoint(str(checkpoint))
        names = reader.get_variable_to_shape_map()
        of_model = [name for name in names if not name.startswith(("_", "run/"))]
        return {name: np.asarray(reader.get_tensor(name)).tobytes() for name in of_model}

    found: dict[str, Any] = {}
    for path in sorted(directory.glob("run/best/best.json")):
        record = json.loads(path.read_text())
        # Its name says how many checkpoints there were of one step, which other clocks change.
        found["best"] = [weights(path.parent / record.pop("checkpoint")), record]
    for path in sorted(directory.glob("run/policies/**/*.index")):
        found[str(path.relative_to(directory))] = weights(path.with_suffix(""))
    return found


def differences(whole: Path, other: Path) -> tuple[float, bool, bool, bool]:
    """The largest difference of a weight; whether episodes, curves, what is kept are others."""
    with np.load(whole / "end.npz") as wanted, np.load(other / "end.npz") as found:
        apart = [np.abs(wanted[name].astype(float) - found[name].astype(float)) for name in wanted]
    weights = max(float(np.max(difference, initial=0.0)) for difference in apart)
    records = [json.loads((path / "end.json").read_text())["records"] for path in (whole, other)]
    others = (points(whole) != points(other), kept(whole) != kept(other))
    return weights, records[0] != records[1], *others


def row_of(kind: Kind, kills: int) -> dict[str, Any]:
    """The line of one kind."""
    chance = random.Random(kind.label)
    weights: list[float] = []
    episodes, curves, kept_others, lost = 0, 0, 0, []
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
            count = min(_KILLS_OF_A_RUN, kills - len(lost))
            moments = [chance.uniform(0.1, 1.1) * seconds for _ in range(count)]
            again = kill(kind, directory, clock, moments)
            if not again:
                continue
            lost += again
            difference, other_episodes, other_curves, other_kept = differences(whole, directory)
            if difference or other_episodes or other_curves or other_kept:
                print(f"{kind.label}: {directory} differs, by {clock}", file=sys.stderr, flush=True)
            weights.append(difference)
            kept_others += other_kept
            episodes += other_episodes
            curves += other_curves
    return {
        "work": kind.label,
        "kills": len(lost),
        "runs": len(weights),
        "came back equal": sum(difference == 0.0 for difference in weights),
        "largest difference of a weight": max(weights),
        "other episodes": episodes,
        "other curves": curves,
        "other best checkpoints or exports": kept_others,
        "seconds lost, median": round(statistics.median(lost), 2),
    }


def main() -> None:
    """Measures the rows that were asked for."""
    import pgest  # noqa: F401 - its children are forked with it

    options = measuring.arguments(__doc__, kills=KILLS)
    kills = QUICK if options.quick else options.kills
    rows = []
    for kind in KINDS:
        if options.rows in kind.label:
            rows.append(row_of(kind, kills))
            measuring.show(rows[-1:])
    measuring.store("resume", rows, {"kills": kills}, keep=not options.quick)


if __name__ == "__main__":
    main()
