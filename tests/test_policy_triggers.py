"""When and what triggers and the training hook save."""

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path

import gymnasium
import hooks_driver
import numpy as np
import pytest
import saved_policy_models as models
import tensorflow as tf
import tf_keras

from pgest import agent, counters, memory, model_fn, optimization, policies, time_steps
from pgest.hooks import monitor
from pgest.saved_policies import (
    directories,
    eager_policy,
    loader,
    policy_saver_hook,
    snapshots,
    triggers,
)


def make_agent(policy=None, **options):
    policy = policy if policy is not None else models.DiscretePolicy(**options)
    return types.SimpleNamespace(
        policy=policies.GreedyPolicy(policy), collect_policy=policy, counters=counters.Counters()
    )


def make_step(value=0):
    return tf.Variable(value, dtype=tf.int64)


def fill(agent, step, value):
    for variable in agent.collect_policy.variables():
        variable.assign(tf.fill(variable.shape, float(value)))
    step.assign(value)


def checkpoint_names(directory):
    return sorted(os.listdir(Path(directory) / "checkpoints"))


# --- IntervalTrigger -----------------------------------------------------------------------


def fired_at(trigger_of, values, **options):
    fired = []
    now = {}
    trigger = trigger_of(lambda: fired.append(now["value"]))
    for value in values:
        now["value"] = value
        trigger(value, **options)
    return fired


def test_interval_fires_when_at_least_the_interval_has_passed():
    def make(fn):
        return triggers.IntervalTrigger(10, fn)

    assert fired_at(make, [10, 15, 20, 33, 42, 43]) == [10, 20, 33, 43]
    assert fired_at(lambda fn: triggers.IntervalTrigger(10, fn, start=5), [10, 14, 15]) == [15]
    assert fired_at(lambda fn: triggers.IntervalTrigger(2.5, fn), [2, 2.5, 4.9, 5]) == [2.5, 5]


def test_forcing_fires_unless_the_value_is_the_last():
    def make(fn):
        return triggers.IntervalTrigger(10, fn)

    assert fired_at(make, [0, 3, 3, 4], force_trigger=True) == [3, 4]


@pytest.mark.parametrize("interval", [0, -1])
def test_no_interval_never_fires(interval):
    def make(fn):
        return triggers.IntervalTrigger(interval, fn)

    assert fired_at(make, [1, 100], force_trigger=True) == []


def test_reset_and_set_start():
    fired = []
    trigger = triggers.IntervalTrigger(10, lambda: fired.append(1), start=100)
    trigger(105)
    trigger.set_start(90)
    trigger(tf.constant(100))
    assert len(fired) == 1
    trigger(105)
    assert len(fired) == 1
    trigger.reset()  # back to 90, not to 100
    trigger(101)
    assert len(fired) == 2


def test_an_interval_is_not_used_up_by_a_failure():
    outcomes = [OSError("disk"), None]

    def save():
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    trigger = triggers.IntervalTrigger(10, save)
    with pytest.raises(OSError, match="disk"):
        trigger(10)
    trigger(11)
    assert outcomes == []


@pytest.mark.parametrize("interval", [None, "10", True])
def test_interval_must_be_a_number(interval):
    with pytest.raises(TypeError, match="interval: got"):
        triggers.IntervalTrigger(interval, lambda: None)


# --- PolicySavedModelTrigger ---------------------------------------------------------------


@pytest.mark.parametrize("async_saving", [False, True])
def test_exports_at_construction_then_checkpoints_that_update_all_three(tmp_path, async_saving):
    agent, step = make_agent(), make_step()
    trigger = triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, interval=10, async_saving=async_saving
    )
    assert sorted(os.listdir(tmp_path)) == ["collect_policy", "greedy_policy", "policy"]
    opened = {
        kind: eager_policy.SavedModelPyTFEagerPolicy(tmp_path / kind, load_specs_from_pbtxt=True)
        for kind in ("greedy_policy", "collect_policy", "policy")
    }
    for value in (5, 10, 15, 21):
        fill(agent, step, value)
        trigger(value)
        trigger.flush()
    trigger.close()
    names = [f"policy_checkpoint_{value:010d}" for value in (10, 21)]
    assert checkpoint_names(tmp_path) == names
    for policy in opened.values():
        for value, name in zip((10, 21), names, strict=True):
            policy.update_from_checkpoint(tmp_path / "checkpoints" / name)
            assert set(policy.variables()[0].ravel()) == {value}
            assert policy.get_train_step() == value
            assert policy.get_train_step_from_last_restored_checkpoint_path() == value


