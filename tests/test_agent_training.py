"""What `train` promises: exact limits, counters, continuing, determinism."""

import dataclasses
import os
import signal

import gymnasium
import models
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest


def make_agent(
    model_fn=models.policy_gradient, memory=None, seed=0, jit_compile=False, **arguments
):
    config = pgest.RunConfig(
        tf_random_seed=seed, log_step_count_steps=None, jit_compile=jit_compile
    )
    memory = pgest.BatchMemory(batch_size=64) if memory is None else memory
    return pgest.PGAgent(model_fn, memory, config=config, **arguments)


def counters(agent):
    return agent.global_step, agent.global_timestep, agent.global_episode


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


def test_a_hook_that_is_none_is_refused():
    with pytest.raises(TypeError, match="BaseMonitor"):
        make_agent().train(gymnasium.make("CartPole-v1"), steps=1, hooks=[print])


def test_a_hook_without_its_list_is_refused():
    with pytest.raises(
        TypeError, match=r"expected a list of hooks: hooks=\[ProgressBarHook\(\.\.\.\)\]"
    ):
        make_agent().train(gymnasium.make("CartPole-v1"), steps=1, hooks=pgest.ProgressBarHook())


class SignalAtStep(pgest.BaseMonitor):
    """Sends its own process a signal, as Ctrl-C and a cluster do, and notes how the run ended."""

    def __init__(self, number, step, times=1):
        self.number, self.step, self.times = number, step, times
        self.ended = None

    def after_run(self, context):
        if context.step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)

    def end(self, context):
        self.ended = context.error


def test_ctrl_c_ends_the_step_saves_and_returns(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    agent, hook = make_agent(model_dir=tmp_path), SignalAtStep(signal.SIGINT, step=2)
    assert agent.train("CartPole-v1", max_steps=50, hooks=[hook]) is agent
    assert agent.global_step == 2 and hook.ended is None
    assert make_agent(model_dir=tmp_path).global_step == 2
    assert signal.getsignal(signal.SIGINT) is before
    agent.train("CartPole-v1", max_steps=3)
    assert agent.global_step == 3, "the next call goes on"


def test_sigterm_ends_the_step_saves_and_exits_with_143(tmp_path):
    agent, hook = make_agent(model_dir=tmp_path), SignalAtStep(signal.SIGTERM, step=2)
    with pytest.raises(SystemExit) as exited:
        agent.train("CartPole-v1", max_steps=50, hooks=[hook])
    assert exited.value.code == 143 and hook.ended is None
    assert make_agent(model_dir=tmp_path).global_step == 2


def test_a_second_ctrl_c_does_not_wait():
    agent, hook = make_agent(), SignalAtStep(signal.SIGINT, step=2, times=2)
    with pytest.raises(KeyboardInterrupt):
        agent.train("CartPole-v1", max_steps=50, hooks=[hook])
    assert isinstance(hook.ended, KeyboardInterrupt)


class InterruptedWorker(gymnasium.Wrapper):
    """Ctrl-C reaches its process too, as that of gymnasium's AsyncVectorEnv, which passes it on."""

    left = 100

    def step(self, action):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGINT)
            raise KeyboardInterrupt
        return self.env.step(action)


def test_ctrl_c_that_comes_back_from_an_environment_ends_the_run_in_order(tmp_path):
    agent, hook = make_agent(model_dir=tmp_path), SignalAtStep(signal.SIGINT, step=-1)
    assert agent.train(InterruptedWorker(gymnasium.make("CartPole-v1")), hooks=[hook]) is agent
    assert hook.ended is None and agent.global_timestep == 99
    assert make_agent(model_dir=tmp_path).global_timestep == 99


def clocked(features, labels, mode, params):
    """Predicts global_timestep while acting, and reports all counters while training."""
    spec = models.policy_gradient(features, labels, mode, params)
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


