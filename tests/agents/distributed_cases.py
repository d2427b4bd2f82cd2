"""Training programs for one worker of several, and for the one worker that does the same alone.

    python -m tests.agents.distributed_cases RANK PORT,PORT DIRECTORY CASE,CASE [FAULT@RANK]

runs cases one after the other under one strategy, and writes what came out to DIRECTORY. With a
fault, TERM or KILL, the worker of that rank sends itself that signal after the third update; with
RAISE a hook of it fails; with HANG it sleeps, and the others wait for twenty seconds. The case
"resumed" alone writes to DIRECTORY/run.
"""

import dataclasses
import functools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import gymnasium
import numpy as np

HORIZON, NUM_ENVS = 16, 4  # of all workers together, unless a case says otherwise
SMALL = {"hidden_sizes": (16,), "learning_rate": 3e-4}


class Allowing(gymnasium.Wrapper):
    """Every third timestep allows the first action alone."""

    def step(self, action):
        self.t += 1
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, {**info, "action_mask": self.mask()}

    def reset(self, *, seed=None, options=None):
        self.t = 0
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, {**info, "action_mask": self.mask()}

    def mask(self):
        return np.array([True, self.t % 3 != 2])


@dataclasses.dataclass
class Case:
    """What is trained: a name in pgest.models, its settings, and those of the agent."""

    model: str = "PPO"
    settings: dict = dataclasses.field(default_factory=dict)
    optimizer_params: dict = dataclasses.field(default_factory=dict)
    limits: dict = dataclasses.field(default_factory=dict)
    masked: bool = False
    jit_compile: bool | str = "auto"
    num_envs: int = NUM_ENVS
    seed: int | None = 3
    resets: bool = False  # environments that spend timesteps on resetting
    episodes: bool = False  # whole ones, of one environment a worker
    env_id: str = "CartPole-v1"
    graph: bool = False  # environments in the graph
    iterations: int = 1

    def agent(self, workers, strategy=None, model_dir=None, wrap=lambda model_fn: model_fn):
        import pgest

        model = getattr(pgest.models, self.model)(**{**SMALL, **self.settings})
        params = dict(self.optimizer_params)
        if "minibatch_size" in params:  # of all workers together
            params["minibatch_size"] //= workers
        config = pgest.RunConfig(
            model_dir=model_dir,
            tf_random_seed=self.seed,
            log_step_count_steps=None,
            jit_compile=self.jit_compile,
            iterations_per_loop=self.iterations,
            train_distribute=strategy,
        )
        memory = pgest.BatchMemory(150) if self.episodes else pgest.RolloutMemory(horizon=HORIZON)
        return pgest.PGAgent(wrap(model), memory, optimizer_params=params, config=config)

    def environment(self, workers):
        import pgest

        if self.graph:
            return pgest.graph_environments.CartPole(
                num_envs=self.num_envs // workers, max_episode_steps=60
            )
        if self.resets:
            return gymnasium.make_vec(
                "CartPole-v1", self.num_envs // workers, vectorization_mode="sync"
            )

        def make():
            env = gymnasium.make(self.env_id, max_episode_steps=60)
            return Allowing(env) if self.masked else env

        return pgest.make(make, None if self.episodes else self.num_envs // workers)


def updates(count, num_envs=NUM_ENVS):
    return {"max_timesteps": count * HORIZON * num_envs}


MINIBATCHES = {"epochs": 2, "minibatch_size": 16}
HALVES = {"epochs": 2, "minibatch_size": HORIZON * NUM_ENVS // 2}
NORMALIZED = {"normalize_observation": True, "normalize_reward": True}
CASES = {
    "ppo": Case(optimizer_params=MINIBATCHES, limits={"max_steps": 1000}),  # 125 updates
    "a2c": Case("A2C", limits=updates(100)),
    "vpg": Case("VPG", limits=updates(100)),
    "trpo": Case("TRPO", {"critic_passes": 2, "critic_minibatch_size": None},
                 limits={"max_steps": 6}),
    "lstm": Case(settings={"cell": "lstm", "cell_size": 8, **NORMALIZED}, limits=updates(30),
                 optimizer_params=HALVES),
    # Each third minibatch is a smaller one.
    "masks": Case(optimizer_params={"epochs": 2, "minibatch_size": 24}, masked=True,
                  limits={"max_episodes": 91}),
    "gsde": Case(settings={"noise_interval": 4}, optimizer_params=MINIBATCHES,
                 limits=updates(30), env_id="Pendulum-v1"),
    "target_kl": Case(settings={"learning_rate": 3e-3, **NORMALIZED}, limits=updates(15),
                      optimizer_params={**MINIBATCHES, "epochs": 10, "target_kl": 0.002}),
    "timesteps": Case("VPG", {"normalize_reward": True}, {"epochs": 2}, {"max_timesteps": 2001},
                      episodes=True, jit_compile=False),
    "whole": Case("VPG", limits={"max_episodes": 60}, episodes=True),
    "resets": Case(optimizer_params=HALVES, limits={"max_timesteps": 1000}, resets=True,
                   seed=None),
    "resumed": Case(settings={"normalize_reward": True}, optimizer_params=MINIBATCHES,
                    limits=updates(10)),
    # Each third minibatch is a smaller one; a batch is collected in pieces, for the limit.
    "graph": Case(optimizer_params={"epochs": 2, "minibatch_size": 24}, graph=True,
                  limits={"max_episodes": 91}, settings=NORMALIZED, jit_compile=False),
    "graph_lstm": Case(settings={"cell": "lstm", "cell_size": 8}, optimizer_params=HALVES,
                       graph=True, limits={"max_timesteps": 1030}, iterations=3),
    "graph_resumed": Case(settings={"normalize_reward": True}, optimizer_params=MINIBATCHES,
                          limits=updates(10), graph=True),
    "three": Case(optimizer_params={"epochs": 2, "minibatch_size": 24}, num_envs=6,
                  limits=updates(20, 6)),
}  # fmt: skip


def result(agent, metrics=()):
    """What a run came to: weights by name, counters, metrics."""
    weights = {name: agent.get_variable_value(name) for name in agent.get_variable_names()}
    counters = [agent.global_step, agent.global_timestep, agent.global_episode]
    return weights, {
        "counters": counters,
        "stop_reason": agent.stop_reason,
        "metrics": list(metrics),
        "seed": agent.model.seed,
    }


def metrics_hook(fault=None):
    """Notes the metrics of each update; after the third it may send a signal to its process."""
    import pgest

    class Metrics(pgest.BaseMonitor):
        every_worker = True

        def begin(self, context):
            self.seen = []

        def after_run(self, context):
            self.seen.append(dict(context.metrics))
            if len(self.seen) == 3 and fault is not None:
                fault()

    return Metrics()


def start(directory, names, count=2, fault=""):
    """Starts `count` workers; gives their processes, the chief first."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = ",".join(str(each.getsockname()[1]) for each in sockets)
    for each in sockets:
        each.close()
    command = [sys.executable, "-m", "tests.agents.distributed_cases"]
    root = pathlib.Path(__file__).parent.parent.parent
    variables = {**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": "-1"}
    rest = [str(directory), ",".join(names), *([fault] if fault else [])]
    return [
        subprocess.Popen(
            [*command, str(rank), ports, *rest],
            cwd=root,
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=(directory / f"log.{rank}").open("w"),
        )
        for rank in range(count)
    ]


def finish(processes, seconds=900):
    """Their exit codes; none of them outlives this call."""
    try:
        return [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run_worker(rank, ports, directory, names, fault=""):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": cluster, "task": {"type": "worker", "index": rank}}
    )
    import tensorflow as tf

    wanted, _, victim = fault.partition("@")
    options = {}
    if wanted == "HANG":
        options["communication_options"] = tf.distribute.experimental.CommunicationOptions(
            timeout_seconds=20.0
        )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(**options)
    happens = None
    if wanted and int(victim) == rank:
        happens = {
            "HANG": functools.partial(time.sleep, 120),
            "RAISE": functools.partial(int, "no number"),
            "TERM": functools.partial(os.kill, os.getpid(), signal.SIGTERM),
            "KILL": functools.partial(os.kill, os.getpid(), signal.SIGKILL),
        }[wanted]
    model_dir = str(directory / "run") if names in (["resumed"], ["graph_resumed"]) else None
    for name in names:
        if name == "refusals":
            from tests.agents import distributed_refusals

            said = distributed_refusals.messages(strategy, rank, directory)
            (directory / f"{name}.{rank}.json").write_text(json.dumps(said))
            continue
        began = time.perf_counter()
        case, hook = CASES[name], metrics_hook(happens)
        agent = case.agent(len(ports), strategy, model_dir)
        agent.train(case.environment(len(ports)), hooks=[hook], **case.limits)
        weights, report = result(agent, hook.seen)
        report["seconds"] = time.perf_counter() - began
        np.savez(directory / f"{name}.{rank}.npz", **weights)
        (directory / f"{name}.{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    run_worker(
        int(sys.argv[1]),
        sys.argv[2].split(","),
        pathlib.Path(sys.argv[3]),
        sys.argv[4].split(","),
        *sys.argv[5:],
    )
