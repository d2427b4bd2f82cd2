"""The progress of a run, as schedules follow it: across calls, processes and iterations."""

import numpy as np
import pytest
import tensorflow as tf

import pgest
from pgest import graph_environments, schedules

HORIZON, NUM_ENVS = 5, 2
BATCH = HORIZON * NUM_ENVS


class Metrics(pgest.BaseMonitor):
    """Keeps what every update reports."""

    def __init__(self, name):
        self.name = name
        self.values = []

    def after_run(self, context):
        self.values.append(round(context.metrics[self.name], 5))


def make_agent(model_dir=None, iterations=1, jit_compile=False, **hyperparameters):
    return pgest.PGAgent(
        pgest.models.A2C(hidden_sizes=(4,), **hyperparameters),
        pgest.RolloutMemory(horizon=HORIZON),
        model_dir=model_dir,
        config=pgest.RunConfig(
            tf_random_seed=0, jit_compile=jit_compile, iterations_per_loop=iterations
        ),
    )


def follow(agent, env, name="learning_rate", **limits):
    metrics = Metrics(name)
    agent.train(env, hooks=[metrics], **limits)
    return metrics.values


@pytest.mark.parametrize("rates", [(1e-3, None), (None, 1e-3)])
def test_a_constant_may_become_a_schedule_and_back(tmp_path, rates):
    for rate in rates:
        rate = schedules.linear(1e-3, 0.0) if rate is None else rate
        agent = make_agent(tmp_path, learning_rate=rate)
        agent.train("CartPole-v1", timesteps=3 * HORIZON)
        assert not [name for name in agent.get_variable_names() if "progress" in name]
    assert agent.global_timestep == 6 * HORIZON


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [False, True])
def test_acting_sees_how_far_the_run_is_from_its_first_timestep_on(tmp_path, fresh):
    def noting(features, labels, mode):
        spec = pgest.models.A2C(hidden_sizes=(4,))(features, labels, mode)
        if mode == pgest.Modes.PREDICT:
            progress = schedules.value(schedules.linear(0.0, 1.0))
            spec.predictions["seen"] = progress * tf.ones_like(features["state"][:, 0])
        elif mode == pgest.Modes.TRAIN:
            spec.metrics["seen"] = tf.reduce_mean(labels["seen"])
        return spec

    def make():
        config = pgest.RunConfig(tf_random_seed=0, jit_compile=False)
        return pgest.PGAgent(
            noting, pgest.RolloutMemory(horizon=HORIZON), model_dir=tmp_path, config=config
        )

    agent = make()
    agent.train("CartPole-v1", max_timesteps=2 * HORIZON)
    agent = make() if fresh else agent
    assert follow(agent, "CartPole-v1", "seen", max_timesteps=4 * HORIZON) == [0.5, 0.75]


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["progress", "global_timestep"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_schedules_in_the_graph_are_those_of_the_host(clock, jit_compile):
    over = 1.0 if clock == "progress" else 6 * BATCH
    rates = {"learning_rate": schedules.linear(6e-2, 0.0, over=over, clock=clock)}
    env = graph_environments.CartPole(num_envs=NUM_ENVS)
    expected = [0.05, 0.04, 0.03, 0.02, 0.01, 0.0]
    on_host = make_agent(**rates)
    host_env = graph_environments.as_gymnasium(env, jit_compile=False)
    assert follow(on_host, host_env, timesteps=6 * BATCH) == expected
    agents = []
    for iterations, seen in ((1, expected), (3, [0.04, 0.01])):  # means over iterations
        agents.append(make_agent(iterations=iterations, jit_compile=jit_compile, **rates))
        assert follow(agents[-1], env, timesteps=6 * BATCH) == seen
    for name in agents[0].get_variable_names():
        values = [agent.get_variable_value(name) for agent in agents]
        np.testing.assert_array_equal(*values, err_msg=name)


def test_acting_in_the_graph_sees_each_timestep():
    def noting(features, labels, mode):
        spec = pgest.models.A2C(hidden_sizes=(4,))(features, labels, mode)
        if mode == pgest.Modes.PREDICT:
            seen = tf.cast(pgest.get_global_timestep(), tf.float32)
            spec.predictions["seen"] = seen * tf.ones_like(features["state"][:, 0])
        elif mode == pgest.Modes.TRAIN:
            spec.metrics["seen"] = tf.reduce_max(labels["seen"])
        return spec

    config = pgest.RunConfig(tf_random_seed=0, jit_compile=False)
    agent = pgest.PGAgent(noting, pgest.RolloutMemory(horizon=HORIZON), config=config)
    env = graph_environments.CartPole(num_envs=NUM_ENVS)
    agent.train(env, timesteps=BATCH)
    seen = follow(agent, env, "seen", timesteps=2 * BATCH)
    assert seen == [2 * BATCH - NUM_ENVS, 3 * BATCH - NUM_ENVS]
