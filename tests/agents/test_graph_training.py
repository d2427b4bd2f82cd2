"""Training in the graph: the same promises as on the host."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import pgest
from pgest import graph_environments
from tests import model_fns

HORIZON, NUM_ENVS = 8, 4


def make_agent(model_dir=None, iterations=2, **arguments):
    config = pgest.RunConfig(
        tf_random_seed=0, log_step_count_steps=None, iterations_per_loop=iterations
    )
    optimizer_params = {"epochs": 2, "minibatch_size": HORIZON * NUM_ENVS // 2}
    return pgest.PGAgent(
        model_fns.actor_critic,
        pgest.RolloutMemory(horizon=HORIZON),
        optimizer_params=optimizer_params,
        model_dir=model_dir,
        config=config,
        **arguments,
    )


@pytest.fixture(scope="module")
def trained():
    agent, env = make_agent(), graph_environments.CartPole(num_envs=NUM_ENVS)
    agent.train(env, max_timesteps=4 * HORIZON * NUM_ENVS)
    return agent, env


def test_counters_move_as_on_the_host(trained):
    agent, env = trained
    before = agent.global_step, agent.global_timestep
    agent.train(env, timesteps=2 * HORIZON * NUM_ENVS)
    assert agent.global_timestep == before[1] + 2 * HORIZON * NUM_ENVS
    assert agent.global_step == before[0] + 2 * 4, "two iterations of two epochs of two minibatches"


@pytest.mark.filterwarnings("ignore:This run ends at timestep")
def test_limits_are_exact_inside_an_iteration(trained):
    agent, env = trained
    step, timestep = agent.global_step, agent.global_timestep
    agent.train(env, steps=3)
    assert agent.global_step == step + 3
    timestep = agent.global_timestep
    agent.train(env, timesteps=3 * NUM_ENVS)
    assert agent.global_timestep == timestep + 3 * NUM_ENVS
    episode = agent.global_episode
    agent.train(env, episodes=1)
    assert episode + 1 <= agent.global_episode <= episode + NUM_ENVS
    with pytest.raises(ValueError, match="positive"):
        agent.train(env, steps=0)


class Recorder(pgest.BaseMonitor):
    def begin(self, context):
        self.returns, self.updates = [], []

    def after_episode(self, context):
        self.returns.append(context.episodes[0].total)

    def after_run(self, context):
        self.updates.append((context.step, context.metrics))


@pytest.mark.slow
def test_a_run_without_an_update_warns():
    agent, env = make_agent(), graph_environments.CartPole(num_envs=NUM_ENVS)
    with pytest.warns(UserWarning, match="Train for 32 timesteps or more at a time") as told:
        agent.train(env, timesteps=HORIZON * (NUM_ENVS - 1))
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.train(env, timesteps=HORIZON * NUM_ENVS + 1)


def test_hooks_see_episodes_and_metrics(trained):
    agent, env = trained
    recorder = Recorder()
    episode = agent.global_episode
    agent.train(env, timesteps=20 * HORIZON * NUM_ENVS, hooks=[recorder])
    assert len(recorder.returns) == agent.global_episode - episode > 0
    assert all(total >= 1 for total in recorder.returns)
    assert recorder.updates[-1][0] == agent.global_step
    assert {"loss", "loss/value", "policy/kl", "policy/entropy"} <= set(recorder.updates[-1][1])


def test_evaluation_and_export_work_as_on_the_host(trained, tmp_path):
    agent, env = trained
    results = agent.evaluate(env, episodes=3)
    assert results["episodes"] == 3
    assert results["return_mean"] == results["length_mean"] >= 1
    assert agent.export_saved_model(tmp_path).startswith(str(tmp_path))


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit_with_its_environments(tmp_path):
    """The state of the environments is in the checkpoint; iterations a call do not matter."""
    timesteps = HORIZON * NUM_ENVS
    make_agent(tmp_path).train(
        graph_environments.CartPole(num_envs=NUM_ENVS), max_timesteps=2 * timesteps
    )
    resumed = make_agent(tmp_path, iterations=3)
    resumed.train(graph_environments.CartPole(num_envs=NUM_ENVS), max_timesteps=6 * timesteps)
    whole = make_agent()
    whole.train(graph_environments.CartPole(num_envs=NUM_ENVS), max_timesteps=6 * timesteps)
    for name, value in model_fns.weights(whole).items():
        np.testing.assert_array_equal(model_fns.weights(resumed)[name], value, err_msg=name)


@pytest.mark.slow
def test_another_number_of_environments_goes_on_with_fresh_ones(tmp_path):
    make_agent(tmp_path).train(
        graph_environments.CartPole(num_envs=NUM_ENVS), max_timesteps=HORIZON * NUM_ENVS
    )
    other = make_agent(tmp_path)
    other.train(graph_environments.CartPole(num_envs=2 * NUM_ENVS), steps=1)
    assert other.global_timestep == 3 * HORIZON * NUM_ENVS


def convolutional(features, labels, mode):
    """As `models.actor_critic`, of images."""
    images = tf.cast(features["state"], tf.float32)
    hidden = tf_keras.layers.Flatten()(tf_keras.layers.Conv2D(2, 3)(images))
    return model_fns.actor_critic({"state": hidden}, labels, mode, {"actions": 3})


@pytest.mark.parametrize(
    ("jit_compile", "epochs", "compiled"), [("auto", 1, True), ("auto", 2, False), (True, 2, True)]
)
def test_convolutions_in_loops_are_left_to_tensorflow(jit_compile, epochs, compiled):
    """XLA's own code for them takes many times as long; outside of loops it has none."""
    config = pgest.RunConfig(jit_compile=jit_compile)
    agent = pgest.PGAgent(convolutional, pgest.RolloutMemory(4), {"epochs": epochs}, config=config)
    images = graph_environments.Breakout(num_envs=2)
    in_graph = "the in-graph iteration " + ("yes" if jit_compile is True else "no")
    assert in_graph in agent.check(images)
    report = agent.check(graph_environments.as_gymnasium(images))
    assert "acting yes" in report
    assert f"update {'yes' if compiled else 'no'}" in report


