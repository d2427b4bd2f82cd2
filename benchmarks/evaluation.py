"""`evaluate` beside Stable-Baselines3's `evaluate_policy`, and beside another version of pgest.

    python benchmarks/evaluation.py [--quick] [--rows "8 environments"]
    python benchmarks/evaluation.py --than /path/of/another/checkout

20 episodes of 500 timesteps of CartPole, 64 x 64 tanh for the policy and for the value, one thread
a side. pgest computes the loss of EVAL too. With `--than` the other side is the pgest of that
directory; what both play is not compared.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from support import interpreters, measuring
from support.serving import Contestant, ContestantError, Work

EPISODES = 20
# By label: how many environments, and the goals beside the peer and beside f65200d.
ROWS = {
    "an id": (1, 3.0, 6.0),
    "8 environments": (8, 3.0, None),
    "20 environments": (20, 3.0, None),
}
_THREADS = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}


def compared(label: str, than: str | None, rounds: int) -> dict[str, Any]:
    """Evaluations in turn."""
    num_envs, goal, goal_than = ROWS[label]
    work = Work(algorithm="PPO", environment="LongPole-v0", num_envs=num_envs, episodes=EPISODES)
    peer = "Stable-Baselines3" if than is None else "the other version"
    with contextlib.ExitStack() as stack:

        def started(program: str, variables: dict[str, str]) -> Contestant:
            contestant = Contestant(program, work, environment={**_THREADS, **variables})
            stack.callback(contestant.close)
            contestant.make()
            return contestant

        sides = {"pgest": started("pgest_evaluation", {})}
        if than is None:
            sides[peer] = started("stable_baselines_evaluation", {})
        else:
            sides[peer] = started("pgest_evaluation", {"PYTHONPATH": than})
        pieces = {name: lambda side=side: side.train(1) for name, side in sides.items()}
        timings = measuring.alternate(pieces, rounds, warm_up=2, seconds=60)
    beside = "" if than is None else ", beside the other version"
    name = f"evaluate, {EPISODES} episodes, {label}{beside}"
    return measuring.compared(
        name, timings, "pgest", peer, goal=goal if than is None else goal_than
    )


def main() -> None:
    """Measures and stores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--rows", default="", help="only the rows whose name contains this")
    parser.add_argument("--than", help="the directory of another checkout of pgest")
    options = parser.parse_args()
    lines = []
    for label in ROWS:
        if options.rows in label:
            try:
                lines.append(compared(label, options.than, 3 if options.quick else 9))
            except (ContestantError, interpreters.NotAvailableError) as error:
                lines.append({"work": label, "not measured": str(error)})
    measuring.store("evaluation", lines, {"episodes": EPISODES}, keep=not options.quick)


if __name__ == "__main__":
    main()
