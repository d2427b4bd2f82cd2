"""One curve in TensorBoard, whichever of its readers draws it, of a run that was killed."""

import glob
import json
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest
from tensorboard.backend.event_processing import event_accumulator

import pgest
from pgest.agents import event_files
from tests import model_fns
from tests.agents import interrupted_runs
from tests.agents.test_hooks_going_on import CopiesLater, points

LIMITS = {"max_timesteps": 192}
FOLDERS = (".", "eval")


def train(directory, *hooks, x_axis="global_step"):
    config = pgest.RunConfig(
        tf_random_seed=5, log_step_count_steps=None, save_summary_steps=None, jit_compile=False,
        keep_checkpoint_max=None,
    )  # fmt: skip
    agent = pgest.PGAgent(model_fns.actor_critic, pgest.RolloutMemory(8), None, directory, config)
    summaries = pgest.SummarySaverHook(pgest.Every(steps=1), x_axis=x_axis)
    evaluation = pgest.EvaluationHook("CartPole-v1", pgest.Every(steps=2), episodes=1)
    saver = pgest.CheckpointSaverHook(pgest.Every(steps=3))
    env = pgest.make("CartPole-v1", num_envs=4)
    agent.train(env, hooks=[summaries, evaluation, saver, *hooks], **LIMITS)
    return agent


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was left alone, and what a kill after its fifth update would leave of it."""
    folder = tmp_path_factory.mktemp("runs")
    copies = CopiesLater(folder)
    train(folder / "whole", copies)
    return folder / "whole", copies.paths[4]


def files(directory):
    return glob.glob(f"{directory}/*tfevents*")


@pytest.mark.parametrize("damaged", [False, True], ids=["", "after a damaged checkpoint"])
def test_no_step_is_drawn_twice(damaged, killed, tmp_path):
    whole, copy = killed[0], shutil.copytree(killed[1], tmp_path / "copy")
    if damaged:
        newest = pgest.PGAgent(model_fns.actor_critic, model_dir=copy, memory=pgest.BatchMemory(9))
        with open(f"{newest.latest_checkpoint()}.index", "r+b") as file:
            file.truncate(10)
        with pytest.warns(UserWarning, match="is damaged"):
            train(copy)
    else:
        train(copy)
    for folder in FOLDERS:
        assert points(copy / folder) == points(whole / folder)
    assert [step for step, _ in points(copy)["loss"]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("sizes", [[], "no", {"events": "many"}, None], ids=str)
def test_a_damaged_note_of_sizes_takes_no_points(sizes, tmp_path):
    note = {"checkpoint": "model.ckpt-3", "sizes": {"events.out.tfevents.1.training.v2": 9}}
    for content in (note, {**note, "sizes": sizes}):
        (tmp_path / ".event_files").write_text(json.dumps(content))
        found = event_files.noted(str(tmp_path), str(tmp_path / "model.ckpt-3"))
        assert found == (note["sizes"] if content is note else None)


def test_each_process_writes_one_file_a_directory(killed, tmp_path):
    copy = shutil.copytree(killed[1], tmp_path / "copy")
    assert [len(files(killed[0] / folder)) for folder in FOLDERS] == [1, 1]
    agent = train(copy)
    assert [len(files(copy / folder)) for folder in FOLDERS] == [2, 2]
    for name in ("test", None, "test", None):
        agent.evaluate("CartPole-v1", episodes=1, name=name)
    assert [len(files(copy / folder)) for folder in ("eval_test", "eval")] == [1, 2]


def test_what_is_evaluated_after_a_run_stays_where_other_processes_go_on(tmp_path):
    """It stands in the run's own file, which the next process cuts back to where the run ended."""
    agent = train(tmp_path)
    (steps,) = (len(points(tmp_path / "eval")[tag]) for tag in ["episode/return"])
    agent.evaluate("CartPole-v1", episodes=2)
    train_on = {"max_timesteps": 256}
    new = pgest.PGAgent(model_fns.actor_critic, pgest.RolloutMemory(8), None, tmp_path)
    new.train(pgest.make("CartPole-v1", num_envs=4), **train_on)
    found = accumulated(tmp_path / "eval", "episode/return")
    assert len(found) == steps + 1 and len(files(tmp_path / "eval")) == 1
    # Another process has trained meanwhile: the first one's file is not its own any more.
    agent.evaluate("CartPole-v1", episodes=3)
    last = pgest.PGAgent(model_fns.actor_critic, pgest.RolloutMemory(8), None, tmp_path)
    last.train(pgest.make("CartPole-v1", num_envs=4), max_timesteps=320)
    assert len(accumulated(tmp_path / "eval", "episode/return")) == steps + 2


