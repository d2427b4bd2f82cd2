"""Hooks and TensorBoard of a run that is killed and goes on are those of one never stopped."""

import collections
import glob
import json
import shutil

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

import pgest
from tests import model_fns
from tests.agents.interrupted_runs import assert_same, copy_as_killed

LIMITS = {"max_timesteps": 192}


def new_agent(directory, x_axis_steps=2):
    config = pgest.RunConfig(
        tf_random_seed=5,
        log_step_count_steps=3,
        save_summary_steps=x_axis_steps,
        jit_compile=False,
        keep_checkpoint_max=None,
    )
    memory = pgest.RolloutMemory(8)
    return pgest.PGAgent(model_fns.actor_critic, memory, model_dir=directory, config=config)


def several():
    return pgest.make("CartPole-v1", num_envs=4)


class Told(pgest.BaseMonitor):
    """Notes all that it is told, and keeps it, as a user's hook may."""

    def begin(self, context):
        self.told = []

    def after_run(self, context):
        lengths = [episode.length for episode in context.episodes]
        self.told.append(["update", context.step, lengths, context.metrics["loss"]])

    def after_episode(self, context):
        (episode,) = context.episodes
        self.told.append(["episode", context.timestep, episode.env_index, episode.length])

    def state(self):
        return {"told": self.told}

    def restore(self, state):
        self.told = state["told"]


class CopiesLater(pgest.BaseMonitor):
    """Copies the model_dir at every update, as a kill at that moment would leave it."""

    def __init__(self, directory):
        self.directory, self.paths = directory, []

    def after_run(self, context):
        context.flush_summaries()  # the more there is after the checkpoint
        context.finish_checkpoint()  # which is complete, whatever the speed of the disk
        self.paths.append(self.directory / f"killed-{context.step}")
        copy_as_killed(context.model_dir, self.paths[-1])


def hooks_of(every, *more):
    """Some before and some after the checkpoint's; `Told` last."""
    patience = pgest.StopOnNoImprovementHook(1000, on="training", window=3)
    saver, history = pgest.CheckpointSaverHook(every), pgest.HistoryHook(pgest.Every(steps=2))
    evaluation = pgest.EvaluationHook("CartPole-v1", pgest.Every(steps=2), episodes=1)
    before = [pgest.CSVLoggerHook(), pgest.JSONLinesHook(rows="episodes")]
    after = [pgest.CSVLoggerHook(rows="episodes"), pgest.JSONLinesHook()]
    return [evaluation, patience, *before, saver, history, *after, *more, Told()]


def points(directory):
    """(x, value) by tag of a directory's event files, each x once; without speeds."""
    found = collections.defaultdict(list)
    for file in sorted(glob.glob(f"{glob.escape(str(directory))}/*tfevents*")):
        events = event_accumulator.EventAccumulator(file, size_guidance={"tensors": 0}).Reload()
        for tag in events.Tags()["tensors"]:
            if tag == "run":  # each process says what it is
                continue
            for event in events.Tensors(tag):
                values = event.tensor_proto.float_val or event.tensor_proto.tensor_content
                found[tag].append((event.step, values if isinstance(values, bytes) else values[0]))
    for tag, curve in found.items():
        steps = [step for step, _ in curve]
        assert tag.startswith("_hparams_") or len(set(steps)) == len(steps), f"{tag}: {steps}"
    return {tag: curve for tag, curve in found.items() if tag[:5] not in ("speed", "_hpar")}


def records(hooks):
    (history,) = (hook for hook in hooks if isinstance(hook, pgest.HistoryHook))
    return [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in history.records
    ]


def rows(directory):
    """The files that hooks have written, without the seconds."""
    found = {}
    for path in directory.glob("*.csv"):
        (names, *lines) = (line.split(",") for line in path.read_text().splitlines())
        found[path.name] = [[v for n, v in zip(names, line, strict=True) if n != "seconds"]
                            for line in [names, *lines]]  # fmt: skip
    for path in directory.glob("*.jsonl"):
        found[path.name] = [json.loads(line) for line in path.read_text().splitlines()]
        for row in found[path.name]:
            del row["seconds"]
    return found