def test_an_unfinished_batch_and_episode_go_on_with_the_same_environment():
    env = gymnasium.make("CartPole-v1")
    agent = make_agent()
    agent.train(env, timesteps=5)
    assert len(agent.memory) == 5
    agent.train(env, timesteps=3)
    assert len(agent.memory) == 8
    pieces = make_agent()
    other = gymnasium.make("CartPole-v1")
    for _ in range(4):
        pieces.train(other, timesteps=50)
    whole = make_agent().train(gymnasium.make("CartPole-v1"), timesteps=200)
    assert counters(pieces) == counters(whole)
    for name, value in models.weights(whole).items():
        np.testing.assert_array_equal(models.weights(pieces)[name], value, err_msg=name)


def test_an_episode_under_way_is_dropped_with_its_environment():
    agent = make_agent()
    agent.train(gymnasium.make("CartPole-v1"), timesteps=5)
    agent.train(gymnasium.make("CartPole-v1"), timesteps=3)
    assert len(agent.memory) == 3


class Closing(gymnasium.Wrapper):
    """Notes that it was closed."""

    closed: list = []

    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1"))

    def close(self):
        Closing.closed.append(self)
        self.env.close()


def test_only_environments_that_the_agent_made_are_closed():
    Closing.closed = []
    agent = make_agent(memory=pgest.RolloutMemory(horizon=8))
    mine, view = Closing(), pgest.make(Closing, num_envs=2)
    for env in (mine, view):
        agent.train(env, steps=1)
        agent.evaluate(env, episodes=1)
        agent.check(env)
        list(agent.predict(np.zeros([1, 4], np.float32), env=env))
    agent.train(mine, steps=1)
    assert not Closing.closed
    agent.train(Closing, steps=1)
    agent.train(mine, steps=1)
    assert len(Closing.closed) == 1, "the one of the factory, once another took its place"
    agent.evaluate(Closing, episodes=1)
    assert len(Closing.closed) == 2
    view.close()
    assert len(Closing.closed) == 4


def test_two_runs_of_one_seed_end_in_bit_equal_weights():
    """Compiled, with minibatches, in environments that take their seeds from the agent."""

    def end_of(seed):
        shuffled = {"epochs": 2, "minibatch_size": 24}
        agent = make_agent(seed=seed, jit_compile="auto", optimizer_params=shuffled)
        return models.weights(agent.train(gymnasium.make("CartPole-v1"), steps=9))

    first, second, other = end_of(3), end_of(3), end_of(4)
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)
    assert any(not np.array_equal(other[name], value) for name, value in first.items())


def test_a_second_process_goes_on_as_if_nothing_had_happened(tmp_path):
    """Through the checkpoint alone: another agent object, a new environment, the same weights."""
    first = make_agent(model_dir=tmp_path)
    first.train("CartPole-v1", max_steps=2)
    second = make_agent(model_dir=tmp_path)
    assert counters(second) == counters(first)
    second.train("CartPole-v1", max_steps=2)
    assert counters(second) == counters(first)
    second.train("CartPole-v1", max_steps=5)
    whole = make_agent().train("CartPole-v1", max_steps=5)
    assert counters(second) == counters(whole)
    for name, value in models.weights(whole).items():
        np.testing.assert_array_equal(models.weights(second)[name], value, err_msg=name)


def test_no_new_trace_after_the_first_update_and_the_first_evaluation(tmp_path):
    agent, env = (
        make_agent(models.actor_critic, model_dir=tmp_path, jit_compile="auto"),
        "CartPole-v1",
    )
    agent.train(env, steps=1)
    agent.evaluate(env, episodes=1)
    env = gymnasium.make("CartPole-v1")
    agent.train(env, steps=1)
    traces = dict(agent.model.traces)
    agent.train(env, steps=3)
    agent.evaluate("CartPole-v1", episodes=2)
    agent.train(env, steps=2)
    assert agent.model.traces == traces


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
    agent = Recorder(models.policy_gradient, pgest.BatchMemory(batch_size=64), config=config)
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
    agent = Recorder(models.policy_gradient, pgest.BatchMemory(batch_size=8), config=config)
    agent.played, updates = [], CountersOfUpdates()
    agent.train(gymnasium.make("CartPole-v1"), steps=3, hooks=[updates])
    losses = [metrics["loss"] for _, metrics in updates.seen]
    assert [each.loss for each in agent.played] == [None, *losses[:-1]]


