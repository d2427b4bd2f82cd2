"""RunConfig(overlap_updates=True): updates in a thread while the next batch is collected."""

import os
import signal
import threading

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import pgest
from pgest import graph_environments
from tests import model_fns
from tests.agents.training_agents import counters
from tests.environments.environment_fakes import FailingEnv

EPOCHS = {"epochs": 2, "minibatch_size": 16}  # four steps of each batch of 32 timesteps


def make_agent(
    model_fn=model_fns.actor_critic, memory=None, *, overlap=True, jit=False, **arguments
):
    config = pgest.RunConfig(
        tf_random_seed=3, log_step_count_steps=None, jit_compile=jit, overlap_updates=overlap
    )
    memory = pgest.RolloutMemory(horizon=8) if memory is None else memory
    return pgest.PGAgent(model_fn, memory, config=config, **arguments)


def cartpoles(num_envs=4):
    return pgest.make("CartPole-v1", num_envs=num_envs)


def expect_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


class Metrics(pgest.BaseMonitor):
    """Keeps what each update gave, and the step and weights after it."""

    def __init__(self):
        self.steps, self.metrics, self.weights = [], [], []

    def after_run(self, context):
        self.steps.append(context.step)
        self.metrics.append(dict(context.metrics))
        self.weights.append(model_fns.weights(context.agent))


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, "auto"])
def test_two_runs_of_one_seed_end_in_bit_equal_weights(jit):
    runs = []
    for _ in range(2):
        agent = make_agent(jit=jit, optimizer_params=EPOCHS)
        with cartpoles() as env:
            agent.train(env, steps=40)
        runs.append((counters(agent), model_fns.weights(agent)))
    assert runs[0][0] == runs[1][0]
    expect_equal(runs[0][1], runs[1][1])


@pytest.mark.slow
def test_from_the_third_on_batches_are_one_update_old():
    old, fresh = Metrics(), Metrics()
    with cartpoles() as env:
        make_agent().train(env, steps=6, hooks=[old])
    with cartpoles() as env:
        make_agent(overlap=False).train(env, steps=6, hooks=[fresh])
    assert all(metrics["policy/kl"] < 1e-9 for metrics in fresh.metrics)
    is_old = [metrics["policy/kl"] > 1e-9 for metrics in old.metrics]
    assert is_old == [False, False, True, True, True, True]
    for first, second in zip(old.weights[:2], fresh.weights[:2], strict=True):
        names = [name for name in first if name not in ("global_timestep", "global_episode")]
        expect_equal({n: first[n] for n in names}, {n: second[n] for n in names})


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits", [{"steps": 5}, {"timesteps": 96}, {"timesteps": 100}, {"max_steps": 1}, {"steps": 12}]
)
def test_limits_are_exact(limits):
    found = []
    for overlap in (False, True):
        agent, hook = make_agent(overlap=overlap, optimizer_params=EPOCHS), Metrics()
        with cartpoles() as env:
            agent.train(env, **limits, hooks=[hook])
            assert hook.steps[-1] == agent.global_step
            agent.train(env, **{name: 2 * limit for name, limit in limits.items()}, hooks=[hook])
        assert hook.steps[-1] == agent.global_step
        assert int(agent.get_variable_value("global_step")) == agent.global_step
        found.append((agent.global_step, agent.global_timestep, hook.steps))
    assert found[0] == found[1]


def test_episodes_are_exact_for_one_environment():
    agent = make_agent(model_fns.policy_gradient, pgest.BatchMemory(batch_size=64))
    agent.train(gymnasium.make("CartPole-v1"), episodes=20)
    assert agent.global_episode == 20
    assert agent.global_step > 3


class Onlooker(pgest.BaseMonitor):
    """Looks at everything after each episode, whatever goes on meanwhile."""

    def __init__(self):
        self.seen, self.returns = [], []

    def after_episode(self, context):
        weights = model_fns.weights(context.agent)
        del weights["global_timestep"], weights["global_episode"]  # advanced by acting
        self.seen.append((context.step, int(weights["global_step"]), weights))
        if len(self.seen) % 5 == 0:
            results = context.agent.evaluate("CartPole-v1", episodes=1)
            self.returns.append(results["return_mean"])


