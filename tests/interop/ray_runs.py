"""The examples that need Ray, with what happens in them written down.

    python ray_runs.py asha|pbt|train|environments DIRECTORY

Run in the environment `ray`; prints what came out as JSON.
"""

import json
import os
import pathlib
import signal
import sys
import time

EXAMPLES = pathlib.Path(__file__).parent.parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))
# Ray's workers look for modules there too; and they would give way to all other work otherwise.
os.environ["PYTHONPATH"] = os.pathsep.join([str(EXAMPLES), os.environ["PYTHONPATH"]])
os.environ["RAY_worker_niceness"] = "0"

import gymnasium  # noqa: E402 - after the path
import numpy as np  # noqa: E402
import ray  # noqa: E402
import ray_environments  # noqa: E402
from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402
from ray import tune  # noqa: E402

import pgest  # noqa: E402


def weights_of(agent):
    return {name: agent.get_variable_value(name) for name in agent.get_variable_names()}


def small(example, directory, *more):
    return example.options().parse_args([*more, "--directory", str(directory)])


def asha(directory):
    """Two good learning rates and then two that learn nothing."""
    import ray_tune

    arguments = small(ray_tune, directory, "asha", "--trials", "1", "--turns", "4",
                      "--timesteps", "1024")  # fmt: skip
    results = ray_tune.study("asha", arguments, rates=tune.grid_search([3e-3, 2e-3, 1e-7, 2e-7]))
    figure = ray_tune.figure_of(results)
    figure.savefig(directory / "asha.png")
    curves = [len(line.get_xdata()) for line in figure.axes[0].get_lines()]
    return {"turns": {r.config["learning_rate"]: r.metrics["turn"] for r in results},
            "timesteps": [r.metrics["timesteps"] for r in results],
            "errors": len(results.errors), "curves": curves}  # fmt: skip


def recorded(settings):
    """A trial of the example that writes its first weights beside where it got them from."""
    import ray_tune

    checkpoint = tune.get_checkpoint()

    class Notes(pgest.BaseMonitor):
        def __init__(self, agent):
            self.agent, self.done = agent, False

        def begin(self, context):
            if checkpoint is not None and not self.done:
                directory = pathlib.Path(tune.get_context().get_trial_dir())
                stem = directory / f"began{len(list(directory.glob('began*.npz')))}"
                np.savez(stem, **weights_of(self.agent))
                report = {"source": checkpoint.path, "rate": settings["learning_rate"],
                          "timestep": context.timestep}  # fmt: skip
                stem.with_suffix(".json").write_text(json.dumps(report))
            self.done = True

    def agent_of(*arguments):
        agent = original(*arguments)
        train, notes = agent.train, Notes(agent)
        agent.train = lambda *given, **limits: train(*given, hooks=[notes], **limits)
        return agent

    original, ray_tune.agent_of = ray_tune.agent_of, agent_of
    ray_tune.trial(settings)


def pbt(directory):
    """Of two trials one learns nothing, so it has to take the weights of the other."""
    import ray_tune

    arguments = small(ray_tune, directory, "pbt", "--trials", "1", "--turns", "2",
                      "--timesteps", "1024")  # fmt: skip
    results = ray_tune.study("pbt", arguments, recorded, tune.grid_search([3e-3, 1e-7]))
    begun = []
    for result in results:
        for path in sorted(pathlib.Path(result.path).glob("began*.json")):
            note = json.loads(path.read_text())
            started = np.load(path.with_suffix(".npz"))
            (saved,) = pathlib.Path(note["source"]).glob("*.index")
            stored = pgest_checkpoint(saved)
            note["equal"] = all(np.array_equal(stored[name], started[name]) for name in started)
            note["parent"] = pathlib.Path(note["source"]).parent.name
            begun.append({**note, "child": pathlib.Path(result.path).name})
    return {"begun": begun, "turns": [result.metrics["turn"] for result in results],
            "errors": len(results.errors)}  # fmt: skip


def pgest_checkpoint(index):
    from pgest.variables import checkpoints

    return checkpoints.read(str(index.with_suffix("")))


def killed_once(settings):
    """The example's worker, of which the second is killed in the middle of the second piece."""
    import ray_train

    directory = pathlib.Path(settings["notes"])
    attempt = len(list(directory.glob(f"*.{ray.train.get_context().get_world_rank()}.json")))
    rank = ray.train.get_context().get_world_rank()

    class Kills(pgest.BaseMonitor):
        every_worker = True

        def begin(self, context):
            path = directory / f"{attempt}.{rank}.json"
            if not path.exists():
                path.write_text(json.dumps({"timestep": context.timestep, "pid": os.getpid()}))

        def after_run(self, context):
            if rank == 1 and attempt == 0 and context.timestep >= 3 * 2048:
                # Ray takes a report to its books up to seconds later, as an update takes less.
                books = directory.parent / "ppo" / "checkpoint_manager_snapshot.json"
                for _ in range(600):
                    if books.exists() and "checkpoint_" in books.read_text():
                        break
                    time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGKILL)

    train = pgest.PGAgent.train
    pgest.PGAgent.train = lambda *given, **limits: train(*given, hooks=[Kills()], **limits)
    ray_train.train_worker(settings)


