"""`train_and_evaluate`: training and evaluation by turns, exporters, and how a run goes on."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

import pgest
from pgest.agents import training_and_evaluation
from tests import model_fns
from tests.agents.interrupted_runs import assert_same, copy_as_killed
from tests.hooks.hooks_driver import Clock, PayEnv, Run, Update

AT_ONCE = {"throttle_secs": 0, "start_delay_secs": 0, "episodes": 2}
CARTPOLE = "CartPole-v1"


def new_agent(directory, **settings):
    settings = {"save_checkpoints_steps": 2, "keep_checkpoint_max": None, **settings}
    config = pgest.RunConfig(
        tf_random_seed=3, jit_compile=False, log_step_count_steps=None, **settings
    )
    memory = pgest.BatchMemory(batch_size=32)
    return pgest.PGAgent(model_fns.policy_gradient, memory, model_dir=directory, config=config)


class Notes(pgest.Exporter):
    """Exports nothing, and notes what it was asked; copies the model_dir at a step."""

    def __init__(self, name="notes", copy_at=None, copy=None):
        super().__init__(name)
        self.asked = []
        self._copy_at, self._copy = copy_at, copy

    def export(self, agent, export_path, checkpoint_path, eval_result, is_the_final_export):
        step = int(eval_result["global_step"])
        self.asked.append((step, checkpoint_path.rpartition("-")[2], is_the_final_export))
        if step == self._copy_at:
            copy_as_killed(agent.model_dir, self._copy)
        return f"{self.name} {step}"


class CountsEpisodes(pgest.BaseMonitor):
    def __init__(self):
        self.told = []

    def after_episode(self, context):
        self.told.append(context.episodes[0].total)

    def end(self, context):
        self.told.append(context.metrics["return_mean"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of five steps, killed at the export of step 4 in a copy of its directory."""
    directory = tmp_path_factory.mktemp("runs")
    agent, notes, hook = new_agent(directory / "whole"), Notes("b"), CountsEpisodes()
    killed = Notes("a", copy_at=4, copy=directory / "killed")
    worse = pgest.BestExporter("lowest", lambda best, now: now["return_mean"] < best["return_mean"])
    exporters = [killed, notes, worse, pgest.LatestExporter(exports_to_keep=2)]
    spec = pgest.EvalSpec(CARTPOLE, hooks=[hook], exporters=[*exporters, pgest.FinalExporter()],
                          **AT_ONCE)  # fmt: skip
    history = pgest.HistoryHook()
    results = pgest.train_and_evaluate(
        agent, pgest.TrainSpec(CARTPOLE, max_steps=5, hooks=[history]), spec
    )
    return agent, directory, results, notes, hook, history


def test_it_evaluates_at_each_checkpoint_and_at_the_end(trained):
    agent, directory, (results, _), notes, hook, _ = trained
    assert notes.asked == [(2, "2", False), (4, "4", False), (5, "5", True)]
    assert agent.global_step == 5 and results["global_step"] == 5
    assert results == agent.evaluate(CARTPOLE, episodes=2)
    # Two episodes and their mean, three times
    told = np.reshape(hook.told, [3, 3])
    np.testing.assert_allclose(told[:, :2].mean(1), told[:, 2])
    assert told[-1, 2] == results["return_mean"]
    record = json.loads((directory / "whole/best/best.json").read_text())
    assert record["return"] == told[:, 2].max()


def stamps(directory, name):
    return sorted(path for path in (directory / "whole/export" / name).iterdir() if path.is_dir())


def actions_of(path, observations):
    """What the serving signature of an export gives."""
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    return serve(observation=tf.constant(observations))["action"].numpy()


def actions_at(agent, checkpoint, observations):
    rows = agent.predict(observations, checkpoint_path=f"{agent.model_dir}/model.ckpt-{checkpoint}")
    return np.array([row["action"] for row in rows])


def test_exports_hold_what_was_evaluated(trained):
    agent, directory, (_, exports), _, hook, _ = trained
    (final,), latest, lowest = (stamps(directory, n) for n in ("final", "latest", "lowest"))
    assert exports == ["a 5", "b 5", str(latest[-1]), str(final)]
    # The lowest return so far at each of the three evaluations was exported.
    means = np.reshape(hook.told, [3, 3])[:, 2]
    lower = [now < min(means[:i], default=np.inf) for i, now in enumerate(means)]
    assert len(lowest) == sum(lower) and len(latest) == 2
    record = json.loads((directory / "whole/export/lowest/best_results.json").read_text())
    assert record["return_mean"] == means.min()
    generator = np.random.default_rng(0)
    observations = generator.normal(size=[400, 4]).astype(np.float32) * 0.3
    step = (2, 4, 5)[int(np.flatnonzero(lower)[-1])]
    for path, checkpoint in ((final, 5), (latest[-1], 5), (latest[0], 4), (lowest[-1], step)):
        expected = actions_at(agent, checkpoint, observations)
        np.testing.assert_array_equal(actions_of(path, observations), expected)
    assert (actions_at(agent, 2, observations) != actions_at(agent, 5, observations)).any()


def test_training_is_that_without_evaluations(trained, tmp_path):
    agent, *_ = trained
    assert_same(agent, new_agent(tmp_path).train(CARTPOLE, max_steps=5))


