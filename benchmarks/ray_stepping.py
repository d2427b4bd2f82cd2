"""Stepping eight environments: in this process, in processes of gymnasium's, in two Ray actors.

    python benchmarks/ray_stepping.py [--quick] [--rows "1000 us"]

Run by a Python that has Ray, such as `python tests/interop/own_environments.py ray` prints. The
actors are those of `examples/ray_environments.py`, of four environments each, and all is on one
machine. Nobody acts: what is measured is what a vector's step costs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))
# The actors look there too, and do not give way to the other contestants' processes.
places = [str(EXAMPLES), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
os.environ.setdefault("RAY_worker_niceness", "0")

import gymnasium  # noqa: E402
import numpy as np  # noqa: E402
import ray  # noqa: E402
import ray_environments  # noqa: E402
from support import measuring  # noqa: E402

NUM_ENVS, ACTORS = 8, 2
STEPS = {100: 400, 1000: 60, 5000: 15, 20000: 4}  # of a piece, by microseconds of a step


def stepping(env, steps: int):
    """Steps all environments of a vector so often."""
    env.reset(seed=0)
    actions = np.zeros(NUM_ENVS, np.int64)

    def work() -> int:
        for _ in range(steps):
            env.step(actions)
        return steps * NUM_ENVS

    return work


def main() -> None:
    """Measures the rows that were asked for."""
    options = measuring.arguments(__doc__)
    ray.init(num_cpus=ACTORS, include_dashboard=False)
    rows = []
    for microseconds, steps in STEPS.items():
        label = f"{microseconds} us of work a step"
        if options.rows not in label:
            continue
        name = f"contestants.busy_environments:Busy{microseconds}-v0"

        def make(name=name):
            return gymnasium.make(name)

        vectors = {
            "sync": gymnasium.make_vec(name, NUM_ENVS, vectorization_mode="sync"),
            "async": gymnasium.make_vec(name, NUM_ENVS, vectorization_mode="async"),
            "ray": ray_environments.RayVectorEnv(make, ACTORS, NUM_ENVS // ACTORS, num_cpus=1),
        }
        pieces = {kind: stepping(env, steps) for kind, env in vectors.items()}
        timings = measuring.alternate(pieces, 3 if options.quick else 9, seconds=20)
        for env in vectors.values():
            env.close()
        to_sync = measuring.compared(label, timings, "ray", "sync")
        to_async = measuring.compared(label, timings, "ray", "async")
        row = {**to_sync, "async timesteps/s": to_async["async timesteps/s"],
               "ratio to async": to_async["ratio"]}  # fmt: skip
        # Of this process alone, and the other ones do the work.
        rows.append({name: value for name, value in row.items() if "CPU" not in name})
    settings = {"num_envs": NUM_ENVS, "actors": ACTORS, "ray": ray.__version__}
    measuring.store("ray_stepping", rows, settings, keep=not options.quick)


if __name__ == "__main__":
    main()
