"""How much time passes until an agent has made its first update.

    python benchmarks/first_update.py [--quick] --than DIRECTORY

PPO on 8 CartPoles with a horizon of 256, 10 epochs and minibatches of 64, from `PGAgent(...)` to
the end of the first update: tracing, compiling, 2,048 timesteps and 320 steps. Each process makes
two agents, of the seeds 0 and 1, and nothing is cached before it starts. Beside it another checkout
does the same, in turn (A B A B). Goals are of processor time; wall-clock time stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from support import measuring

HERE = Path(__file__).parent.parent
# What an agent is held to, as a part of the other checkout's first one.
GOALS = {"the first update": 1 / 3, "the first update of a second agent": 1 / 10}
_PROGRAM = """
import json, time
import tensorflow as tf
import pgest
tf.zeros([1])
seconds = []
for seed in (0, 1):
    cartpoles = pgest.make("CartPole-v1", num_envs=8)
    started = time.process_time(), time.perf_counter()
    agent = pgest.PGAgent(
        pgest.models.PPO(),
        pgest.RolloutMemory(horizon=256),
        optimizer_params={"epochs": 10, "minibatch_size": 64},
        config=pgest.RunConfig(tf_random_seed=seed, log_step_count_steps=None),
    )
    agent.train(cartpoles, timesteps=8 * 256)
    seconds.append((time.process_time() - started[0], time.perf_counter() - started[1]))
print(json.dumps(seconds))
"""


def measured(checkout: Path) -> list[list[float]]:
    """Seconds of the first and of the second agent of a new process: processor time and wall."""
    variables = {**os.environ, "PYTHONPATH": str(checkout), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(  # in its directory, which Python looks into first
        command, cwd=checkout, env=variables, check=True, capture_output=True, text=True
    )
    seconds: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def rows(ours: list[list[list[float]]], theirs: list[list[list[float]]]) -> list[dict[str, Any]]:
    """A row an agent: medians, and the median of the ratios to the neighbour's first one."""
    made = []
    for place, (work, goal) in enumerate(GOALS.items()):
        parts = sorted(own[place][0] / other[0][0] for own, other in zip(ours, theirs, strict=True))
        made.append(
            {
                "work": work,
                "pgest CPU seconds": round(statistics.median(own[place][0] for own in ours), 2),
                "before CPU seconds": round(statistics.median(o[place][0] for o in theirs), 2),
                "pgest wall seconds": round(statistics.median(own[place][1] for own in ours), 2),
                "before wall seconds": round(statistics.median(o[place][1] for o in theirs), 2),
                "part": round(statistics.median(parts), 2),
                "part lowest": round(parts[0], 2),
                "part highest": round(parts[-1], 2),
                "goal": round(goal, 2),
                "pieces": len(parts),
            }
        )
    return made


def main() -> None:
    """Measures both checkouts in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one process of each")
    parser.add_argument("--than", type=Path, required=True, help="the other checkout")
    options = parser.parse_args()
    ours, theirs = [], []
    for _ in range(1 if options.quick else 3):
        ours.append(measured(HERE))
        theirs.append(measured(options.than))
    settings = {"net": "64x64 tanh, twice", "environment": "CartPole-v1"}
    measuring.store("first_update", rows(ours, theirs), settings, keep=not options.quick)


if __name__ == "__main__":
    main()
