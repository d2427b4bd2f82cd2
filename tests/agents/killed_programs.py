"""Random programs that are killed, and started again with the same command.

`python -m tests.agents.killed_programs` starts them: it imports TensorFlow once, and forks a
process for each life of a program. A line of its input is a request in JSON, a line of its output
the status that the process ended with.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import traceback
import warnings
from typing import Any

import numpy as np
from hypothesis import strategies

import pgest
from tests.agents import random_programs
from tests.agents.booked_environments import SPACES, BookedEnv

ROOT = pathlib.Path(__file__).parent.parent.parent
# What is done to files in Python; TensorFlow's own writes are between those.
_OF_FILES = {"open", "os.rename", "os.remove", "os.truncate", "os.mkdir", "shutil.rmtree"}


@dataclasses.dataclass(frozen=True)
class Killed:
    """A program, how it saves, and when its first lives are killed."""

    program: dict[str, Any]
    clock: dict[str, int]
    config: dict[str, bool]
    model: dict[str, Any]
    saver_is_first: bool
    kills: list[tuple[str, int]]


@strategies.composite
def killed(draw) -> Killed:
    """Any program with limits of a whole run, which another process can be started with again."""
    integers, booleans = strategies.integers, strategies.booleans()
    program = dataclasses.asdict(draw(random_programs.programs()))
    limit = strategies.tuples(
        strategies.sampled_from(("max_timesteps", "max_episodes", "max_steps")), integers(1, 3)
    )
    scale = {"max_timesteps": 25, "max_episodes": 6, "max_steps": 4}
    limits = draw(strategies.lists(limit, min_size=1, max_size=2))
    program["calls"] = [(name, count * scale[name]) for name, count in limits]
    program["keeps"] |= program["kind"] not in ("one", "loop")
    program["comes_back"] = []
    model = {"normalize_observation": draw(booleans), "normalize_reward": draw(booleans)}
    recurrent = program["kind"] != "NEXT_STEP" or program["memory"][0] != "horizon"
    if recurrent and draw(integers(0, 3)) == 0:
        model |= {"cell": draw(strategies.sampled_from(("lstm", "gru"))), "cell_size": 3}
    moments = strategies.one_of(
        strategies.tuples(strategies.just("timestep"), integers(1, 60)),
        strategies.tuples(strategies.just("update"), integers(1, 10)),
        strategies.tuples(strategies.just("episode"), integers(1, 12)),
        strategies.tuples(strategies.just("file"), integers(1, 120)),
    )
    return Killed(
        program=program,
        clock={draw(strategies.sampled_from(("steps", "episodes", "timesteps"))): draw(
            integers(1, 7)
        )},
        config={"overlap_updates": draw(booleans)},
        model=model,
        saver_is_first=draw(booleans),
        kills=draw(strategies.lists(moments, min_size=1, max_size=2)),
    )  # fmt: skip


class Countdown:
    """Kills this process when something happens for the n-th time."""

    def __init__(self, moment, directory):
        self.kind, self.left = moment or ("never", 0)
        if self.kind == "file":
            sys.addaudithook(
                lambda event, given: (
                    event in _OF_FILES and str(directory) in str(given[0]) and self.happens("file")
                )
            )

    def happens(self, kind):
        self.left -= kind == self.kind
        if kind == self.kind and self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class KillingBooked(BookedEnv):
    """Counts timesteps, in whatever wrappers it stands."""

    countdown: Any = None

    def step(self, action):
        result = super().step(action)
        self.countdown.happens("timestep")
        return result


class Notes(pgest.BaseMonitor):
    """Notes what it is told, and keeps it."""

    def __init__(self, countdown):
        self.countdown, self.told = countdown, []

    def after_run(self, context):
        numbers = [context.step, context.timestep, context.metrics["loss"], len(context.episodes)]
        self.told.append(numbers)
        self.countdown.happens("update")

    def after_episode(self, context):
        (it,) = context.episodes
        self.told.append([it.env_index, it.total, it.length, it.terminated, it.truncated])
        self.countdown.happens("episode")

    def state(self):
        return {"told": self.told}

    def restore(self, state):
        self.told = state["told"]


def play(killed_: Killed, directory: pathlib.Path, moment) -> None:
    """One life: all calls of `train`; what it ended with is in `end.npz` and `end.json`.

    A call that an earlier life has finished returns at once, and its hooks hear of nothing.
    """
    program = random_programs.Program(**killed_.program)
    countdown = KillingBooked.countdown = Countdown(moment, directory / "run")
    config = pgest.RunConfig(
        tf_random_seed=program.seed, save_summary_steps=1, jit_compile=False,
        log_step_count_steps=None, keep_checkpoint_max=3, **killed_.config,
    )  # fmt: skip
    rate = pgest.schedules.linear(1e-2, 0.0)
    model_fn = getattr(pgest.models, program.algorithm)(
        hidden_sizes=(3,), learning_rate=rate, **killed_.model
    )
    memory = random_programs.memory_of(program, pgest.BatchMemory, pgest.RolloutMemory)
    update = dict(program.update)
    if "cell" in killed_.model:
        update.pop("minibatch_size")
    agent = pgest.PGAgent(model_fn, memory, update, directory / "run", config)
    made: list[BookedEnv] = []
    env = random_programs.environment_of(program, made, KillingBooked)
    fresh = BookedEnv(SPACES[program.observation], SPACES[program.action], program.episodes)
    notes = []
    finished = directory / "finished.txt"
    before = int(finished.read_text()) if finished.exists() else 0
    for number, (name, limit) in enumerate(program.calls, 1):
        notes.append(Notes(countdown))
        history = pgest.HistoryHook(pgest.Every(steps=1))
        evaluation = pgest.EvaluationHook(lambda: fresh, pgest.Every(steps=3), episodes=1)
        saver = pgest.CheckpointSaverHook(pgest.Every(**killed_.clock))
        hooks = [notes[-1], history, evaluation]
        hooks.insert(0 if killed_.saver_is_first else 1, saver)
        agent.train(env, hooks=hooks, **{name: limit})
        notes[-1].records = [
            {key: value for key, value in record.items() if key != "seconds"}
            for record in history.records
        ]
        finished.write_text(str(number))
    values = {name: agent.get_variable_value(name) for name in agent.get_variable_names()}
    np.savez(directory / "end.npz", **{name.replace("/", "|"): v for name, v in values.items()})
    document = {
        "before": before,
        "told": [one.told for one in notes],
        "records": [one.records for one in notes],
        "books": [[booked.book, booked.actions] for booked in made],
    }
    (directory / "end.json").write_text(json.dumps(document), encoding="utf-8")


class Starter:
    """The process that forks one for each life."""

    def __init__(self):
        command = [sys.executable, "-m", __name__]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
        )

    def run(self, killed_: Killed, directory, moment=None) -> int:
        """Runs one life; how it ended, as a negative signal or a status."""
        request = {"killed": dataclasses.asdict(killed_), "directory": str(directory)}
        print(json.dumps({**request, "moment": moment}), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def _serve():
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            status = 1
            directory = pathlib.Path(request["directory"])
            try:
                warnings.filterwarnings("error", category=UserWarning, message="The run goes on")
                play(Killed(**request["killed"]), directory, request["moment"])
                status = 0
            except BaseException:
                (directory / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            os._exit(status)
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
