"""Wrappers of in-graph environments, and the gymnasium view."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

from pgest import graph_environments
from pgest.graph_environments import (
    Breakout,
    CartPole,
    FrameStack,
    GraphEnvironment,
    MountainCar,
    Pendulum,
    RescaleAction,
    RewardScale,
    StickyActions,
    TimeLimit,
    TransformObservation,
    as_gymnasium,
    stateless_noise,
)


def step(env, state, action, timestep=0):
    return env.step(state, tf.constant(action), tf.constant([0, timestep]))


def start(env, seed=0):
    return env.initial(tf.constant([seed, 0]))


class Masked(GraphEnvironment):
    """Allows action 1 at even counts only; observations are a dict."""

    def __init__(self, num_envs=2):
        super().__init__(
            gymnasium.spaces.Dict({"count": gymnasium.spaces.Box(0, 99, ())}),
            gymnasium.spaces.Discrete(2),
            num_envs=num_envs,
            max_episode_steps=3,
        )

    def start(self, seed):
        return tf.zeros([self.num_envs])

    def advance(self, simulation, action, seed):
        return simulation + 1.0, simulation, tf.zeros([self.num_envs], tf.bool)

    def observe(self, simulation):
        return {"count": simulation}

    def action_mask(self, simulation):
        even = tf.equal(tf.math.floormod(simulation, 2.0), 0.0)
        return tf.stack([tf.ones_like(even), even], axis=1)


def test_time_limit_replaces_the_environments_own():
    env = TimeLimit(CartPole(num_envs=2), 2)
    state, first = step(env, start(env), [0, 1])
    _, second = step(env, state, [0, 1])
    assert first.truncated.numpy().tolist() == [False, False]
    assert second.truncated.numpy().tolist() == [True, True]
    assert TimeLimit(CartPole(), None).max_episode_steps is None
    with pytest.raises(ValueError, match="max_episode_steps=0: expected at least 1"):
        TimeLimit(CartPole(), 0)


def test_reward_scale_scales_rewards_and_statistics():
    env = RewardScale(MountainCar(num_envs=2), 0.1, shift=0.5)
    _, transition = step(env, start(env), [0, 1])
    np.testing.assert_allclose(transition.reward, [0.4, 0.4], rtol=1e-6)
    np.testing.assert_allclose(transition.progress.total, [0.4, 0.4], rtol=1e-6)


def test_transform_observation_changes_all_observations():
    space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    env = TransformObservation(CartPole(num_envs=2), lambda rows: 2.0 * rows[:, :1], space)
    inner = CartPole(num_envs=2)
    state, transition = step(env, start(env), [0, 1])
    _, expected = step(inner, start(inner), [0, 1])
    assert env.observation_space == space
    np.testing.assert_allclose(transition.observation, 2.0 * expected.observation[:, :1])
    np.testing.assert_allclose(transition.next_observation, 2.0 * expected.next_observation[:, :1])
    np.testing.assert_allclose(env.observation(state), transition.observation)


def test_rescaled_actions_reach_the_bounds_of_the_environment():
    env, inner = RescaleAction(Pendulum(num_envs=3), low=0.0, high=1.0), Pendulum(num_envs=3)
    _, mine = step(env, start(env), [[0.0], [0.5], [1.0]])
    _, theirs = step(inner, start(inner), [[-2.0], [0.0], [2.0]])
    np.testing.assert_allclose(mine.next_observation, theirs.next_observation, atol=1e-6)
    assert env.action_space == gymnasium.spaces.Box(0.0, 1.0, (1,))


def test_frame_stack_shows_the_newest_last_and_fills_up_a_fresh_episode():
    env = FrameStack(CartPole(num_envs=2, max_episode_steps=3), 3)
    state = start(env)
    first = env.observation(state).numpy()
    assert first.shape == (2, 3, 4)
    np.testing.assert_array_equal(first[:, 0], first[:, 2])
    seen = [first[:, -1]]
    for timestep in range(3):
        state, transition = step(env, state, [0, 1], timestep)
        seen.append(transition.next_observation.numpy()[:, -1])
    # The true last observation still holds the old episode; what to act on is all of the new one.
    np.testing.assert_array_equal(transition.next_observation, np.stack(seen[-3:], axis=1))
    fresh = transition.observation.numpy()
    np.testing.assert_array_equal(fresh[:, 0], fresh[:, 2])
    assert not np.array_equal(fresh[:, -1], seen[-1])
    assert env.observation_space.contains(first[0])


def test_frame_stack_is_gymnasiums():
    reference = gymnasium.wrappers.FrameStackObservation(gymnasium.make("CartPole-v1"), 4)
    assert FrameStack(CartPole(), 4).observation_space == reference.observation_space


def test_sticky_actions_repeat_as_often_as_asked():
    env = StickyActions(Breakout(num_envs=4000), 0.25)
    state = start(env)
    state, _ = step(env, state, np.full(4000, 1, np.int32), 0)
    state, _ = step(env, state, np.full(4000, 2, np.int32), 1)
    # 2 * 0.75 - … : the paddle moved left unless the no-op stuck, then right unless left stuck.
    left, stuck_left = 0.75, 0.75 * 0.25
    expected = 4 - left + 0.75 - stuck_left
    paddles = state.simulation.inner.paddle.numpy()
    assert abs(paddles.mean() - expected) < 0.06
    never = StickyActions(Breakout(num_envs=2), 0.0)
    state, _ = step(never, start(never), np.array([1, 2], np.int32))
    assert state.simulation.inner.paddle.numpy().tolist() == [3, 5]


class Dice(GraphEnvironment):
    """Its die is of the fold that the docs tell authors to use; it remembers action and die."""

    fold = 1

    def __init__(self, num_envs):
        box = gymnasium.spaces.Box(-9, 9, (2,))
        super().__init__(box, gymnasium.spaces.Discrete(3, start=5), num_envs=num_envs)

    def start(self, seed):
        return tf.zeros([self.num_envs, 2])

    def advance(self, simulation, action, seed):
        die = stateless_noise.uniform(stateless_noise.fold(seed, self.fold), [self.num_envs])
        seen = tf.stack([tf.cast(action, tf.float32), die], axis=1)
        return seen, die, tf.zeros([self.num_envs], tf.bool)

    def observe(self, simulation):
        return simulation


@pytest.mark.parametrize("fold", [0, 1, 2, 3, 9001])
def test_sticky_actions_have_a_die_of_their_own(fold):
    Dice.fold = fold
    env = StickyActions(Dice(num_envs=4000), 0.5)
    _, transition = step(env, start(env), np.full(4000, 7, np.int32))
    repeated, die = transition.next_observation.numpy().T
    repeated = repeated == 5  # the space's first action, at the start of an episode
    assert set(transition.next_observation.numpy()[:, 0]) == {5.0, 7.0}
    # Of 2000 repetitions half come with a low die, +-32 at one standard deviation.
    assert abs(np.sum(repeated & (die < 0.5)) - 1000) < 5 * 32


def test_sticky_actions_of_sticky_actions_throw_two_dice():
    for env in (
        StickyActions(StickyActions(Dice(num_envs=4000), 0.5), 0.5),
        StickyActions(RewardScale(StickyActions(Dice(num_envs=4000), 0.5), 2.0), 0.5),
    ):
        env = env.with_num_envs(4000)
        _, transition = step(env, start(env), np.full(4000, 7, np.int32))
        passed = transition.next_observation.numpy()[:, 0] == 7
        # Both pass on 7 with probability 1/4; with one die between them it would be 1/2.
        assert abs(passed.sum() - 1000) < 5 * 28


def test_wrappers_stack_and_count_time_once():
    env = RewardScale(FrameStack(TimeLimit(CartPole(num_envs=2), 2), 2), 3.0)
    state, _ = step(env, start(env), [0, 1])
    _, transition = step(env, state, [0, 1], 1)
    assert transition.truncated.numpy().tolist() == [True, True]
    assert transition.progress.total.numpy().tolist() == [6.0, 6.0]
    assert transition.observation.shape == (2, 2, 4)
    assert repr(env).startswith("RewardScale(FrameStack(TimeLimit(CartPole(num_envs=2")


def test_wrong_wrapping_names_what_was_expected():
    with pytest.raises(TypeError, match="expected a GraphEnvironment"):
        TimeLimit(gymnasium.make("CartPole-v1"), 3)
    with pytest.raises(TypeError, match="expected a Box"):
        RescaleAction(CartPole())
    with pytest.raises(ValueError, match="expected low < high"):
        RescaleAction(Pendulum(), low=1.0, high=1.0)
    with pytest.raises(ValueError, match="count=1: expected at least 2"):
        FrameStack(CartPole(), 1)
    with pytest.raises(TypeError, match="expected a Box to stack"):
        FrameStack(Masked(), 2)
    with pytest.raises(TypeError, match="expected Discrete"):
        StickyActions(Pendulum(), 0.1)
    with pytest.raises(ValueError, match="probability=1.5: expected 0 to 1"):
        StickyActions(CartPole(), 1.5)


def test_gymnasium_view_gives_what_the_environment_gives():
    envs = as_gymnasium(CartPole(num_envs=3, max_episode_steps=12))
    observations, infos = envs.reset(seed=11)
    assert infos == {}
    assert envs.observation_space.contains(observations)
    envs.action_space.seed(0)
    ends = 0
    for timestep in range(40):
        actions = envs.action_space.sample()
        before = envs._state
        observations, rewards, terminations, truncations, infos = envs.step(actions)
        _, expected = envs.graph_environment.step(
            before, tf.constant(actions), tf.constant([11, timestep + 1])
        )
        np.testing.assert_allclose(observations, expected.observation, rtol=1e-6)
        np.testing.assert_array_equal(rewards, [1.0, 1.0, 1.0])
        ended = terminations | truncations
        ends += ended.sum()
        assert ("final_obs" in infos) == ended.any()
        for index in np.flatnonzero(ended):
            np.testing.assert_allclose(
                infos["final_obs"][index], expected.next_observation[index], rtol=1e-6
            )
            episode = infos["final_info"]["episode"]
            assert episode["r"][index] == episode["l"][index] == expected.progress.length[index]
            assert infos["_final_obs"][index] and infos["_final_info"][index]
    assert ends > 5


def test_gymnasium_view_has_sync_vector_envs_infos():
    envs = as_gymnasium(CartPole(num_envs=2, max_episode_steps=1))
    reference = gymnasium.vector.SyncVectorEnv(
        [lambda: gymnasium.wrappers.TimeLimit(gymnasium.make("CartPole-v1"), 1)] * 2,
        autoreset_mode="SameStep",
    )
    assert envs.metadata["autoreset_mode"] == reference.metadata["autoreset_mode"]
    results = []
    for vector in (envs, reference):
        vector.reset(seed=0)
        results.append(vector.step(np.array([0, 1])))
    mine, theirs = results[0], results[1]
    for left, right in zip(mine[:4], theirs[:4], strict=True):
        assert (left.shape, left.dtype.kind) == (right.shape, right.dtype.kind)
    for key in ("final_obs", "_final_obs", "_final_info"):
        assert type(mine[4][key]) is type(theirs[4][key])
        assert (mine[4][key].dtype, mine[4][key].shape) == (
            theirs[4][key].dtype,
            theirs[4][key].shape,
        )
    assert mine[4]["final_obs"][0].shape == theirs[4]["final_obs"][0].shape
    assert mine[4]["final_obs"][0].dtype == theirs[4]["final_obs"][0].dtype


def test_gymnasium_view_is_seeded():
    def rollout(envs, seed):
        rows = [envs.reset(seed=seed)[0]]
        rows += [envs.step(np.array([0, 1]))[0] for _ in range(20)]
        return np.array([*rows, envs.reset()[0]])

    envs = as_gymnasium(CartPole(num_envs=2))
    once, again, other = rollout(envs, 3), rollout(envs, 3), rollout(envs, 4)
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
    assert (once[0] != once[-1]).any()  # a reset without a seed goes on


def test_gymnasium_view_takes_nests_and_gives_masks():
    envs = as_gymnasium(Masked(num_envs=2))
    observation, infos = envs.reset(seed=0)
    assert observation["count"].tolist() == [0.0, 0.0]
    assert infos["action_mask"].tolist() == [[True, True]] * 2
    for _ in range(2):
        observation, *_, infos = envs.step(np.array([0, 1]))
    assert infos["action_mask"].tolist() == [[True, True]] * 2
    observation, _, _, truncated, infos = envs.step(np.array([0, 1]))
    assert truncated.all()
    assert observation["count"].tolist() == [0.0, 0.0]
    assert infos["final_obs"][1]["count"] == 3.0


def test_gymnasium_view_refuses_what_it_cannot_do():
    envs = as_gymnasium(CartPole(num_envs=2))
    with pytest.raises(RuntimeError, match=r"reset\(seed=…\) first"):
        envs.step(np.array([0, 1]))
    with pytest.raises(ValueError, match="options"):
        envs.reset(options={"low": 0.0})
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="expected 2 rows"):
        envs.step(np.array([0, 1, 1]))
    with pytest.raises(TypeError, match="expected a pgest GraphEnvironment"):
        as_gymnasium(gymnasium.make("CartPole-v1"))


@pytest.mark.parametrize("name", graph_environments.__all__)
def test_public_names_are_documented(name):
    assert getattr(graph_environments, name).__doc__
