"""What `train` promises: exact limits, an end in order, counters, hooks and episodes."""

import dataclasses

import gymnasium
import pytest
import tensorflow as tf

import pgest
from tests import model_fns
from tests.agents.training_agents import counters, make_agent

# --- limits --------------------------------------------------------------------------------------


def test_steps_are_this_many_more_and_max_steps_this_many_in_all():
    agent, env = make_agent(), gymnasium.make("CartPole-v1")
    assert agent.train(env, steps=2) is agent
    assert agent.global_step == 2
    agent.train(env, steps=2)
    assert agent.global_step == 4
    before = counters(agent)
    agent.train(env, max_steps=4)
    assert counters(agent) == before, "nothing is left to do: no step, no timestep"


def test_timesteps_and_episodes_are_exact_for_one_environment():
    agent, env = make_agent(), gymnasium.make("CartPole-v1")
    agent.train(env, timesteps=7)
    assert agent.global_timestep == 7
    agent.train(env, max_timesteps=31)
    assert agent.global_timestep == 31
    agent.train(env, episodes=3)
    agent.train(env, max_episodes=agent.global_episode + 2)
    assert agent.global_episode == 5 or agent.global_episode >= 5
    episodes = agent.global_episode
    agent.train(env, episodes=1)
    assert agent.global_episode == episodes + 1


def test_the_first_limit_that_is_reached_stops():
    agent, env = make_agent(), gymnasium.make("CartPole-v1")
    agent.train(env, steps=100, timesteps=10, episodes=50)
    assert counters(agent)[1] == 10


def test_a_limit_inside_epochs_and_minibatches_is_exact():
    agent = make_agent(optimizer_params={"epochs": 3, "minibatch_size": 16})
    agent.train(gymnasium.make("CartPole-v1"), steps=5)
    assert agent.global_step == 5


@pytest.mark.parametrize(
    ("limits", "error", "match"),
    [
        ({"steps": 1, "max_steps": 1}, ValueError, "steps=1 and max_steps=1"),
        ({"episodes": 1, "max_episodes": 1}, ValueError, "give one"),
        ({"timesteps": 1, "max_timesteps": 1}, ValueError, "give one"),
        ({"steps": 0}, ValueError, "steps=0; expected a positive integer"),
        ({"max_episodes": -1}, ValueError, "max_episodes=-1"),
        ({"episodes": True}, TypeError, "episodes=True"),
        ({"timesteps": 1.5}, TypeError, r"timesteps=1\.5"),
    ],
)
def test_wrong_limits_are_refused_before_anything_happens(limits, error, match):
    agent = make_agent()
    with pytest.raises(error, match=match):
        agent.train(gymnasium.make("CartPole-v1"), **limits)
    assert counters(agent) == (0, 0, 0)


# --- counters and hooks --------------------------------------------------------------------------


def test_a_hook_that_is_none_is_refused():
    with pytest.raises(TypeError, match="BaseMonitor"):
        make_agent().train(gymnasium.make("CartPole-v1"), steps=1, hooks=[print])


def test_a_hook_without_its_list_is_refused():
    with pytest.raises(
        TypeError, match=r"expected a list of hooks: hooks=\[ProgressBarHook\(\.\.\.\)\]"
    ):
        make_agent().train(gymnasium.make("CartPole-v1"), steps=1, hooks=pgest.ProgressBarHook())


def clocked(features, labels, mode, params):
    """Predicts global_timestep while acting, and reports all counters while training."""
    spec = model_fns.policy_gradient(features, labels, mode, params)
    now = tf.cast(pgest.get_global_timestep(), tf.float32)
    if mode == pgest.Modes.PREDICT:
        clock = tf.zeros(tf.shape(features["state"])[:1]) + now
        return dataclasses.replace(spec, predictions={"clock": clock})
    metrics = {
        "timestep": now,
        "episode": pgest.get_global_episode(),
        "step": pgest.get_global_step(),
        "first": tf.reduce_min(labels["clock"]),
        "last": tf.reduce_max(labels["clock"]),
        "count": tf.size(labels["clock"]),
    }
    return dataclasses.replace(spec, metrics=metrics)


class CountersOfUpdates(pgest.BaseMonitor):
    """Notes each update's metrics beside the counters."""

    def begin(self, context):
        self.seen = []

    def after_run(self, context):
        counters = (context.step, context.timestep, context.episode)
        self.seen.append((counters, dict(context.metrics)))


