"""Training, updates and all, beside the peers.

    python benchmarks/training_speed.py [--quick] [--rows "8 environments"]
    python benchmarks/training_speed.py --learning     # who learns; not timed

Both sides of a row have the same algorithm, net (64 x 64 tanh, one for the policy and one for the
value), horizon, hyper-parameters, optimizer and number of updates, and each is a process of its
own (`contestants/`). With `--learning` both train for `learns_after` timesteps instead: the mean
return of the latest hundred training episodes then has to be above a bound, or the row says that a
side has not learnt. Every side has one thread, and in the row of images all of them. With
`--trials` a side that has a choice (threads, TF-Agents' drivers) is first timed in each variant,
and the fastest one takes part.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from support import interpreters, measuring
from support.serving import Contestant, ContestantError, Work

# A policy that draws its actions gets 22; twice that takes learning.
_CARTPOLE_BOUND = 45.0
# One that draws them gets -280.
_CHEETAH_BOUND = -150.0
# One that draws them gets 50.
_PIXELS_BOUND = 60.0
# One that draws allowed ones gets 12.5.
_MASKED_BOUND = 25.0


@dataclasses.dataclass(frozen=True)
class Side:
    """Who takes part in a row.

    Attributes:
      name: in the table.
      program: in `contestants/`.
      variants: by name, the environment variables that set it up. The program knows the name as
        `Work.variant`.
      venv: the virtual environment that has it, None for pgest's own.
      variable: the environment variable that names another Python.
    """

    name: str
    program: str
    variants: Mapping[str, Mapping[str, str]] = dataclasses.field(
        default_factory=lambda: {"default": {}}
    )
    venv: str | None = None
    variable: str = ""

    def start(self, work: Work, variant: str) -> Contestant:
        """A process of it.

        Raises:
          interpreters.NotAvailableError: no Python has it.
          ContestantError: it did not start.
        """
        work = dataclasses.replace(work, variant=variant)
        python = sys.executable
        if self.venv is not None:
            python = interpreters.python_with(self.venv, self.variable)
        return Contestant(self.program, work, python, self.variants[variant])


PGEST = Side(
    "pgest",
    "pgest_agent",
    {"1 thread": {"TF_NUM_INTRAOP_THREADS": "1"}, "default threads": {}},
)
STABLE_BASELINES = Side(
    "Stable-Baselines3",
    "stable_baselines",
    {"1 thread": {"OMP_NUM_THREADS": "1"}, "default threads": {}},
)
SB3_CONTRIB = dataclasses.replace(STABLE_BASELINES, name="sb3-contrib")
TF_AGENTS = Side(
    "TF-Agents",
    "tf_agents_reinforce",
    {"dynamic driver": {}, "py driver": {}},
    "tf-agents",
    "PGEST_TF_AGENTS_PYTHON",
)
JAX = Side(
    "JAX",
    "jax_ppo",
    {
        "1 thread": {"NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"},
        "default threads": {},
    },
    "jax",
    "PGEST_JAX_PYTHON",
)
SBX = Side(
    "SBX",
    "sbx_agent",
    {
        "1 thread": {
            "NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "OMP_NUM_THREADS": "1",
        },
        "default threads": {},
    },
    "sbx",
    "PGEST_SBX_PYTHON",
)  # fmt: skip
RLOX = dataclasses.replace(
    STABLE_BASELINES, name="rlox", program="rlox_ppo", venv="rlox", variable="PGEST_RLOX_PYTHON"
)
ENVPOOL = Side("EnvPool stepping alone", "environments_alone")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
      label: of the line.
      goal: of the ratio.
      work: of both sides.
      peer: the other side.
      piece: timesteps of one piece.
      learns_after: timesteps after which both must have learnt; 0 where nothing can.
      bound: of the return that shows it.
      cold: timesteps of a run from nothing, with compilation; 0 for none.
      threads: the variant of those that can choose.
    """

    label: str
    goal: float
    work: Work
    peer: Side
    piece: int
    learns_after: int = 0
    bound: float = _CARTPOLE_BOUND
    cold: int = 0
    threads: str = "1 thread"

    def variant_of(self, side: Side) -> str:
        """The variant in which a side takes part."""
        return self.threads if self.threads in side.variants else next(iter(side.variants))


def a2c(num_envs: int, **rest: Any) -> Work:
    """Stable-Baselines3's defaults."""
    return Work(algorithm="A2C", num_envs=num_envs, horizon=5, gae_lambda=1.0, **rest)