def test_the_name_is_the_train_steps_and_not_the_calls(tmp_path):
    agent, step = make_agent(), make_step(7)
    triggers.PolicySavedModelTrigger(tmp_path, agent, step, interval=10)(5000)
    assert checkpoint_names(tmp_path) == ["policy_checkpoint_0000000007"]


def test_an_asynchronous_name_is_the_step_inside(tmp_path):
    agent, step = make_agent(hidden=256), make_step()
    with triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, interval=1, async_saving=True
    ) as trigger:
        for value in range(1, 40):
            fill(agent, step, value)
            trigger(value)
    names = checkpoint_names(tmp_path)
    assert names[-1] == "policy_checkpoint_0000000039"
    for name in names:
        path = str(tmp_path / "checkpoints" / name / "variables" / "variables")
        reader = tf.train.load_checkpoint(path)
        saved = int(reader.get_tensor("train_step/.ATTRIBUTES/VARIABLE_VALUE"))
        weights = reader.get_tensor("model_variables/0/.ATTRIBUTES/VARIABLE_VALUE")
        assert name == directories.checkpoint_name(saved)
        assert set(weights.ravel()) == {saved}


def test_interval_zero_exports_and_never_checkpoints(tmp_path):
    agent, step = make_agent(), make_step()
    with triggers.PolicySavedModelTrigger(tmp_path, agent, step, interval=0) as trigger:
        step.assign(10)
        trigger(10, force_trigger=True)
    assert sorted(os.listdir(tmp_path)) == ["collect_policy", "greedy_policy", "policy"]


def test_which_policies_are_exported(tmp_path):
    agent, step = make_agent(), make_step()
    triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, 1, save_greedy_policy=False, save_collect_policy=False, portable=True
    )
    assert sorted(os.listdir(tmp_path)) == ["policy", "portable_policy"]


def test_keep_max_and_the_final_save(tmp_path):
    agent, step = make_agent(), make_step()
    with triggers.PolicySavedModelTrigger(tmp_path, agent, step, interval=2, keep_max=3) as trigger:
        for value in range(1, 10):
            fill(agent, step, value)
            trigger(value)
        assert checkpoint_names(tmp_path) == [directories.checkpoint_name(n) for n in (4, 6, 8)]
    assert checkpoint_names(tmp_path) == [directories.checkpoint_name(n) for n in (6, 8, 9)]
    for keep_max in (0, -1, True):
        with pytest.raises(ValueError, match="keep_max: got"):
            triggers.PolicySavedModelTrigger(tmp_path, agent, step, 2, keep_max=keep_max)


class Metric:
    def __init__(self, *results):
        self.results = list(results)

    def result(self):
        return self.results.pop(0) if len(self.results) > 1 else self.results[0]


