"""An evaluation plays the episodes of one environment in several copies, and gets the same."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

import pgest
from tests.agents.copied_environments import Made, SteadyEnv, Unknown, agent_of, plain
from tests.environments.environment_fakes import CountingEnv, FailingEnv, PayingEnv


class MaskedPole(gymnasium.Env):
    """A CartPole that allows only what its time says."""

    def __init__(self):
        self._pole = gymnasium.make("CartPole-v1").unwrapped
        self.observation_space = self._pole.observation_space
        self.action_space = self._pole.action_space
        self._time = 0

    def reset(self, *, seed=None, options=None):
        self._time = 0
        return self._pole.reset(seed=seed)[0], self._info()

    def step(self, action):
        assert self._info()["action_mask"][action]
        self._time += 1
        observation, reward, terminated, _, _ = self._pole.step(action)
        return observation, reward, terminated, self._time >= 40, self._info()

    def _info(self):
        return {"action_mask": np.array([self._time % 3 != 1, self._time % 3 != 0])}


class NamedPole(CartPoleEnv):
    """A CartPole whose observation has two parts by name."""

    def __init__(self):
        super().__init__()
        part = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(place=part, pole=part)

    def reset(self, **kwargs):
        return named(super().reset(**kwargs)[0]), {}

    def step(self, action):
        observation, *rest = super().step(action)
        return named(observation), *rest


def named(observation):
    return {"place": observation[:2], "pole": observation[2:]}


MODELS = {
    "discrete": (pgest.models.PPO(hidden_sizes=(16, 16)), "CartPole-v1"),
    "continuous": (pgest.models.PPO(hidden_sizes=(16,), normalize_observation=True), "Pendulum-v1"),
    "recurrent": (pgest.models.A2C(hidden_sizes=(8,), cell="lstm", cell_size=8), "CartPole-v1"),
    "masked": (pgest.models.PPO(hidden_sizes=(16,)), MaskedPole),
    "two parts": (pgest.models.PPO(hidden_sizes=(16,)), NamedPole),
    "nothing but actions": (plain, "MountainCar-v0"),
}


@pytest.mark.parametrize("name", MODELS)
def test_results_are_those_of_one_after_the_other_bit_for_bit(name):
    model, env = MODELS[name]
    agent = agent_of(model)
    make = env if callable(env) else lambda: gymnasium.make(env, max_episode_steps=40)
    agent.train(make, timesteps=64)
    together = agent.evaluate(make, episodes=7)
    assert together == agent.evaluate(lambda: Unknown(make()), episodes=7)
    assert together == agent.evaluate(make(), episodes=7), "an environment itself is not copied"
    made = Made(make)
    assert together == agent.evaluate(made, episodes=7)
    assert len(made.envs) > 1, "it was not found to need to be alone"


def test_any_number_of_episodes_has_one_trace():
    agent = agent_of(plain)
    agent.evaluate("CartPole-v1", episodes=1)
    traces = dict(agent.model.traces)
    for episodes in (2, 40, 1):
        agent.evaluate("CartPole-v1", episodes=episodes)
    assert agent.model.traces == traces


def test_several_environments_get_copies_for_their_further_episodes():
    agent = agent_of(pgest.models.PPO(hidden_sizes=(16, 16)))
    agent.train("CartPole-v1", timesteps=64)
    env = pgest.make("CartPole-v1", num_envs=3)
    together = agent.evaluate(env, episodes=8)
    alone = pgest.make(lambda: Unknown(gymnasium.make("CartPole-v1")), num_envs=3)
    assert together == agent.evaluate(alone, episodes=8)
    assert env.observe().shape == (3, 4), "the user's environments stay open"
    assert together == agent.evaluate(env, episodes=8)


def test_each_episode_has_its_seed_and_each_copy_is_closed():
    agent = agent_of(plain)
    made, single = Made(lambda: SteadyEnv(length=4)), Made(lambda: Unknown(SteadyEnv(length=4)))
    agent.evaluate(made, episodes=5)
    agent.evaluate(single, episodes=5)
    assert len(single.envs) == 1
    assert len(made.envs) > 1
    seeds = sorted(seed for env in made.envs for seed in env.seeds)
    assert sorted(set(seeds)) == sorted(single.envs[0].unwrapped.seeds[:5])
    assert sum(len(env.actions) for env in made.envs) == (5 + 1) * 4, "one is compared"
    assert [env.closed for env in made.envs] == [1] * len(made.envs)


def test_environments_whose_share_is_played_rest():
    agent = agent_of(plain)
    made = Made(lambda: Unknown(SteadyEnv(length=4)))
    env = pgest.make(made, num_envs=2)
    assert agent.evaluate(env, episodes=3)["length_mean"] == 4
    assert [len(env.unwrapped.actions) for env in made.envs] == [8, 4]
    env.observe()  # all rest, so everything begins anew
    assert env.step(np.zeros(2, np.int64)).acted.all()


@pytest.mark.parametrize("copies", [gymnasium.Wrapper, Unknown])
def test_what_is_drawn_does_not_follow_who_rests(copies):
    """As before environments could rest: the third timestep of the first draws what it drew."""
    agent = agent_of(plain)
    env = pgest.make(lambda: copies(gymnasium.make("CartPole-v1")), num_envs=3)
    vector = gymnasium.vector.SyncVectorEnv(
        [lambda: gymnasium.make("CartPole-v1")] * 3,
        autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED,
    )
    results = agent.evaluate(env, episodes=7, greedy=False)
    assert results == agent.evaluate(vector, episodes=7, greedy=False)


def test_the_order_of_episodes_is_that_of_their_numbers():
    rewards = iter(np.random.default_rng(0).normal(size=(100, 3)).tolist())
    kept = {}

    class ByNumber(PayingEnv):
        """Pays by the seed of its episode."""

        def reset(self, *, seed=None, options=None):
            self.rewards = kept.setdefault(seed, None) or next(rewards)
            kept[seed] = self.rewards
            return super().reset(seed=seed, options=options)

    agent = agent_of(plain)
    results = agent.evaluate(lambda: Unknown(ByNumber([0.0] * 3)), episodes=9)
    assert results == agent.evaluate(lambda: ByNumber([0.0] * 3), episodes=9)


def test_an_agent_that_has_not_trained_begins_with_the_same_weights():
    together = agent_of().evaluate(lambda: gymnasium.make("CartPole-v1"), episodes=5)
    assert together == agent_of().evaluate(gymnasium.make("CartPole-v1"), episodes=5)


class WithSimulator(CountingEnv):
    """Needs the only simulator that there is, from its second step on."""

    users = 0

    def step(self, action):
        if self.steps == 1:
            type(self).users += 1
            if self.users > 1:
                raise OSError("in use")
        result = super().step(action)
        if result[2]:
            type(self).users -= 1
        return result

    def close(self):
        type(self).users = 0
        super().close()


def test_what_fails_beside_others_is_played_alone():
    agent, made = agent_of(plain), Made(lambda: WithSimulator(length=3))
    results = agent.evaluate(made, episodes=4)
    assert results == agent.evaluate(lambda: SteadyEnv(length=3), episodes=4)
    assert len(made.envs) > 1
    assert [env.closed for env in made.envs] == [1] * len(made.envs)


def test_episodes_that_follow_from_those_before_are_played_alone():
    class Rising(SteadyEnv):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return observation, float(len(self.seeds)), *rest

    agent, made = agent_of(plain), Made(lambda: Rising(length=3))
    results = agent.evaluate(made, episodes=5)
    assert results == agent.evaluate(lambda: Unknown(Rising(length=3)), episodes=5)
    assert results["return_max"] > results["return_min"]
    assert [env.closed for env in made.envs] == [1] * len(made.envs)
    made.envs.clear()
    assert agent.evaluate(made, episodes=5) == results
    assert len(made.envs) == 1, "it is known by now"


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_copies_are_closed_where_it_is_interrupted(error):
    class Interrupted(CountingEnv):
        def step(self, action):
            if self.steps == 2:
                raise error
            return super().step(action)

    made, agent = Made(lambda: Interrupted(length=5)), agent_of(plain)
    with pytest.raises((error, pgest.EnvironmentFailure)):
        agent.evaluate(made, episodes=4)
    assert len(made.envs) > 1
    assert [env.closed for env in made.envs] == [1] * len(made.envs)


def test_environments_that_rest_play_on_after_an_evaluation_that_was_interrupted():
    class Late(pgest.BaseMonitor):
        def after_episode(self, context):
            raise KeyboardInterrupt

    agent = agent_of(plain)
    with pgest.make(lambda: SteadyEnv(length=3), num_envs=2) as env:
        with pytest.raises(KeyboardInterrupt):
            agent.evaluate(env, episodes=2, hooks=[Late()])
        env.observe()
        assert env.step(np.zeros(2, np.int64)).acted.all()


def test_what_training_learns_does_not_follow_the_evaluations_between():
    weights = []
    for evaluates in (False, True):
        made = Made(lambda: SteadyEnv(length=5))
        agent = agent_of(plain)
        hook = pgest.EvaluationHook(made, pgest.Every(steps=1), episodes=4)
        agent.train(lambda: SteadyEnv(length=5), timesteps=64, hooks=[hook] * evaluates)
        weights.append(
            {name: agent.get_variable_value(name) for name in agent.get_variable_names()}
        )
        assert (len(made.envs) > 2) == evaluates
    assert weights[0].keys() == weights[1].keys()
    for name, before in weights[0].items():
        np.testing.assert_array_equal(before, weights[1][name])


@pytest.mark.parametrize("kind", ["draws", "draws from a seed", "counts"])
def test_a_model_that_draws_or_counts_acts_alone(kind):
    def model_fn(features, labels, mode):
        spec = plain(features, labels, mode)
        if mode != pgest.Modes.PREDICT:
            return spec
        logits = spec.distribution.logits_parameter()
        if kind == "draws":
            logits += tf.random.normal(tf.shape(logits))
        elif kind == "draws from a seed":
            logits += tf.random.stateless_normal(tf.shape(logits), [1, 2])
        else:
            seen = tf.Variable(0.0, trainable=False, name="seen")
            logits += seen.assign_add(1.0)
        return pgest.EstimatorSpec(mode, distribution=tfp.distributions.Categorical(logits))

    agent = agent_of(model_fn)
    made = Made(lambda: SteadyEnv(length=3))
    assert agent.evaluate(made, episodes=4)["length_mean"] == 3
    assert len(made.envs) == 1


def test_a_failure_is_told_of_the_environment_that_was_given():
    agent = agent_of(plain)
    messages = []
    for make in (lambda: FailingEnv("raise", at=6), lambda: Unknown(FailingEnv("raise", at=6))):
        with pytest.raises(pgest.EnvironmentFailure, match="Environment 0") as raised:
            agent.evaluate(make, episodes=4)
        messages.append(str(raised.value).partition(") ")[2])
    assert messages[0] == messages[1], "that of one after the other"


def test_hooks_of_an_evaluation_see_one_episode_after_the_other():
    seen = []

    class Watch(pgest.BaseMonitor):
        def after_episode(self, context):
            seen.append(context.episodes[0].length)

    def model_fn(features, labels, mode):
        if mode != pgest.Modes.EVAL:
            return plain(features, labels, mode)
        return pgest.EstimatorSpec(mode, loss=tf.zeros([]), evaluation_hooks=[Watch()])

    made = Made(lambda: SteadyEnv(length=3))
    agent_of(model_fn).evaluate(made, episodes=4)
    assert seen == [3] * 4
    assert len(made.envs) == 1


def test_without_compilation_there_are_no_copies():
    made = Made(lambda: SteadyEnv(length=3))
    agent_of(plain, jit_compile=False).evaluate(made, episodes=4)
    assert len(made.envs) == 1
