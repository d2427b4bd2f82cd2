"""Disks that are full, directories that are read-only, weights and memories that find no room."""

import contextlib
import os
import resource
import shutil
import tempfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest
from tests import model_fns
from tests.agents.test_tensorboard import read
from tests.agents.training_agents import make_agent


@pytest.fixture
def a_full_disk():
    """Files cannot grow beyond what is set: writing fails in the middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size=before[0]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    limit()


class At(pgest.BaseMonitor):
    """Does something once, before the update that follows a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def before_run(self, context):
        if context.step == self.step:
            self.action()


def event_file(directory):
    return max(directory.glob("events*"), key=os.path.getmtime)


def with_a_summary(features, labels, mode, params):
    spec = model_fns.policy_gradient(features, labels, mode, params)
    if mode == pgest.Modes.TRAIN:
        tf.summary.scalar("mine", labels["advantage"][0])
    return spec


def an_agent(model_dir, **config):
    config = {"save_summary_steps": 1, **config}
    config = pgest.RunConfig(tf_random_seed=0, jit_compile=False, **config)
    memory = pgest.BatchMemory(batch_size=16)
    return pgest.PGAgent(
        with_a_summary, memory, model_dir=model_dir, config=config, params={"learning_rate": 3e-3}
    )


def test_what_is_written_to_tensorboard_once_there_is_room_again_can_be_read(tmp_path, a_full_disk):
    agent = an_agent(tmp_path)
    agent.train("CartPole-v1", max_steps=2)
    before = {tag: len(read(tmp_path)[tag]) for tag in ("loss", "mine")}
    # A record is cut in two.
    a_full_disk(event_file(tmp_path).stat().st_size + 100)
    with pytest.raises(OSError, match=f"could not be written to '{tmp_path}': .*oo large.*new fi"):
        agent.train("CartPole-v1", max_steps=4)
    a_full_disk()
    step = agent.global_step
    agent.train("CartPole-v1", steps=3)
    after = read(tmp_path)
    assert agent.global_step == step + 3
    assert len(after["loss"]) >= before["loss"] + 3 and len(after["mine"]) >= before["mine"] + 2
    assert after["loss"][-1][0] == agent.global_timestep


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_loses_nothing_earlier(
    tmp_path, a_full_disk
):
    agent = an_agent(tmp_path, save_checkpoints_steps=1, save_summary_steps=None)
    full = At(
        3, lambda: (agent.latest_checkpoint(), a_full_disk(512))
    )  # what is written ends first
    match = "checkpoint .*model.ckpt-4' could not be written: .*oo large.*Earlier checkpoints are"
    with pytest.raises(OSError, match=match):
        agent.train("CartPole-v1", max_steps=6, hooks=[full])
    a_full_disk()
    assert agent.stop_reason.startswith("OSError: The checkpoint")
    assert agent.latest_checkpoint() == str(tmp_path / "model.ckpt-3")
    assert not [name for name in os.listdir(tmp_path) if "writing" in name]
    assert an_agent(tmp_path).global_step == 3
    agent.train("CartPole-v1", max_steps=6)  # the same agent has what it learnt since
    assert an_agent(tmp_path).global_step == 6


@pytest.fixture
def read_only():
    """A directory, and what makes it read-only for this process, also where that is the root's."""
    directory = tempfile.mkdtemp()  # pytest's own are closed to other users

    @contextlib.contextmanager
    def protect():
        for folder, _, files in os.walk(directory):
            os.chmod(folder, 0o555)
            for file in files:
                os.chmod(os.path.join(folder, file), 0o444)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)
            for folder, _, _ in os.walk(directory):
                os.chmod(folder, 0o755)

    yield directory, protect
    shutil.rmtree(directory)


def test_an_evaluation_in_a_read_only_model_dir_gives_its_result(read_only):
    directory, protect = read_only
    make_agent(model_dir=directory).train("CartPole-v1", max_steps=1)
    before = sorted(os.listdir(directory))
    expected = make_agent(model_dir=directory).evaluate("CartPole-v1", episodes=2, name="before")
    with protect():
        agent = make_agent(model_dir=directory)
        with pytest.warns(UserWarning, match=f"not be written to '{directory}/eval'.*ermission"):
            results = agent.evaluate("CartPole-v1", episodes=2)
        with pytest.raises(OSError, match="model_dir .* cannot be written to .*another one"):
            agent.train("CartPole-v1", steps=1)
    assert results == expected
    assert sorted(os.listdir(directory)) == sorted([*before, "eval_before"])


def test_a_checkpoint_of_another_model_is_left_as_it_is(tmp_path):
    make_agent(model_dir=tmp_path).train("CartPole-v1", max_steps=2)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    other = make_agent(model_fns.actor_critic, model_dir=tmp_path)
    with pytest.raises(
        ValueError, match="(?s)is not one of this model:.*only in the model: dense_2/bias"
    ):
        other.train("CartPole-v1", max_steps=4)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    agent = make_agent(model_dir=tmp_path)
    agent.train("CartPole-v1", max_steps=3)
    assert agent.global_step == 3


# More than a process can address, so that asking for it fails on any machine.
TOO_MUCH = 2**46


class Hungry:
    """A model_fn whose update fills an array of as many numbers as the test says."""

    def __init__(self):
        self.size = tf.Variable(1, trainable=False, dtype=tf.int64, name="size")

    def __call__(self, features, labels, mode):
        logits = tf_keras.layers.Dense(2)(features["state"])
        distribution = tfp.distributions.Categorical(logits=logits)
        if mode == pgest.Modes.PREDICT:
            return pgest.EstimatorSpec(mode, distribution=distribution)
        noise = tf.random.stateless_uniform([self.size], (1, 2))
        loss = -tf.reduce_mean(distribution.log_prob(labels["action"])) + tf.reduce_mean(noise)
        train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(1e-2))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)


def test_an_update_that_finds_no_room_says_what_it_asked_for_and_the_run_can_go_on(tmp_path):
    model_fn = Hungry()
    agent = make_agent(model_fn, model_dir=tmp_path)
    too_much = At(2, lambda: model_fn.size.assign(TOO_MUCH))
    with pytest.raises(tf.errors.ResourceExhaustedError, match=rf"shape\[{TOO_MUCH}\]"):
        agent.train("CartPole-v1", max_steps=4, hooks=[too_much])
    model_fn.size.assign(1)
    assert f"[{TOO_MUCH}]" in agent.stop_reason
    assert agent.global_step == 2
    assert agent.latest_checkpoint() == str(tmp_path / "model.ckpt-2")
    agent.train("CartPole-v1", max_steps=4)
    assert agent.global_step == 4 and np.isfinite(agent.evaluate("CartPole-v1", 1)["loss"])