@pytest.mark.parametrize("async_saving", [False, True])
def test_metadata_metrics(tmp_path, async_saving):
    agent, step = make_agent(), make_step()
    metrics = {
        "python": Metric(1.5),
        "tensor": Metric(tf.constant(2.5)),
        "count": Metric(np.int64(3)),
        "vector": Metric(np.float32([1, 2])),
    }
    with triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, 1, async_saving=async_saving, metadata_metrics=metrics
    ) as trigger:
        metrics["python"].results = [4.5]
        step.assign(1)
        trigger(1)
        trigger.flush()
        metrics["python"].results = [5.5]
    policy = loader.load_policy(tmp_path, step=None)
    assert policy.get_metadata()["python"] == 1.5
    np.testing.assert_array_equal(policy.get_metadata()["vector"], [1, 2])
    assert loader.load_policy(tmp_path).get_metadata()["python"] == 4.5
    assert loader.load_policy(tmp_path).get_metadata()["count"] == 3
    metrics["vector"].results = [np.float32([1, 2, 3])]
    with triggers.PolicySavedModelTrigger(
        tmp_path / "c", agent, step, 1, metadata_metrics=metrics
    ) as trigger:
        metrics["vector"].results = [np.float32([1])]
        step.assign(2)
        with pytest.raises(
            ValueError, match=r"gave float32\[1\], expected float32\[3\] as at first"
        ):
            trigger(2)
        metrics["vector"].results = [np.float64([1, 2, 3])]
    assert loader.load_policy(tmp_path / "c").get_metadata()["vector"].dtype == np.float32
    with pytest.raises(TypeError, match=r"metadata_metrics\['bad'\]: result\(\) gave 'x'"):
        triggers.PolicySavedModelTrigger(
            tmp_path / "b", agent, step, 1, metadata_metrics={"bad": Metric("x")}
        )


def test_a_metric_may_write_to_its_result_while_it_is_saved(tmp_path):
    agent, step = make_agent(), make_step()
    counts = np.zeros([3])
    with triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, 1, async_saving=True, metadata_metrics={"counts": Metric(counts)}
    ) as trigger:
        for value in range(1, 20):
            counts[:] = value
            step.assign(value)
            trigger(value)
            counts[:] = -1
    for name in checkpoint_names(tmp_path):
        value = int(name.rpartition("_")[2])
        metadata = loader.load_policy(tmp_path, step=value).get_metadata()
        assert set(metadata["counts"]) == {value}


def test_extra_functions_are_in_every_export_and_follow_checkpoints(tmp_path):
    agent, step = make_agent(), make_step()
    scale = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def scaled(x):
        return x * scale

    scaled(tf.constant(1.0))
    with triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, 1, extra_concrete_functions=[("scaled", scaled)]
    ):
        scale.assign(3.0)
        step.assign(1)
    for kind in ("policy", "collect_policy", "greedy_policy"):
        exported = loader.load_policy(tmp_path, step=None, kind=kind)
        assert float(exported.scaled(tf.constant(1.0))) == 2.0
        assert float(loader.load_policy(tmp_path, kind=kind).scaled(tf.constant(1.0))) == 3.0


def test_a_collect_policy_with_more_variables_is_updated_too(tmp_path):
    class Exploring(policies.TFPolicy):
        """Has a variable of its own in front of the actor's."""

        def __init__(self, actor):
            super().__init__(actor.time_step_spec, actor.action_spec)
            self._a_temperature = tf.Variable(1.0, name="temperature")
            self._b_actor = actor

        def _distribution(self, time_step, policy_state):
            step = self._b_actor.distribution(time_step)
            logits = step.action.logits / self._a_temperature
            return step._replace(action=models.tfd.Categorical(logits=logits))

    actor = models.DiscretePolicy()
    collect = Exploring(actor)
    agent = types.SimpleNamespace(policy=policies.GreedyPolicy(actor), collect_policy=collect)
    step = make_step()
    with triggers.PolicySavedModelTrigger(tmp_path, agent, step, 1):
        collect._a_temperature.assign(3.0)
        for variable in actor.variables():
            variable.assign(variable * -2.0)
        step.assign(1)
    time_step = models.time_step_of(actor)
    batched = models.time_step_of(actor, 1)
    batched = batched._replace(observation=time_step.observation[None])
    for kind, live in (("collect_policy", collect), ("policy", actor)):
        found = loader.load_policy(tmp_path, kind=kind).distribution(time_step).action
        wanted = live.distribution(batched).action
        np.testing.assert_allclose(found.logits, wanted.logits[0], rtol=1e-5, atol=1e-6)