@pytest.mark.slow
def test_hooks_see_whole_updates_alone(tmp_path):
    looks = []
    for name in "ab":
        onlooker, agent = Onlooker(), make_agent(model_dir=tmp_path / name, optimizer_params=EPOCHS)
        saver = pgest.CheckpointSaverHook(pgest.Every(episodes=3))
        with cartpoles() as env:
            agent.train(env, steps=60, hooks=[onlooker, saver])
        looks.append(onlooker)
        again = make_agent(model_dir=tmp_path / name)
        assert (again.global_step, again.global_timestep) == (60, agent.global_timestep)
    assert looks[0].returns == looks[1].returns != []
    known = {}
    for onlooker in looks:
        for step, variable, weights in onlooker.seen:
            assert step == variable and step % 4 == 0
            expect_equal(known.setdefault(step, weights), weights)
    assert len(known) > 3


def test_an_environment_that_fails_ends_the_run_and_drops_the_update_under_way():
    agent, metrics = make_agent(), Metrics()
    env = pgest.make(lambda: FailingEnv("raise", at=36), num_envs=4)
    with env, pytest.raises(pgest.EnvironmentFailure, match="gear"):
        agent.train(env, steps=10, hooks=[metrics])
    assert agent.global_step == len(metrics.steps) == 3, "the fourth was under way"
    expect_equal(_trained(model_fns.weights(agent)), _trained(metrics.weights[-1]))
    with pgest.make(lambda: FailingEnv("raise", at=100), num_envs=4) as env:
        agent.train(env, steps=2)
    assert agent.global_step == int(agent.get_variable_value("global_step")) == 5


def _trained(weights):
    return {n: v for n, v in weights.items() if not n.startswith(("global_", "outside/"))}


def failing_update(features, labels, mode, params):
    """An update that raises where a variable says so."""
    spec = model_fns.actor_critic(features, labels, mode, params)
    if mode == pgest.Modes.TRAIN:
        with tf.control_dependencies([tf.debugging.assert_less(spec.loss, params["limit"])]):
            loss = tf.identity(spec.loss)
        return pgest.EstimatorSpec(
            mode, distribution=spec.distribution, loss=loss, train_op=spec.train_op
        )
    return spec


def test_an_update_that_raises_in_the_thread_ends_the_run():
    limit = tf.Variable(1e9, name="limit", trainable=False)

    class Lowering(Metrics):
        def after_run(self, context):
            super().after_run(context)
            if len(self.steps) == 3:
                limit.assign(-1e9)

    agent, hook = make_agent(failing_update, params={"limit": limit}), Lowering()
    with cartpoles() as env, pytest.raises(tf.errors.InvalidArgumentError):
        agent.train(env, steps=10, hooks=[hook])
    assert agent.global_step == 3
    expect_equal(_trained(model_fns.weights(agent)), _trained(hook.weights[-1]))
    limit.assign(1e9)
    with cartpoles() as env:
        agent.train(env, steps=2)
    assert agent.global_step == 5


class SignalAtEpisode(pgest.BaseMonitor):
    """Sends a signal from between two timesteps."""

    def __init__(self, episode, times=1):
        self.episode, self.times, self.ended = episode, times, "never"

    def after_episode(self, context):
        if context.episode >= self.episode:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)

    def end(self, context):
        self.ended = context.error


def test_ctrl_c_ends_the_update_under_way_and_saves(tmp_path):
    agent, metrics = make_agent(model_dir=tmp_path), Metrics()
    with cartpoles() as env:
        with pytest.raises(KeyboardInterrupt):
            agent.train(env, steps=1000, hooks=[SignalAtEpisode(12), metrics])
    assert 1 < agent.global_step == metrics.steps[-1] < 1000
    again = make_agent(model_dir=tmp_path)
    assert counters(again) == counters(agent)