def test_a_run_that_was_killed_at_an_export_goes_on_with_it(trained):
    agent, directory, (results, _), *_ = trained
    again, notes = new_agent(directory / "killed"), Notes("a")
    spec = pgest.EvalSpec(CARTPOLE, exporters=notes, **AT_ONCE)
    found, _ = pgest.train_and_evaluate(again, pgest.TrainSpec(CARTPOLE, max_steps=5), spec)
    assert notes.asked == [(4, "4", False), (5, "5", True)]
    assert found == results
    assert_same(agent, again)


def test_where_nothing_is_left_to_train_it_evaluates_and_exports(trained, tmp_path):
    agent, directory, (results, _), *_ = trained
    shutil.copytree(directory / "whole", tmp_path / "copy")
    again, notes = new_agent(tmp_path / "copy"), Notes()
    spec = pgest.EvalSpec(CARTPOLE, exporters=[notes, pgest.FinalExporter("again")], **AT_ONCE)
    found, exports = pgest.train_and_evaluate(
        again, pgest.TrainSpec(CARTPOLE, max_timesteps=agent.global_timestep), spec
    )
    assert found == results and again.global_step == 5
    assert notes.asked == [(5, "5", True)] and len(exports) == 2
    assert tf.saved_model.contains_saved_model(exports[1])


def test_a_hook_of_the_training_stops_on_an_evaluation(tmp_path):
    agent = new_agent(tmp_path)
    stop = pgest.stop_if_higher_hook(agent, "return_mean", 0.0)
    notes = Notes()
    results, _ = pgest.train_and_evaluate(
        agent,
        pgest.TrainSpec(CARTPOLE, hooks=[stop]),
        pgest.EvalSpec(CARTPOLE, exporters=[notes], **AT_ONCE),
    )
    assert agent.global_step == 2 and "return_mean" in agent.stop_reason
    # The last evaluation turned out to be the last: it was shown again.
    assert notes.asked == [(2, "2", False), (2, "2", True)] and results["global_step"] == 2


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def fail():
    raise OSError("no more power")


@pytest.mark.parametrize(("breaks_off", "error"), [(interrupt, KeyboardInterrupt), (fail, OSError)])
def test_a_run_that_was_broken_off_has_no_final_export(breaks_off, error, tmp_path):
    class BreaksOff(pgest.BaseMonitor):
        def after_run(self, context):
            breaks_off()

    notes = Notes()
    with pytest.raises(error):
        pgest.train_and_evaluate(
            new_agent(tmp_path),
            pgest.TrainSpec(CARTPOLE, max_steps=3, hooks=[BreaksOff()]),
            pgest.EvalSpec(CARTPOLE, exporters=[notes], **AT_ONCE),
        )
    assert notes.asked == []


def evaluated_at(seconds, **spec):
    """The steps at which a run of one update each so many seconds is evaluated; an end follows."""
    hook = training_and_evaluation._EvaluatingHook(
        pgest.EvalSpec(PayEnv(), episodes=1, **spec), pgest.Every(steps=1)
    )
    run = Run(clock=Clock())
    run.drive([hook], [Update(seconds=s) for s in seconds])
    return [made.step for made in run.evaluations]


def test_the_first_evaluation_waits_and_those_that_follow_too():
    assert evaluated_at([60, 60, 60, 60], throttle_secs=0, start_delay_secs=130) == [3, 4]
    assert evaluated_at([60] * 6, throttle_secs=130, start_delay_secs=0) == [1, 4, 6]
    assert evaluated_at([60] * 3, throttle_secs=0, start_delay_secs=0) == [1, 2, 3]
    assert evaluated_at([1, 1, 1]) == [3]  # by default two minutes, and at the end


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: pgest.TrainSpec("x", max_steps=0), ValueError, r"TrainSpec\(max_steps=…\)"),
        (lambda: pgest.TrainSpec("x", hooks=[3]), TypeError, "BaseMonitor"),
        (lambda: pgest.TrainSpec("x", input_fn=print), TypeError, "an environment in its place"),
        (lambda: pgest.EvalSpec("x", episodes=0), ValueError, r"EvalSpec\(episodes=…\)"),
        (lambda: pgest.EvalSpec("x", throttle_secs=-1), ValueError, "seconds, 0 or more"),
        (lambda: pgest.EvalSpec("x", throttle_secs="1"), TypeError, "seconds, 0 or more"),
        (lambda: pgest.EvalSpec("x", exporters=[print]), TypeError, "takes Exporters, such as"),
        (
            lambda: pgest.EvalSpec("x", exporters=[Notes(), Notes()]),
            ValueError,
            "called notes, notes: give each a name",
        ),
        (
            lambda: pgest.train_and_evaluate(new_agent(None), "x", pgest.EvalSpec("x")),
            TypeError,
            "got str for TrainSpec",
        ),
        (
            lambda: pgest.train_and_evaluate(
                new_agent(None), pgest.TrainSpec("x"), pgest.EvalSpec("x", exporters=Notes())
            ),
            ValueError,
            "no model_dir to export to",
        ),
    ],
)
def test_what_does_not_fit_is_told(make, error, match):
    with pytest.raises(error, match=match):
        make()