def test_post_process_policy(tmp_path):
    agent, step = make_agent(), make_step()
    averaged = models.DiscretePolicy(seed=9)
    agent.post_process_policy = lambda: averaged
    before = [variable.numpy() for variable in agent.collect_policy.variables()]
    with triggers.PolicySavedModelTrigger(tmp_path, agent, step, 1):
        step.assign(1)
    saved = loader.load_policy(tmp_path).variables()
    for found, wanted in zip(saved, averaged.variables(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    for now, wanted in zip(agent.collect_policy.variables(), before, strict=True):
        np.testing.assert_array_equal(now, wanted)
    agent.post_process_policy = lambda: models.DiscretePolicy(hidden=3)
    with pytest.raises(ValueError, match="post_process_policy returned"):
        triggers.PolicySavedModelTrigger(tmp_path, agent, step, 1)(10)


def test_train_step_must_be_a_variable(tmp_path):
    with pytest.raises(ValueError, match="train_step must be a TensorFlow variable"):
        triggers.PolicySavedModelTrigger(tmp_path, make_agent(), 3, 1)


# --- going on in a directory ---------------------------------------------------------------


def inode(tmp_path, name="policy"):
    return os.stat(tmp_path / name).st_ino


def test_a_restart_keeps_exports_of_the_same_architecture(tmp_path):
    with triggers.PolicySavedModelTrigger(tmp_path, make_agent(), make_step(), 1) as trigger:
        assert trigger.exported == {"policy", "collect_policy", "greedy_policy"}
        trigger(1)
    before = inode(tmp_path)
    trigger = triggers.PolicySavedModelTrigger(tmp_path, make_agent(seed=3), make_step(), 1)
    assert trigger.exported == frozenset()
    assert inode(tmp_path) == before


def test_a_stale_export_is_written_again(tmp_path, caplog):
    triggers.PolicySavedModelTrigger(tmp_path, make_agent(), make_step(), 1)
    triggers.PolicySavedModelTrigger(tmp_path, make_agent(hidden=9), make_step(), 1)
    assert "held another policy; it is exported anew" in caplog.text
    policy = loader.load_policy(tmp_path)
    assert (4, 9) in [value.shape for value in policy.variables()]


def test_another_architecture_beside_checkpoints_is_refused(tmp_path):
    agent, step = make_agent(), make_step()
    with triggers.PolicySavedModelTrigger(tmp_path, agent, step, 1):
        step.assign(1)
    before = inode(tmp_path)
    with pytest.raises(ValueError, match="holds checkpoints of another architecture"):
        triggers.PolicySavedModelTrigger(tmp_path, make_agent(hidden=9), make_step(), 1)
    assert inode(tmp_path) == before
    loader.load_policy(tmp_path)


@pytest.mark.parametrize("async_saving", [False, True])
def test_what_lies_in_an_old_checkpoint_goes_with_it(tmp_path, async_saving):
    agent, step = make_agent(), make_step()
    with triggers.PolicySavedModelTrigger(
        tmp_path, agent, step, 1, keep_max=1, async_saving=async_saving
    ) as trigger:
        for value in range(1, 8):
            step.assign(value)
            trigger(value)
            trigger.flush()
            (checkpoint,) = (tmp_path / "checkpoints").glob("policy*")
            assert checkpoint.name == directories.checkpoint_name(value)
            assert [path.name for path in checkpoint.iterdir()] == ["variables"]
            if value == 3:
                (checkpoint / "note.txt").write_text("of step 3")
            assert loader.load_policy(tmp_path).get_train_step() == value
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [checkpoint.name]


# --- PolicySaverHook -----------------------------------------------------------------------


class LearningRun(hooks_driver.Run):
    """A run whose updates move the agent's weights to the step."""

    def __init__(self, model_dir=None, agent=None, **arguments):
        agent = agent if agent is not None else make_agent()
        super().__init__(model_dir, agent=agent, **arguments)

    def _update(self, hooks, update):
        for variable in self.agent.collect_policy.variables():
            variable.assign(tf.fill(variable.shape, float(self.step + update.steps)))
        self.agent.counters.variables["global_step"].assign(self.step + update.steps)
        super()._update(hooks, update)


def updates(count, **options):
    return [hooks_driver.Update(**options) for _ in range(count)]


def test_the_hook_exports_and_saves_at_multiples_and_at_the_end(tmp_path):
    # In the background a save that still waits gives way to the next.
    hook = policy_saver_hook.PolicySaverHook(
        monitor.Every(steps=4), keep_max=None, async_saving=False
    )
    LearningRun(tmp_path).drive([hook], updates(10))
    assert checkpoint_names(tmp_path / "policies") == [
        directories.checkpoint_name(step) for step in (4, 8, 10)
    ]
    policy = loader.load_policy(tmp_path)
    assert set(policy.variables()[0].ravel()) == {10.0}
    assert policy.get_metadata() == {"global_step": 10, "global_timestep": 0, "global_episode": 0}
    assert loader.load_policy(tmp_path, step=4).get_train_step() == 4
    assert loader.saved_steps(tmp_path) == [4, 8, 10]


@pytest.mark.parametrize(
    ("every", "update"),
    [
        (monitor.Every(timesteps=1000), {"timesteps": 600}),
        (monitor.Every(episodes=2), {"returns": [1.0]}),
        (monitor.Every(seconds=10), {"seconds": 5.0}),
    ],
    ids=str,
)
def test_the_hook_goes_by_any_clock(tmp_path, every, update):
    hook = policy_saver_hook.PolicySaverHook(every, tmp_path / "here", async_saving=False)
    LearningRun().drive([hook], updates(4, **update))
    assert len(checkpoint_names(tmp_path / "here")) in (2, 3)
    assert loader.load_policy(tmp_path / "here").get_train_step() == 4


def test_the_hook_goes_on_where_a_run_ended(tmp_path):
    agent = make_agent()
    hook = policy_saver_hook.PolicySaverHook(
        monitor.Every(steps=2), portable=True, async_saving=False
    )
    run = LearningRun(tmp_path, agent).drive([hook], updates(4))
    before = inode(tmp_path / "policies")
    again = LearningRun(tmp_path, agent)
    again.step = run.step
    again.drive([hook], [])
    assert checkpoint_names(tmp_path / "policies")[-1] == directories.checkpoint_name(4)
    again = LearningRun(tmp_path, agent)
    again.step = run.step
    again.drive([hook], updates(3))
    assert inode(tmp_path / "policies") == before
    assert checkpoint_names(tmp_path / "policies") == [
        directories.checkpoint_name(step) for step in (2, 4, 6, 7)
    ]
    portable = loader.load_policy(tmp_path, step=None, kind="portable_policy")
    assert portable.get_train_step() == 7 and set(portable.variables()[0].ravel()) == {7.0}


class Fails(monitor.BaseMonitor):
    def __init__(self, error):
        self.error = error

    def after_run(self, context):
        if context.step == 3:
            raise self.error


@pytest.mark.parametrize("error", [RuntimeError("broken"), MemoryError("none left")])
def test_the_hook_closes_when_the_run_fails(tmp_path, error):
    hook = policy_saver_hook.PolicySaverHook(monitor.Every(steps=100))
    with pytest.raises(type(error), match=str(error)):
        LearningRun(tmp_path).drive([hook, Fails(error)], updates(5))
    assert loader.load_policy(tmp_path).get_train_step() == 3


def test_an_unhealthy_run_saves_no_more(tmp_path):
    hook = policy_saver_hook.PolicySaverHook(monitor.Every(steps=2))

    class Sick(monitor.BaseMonitor):
        def before_run(self, context):
            if context.step == 3:
                context.mark_unhealthy("loss is nan")

    LearningRun(tmp_path).drive([Sick(), hook], updates(6))
    assert checkpoint_names(tmp_path / "policies") == [directories.checkpoint_name(2)]


def test_a_failing_save_does_not_end_the_run(tmp_path, caplog, monkeypatch):
    write = snapshots.CheckpointWriter.write

    def fail_at_two(self, snapshot, *arguments):
        if snapshot.step == 2:
            raise OSError(28, "No space left on device")
        write(self, snapshot, *arguments)

    monkeypatch.setattr(snapshots.CheckpointWriter, "write", fail_at_two)
    for async_saving in (True, False):
        directory = tmp_path / str(async_saving)
        hook = policy_saver_hook.PolicySaverHook(
            monitor.Every(steps=2), directory, async_saving=async_saving
        )
        run = LearningRun().drive([hook], updates(5))
        assert run.step == 5 and "No space left" in caplog.text
        assert loader.load_policy(directory).get_train_step() == 5
        assert directories.checkpoint_name(2) not in checkpoint_names(directory)
        caplog.clear()

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots.CheckpointWriter, "write", fail)
    hook = policy_saver_hook.PolicySaverHook(monitor.Every(steps=2), tmp_path / "never")
    with pytest.raises(OSError, match="No space left"):
        LearningRun().drive([hook], updates(3))
    loader.load_policy(tmp_path / "never")


@pytest.mark.parametrize("async_saving", [False, True])
def test_a_full_disk_costs_the_run_nothing_but_the_save(tmp_path, caplog, async_saving):
    class Fills(monitor.BaseMonitor):
        def after_run(self, context):
            ballast = place / "ballast"
            if context.step == 1:
                ballast.write_bytes(b"")
                with pytest.raises(OSError, match="No space left"), ballast.open("wb", 0) as file:
                    while True:
                        file.write(bytes(4096))
            elif context.step == 3:
                deadline = time.monotonic() + 60
                while not re.search("failed|No policy was saved", caplog.text):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                ballast.unlink()

    with models.tiny_disk(tmp_path / "disk") as place:
        hook = policy_saver_hook.PolicySaverHook(
            monitor.Every(steps=2),
            place,
            async_saving=async_saving,
            save_greedy_policy=False,
            save_collect_policy=False,
        )
        run = LearningRun().drive([Fills(), hook], updates(6))
        assert run.step == 6
        names = checkpoint_names(place)
        assert directories.checkpoint_name(2) not in names
        assert names[-1] == directories.checkpoint_name(6)
        assert loader.load_policy(place).get_train_step() == 6


def test_arguments_of_the_hook(tmp_path):
    with pytest.raises(TypeError, match="every: got 100 of type int, expected an Every"):
        policy_saver_hook.PolicySaverHook(100)
    hook = policy_saver_hook.PolicySaverHook(monitor.Every(steps=1))
    with pytest.raises(ValueError, match="no directory and the run has no model_dir"):
        LearningRun().drive([hook], updates(1))
    hook = policy_saver_hook.PolicySaverHook(
        monitor.Every(steps=1), tmp_path, save_greedy_policy=False, batch_size=1
    )
    LearningRun().drive([hook], updates(1))
    assert "greedy_policy" not in os.listdir(tmp_path)


def cart_pole_model(features, labels, mode, params):
    hidden = tf_keras.layers.Dense(8, "tanh")(features["state"])
    distribution = models.tfd.Categorical(logits=tf_keras.layers.Dense(2)(hidden))
    if mode == model_fn.Modes.PREDICT:
        return model_fn.EstimatorSpec(mode, distribution=distribution)
    loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    train_op = optimization.minimize(loss, tf_keras.optimizers.Adam(params["learning_rate"]))
    return model_fn.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)


