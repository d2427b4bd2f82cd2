"""One run on two workers against one worker, each with a core and environments of its own.

    python benchmarks/workers.py [--quick] [--rows "200 us"]

PPO on 8 CartPoles a worker, 128 timesteps each to an update, whose steps keep the processor busy
for as long as a row says. What is counted are the timesteps of all workers together, so 2 is what
the ratio can be. Of the CPU ratio 1 is the most: what a timestep takes of one worker's processor
over what it takes of both. It needs two cores.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from support import measuring
from support.serving import Contestant, Work

UPDATES = {0: 8, 50: 6, 200: 4, 1000: 2}  # of a piece, by microseconds a step
GOALS = {200: 1.8}
NUM_ENVS, HORIZON = 8, 128


class Workers:
    """Processes that train one model.

    Args:
      count: how many.
      work: of each.
    """

    def __init__(self, count: int, work: Work):
        self._count = count
        self._pool = ThreadPoolExecutor(count)
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
        for each in sockets:
            each.close()

        def started(index: int) -> Contestant:
            variables = {"WORKER_CORE": str(cores[index]), "CUDA_VISIBLE_DEVICES": "-1"}
            if count > 1:
                task = {"type": "worker", "index": index}
                variables["TF_CONFIG"] = json.dumps({"cluster": {"worker": hosts}, "task": task})
            contestant = Contestant("pgest_worker", work, environment=variables)
            contestant.make()
            return contestant

        cores = sorted(os.sched_getaffinity(0))
        self._contestants = list(self._pool.map(started, range(count)))

    def piece(self, updates: int) -> Callable[[], measuring.Piece]:
        """Trains so many updates in all workers at once."""
        timesteps = updates * self._count * NUM_ENVS * HORIZON

        def train() -> measuring.Piece:
            pieces = list(self._pool.map(lambda each: each.train(timesteps), self._contestants))
            counted = {piece.timesteps for piece in pieces}
            assert counted == {timesteps}, "all workers count all timesteps"
            wall = max(piece.wall for piece in pieces)
            return measuring.Piece(timesteps, wall, sum(piece.cpu for piece in pieces))

        return train

    def close(self) -> None:
        """Ends them."""
        list(self._pool.map(Contestant.close, self._contestants))


def main() -> None:
    """Measures the rows that were asked for."""
    options = measuring.arguments(__doc__)
    for microseconds, updates in UPDATES.items():
        label = f"{microseconds} us of work a step"
        if options.rows not in label:
            continue
        work = Work(
            algorithm="PPO",
            environment=f"contestants.busy_environments:Busy{microseconds}-v0",
            num_envs=NUM_ENVS,
            horizon=HORIZON,
            epochs=4,
            minibatch_size=256,
        )
        both = {"1 worker": Workers(1, work), "2 workers": Workers(2, work)}
        pieces = {name: workers.piece(updates) for name, workers in both.items()}
        try:
            timings = measuring.alternate(pieces, 2 if options.quick else 15, seconds=45)
        finally:
            for workers in both.values():
                workers.close()
        row = measuring.compared(label, timings, "2 workers", "1 worker", GOALS.get(microseconds))
        settings = {"algorithm": "PPO", "num_envs": NUM_ENVS, "horizon": HORIZON, "epochs": 4,
                    "minibatch_size": 256, "net": "64x64 tanh, twice"}  # fmt: skip
        measuring.store("workers", [row], settings, keep=not options.quick)


if __name__ == "__main__":
    main()