def test_a_second_ctrl_c_does_not_wait():
    agent, hook = make_agent(), SignalAtEpisode(12, times=2)
    with cartpoles() as env:
        with pytest.raises(KeyboardInterrupt):
            agent.train(env, steps=1000, hooks=[hook])
        assert isinstance(hook.ended, KeyboardInterrupt)
        steps = agent.global_step
        agent.train(env, steps=4)
    assert agent.global_step == int(agent.get_variable_value("global_step")) == steps + 4


@pytest.mark.parametrize("model_fn", [model_fns.recurrent, model_fns.policy_gradient])
@pytest.mark.parametrize("memory", [pgest.RolloutMemory, pgest.BatchMemory])
def test_every_memory_and_recurrent_models(model_fn, memory):
    agent = make_agent(model_fn, memory(10))
    with cartpoles() as env:
        agent.train(env, steps=5)
    assert agent.global_step == 5


def test_updates_with_summaries_are_not_overlapped(tmp_path):
    def with_summary(features, labels, mode, params):
        spec = model_fns.actor_critic(features, labels, mode, params)
        if mode == pgest.Modes.TRAIN:
            tf.summary.scalar("mine", spec.loss)
        return spec

    agent, metrics = make_agent(with_summary, model_dir=tmp_path), Metrics()
    with cartpoles() as env:
        agent.train(env, steps=25, hooks=[metrics])
    assert metrics.steps == list(range(1, 26))


@pytest.mark.slow
def test_another_environment_ends_the_thread():
    def threads():
        return {t for t in threading.enumerate() if t.name.startswith("pgest-update")} - others

    others: set = set()
    others, agent = threads(), make_agent()
    for _ in range(3):
        with cartpoles() as env:
            agent.train(env, steps=3)
        assert len(threads()) == 1
    agent.train(graph_environments.CartPole(num_envs=4), steps=2)
    assert not threads()
    assert agent.global_step == 11


class Idle(gymnasium.Env):
    """Pays nothing and never ends; its step of a number in `fails_at` fails, once among all."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fails_at):
        self.steps, self.fails_at = 0, fails_at

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps in self.fails_at:
            self.fails_at.remove(self.steps)
            raise RuntimeError("gear")
        return np.zeros(1, np.float32), 0.0, False, False, {}


def counted_value(features, labels, mode):
    """The value of all observations is a number that each step raises by 1."""
    number = tf.Variable(0.0, trainable=False, name="number")
    value = tf.zeros_like(features["state"][..., 0]) + number
    distribution = tfd.Categorical(logits=tf.zeros([tf.shape(value)[0], 2]))
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, {"value": value}, distribution=distribution)
    metrics = {"furthest": tf.reduce_max(tf.abs(labels["advantage"]))}
    loss, train_op = tf.reduce_mean(value), number.assign_add(1.0)
    return pgest.EstimatorSpec(
        mode, distribution=distribution, loss=loss, train_op=train_op, metrics=metrics
    )


@pytest.mark.parametrize("overlap", [False, True])
def test_an_advantage_is_of_one_value_function(overlap):
    # Without rewards and discounts the advantages are differences between values, so 0 where the
    # horizon's value is of the weights that acted; of the next ones it is 1.
    settings = {"discount": 1.0, "normalize_advantage": False}
    agent, hook = make_agent(counted_value, overlap=overlap, optimizer_params=settings), Metrics()
    fails_at = [36]
    with pgest.make(lambda: Idle(fails_at), num_envs=2) as env:
        with pytest.raises(pgest.EnvironmentFailure, match="gear"):
            agent.train(env, steps=6, hooks=[hook])
        agent.train(env, steps=6, hooks=[hook])  # from a fresh start
    assert len(hook.metrics) > 8
    assert [metrics["furthest"] for metrics in hook.metrics] == [0.0] * len(hook.metrics)