def best(directory):
    return json.loads((directory / "best" / "best.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("every", [pgest.Every(episodes=2), pgest.Every(steps=3)], ids=str)
def test_hooks_and_curves_go_on_as_if_nothing_had_been(every, tmp_path):
    copies = CopiesLater(tmp_path)
    hooks = hooks_of(every, copies)
    whole = new_agent(tmp_path / "whole")
    whole.train(several(), hooks=hooks, **LIMITS)
    assert len(points(tmp_path / "whole" / "eval")["episode/return"]) == 3
    for path in copies.paths[3:5]:
        resumed, again = new_agent(path), hooks_of(every)
        assert 0 < resumed.global_timestep < LIMITS["max_timesteps"]
        resumed.train(several(), hooks=again, **LIMITS)
        assert_same(whole, resumed)
        assert again[-1].told == hooks[-1].told
        assert records(again) == records(hooks)
        assert again[1].state() == hooks[1].state()
        assert len(rows(path)) == 4
        assert rows(path) == rows(tmp_path / "whole")
        assert best(path) == best(tmp_path / "whole")
        for folder in (".", "eval"):
            assert points(path / folder) == points(tmp_path / "whole" / folder)


def test_after_a_damaged_checkpoint_the_curve_is_one(tmp_path):
    copies = CopiesLater(tmp_path)
    whole = new_agent(tmp_path / "whole")
    whole.train(several(), hooks=hooks_of(pgest.Every(steps=1), copies), **LIMITS)
    path = copies.paths[4]
    newest = new_agent(path).latest_checkpoint()
    with open(f"{newest}.index", "r+b") as file:
        file.truncate(10)
    with pytest.warns(UserWarning, match="is damaged"):
        resumed = new_agent(path)
        resumed.train(several(), hooks=hooks_of(pgest.Every(steps=1)), **LIMITS)
    assert points(path) == points(tmp_path / "whole")


def test_a_best_checkpoint_is_kept_where_the_run_died_before_it_was(tmp_path):
    """The checkpoint is there, its copy in `best` not yet."""

    copy = tmp_path / "copy"

    class Copies(pgest.BaseMonitor):
        def after_run(self, context):
            if context.step == 2:
                copy_as_killed(context.model_dir, copy)

    evaluation = pgest.EvaluationHook("CartPole-v1", pgest.Every(steps=2), episodes=1)
    agent = new_agent(tmp_path / "whole")
    agent.train(several(), hooks=[evaluation, Copies()], max_steps=2)
    shutil.rmtree(copy / "best")
    evaluation = pgest.EvaluationHook("CartPole-v1", pgest.Every(steps=100), episodes=1)
    new_agent(copy).train(several(), hooks=[evaluation], max_steps=3)
    assert best(copy)["step"] == 2
    np.testing.assert_equal(best(copy), best(tmp_path / "whole"))


def test_after_a_regular_end_hooks_begin_afresh(tmp_path):
    for steps in (2, 4):
        told = Told()
        new_agent(tmp_path).train(several(), hooks=[told], max_steps=steps)
        assert [event[1] for event in told.told if event[0] == "update"] == [steps - 1, steps]
    assert [step for step, _ in points(tmp_path)["loss"]] == [32, 64, 96, 128]


@pytest.mark.parametrize("before", [0, 2])
def test_a_run_that_died_before_its_first_checkpoint_leaves_no_points(before, tmp_path):
    """From nothing, and from the end of a run that hooks wrote points after."""

    class Copies(pgest.BaseMonitor):
        def after_run(self, context):
            context.flush_summaries()
            if context.step == before + 2:
                copy_as_killed(context.model_dir, tmp_path / "copy")

    if before:
        new_agent(tmp_path / "whole").train(several(), max_steps=before)
    ended = points(tmp_path / "whole")
    new_agent(tmp_path / "whole").train(several(), hooks=[Copies()], max_steps=before + 4)
    # That of its first update; the one of the second comes after this hook.
    assert len(points(tmp_path / "copy")["loss"]) == len(ended.get("loss", [])) + 1
    new_agent(tmp_path / "copy").train(several(), max_steps=before + 4)
    assert points(tmp_path / "copy") == points(tmp_path / "whole")


def test_what_json_cannot_hold_is_told(tmp_path):
    class Keeps(pgest.BaseMonitor):
        def state(self):
            return {"array": np.zeros(2)}

    with pytest.raises(TypeError, match=r"Keeps.state\(\) gave what JSON cannot hold"):
        hooks = [Keeps(), pgest.CheckpointSaverHook(pgest.Every(steps=1))]
        new_agent(tmp_path).train(several(), hooks=hooks, max_steps=3)