def test_the_hook_in_a_real_run(tmp_path):
    for max_steps in (3, 5):
        trained = agent.PGAgent(
            cart_pole_model,
            memory=memory.BatchMemory(batch_size=50),
            model_dir=str(tmp_path),
            params={"learning_rate": 1e-2},
        )
        hook = policy_saver_hook.PolicySaverHook(monitor.Every(steps=2), portable=True)
        trained.train(gymnasium.make("CartPole-v1"), max_steps=max_steps, hooks=[hook])
    assert loader.saved_steps(tmp_path) == [2, 3, 4, 5]
    opened = loader.load_policy(tmp_path)
    assert opened.get_train_step() == 5 == opened.get_metadata()["global_step"]
    assert opened.get_metadata()["global_timestep"] == trained.global_timestep
    act = tf.function(trained.policy.action, autograph=False)
    play, env = opened.player(), gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=1)
    for _ in range(5):
        action = play(observation)
        time_step = time_steps.restart(tf.constant(observation[None]), batch_size=1)
        assert action == act(time_step).action.numpy()[0]
        observation, _, _, _, _ = env.step(action)
    portable = tf.saved_model.load(str(tmp_path / "policies/portable_policy"))
    served = portable.signatures["serving_default"](observation=tf.constant(observation[None]))
    assert served["action"].numpy()[0] == play(observation)