def train(directory):
    """Four pieces of one update of 2,048 timesteps each; the kill comes in the third."""
    import ray_train

    notes = directory / "notes"
    notes.mkdir()
    arguments = small(ray_train, directory, "--workers", "2", "--max-timesteps", "8192",
                      "--report-timesteps", "4096")  # fmt: skip
    result = ray_train.run_of(arguments, killed_once, notes=str(notes))
    names = sorted(path.name for path in pathlib.Path(result.checkpoint.path).iterdir())
    return {"metrics": {name: result.metrics[name] for name in ("timesteps", "episodes")},
            "begun": {p.stem: json.loads(p.read_text()) for p in sorted(notes.iterdir())},
            "checkpoint": names, "error": str(result.error or "")}  # fmt: skip


class Counted(ray_environments.RayVectorEnv):
    """Counts what it gave, and kills the process of an actor in one of its steps."""

    steps, ends, kill_at = 0, 0, None

    def step(self, actions):
        self.steps += 1
        if self.steps == self.kill_at:
            pid = ray.get(self.actors[1].__ray_call__.remote(lambda runner: os.getpid()))
            os.kill(pid, signal.SIGKILL)
        given = super().step(actions)
        self.ends += int(np.sum(given[2] | given[3]))
        return given


def kill(actor):
    """Kills it and waits: `ray.kill` only asks, and calls may be answered until it has died."""
    ray.kill(actor)
    while True:
        try:
            ray.get(actor.__ray_call__.remote(lambda runner: None))
        except ray.exceptions.RayActorError:
            return
        time.sleep(0.01)


def environments(directory):
    """Equal to gymnasium's own vector; and actors that are killed in the middle of episodes."""

    def make():
        return gymnasium.make("CartPole-v1")

    env = Counted(make, actors=2, size=2, num_cpus=0.5)
    wanted = SyncVectorEnv([make] * 4, autoreset_mode=AutoresetMode.SAME_STEP)
    np.testing.assert_array_equal(env.reset(seed=3)[0], wanted.reset(seed=3)[0])
    rng = np.random.default_rng(0)
    for _ in range(200):
        actions = rng.integers(2, size=4)
        found, expected = env.step(actions), wanted.step(actions)
        for one, other in zip(found[:4], expected[:4], strict=True):
            np.testing.assert_array_equal(one, other)
        assert ("final_obs" in found[4]) == ("final_obs" in expected[4])
        if "final_obs" in found[4]:
            np.testing.assert_array_equal(found[4]["_final_obs"], expected[4]["_final_obs"])
            for row in np.flatnonzero(found[4]["_final_obs"]):
                one, other = (infos["final_obs"][row] for infos in (found[4], expected[4]))
                np.testing.assert_array_equal(one, other)
    last = found[0]
    kill(env.actors[0])
    observations, rewards, terminated, truncated, infos = env.step(rng.integers(2, size=4))
    lost = [0, 1]
    for row in lost:
        np.testing.assert_array_equal(infos["final_obs"][row], last[row])
    after_kill = {"rewards": rewards[lost].tolist(), "terminated": terminated[lost].tolist(),
                  "truncated": truncated[lost].tolist(),
                  "moved": bool(np.any(observations[lost] != last[lost]))}  # fmt: skip
    env.close()

    env = Counted(make, actors=2, size=2, num_cpus=0.5)
    env.kill_at = 45
    agent = pgest.PGAgent(
        pgest.models.PPO(hidden_sizes=(8,)),
        memory=pgest.RolloutMemory(horizon=32),
        config=pgest.RunConfig(tf_random_seed=1, jit_compile=False),
    )
    agent.train(env, max_timesteps=1000)
    env.close()
    return {"after_kill": after_kill, "steps": env.steps, "ends": env.ends,
            "timesteps": agent.global_timestep, "episodes": agent.global_episode}  # fmt: skip


def main(what, directory):
    ray.init(num_cpus=2, include_dashboard=False)
    runs = {"asha": asha, "pbt": pbt, "train": train, "environments": environments}
    found = runs[what](pathlib.Path(directory))
    ray.shutdown()
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