CACHED = """
import pgest, sys
from pgest import graph_environments, models

config = pgest.RunConfig(tf_random_seed=0, log_step_count_steps=None)
agent = pgest.PGAgent(models.PPO(hidden_sizes=(8,)), pgest.RolloutMemory(8), config=config)
agent.train(graph_environments.CartPole(num_envs=4), steps=3)
for name in agent.get_variable_names():
    print(name, agent.get_variable_value(name).tobytes().hex())
"""


@pytest.mark.slow
def test_a_second_process_takes_compiled_programs_from_the_cache(tmp_path):
    """What the page on performance promises of TensorFlow's persistent cache."""
    flags = f"--tf_xla_persistent_cache_directory={tmp_path}"
    printed, written = [], []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", CACHED],
            env={**os.environ, "TF_XLA_FLAGS": flags},
            capture_output=True,
            text=True,
            check=True,
        )
        printed.append(done.stdout)
        written.append({path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()})
    assert written[0] and written[0] == written[1]
    assert printed[0] and printed[0] == printed[1]


@pytest.mark.slow
@pytest.mark.parametrize("left", [0.5, 0.0, "zeros behind"])
def test_a_cache_that_holds_a_part_of_a_file_is_named(tmp_path, left):
    """As a kill amid writing leaves it, or a power cut; another is written in its place."""
    variables = {**os.environ, "TF_XLA_FLAGS": f"--tf_xla_persistent_cache_directory={tmp_path}"}

    def run():
        command = [sys.executable, "-c", CACHED]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)

    first = run()
    assert first.returncode == 0, first.stderr
    for path in tmp_path.iterdir():
        size = path.stat().st_size
        os.truncate(path, 4096 if left == "zeros behind" else int(left * size))
        os.truncate(path, size if left == "zeros behind" else path.stat().st_size)
    damaged = run()
    assert damaged.returncode != 0
    assert f"RuntimeError: XLA cannot read what '{tmp_path}'" in damaged.stderr
    for path in tmp_path.iterdir():
        path.unlink()
    assert run().stdout == first.stdout


def test_whole_episodes_are_refused():
    agent = pgest.PGAgent(model_fns.actor_critic, pgest.BatchMemory(64))
    with pytest.raises(ValueError, match="RolloutMemory"):
        agent.train(graph_environments.CartPole(num_envs=2), steps=1)