def accumulated(directory, tag):
    """The points of all files of a directory."""
    return [
        event
        for file in files(directory)
        for event in event_accumulator.EventAccumulator(file).Reload().Tensors(tag)
    ]


@pytest.mark.parametrize("x_axis", ["global_timestep", "global_step"])
def test_overlapped_updates_are_drawn_at_their_own_timesteps(x_axis, tmp_path):
    config = pgest.RunConfig(
        tf_random_seed=5, log_step_count_steps=None, save_summary_steps=None, jit_compile=False,
        overlap_updates=True,
    )  # fmt: skip
    agent = pgest.PGAgent(model_fns.actor_critic, pgest.RolloutMemory(8), None, tmp_path, config)
    every = pgest.Every(steps=1)
    hooks = [
        pgest.SummarySaverHook(every, x_axis=x_axis),
        pgest.StepCounterHook(every, x_axis=x_axis),
    ]
    hooks.append(pgest.EvaluationHook("CartPole-v1", every, episodes=1))
    agent.train(pgest.make("CartPole-v1", num_envs=4), hooks=hooks, max_steps=6)
    curves = points(tmp_path)
    assert [x for x, _ in points(tmp_path / "eval")["episode/return"]] == list(range(32, 193, 32))
    wanted = range(1, 7) if x_axis == "global_step" else range(32, 193, 32)
    assert [x for x, _ in curves["loss"]] == list(wanted)
    speeds = [event.step for event in accumulated(tmp_path, "speed/steps_per_second")]
    assert len(set(speeds)) == len(speeds) >= 4


def served(logdir, tags, *arguments):
    """What a TensorBoard shows: (x, value) by run and tag."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--reload_interval", "1", *arguments], stderr=subprocess.PIPE, text=True
    )
    try:
        address = next(
            word for line in process.stderr for word in line.split() if word.startswith("http")
        )
        scalars = f"{address.rstrip('/')}/data/plugin/scalars"
        for _ in range(120):
            runs = json.load(urllib.request.urlopen(f"{scalars}/tags"))
            if set(FOLDERS) <= runs.keys() and tags <= runs["."].keys():
                break
            time.sleep(0.5)
        found = {}
        for run, tag in [(folder, tag) for folder in FOLDERS for tag in runs[folder]]:
            query = urllib.parse.urlencode({"run": run, "tag": tag})
            curve = json.load(urllib.request.urlopen(f"{scalars}/scalars?{query}"))
            found[run, tag] = [(step, value) for _, step, value in curve]
        return found
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("fast", ["false", "true"])
def test_what_tensorboard_serves_is_one_curve(fast, killed, tmp_path):
    """ "true" is the loader in Rust, the default where there is one; it says so if it fails."""
    whole, copy = killed[0], shutil.copytree(killed[1], tmp_path / "copy")
    train(copy)
    tags = {"loss", "episode/return"}
    shown = served(copy, tags, "--load_fast", fast)
    assert shown == served(whole, tags, "--load_fast", fast)
    for key, curve in shown.items():
        steps = [step for step, _ in curve]
        assert len(steps) == len(set(steps)), key
    accumulator = event_accumulator.EventAccumulator(str(whole)).Reload()
    assert [step for step, _ in shown[".", "loss"]] == [
        event.step for event in accumulator.Tensors("loss")
    ]


@pytest.mark.slow
def test_a_run_that_was_killed_between_its_last_checkpoint_and_its_end_ends(tmp_path):
    """Hooks after the one that saves are told of the last update, and all that the run ends."""

    class Ends(pgest.BaseMonitor):
        def begin(self, context):
            self.told = []

        def after_run(self, context):
            self.told.append(context.step)

        def end(self, context):
            self.told.append("end")

        def state(self):
            return {"told": self.told}

        def restore(self, state):
            self.told = state["told"]

    snapshots = interrupted_runs.Snapshots(tmp_path)
    saver = pgest.CheckpointSaverHook(pgest.Every(steps=3), listeners=[snapshots])
    ends = [Ends(), Ends()]
    train(tmp_path / "whole", saver, ends[0])
    copy = snapshots.paths[1]  # of the last update; the end wrote no other
    assert len(snapshots.paths) == 2
    train(copy, ends[1])
    assert ends[1].told == ends[0].told == [1, 2, 3, 4, 5, 6, "end"]
    assert points(copy) == points(tmp_path / "whole")
    again = Ends()
    train(copy, again)
    assert not hasattr(again, "told"), "a run that has ended does not end again"