def in_graph(num_envs: int) -> Row:
    """PPO with PureJaxRL's settings; its value loss has a factor of 1/2 of its own."""
    size = 128 * num_envs
    work = Work(
        algorithm="PPO", num_envs=num_envs, vectorization="graph", horizon=128, epochs=4,
        minibatch_size=size // 4, learning_rate=2.5e-4, entropy_weight=0.01, value_weight=0.25,
        value_clip_range=0.2, iterations=max(1, 65_536 // size),
    )  # fmt: skip
    updates = -(-250_000 // size)
    # Every side takes so many steps of its optimizer until it has to have learnt.
    learns_after = max(500_000, 1_000 // 16 * size)
    return Row(
        f"PPO in the graph, {num_envs} environments", 1.0, work, JAX, updates * size,
        learns_after, cold=-(-500_000 // size) * size,
    )  # fmt: skip


ZOO = Work(
    algorithm="PPO", num_envs=8, horizon=32, epochs=20, minibatch_size=256, learning_rate=1e-3,
    discount=0.98, gae_lambda=0.8,
)  # fmt: skip
CHEETAH = Work(
    algorithm="PPO", environment="HalfCheetah-v5", num_envs=8, horizon=256, epochs=10,
    minibatch_size=64, learning_rate=3e-4,
)  # fmt: skip
RECURRENT = Work(
    algorithm="PPO", num_envs=8, horizon=128, epochs=4, minibatch_size=256, learning_rate=3e-4,
    cell_size=256,
)  # fmt: skip
PIXELS = Work(
    algorithm="PPO", environment="contestants.pixels:Pixels-v0", images=True, num_envs=8,
    horizon=32, epochs=4, minibatch_size=64, learning_rate=2.5e-4, entropy_weight=0.01,
)  # fmt: skip
MASKED = Work(
    algorithm="MaskablePPO", environment="contestants.masked:Masked-v0", num_envs=8, horizon=128,
    epochs=10, minibatch_size=64, learning_rate=3e-4,
)  # fmt: skip
TRPO = Work(
    algorithm="TRPO", num_envs=2, horizon=512, epochs=10, minibatch_size=128, learning_rate=1e-3,
)  # fmt: skip
REINFORCE = Work(algorithm="REINFORCE", episodes=2, learning_rate=1e-3)

ROWS = (
    Row("A2C, 5 steps, 1 environment", 4.5, a2c(1), STABLE_BASELINES, 2_000, 100_000),
    Row("A2C, 5 steps, 8 environments", 2.5, a2c(8), STABLE_BASELINES, 12_000, 400_000),
    Row("PPO, RL Zoo (8 x 32, 20 epochs)", 4.0, ZOO, STABLE_BASELINES, 5_120, 100_000),
    Row("PPO, RL Zoo, beside SBX", 2.0, ZOO, SBX, 5_120, 100_000),
    # Its CartPole is in Rust; pgest's side has gymnasium's native vector.
    Row(
        "PPO, RL Zoo, native vector, beside rlox", 2.0,
        dataclasses.replace(ZOO, vectorization="native"), RLOX, 5_120, 100_000,
    ),
    Row("A2C, 256 Python environments", 1.3, a2c(256), STABLE_BASELINES, 64_000, 3_000_000),
    Row(
        "A2C, 256 environments of a native vector", 4.0, a2c(256, vectorization="native"),
        STABLE_BASELINES, 64_000, 3_000_000,
    ),
    Row("REINFORCE, whole episodes, 1 environment", 2.0, REINFORCE, TF_AGENTS, 4_000, 100_000),
    Row(
        "A2C, 256 environments of EnvPool", 0.4, a2c(256, vectorization="envpool"), ENVPOOL,
        256_000, 3_000_000,
    ),
    *(in_graph(num_envs) for num_envs in (4, 64, 512, 2048)),
    Row(
        "HalfCheetah-v5 PPO, 8 environments", 1.5, CHEETAH, STABLE_BASELINES, 4_096, 400_000,
        _CHEETAH_BOUND,
    ),
    Row(
        "recurrent PPO, two LSTMs of 256, 8 environments", 5.0, RECURRENT, SB3_CONTRIB, 1_024,
        25_000,
    ),
    Row("PPO from images, 84 x 84 x 4, 8 environments", 2.0, PIXELS, STABLE_BASELINES, 256,
        6_000, _PIXELS_BOUND, threads="default threads"),
    Row("PPO with action masks, 8 environments", 4.5, MASKED, SB3_CONTRIB, 4_096, 30_000,
        _MASKED_BOUND),
    Row("TRPO, 2 environments", 4.0, TRPO, SB3_CONTRIB, 4_096, 50_000),
)  # fmt: skip


def fastest_variant(side: Side, row: Row) -> str:
    """The fastest set-up of a side, of short pieces in turn."""
    if len(side.variants) == 1:
        return next(iter(side.variants))
    short = row.piece if row.cold else row.piece // 4
    with contextlib.ExitStack() as stack:
        contestants = {name: started(stack, side, row, name) for name in side.variants}
        pieces = {name: lambda one=one: one.train(short) for name, one in contestants.items()}
        timings = measuring.alternate(pieces, rounds=2, warm_up=2)
    return max(side.variants, key=lambda variant: timings[variant].rate)


def started(stack: contextlib.ExitStack, side: Side, row: Row, variant: str) -> Contestant:
    """A contestant that is ready to train; it ends with `stack`, whoever else fails."""
    contestant = side.start(row.work, variant)
    stack.callback(contestant.close)
    contestant.make()
    return contestant


def warm(row: Row, variants: Mapping[str, str], rounds: int) -> dict[str, Any]:
    """Pieces in turn, all compiled."""
    with contextlib.ExitStack() as stack:
        sides = {
            side.name: started(stack, side, row, variants[side.name]) for side in (PGEST, row.peer)
        }
        pieces = {name: lambda side=side: side.train(row.piece) for name, side in sides.items()}
        # In JAX the piece that starts and those that go on are two programs to compile.
        timings = measuring.alternate(pieces, rounds, warm_up=2, seconds=30)
    versions = sides[row.peer.name].versions.items()
    return {
        **measuring.compared(row.label, timings, PGEST.name, row.peer.name, goal=row.goal),
        "variants": ", ".join(f"{name}: {variant}" for name, variant in variants.items()),
        "peer's versions": " ".join(f"{package}={version}" for package, version in versions),
    }


def learning(row: Row) -> dict[str, Any]:
    """What the latest training episodes got after `learns_after` timesteps, of both sides."""
    line: dict[str, Any] = {"work": row.label}
    for side in (PGEST, row.peer):
        with contextlib.ExitStack() as stack:
            contestant = started(stack, side, row, row.variant_of(side))
            while contestant.timesteps < row.learns_after:
                contestant.train(row.piece)
        found = contestant.recent_return
        if found is not None:  # who only steps has no policy
            learnt = "" if found > row.bound else "HAS NOT LEARNT: "
            reached = f"{found:.0f} after {contestant.timesteps:,} timesteps"
            line[f"{side.name} return"] = f"{learnt}{reached}, above {row.bound:g} asked"
    return line


def cold(row: Row, variants: Mapping[str, str], rounds: int) -> dict[str, Any]:
    """Runs from nothing in turn, each in a new process: building, compiling, training."""
    seconds: dict[str, list[float]] = {PGEST.name: [], row.peer.name: []}
    for _ in range(rounds):
        for side in (PGEST, row.peer):
            with contextlib.closing(side.start(row.work, variants[side.name])) as contestant:
                seconds[side.name].append(contestant.make().wall + contestant.train(row.cold).wall)
    ours, theirs = seconds[PGEST.name], seconds[row.peer.name]
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return {
        "work": f"{row.label}, compilation and {row.cold:,} timesteps",
        "pgest seconds": round(statistics.median(ours), 2),
        f"{row.peer.name} seconds": round(statistics.median(theirs), 2),
        "ratio": round(statistics.median(ratios), 2),
        "ratio lowest": round(ratios[0], 2),
        "ratio highest": round(ratios[-1], 2),
        "goal": 1.8,
        "pieces": rounds,
    }


def lines_of(row: Row, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The lines of a row: its warm pieces and, where there are any, its runs from nothing."""
    try:
        if options.learning:
            yield learning(row)
            return
        variants = {
            side.name: fastest_variant(side, row) if options.trials else row.variant_of(side)
            for side in (PGEST, row.peer)
        }
        yield warm(row, variants, 2 if options.quick else 7)
        if row.cold and not options.quick:
            yield cold(row, variants, 2)
    except (ContestantError, interpreters.NotAvailableError) as error:
        yield {"work": row.label, "not measured": str(error)}


def main() -> None:
    """Measures the rows that were asked for."""
    options = measuring.arguments(
        __doc__,
        learning="look at who learns instead of how fast",
        trials="each side in its fastest variant",
    )
    settings = {"net": "64x64 tanh, twice", "environment": "CartPole-v1 unless a row names one"}
    for row in ROWS:
        if options.rows in row.label:
            for line in lines_of(row, options):
                measuring.store("training_speed", [line], settings, keep=not options.quick)


if __name__ == "__main__":
    main()
