"""The training hook that exports policies and saves their checkpoints."""

import os
import re
import time

import gymnasium
import pytest
import tensorflow as tf
import tf_keras

from pgest.agents import agent
from pgest.contract import model_fn
from pgest.hooks import monitor
from pgest.memory import memory
from pgest.policies import time_steps
from pgest.saved_policies import directories, loader, policy_saver_hook, snapshots
from pgest.variables import optimization
from tests.hooks import hooks_driver
from tests.saved_policies import saved_policy_models as models
from tests.saved_policies.trigger_fakes import checkpoint_names, inode, make_agent


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


@pytest.mark.slow
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


class WaitsForAFailure(monitor.BaseMonitor):
    """Holds the run after step 3 until a save has failed: in the background it may take a while."""

    def __init__(self, caplog):
        self.caplog = caplog

    def after_run(self, context):
        if context.step == 3:
            deadline = time.monotonic() + 60
            while not re.search("failed|No policy was saved", self.caplog.text):
                assert time.monotonic() < deadline
                time.sleep(0.01)


@pytest.mark.slow
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
        run = LearningRun().drive([hook, WaitsForAFailure(caplog)], updates(5))
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
def test_the_last_save_is_tried_again_at_the_end(tmp_path, caplog, monkeypatch, async_saving):
    write, failed = snapshots.CheckpointWriter.write, []

    def fail_once_at_four(self, snapshot, *arguments):
        if snapshot.step == 4 and not failed:
            failed.append(snapshot.step)
            raise OSError(28, "No space left on device")
        write(self, snapshot, *arguments)

    monkeypatch.setattr(snapshots.CheckpointWriter, "write", fail_once_at_four)
    hook = policy_saver_hook.PolicySaverHook(
        monitor.Every(steps=2), tmp_path, async_saving=async_saving
    )
    LearningRun().drive([hook], updates(4))
    assert failed and "No space left" in caplog.text
    assert loader.load_policy(tmp_path).get_train_step() == 4


@pytest.mark.parametrize("async_saving", [False, True])
def test_a_full_disk_costs_the_run_nothing_but_the_save(tmp_path, caplog, async_saving):
    class Fills(WaitsForAFailure):
        def after_run(self, context):
            super().after_run(context)
            ballast = place / "ballast"
            if context.step == 1:
                ballast.write_bytes(b"")
                with pytest.raises(OSError, match="No space left"), ballast.open("wb", 0) as file:
                    while True:
                        file.write(bytes(4096))
            elif context.step == 3:
                ballast.unlink()

    with models.tiny_disk(tmp_path / "disk") as place:
        hook = policy_saver_hook.PolicySaverHook(
            monitor.Every(steps=2),
            place,
            async_saving=async_saving,
            save_greedy_policy=False,
            save_collect_policy=False,
        )
        run = LearningRun().drive([Fills(caplog), hook], updates(6))
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


@pytest.mark.slow
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
    # In the background a save that still waits gives way to the next; the last of a run does not.
    assert {3, 5} <= set(loader.saved_steps(tmp_path)) <= {2, 3, 4, 5}
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