@pytest.mark.parametrize("jit_compile", [False, "auto"])
def test_the_counters_inside_model_fn_are_those_of_the_moment(jit_compile):
    hook = CountersOfUpdates()
    make_agent(clocked, jit_compile=jit_compile).train("CartPole-v1", steps=3, hooks=[hook])
    before = 0
    for (step, timestep, episode), metrics in hook.seen:
        assert metrics["timestep"] == timestep and metrics["episode"] == episode
        assert metrics["step"] in (step - 1, step), "read before or after the train_op"
        assert (metrics["first"], metrics["last"]) == (before, timestep - 1), "annealed exploration"
        assert metrics["count"] == timestep - before
        before = timestep
    assert len(hook.seen) == 3


class Order(pgest.BaseMonitor):
    """Writes down its moments with the counters at each."""

    def __init__(self):
        self.called = []

    def note(self, moment, context):
        self.called.append((moment, context.step, context.timestep, context.episode))

    def begin(self, context):
        self.note("begin", context)

    def before_run(self, context):
        self.note("before_run", context)

    def after_run(self, context):
        self.note("after_run", context)

    def after_episode(self, context):
        self.note("after_episode", context)

    def end(self, context):
        self.note("end", context)


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 2])
def test_acting_runs_no_hook_but_after_episode(num_envs):
    hook, agent = Order(), make_agent()
    agent.train(pgest.make("CartPole-v1", num_envs=num_envs), steps=2, hooks=[hook])
    moments = [moment for moment, *_ in hook.called]
    assert moments.count("before_run") == moments.count("after_run") == 2
    assert moments.count("after_episode") == agent.global_episode
    assert (moments[0], moments[-1]) == ("begin", "end")
    for (moment, step, *counts), (after, following, *later) in zip(
        hook.called, hook.called[1:], strict=False
    ):
        if moment == "before_run":
            assert (after, following, later) == ("after_run", step + 1, counts)


# --- run_episode ---------------------------------------------------------------------------------


class Recorder(pgest.PGAgent):
    """An agent with an episode loop of its own, as the documentation shows."""

    played: list

    def run_episode(
        self,
        env,
        sess,
        features,
        labels,
        no_run_hooks,
        global_step,
        update_episode_op,
        update_timestep_op,
        estimator_spec,
    ):
        statistics = super().run_episode(
            env,
            sess,
            features,
            labels,
            no_run_hooks,
            global_step,
            update_episode_op,
            update_timestep_op,
            estimator_spec,
        )
        self.played.append(statistics)
        return statistics


def test_run_episode_can_be_overridden_and_returns_statistics():
    config = pgest.RunConfig(tf_random_seed=0)
    agent = Recorder(model_fns.policy_gradient, pgest.BatchMemory(batch_size=64), config=config)
    agent.played = []
    agent.train(gymnasium.make("CartPole-v1"), episodes=3)
    agent.train(gymnasium.make("CartPole-v1"), timesteps=2)
    complete = [statistics for statistics in agent.played if statistics.complete]
    assert len(complete) == 3
    for statistics in complete:
        assert len(statistics.rewards) == statistics.length
        assert statistics.total == sum(statistics.rewards) == statistics.length
        assert (statistics.max, statistics.min, statistics.avg) == (1.0, 1.0, 1.0)
        assert statistics.terminated or statistics.truncated
    cut = agent.played[-1]
    assert not cut.complete
    assert cut.length == 2
    assert sum(each.length for each in complete) + cut.length == agent.global_timestep


def test_statistics_of_an_episode_hold_the_loss_of_the_update_before_it():
    config = pgest.RunConfig(tf_random_seed=0, jit_compile=False)
    agent = Recorder(model_fns.policy_gradient, pgest.BatchMemory(batch_size=8), config=config)
    agent.played, updates = [], CountersOfUpdates()
    agent.train(gymnasium.make("CartPole-v1"), steps=3, hooks=[updates])
    losses = [metrics["loss"] for _, metrics in updates.seen]
    assert [each.loss for each in agent.played] == [None, *losses[:-1]]


def test_an_overridden_run_episode_and_a_vector_environment_do_not_go_together():
    config = pgest.RunConfig(tf_random_seed=0)
    agent = Recorder(model_fns.policy_gradient, pgest.BatchMemory(batch_size=64), config=config)
    with pytest.raises(ValueError, match="run_episode"):
        agent.train(gymnasium.make_vec("CartPole-v1", num_envs=2), steps=1)