# --- a writer that is killed ---------------------------------------------------------------

WRITER = """
import sys, time, types
import saved_policy_models as models
import tensorflow as tf
from pgest import policies
from pgest.saved_policies import directories, triggers

directory, delay = sys.argv[1], float(sys.argv[2])
policy = models.DiscretePolicy()
agent = types.SimpleNamespace(policy=policies.GreedyPolicy(policy), collect_policy=policy)
step = tf.Variable(0, dtype=tf.int64)
if delay:
    sync = directories._sync
    def slow_sync(path):
        time.sleep(delay)
        sync(path)
    directories._sync = slow_sync
    rename = directories.os.rename
    def slow_rename(*paths):
        time.sleep(delay)
        rename(*paths)
        time.sleep(delay)
    directories.os.rename = slow_rename
trigger = triggers.PolicySavedModelTrigger(
    directory, agent, step, 1, keep_max=2, portable=True, async_saving=True
)
print("ready", flush=True)
for value in range(int(sys.argv[3]), 10**6):
    for variable in policy.variables():
        variable.assign(tf.fill(variable.shape, float(value)))
    step.assign(value)
    started = time.perf_counter()
    trigger(value, force_trigger=True)
    trigger.flush()
    print(value, time.perf_counter() - started, flush=True)
"""