def test_an_overridden_run_episode_and_a_vector_environment_do_not_go_together():
    config = pgest.RunConfig(tf_random_seed=0)
    agent = Recorder(models.policy_gradient, pgest.BatchMemory(batch_size=64), config=config)
    with pytest.raises(ValueError, match="run_episode"):
        agent.train(gymnasium.make_vec("CartPole-v1", num_envs=2), steps=1)


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP", "DISABLED"])
@pytest.mark.parametrize("memory", ["batch", "rollout"])
def test_vector_environments_in_every_autoreset_mode(mode, memory):
    env = gymnasium.make_vec(
        "CartPole-v1",
        num_envs=3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode[mode]},
    )
    memory = pgest.BatchMemory(64) if memory == "batch" else pgest.RolloutMemory(horizon=16)
    agent = make_agent(models.actor_critic, memory)
    agent.train(env, steps=3)
    assert agent.global_step == 3
    if isinstance(memory, pgest.RolloutMemory):
        assert 3 * 16 * 3 <= agent.global_timestep < 3 * 16 * 3 + 3
    env.close()


def sequential_actor_and_critic(features, labels, mode):
    """Two Sequentials that say themselves which variables each of two optimizers trains."""
    dense = tf_keras.layers.Dense
    actor = tf_keras.Sequential([dense(4, "tanh", name="hidden"), dense(2, name="logits")])
    critic = tf_keras.Sequential([dense(4, "tanh", name="seen"), dense(1, name="value")])
    distribution = tfp.distributions.Categorical(logits=actor(features["state"]))
    predictions = {"value": tf.squeeze(critic(features["state"]), -1)}
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, predictions, distribution=distribution)
    log_prob = distribution.log_prob(labels["action"])
    losses = [
        -tf.reduce_mean(log_prob * labels["advantage"]),
        tf.reduce_mean(tf.square(predictions["value"] - labels["value_target"])),
    ]
    optimizers = [tf_keras.optimizers.Adam(1e-2), tf_keras.optimizers.Adam(1e-3)]
    trained = [actor.trainable_variables, critic.trainable_variables]
    assert [len(variables) for variables in trained] == [4, 4]
    train_op = pgest.minimize(list(zip(losses, optimizers, trained, strict=True)))
    return pgest.EstimatorSpec(mode, distribution=distribution, loss=losses[0], train_op=train_op)


def test_a_sequential_knows_its_variables_in_every_trace():
    """Of the update, of the check of the first batch, and of an evaluation that trains nothing."""
    agent = make_agent(sequential_actor_and_critic)
    agent.train("CartPole-v1", steps=2)
    before = models.weights(agent)
    assert np.isfinite(agent.evaluate("CartPole-v1", episodes=1)["loss"])
    for name, value in models.weights(agent).items():
        np.testing.assert_array_equal(before[name], value, err_msg=name)


@pytest.mark.parametrize("way", ["tape", "gradients"])
def test_a_train_op_by_hand_is_counted_by_the_agent(way):
    def model_fn(features, labels, mode):
        layer = tf_keras.layers.Dense(2, name="logits")
        optimizer = None if mode == pgest.Modes.PREDICT else tf_keras.optimizers.SGD(0.1)
        with tf.GradientTape() as tape:
            distribution = tfp.distributions.Categorical(logits=layer(features["state"]))
            if mode == pgest.Modes.PREDICT:
                return pgest.EstimatorSpec(mode, distribution=distribution)
            log_prob = distribution.log_prob(labels["action"])
            loss = -tf.reduce_mean(log_prob * labels["advantage"])
        variables = layer.trainable_variables
        differentiate = tape.gradient if way == "tape" else tf.gradients
        pairs = zip(differentiate(loss, variables), variables, strict=True)
        train_op = optimizer.apply_gradients(pairs)
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    agent = make_agent(model_fn)
    agent.check("CartPole-v1")
    before = agent.get_variable_value("logits/kernel")
    agent.train("CartPole-v1", steps=3)
    assert agent.global_step == agent.get_variable_value("global_step") == 3
    assert np.abs(agent.get_variable_value("logits/kernel") - before).max() > 1e-4


