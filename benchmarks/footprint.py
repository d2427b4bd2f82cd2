"""How long `import pgest` takes, and how much memory training holds.

    python benchmarks/footprint.py [--quick] [--rows "import"]

The import is timed in fresh processes, beyond TensorFlow and TensorFlow Probability. Memory is that
of a process that trains: its slope in MB per million timesteps, fitted to the second half of the
run, and its peak over a process in which TensorFlow is idle; the goal of the peak is 400 MB and
twice the batch. Each measurement is a process of its own.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import training_speed
from support import measuring
from support.serving import Work

IMPORT_GOAL, SLOPE_GOAL, PEAK_GOAL = 0.4, 1.0, 400.0
MEGABYTE = 1024.0**2
LONGEST = 600  # seconds of one run
_IMPORT = """
import time, tensorflow as tf, tensorflow_probability as tfp
tfp.distributions.Normal  # TensorFlow Probability imports its parts when they are first used
started = time.perf_counter()
import pgest
print(time.perf_counter() - started)
"""
_IDLE = "import tensorflow as tf; (tf.zeros([8]) + 1).numpy()"


@dataclasses.dataclass(frozen=True)
class Run:
    """One run whose memory is watched.

    Attributes:
      label: in the table.
      work: what it trains.
      timesteps: of the whole run.
      variables: environment variables of its process.
    """

    label: str
    work: Work
    timesteps: int
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def batch(self) -> float:
        """The observations of one batch, MB."""
        each = 84 * 84 * 4 if self.work.images else 16
        return self.work.horizon * self.work.num_envs * each / MEGABYTE


PIXELS = Work(
    algorithm="PPO", environment=training_speed.PIXELS.environment, images=True, num_envs=8,
    horizon=128, epochs=4, minibatch_size=256, learning_rate=2.5e-4,
)  # fmt: skip
RUNS = (
    Run("A2C, 8 environments", training_speed.a2c(8), 1_500_000),
    Run("A2C, 256 native", training_speed.a2c(256, vectorization="native"), 10_000_000),
    # Long: batches grow with the episodes until the pole never falls.
    Run("REINFORCE, whole episodes", training_speed.REINFORCE, 2_000_000),
    # Products that are fused would keep a program of oneDNN's for each size of a batch.
    Run(
        "REINFORCE, whole episodes, TF_ENABLE_ONEDNN_OPTS=0", training_speed.REINFORCE, 2_000_000,
        variables={"TF_ENABLE_ONEDNN_OPTS": "0"},
    ),
    Run("PPO in the graph, 64 environments", training_speed.in_graph(64).work, 10_000_000),
    Run("PPO, 8 environments, 84x84x4", PIXELS, 20_480),
    # glibc raises the size from which it gives memory back to that of the largest piece it got.
    Run(
        "PPO, 8 environments, 84x84x4, MALLOC_MMAP_THRESHOLD_=1000000", PIXELS, 20_480,
        variables={"MALLOC_MMAP_THRESHOLD_": "1000000"},
    ),
)  # fmt: skip


def resident() -> float:
    """What this process holds now, MB."""
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / MEGABYTE


def peak(usage: resource.struct_rusage) -> float:
    """The most that a process ever held, MB."""
    return usage.ru_maxrss / 1024.0


def watch(run: Run) -> None:
    """Trains and prints what memory did, as JSON; runs in a process of its own."""
    from contestants import pgest_agent

    trainer = pgest_agent.Trainer(run.work)
    points = []
    for _ in range(40):
        trainer.train(run.timesteps // 40)
        points.append((trainer.timesteps, resident()))
    highest = peak(resource.getrusage(resource.RUSAGE_SELF))
    print(json.dumps({"points": points, "peak": highest}))


def memory_of(run: Run, idle: float, quick: bool) -> dict[str, Any]:
    """The line of a run."""
    if quick:
        run = dataclasses.replace(run, timesteps=run.timesteps // 10)
    document = dataclasses.asdict(run)
    command = [sys.executable, __file__, "--child", json.dumps(document)]
    line: dict[str, Any] = {"work": f"memory: {run.label}"}
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, timeout=LONGEST,
            env={**os.environ, **run.variables},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {**line, "not measured": f"not done after {LONGEST} s"}
    found = json.loads(done.stdout.splitlines()[-1])
    points = np.asarray(found["points"][len(found["points"]) // 2 :])
    slope = np.polyfit(points[:, 0] / 1e6, points[:, 1], 1)[0]
    over = found["peak"] - idle
    goal = PEAK_GOAL + 2 * run.batch
    line |= {
        "timesteps": int(points[-1, 0]),
        "peak over idle TensorFlow MB": round(over),
        "goal MB": round(goal),
        "peak holds": bool(over <= goal),
        "slope MB per million timesteps": round(float(slope), 2),
    }
    if not run.work.images:  # too short for a slope
        line["slope holds"] = bool(slope < SLOPE_GOAL)
    return line


def import_time(rounds: int) -> dict[str, Any]:
    """The line of the import."""
    seconds = []
    for _ in range(rounds + 1):
        command = [sys.executable, "-c", _IMPORT]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds.append(float(done.stdout.splitlines()[-1]))
    median = statistics.median(seconds[1:])  # the first one reads from disk
    return {
        "work": "import pgest, beyond TensorFlow and TensorFlow Probability",
        "seconds": round(median, 2),
        "goal": IMPORT_GOAL,
        "holds": median <= IMPORT_GOAL,
    }


def idle_tensorflow() -> float:
    """The peak of a process that has imported TensorFlow and run one operation, MB."""
    command = [sys.executable, "-c", _IDLE + "; import resource as r; print(r.getrusage(0)[2])"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.splitlines()[-1]) / 1024.0


def main() -> None:
    """Measures the rows that were asked for."""
    if sys.argv[1:2] == ["--child"]:
        document = json.loads(sys.argv[2])
        watch(Run(**{**document, "work": Work(**document["work"])}))
        return
    options = measuring.arguments(__doc__)
    lines = []
    if options.rows in "import":
        lines.append(import_time(3 if options.quick else 7))
    runs = [run for run in RUNS if options.rows in run.label]
    if runs:
        idle = idle_tensorflow()
        lines += [memory_of(run, idle, options.quick) for run in runs]
    measuring.store("footprint", lines, {}, keep=not options.quick)


if __name__ == "__main__":
    main()