def start_writer(directory, delay, first):
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(directory), str(delay), str(first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def read_once(directory):
    """Opens what is there; every value in it belongs to one step."""
    policy = loader.load_policy(directory)
    values = {value for array in policy.variables() for value in array.ravel()}
    step = int(policy.get_train_step())
    assert step <= 0 or values == {float(step)}
    portable = loader.load_policy(directory, step=None, kind="portable_policy")
    values = {value for array in portable.variables() for value in array.ravel()}
    step = int(portable.get_train_step())
    assert step <= 0 or values == {float(step)}
    return step


@pytest.mark.slow
def test_a_killed_writer_never_leaves_a_broken_policy(tmp_path):
    """Kills at points spread evenly over a slowed save, while a reader polls."""
    directory = tmp_path / "policies"
    points, first, delay = 8, 1, 0.05
    duration = None
    reads = 0
    for point in range(points):
        writer = start_writer(directory, delay, first)
        assert writer.stdout.readline().strip() == "ready"
        value, seconds = writer.stdout.readline().split()
        duration = float(seconds) if duration is None else duration
        deadline = time.perf_counter() + duration * (point + 0.5) / points
        while time.perf_counter() < deadline:
            read_once(directory)
            reads += 1
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        last = read_once(directory)
        assert last >= int(value)
        first = last + 2
    assert reads >= points / 2
    # The next writer removes what the killed ones left.
    trigger = triggers.PolicySavedModelTrigger(
        directory, make_agent(), make_step(), 1, portable=True
    )
    hidden = [name for _, names, _ in os.walk(directory) for name in names if name.startswith(".")]
    assert hidden == []
    trigger.close()
    shutil.rmtree(directory)
