"""Saved policies: one action, and what saving costs the training.

    python benchmarks/policies.py [--quick] [--rows action]

* An action from numpy to numpy, net 4-64-64-2: `SavedModelPyTFEagerPolicy` of pgest, and that of
  TF-Agents 0.19 in a virtual environment of its own (see tests/interop). Each opens an export of
  its own library; TF-Agents also opens that of pgest. Goal: 4 times TF-Agents' rate, better 6.
* Training with `PolicySaverHook`, one save every 100 steps, against the same run without: segments
  of one run in turn. Goal: at least 98 % of the rate.
* What a save with `AsyncPolicySaver` costs the thread that trains, against a bare copy of the
  variables. Goal: no more than the copy.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras
from support import measuring

import pgest
from pgest import models, specs

HERE = Path(__file__).parent
STEPS_PER_SAVE = 100


class NetPolicy(pgest.TFPolicy):
    """Two layers of 64 tanh between an observation of 4 numbers and 2 actions."""

    def __init__(self) -> None:
        super().__init__(
            pgest.time_step_spec(tf.TensorSpec([4], tf.float32)),
            specs.BoundedTensorSpec((), tf.int64, 0, 1),
        )
        sizes = ((64, "tanh"), (64, "tanh"), (2, None))
        self.network = tf_keras.Sequential([tf_keras.layers.Dense(*size) for size in sizes])
        self.network.build([None, 4])

    def _distribution(self, time_step, policy_state):
        logits = self.network(time_step.observation)
        return pgest.PolicyStep(tfp.distributions.Categorical(logits=logits), policy_state)


def peer_python() -> str | None:
    """The Python that has TF-Agents; None, and a word about it, where there is none."""
    sys.path.insert(0, str(HERE.parent / "tests" / "interop"))
    import own_environments

    try:
        return own_environments.TF_AGENTS.python()
    except own_environments.NotAvailableError as reason:
        print(f"Actions are not compared: {reason}")
        return None


class Peer:
    """TF-Agents in a process of its own, that acts when it is told to."""

    def __init__(self, python: str, directory: str, kind: str) -> None:
        program = HERE / "support" / "tf_agents_actions.py"
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
        environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [python, str(program), directory, kind],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment,
        )  # fmt: skip
        self._wait_for("ready")

    def act(self, count: int) -> int:
        """Returns when `count` actions are done."""
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        self._wait_for("done")
        return count

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def _wait_for(self, word: str) -> None:
        line = self._process.stdout.readline().strip()
        if line != word:
            raise RuntimeError(f"TF-Agents' process said {line!r}, expected {word!r}.")


def action_row(label: str, kinds: Sequence[str], python: str, rounds: int, directory: str) -> dict:
    """One action, with pgest's class and with TF-Agents'."""
    kind, peer_kind = kinds
    tf.random.set_seed(0)
    policy = NetPolicy() if kind == "sampled" else pgest.GreedyPolicy(NetPolicy())
    ours = os.path.join(directory, "pgest")
    pgest.PolicySaver(policy).save(ours)
    opened = pgest.SavedModelPyTFEagerPolicy(ours, load_specs_from_pbtxt=True)
    time_step = pgest.transition(np.float32([0.01, 0.02, 0.03, 0.04]), np.float32(1.0))
    theirs = ours if peer_kind == "open" else os.path.join(directory, "peer")
    peer = Peer(python, theirs, peer_kind)

    def act() -> int:
        for _ in range(2000):
            opened.action(time_step)
        return 2000

    contestants = {"pgest": act, "TF-Agents": lambda: peer.act(500)}
    timings = measuring.alternate(contestants, rounds)
    peer.close()
    pairs = zip(timings["pgest"].rates, timings["TF-Agents"].rates, strict=True)
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    return {
        "work": label,
        "pgest us/action": round(1e6 / timings["pgest"].rate, 1),
        "TF-Agents us/action": round(1e6 / timings["TF-Agents"].rate, 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratio lowest": round(ratios[0], 2),
        "ratio highest": round(ratios[-1], 2),
        "pieces": rounds,
    }


class Alternating(pgest.BaseMonitor):
    """Hands a hook on in every other segment of a run, and takes the time of all of them."""

    def __init__(self, hook: pgest.BaseMonitor, segment_steps: int) -> None:
        self._hook = hook
        self._segment_steps = segment_steps
        self._segment = 0
        self.timings = {"with": measuring.Timing(), "without": measuring.Timing()}
        self.thread: dict[str, list[float]] = {"with": [], "without": []}

    def begin(self, context: pgest.RunContext) -> None:
        """The hook begins."""
        self._hook.begin(context)
        self._started = self._now(context)

    def after_run(self, context: pgest.RunContext) -> None:
        """The hook looks, or does not; a segment ends."""
        if self._segment % 2 == 0:
            self._hook.after_run(context)
        if context.step // self._segment_steps <= self._segment:
            return
        before, self._started = self._started, self._now(context)
        wall, processor, thread, timesteps = (
            now - then for now, then in zip(self._started, before, strict=True)
        )
        if self._segment >= 2:  # the first pair compiles
            name = "without" if self._segment % 2 else "with"
            self.timings[name].rates.append(timesteps / wall)
            self.timings[name].cpu.append(processor / timesteps * 1e6)
            self.thread[name].append(thread / timesteps * 1e6)
        self._segment += 1

    def end(self, context: pgest.RunContext) -> None:
        """The hook ends."""
        self._hook.end(context)

    def _now(self, context: pgest.RunContext) -> tuple[float, float, float, float]:
        return time.perf_counter(), time.process_time(), time.thread_time(), context.timestep


def hook_row(label: str, agent: pgest.PGAgent, env: Any, rounds: int, directory: str) -> dict:
    """Training with saves and without, in turn."""
    # Short segments, so that neighbours meet the same load of the machine.
    segment_steps, pairs = 4 * STEPS_PER_SAVE, 4 * rounds
    saver = pgest.PolicySaverHook(pgest.Every(steps=STEPS_PER_SAVE), directory, keep_max=3)
    alternating = Alternating(saver, segment_steps)
    agent.train(env, steps=2 * (pairs + 1) * segment_steps + 1, hooks=[alternating])
    row = measuring.compared(label, alternating.timings, "with", "without")
    # What the thread that trains computes; on a busy machine this can be told apart from the rest.
    medians = {name: statistics.median(found) for name, found in alternating.thread.items()}
    row["CPU ratio of the training thread"] = round(medians["without"] / medians["with"], 3)
    return row


def hooked_agents() -> dict[str, tuple[pgest.PGAgent, Any]]:
    """The runs that are saved: a short step, and a usual one."""
    config = pgest.RunConfig(tf_random_seed=0, log_step_count_steps=None)
    a2c = pgest.PGAgent(
        models.A2C(entropy_weight=0.0),
        pgest.RolloutMemory(5),
        optimizer_params={"gae_lambda": 1.0, "normalize_advantage": False},
        config=config,
    )
    ppo = pgest.PGAgent(
        models.PPO(learning_rate=1e-3, entropy_weight=0.0),
        pgest.RolloutMemory(32),
        optimizer_params={"gae_lambda": 0.8, "epochs": 20, "minibatch_size": 256},
        config=config,
    )
    return {
        "PPO, 8 environments, a save every 100 steps": (ppo, pgest.make("CartPole-v1", 8)),
        "A2C, 8 environments, a save every 100 steps": (a2c, pgest.make("CartPole-v1", 8)),
    }


class WidePolicy(pgest.TFPolicy):
    """So many parameters that saving them takes a while; what it does does not matter."""

    def __init__(self, parameters: int) -> None:
        super().__init__(
            pgest.time_step_spec(tf.TensorSpec([4], tf.float32)),
            specs.BoundedTensorSpec((), tf.int64, 0, 1),
        )
        self.weights = [tf.Variable(tf.zeros([parameters // 10])) for _ in range(10)]

    def _action(self, time_step, policy_state, seed):
        first = tf.stack([weight[0] for weight in self.weights])
        rows = tf.shape(time_step.step_type)
        return pgest.PolicyStep(tf.cast(tf.fill(rows, tf.reduce_sum(first)) > 0, tf.int64))


def saving_row(parameters: int, rounds: int, directory: str) -> dict:
    """A save by the thread that trains, a bare copy, and the update after each."""
    policy = WidePolicy(parameters)

    @tf.function
    def update() -> None:
        for weight in policy.weights:
            weight.assign_add(tf.ones_like(weight))

    times: dict[str, list[float]] = {"save": [], "save and update": [], "copy": [],
                                     "copy and update": [], "update": []}  # fmt: skip
    with pgest.AsyncPolicySaver(pgest.PolicySaver(policy)) as saver:
        for round_ in range(-1, rounds):
            pieces = {
                "save": lambda: saver.save_checkpoint(os.path.join(directory, "checkpoint")),
                "copy": lambda: [weight.numpy().copy() for weight in policy.weights],
                "": lambda: None,
            }
            for name, piece in pieces.items():
                started = time.perf_counter()
                kept = piece()
                between = time.perf_counter()
                update()
                ended = time.perf_counter()
                saver.flush()
                del kept
                if round_ >= 0:
                    if name:
                        times[name].append((between - started) * 1e3)
                    times[f"{name} and update" if name else "update"].append(
                        (ended - started) * 1e3
                    )
    medians = {name: round(statistics.median(found), 3) for name, found in times.items()}
    return {
        "work": f"AsyncPolicySaver, {parameters:,} parameters",
        **{f"{name} ms": value for name, value in medians.items()},
        "save / copy": round(medians["save"] / medians["copy"], 3),
        "pieces": rounds,
    }


def main() -> None:
    """Measures the rows that were asked for."""
    options = measuring.arguments(__doc__)
    rounds = 5 if options.quick else 11
    rows = []
    for label, *kinds in (
        ("action, greedy policy", "greedy", "greedy"),
        ("action, sampling policy", "sampled", "sampled"),
        ("action, greedy policy, both open pgest's file", "greedy", "open"),
    ):
        python = peer_python() if options.rows in label else None
        if python is not None:
            with tempfile.TemporaryDirectory() as directory:
                rows.append(action_row(label, kinds, python, rounds, directory))
    for label, (agent, env) in hooked_agents().items():
        if options.rows in label:
            with tempfile.TemporaryDirectory() as directory:
                rows.append(hook_row(label, agent, env, rounds, directory))
    for parameters in (10**6, 10**8):
        if options.rows in f"AsyncPolicySaver, {parameters:,} parameters":
            with tempfile.TemporaryDirectory() as directory:
                rows.append(saving_row(parameters, rounds, directory))
    settings = {"net": "4-64-64-2 tanh", "TF-Agents": "0.19.0 on TensorFlow 2.15.1"}
    measuring.store("policies", rows, settings)


if __name__ == "__main__":
    main()