def test_recurrent_models_train_on_episodes_and_on_rollouts():
    agent = make_agent(models.recurrent)
    agent.train(gymnasium.make("CartPole-v1"), steps=2)
    assert agent.global_step == 2
    rollouts = make_agent(models.recurrent, pgest.RolloutMemory(horizon=8))
    rollouts.train(pgest.make("CartPole-v1", num_envs=2), steps=3)
    assert rollouts.global_timestep == 3 * 8 * 2


def test_an_action_of_several_distributions_is_refused():
    """Its log_prob [B, 1] times advantages [B] would be [B, B], and nothing would be learnt."""

    def model_fn(features, labels, mode):
        loc = tf_keras.layers.Dense(1)(features["state"])
        distribution = tfp.distributions.Normal(loc, 1.0)
        return pgest.EstimatorSpec(mode, distribution=distribution)

    with pytest.raises(ValueError, match=r"shape \(1, 1\).*reinterpreted_batch_ndims=1"):
        make_agent(model_fn).train("Pendulum-v1", steps=1)


def test_params_are_a_dict():
    with pytest.raises(TypeError, match="params is list; expected a dict"):
        make_agent(params=[1])


def test_continuous_actions():
    agent = make_agent(models.gaussian, pgest.RolloutMemory(horizon=32), jit_compile="auto")
    agent.train(gymnasium.make("Pendulum-v1"), steps=2)
    assert counters(agent)[:2] == (2, 64)


class Clock(gymnasium.Env):
    """Shows how often it was stepped; every fifth step ends its episode. Each step earns 1."""

    observation_space = gymnasium.spaces.Box(0, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self._time = 0
        return np.zeros([1], np.float32), {}

    def step(self, action):
        self._time += 1
        return np.array([self._time], np.float32), 1.0, self._time == 5, False, {}


def values_the_time(features, labels, mode):
    """Its value of an observation is the time that it shows."""
    bias = tf.Variable([0.0, 0.0], name="bias")
    distribution = tfp.distributions.Categorical(logits=bias + 0.0 * features["state"])
    predictions = {"value": features["state"][:, 0]}
    if mode is pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, predictions=predictions, distribution=distribution)
    loss = tf.reduce_mean(distribution.log_prob(labels["action"]))
    return pgest.EstimatorSpec(
        mode,
        predictions=predictions,
        distribution=distribution,
        loss=loss,
        train_op=pgest.minimize(loss, tf_keras.optimizers.SGD(0.1)),
        metrics={f"target/{row}": labels["value_target"][row] for row in range(6)},
    )


@pytest.mark.parametrize("vectorization", ["sync", "next step"])
def test_a_cut_at_the_horizon_is_bootstrapped_from_what_follows(vectorization):
    """With discount 1/2, from times 0 1 2 | 3, then 3 4 end 0 | 1, by hand."""
    made = []

    class Targets(pgest.BaseMonitor):
        def after_run(self, context):
            made.append([context.metrics[f"target/{row}"] for row in range(6)])

    envs = [Clock, Clock]
    vector = gymnasium.vector.SyncVectorEnv(envs)
    env = vector if vectorization == "next step" else pgest.make(Clock, num_envs=2)
    agent = make_agent(
        values_the_time, pgest.RolloutMemory(3), optimizer_params={"discount": 0.5, "gae_lambda": 1}
    )
    agent.train(env, steps=2, hooks=[Targets()])
    first, second = [2.125, 2.25, 2.5], [1.5, 1.0, 1.5]
    if vectorization == "sync":  # time first: both environments at a time
        first, second = np.repeat(first, 2), np.repeat(second, 2)
    else:  # column after column
        first, second = first * 2, second * 2
    np.testing.assert_allclose(made, [first, second])
