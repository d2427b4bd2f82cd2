"""A value of what follows a timestep reads the mask of what follows, not of the timestep.

At timestep t of an episode action t % 3 alone is allowed. The value is a function of the mask: 10,
20, 30 where 0, 1, 2 is allowed. An episode is truncated after 5 timesteps, so that three masks
differ there: the last action obeyed that of t = 4 (20), the last observation is of t = 5 (30), and
the next episode starts at t = 0 (10). No rewards, discount 1, lambda 0: the target of timestep t is
the value at t + 1.
"""

import functools

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import pgest
from pgest import graph_environments as ge
from pgest.environments import making
from pgest.environments.in_process import InProcessEnvironments

LENGTH = 5
TARGETS = {0: 20.0, 1: 30.0, 2: 10.0, 3: 20.0, 4: 30.0}


class Walk(gymnasium.Env):
    """Observes its timestep; says what is allowed in info (`last` at the end) or by a method."""

    observation_space = spaces.Box(0, 99, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, says="info", last="mask", length=LENGTH, terminates=False):
        self.says, self.last, self.length, self.terminates = says, last, length, terminates
        if says == "method":
            self.action_masks = self.mask

    def mask(self):
        return np.arange(3) == self.t % 3

    def seen(self, ended=False):
        info = {} if self.says == "method" else {"action_mask": self.mask()}
        if ended and self.last == "nothing allowed":
            info["action_mask"] = np.zeros(3, np.bool_)
        elif ended and self.last == "no mask":
            info = {}
        elif ended and self.last == "another shape":
            info["action_mask"] = np.ones(4, np.bool_)
        return np.array([self.t], np.float32), info

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.seen()

    def step(self, action):
        assert action == self.t % 3
        self.t += 1
        ended = self.t == self.length
        observation, info = self.seen(ended)
        return observation, 0.0, ended and self.terminates, ended and not self.terminates, info


class GraphWalk(ge.GraphEnvironment):
    def __init__(self, num_envs=1, max_episode_steps=LENGTH):
        super().__init__(
            Walk.observation_space,
            Walk.action_space,
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
        )

    def start(self, seed):
        return tf.zeros([self.num_envs])

    def advance(self, simulation, action, seed):
        return simulation + 1.0, tf.zeros_like(simulation), tf.zeros_like(simulation, tf.bool)

    def observe(self, simulation):
        return simulation[:, tf.newaxis]

    def action_mask(self, simulation):
        return tf.one_hot(tf.cast(simulation, tf.int32) % 3, 3, True, False, dtype=tf.bool)


def vector(mode, num_envs=2, **arguments):
    return SyncVectorEnv(
        [functools.partial(Walk, **arguments)] * num_envs, autoreset_mode=AutoresetMode[mode]
    )


def targets(env, memory, **limits):
    """The value target of each timestep that updates saw, one dict for each update."""
    updates = []

    def record(state, target):
        found = {}
        for t, value in zip(state.numpy().ravel().tolist(), target.numpy().ravel(), strict=True):
            assert found.setdefault(t, value) == value, "equal in every environment"
        updates.append(found)
        return np.int64(0)

    def model_fn(features, labels, mode):
        mask, state = features["action_mask"], features["state"]
        value = tf.reduce_sum(tf.cast(mask, tf.float32) * [10.0, 20.0, 30.0], -1)
        logits = tf_keras.layers.Dense(3)(tf.cast(mask, tf.float32))
        distribution = tfp.distributions.Categorical(logits=tf.where(mask, logits, -1e9))
        if mode == pgest.Modes.PREDICT:
            return pgest.EstimatorSpec(mode, {"value": value}, distribution=distribution)
        newest = state if state.shape.rank == 2 else state[:, -1]
        seen = tf.py_function(record, [newest, labels["value_target"]], tf.int64)
        loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
        with tf.control_dependencies([seen]):
            train_op = pgest.minimize(loss, tf_keras.optimizers.SGD(0.0))
        return pgest.EstimatorSpec(
            mode, {"value": value}, loss, train_op, distribution=distribution
        )

    config = pgest.RunConfig(
        jit_compile=False, tf_random_seed=0, save_summary_steps=0, log_step_count_steps=0
    )
    parameters = {"discount": 1.0, "gae_lambda": 0.0}
    agent = pgest.PGAgent(model_fn, memory, optimizer_params=parameters, config=config)
    agent.train(env, **limits)
    return updates


def of(*timesteps):
    return {t: TARGETS[t] for t in timesteps}


SOURCES = {
    "one": Walk,
    "several": lambda: pgest.make(Walk, num_envs=2),
    "TimeLimit": lambda: gymnasium.wrappers.TimeLimit(Walk(length=99), LENGTH),
    "SAME_STEP": lambda: vector("SAME_STEP"),
    "NEXT_STEP": lambda: vector("NEXT_STEP"),
    "DISABLED": lambda: vector("DISABLED"),
    "as_gymnasium": lambda: ge.as_gymnasium(GraphWalk(2), jit_compile=False),
    "in the graph": lambda: GraphWalk(2),
    "in the graph, wrapped": lambda: ge.TimeLimit(
        ge.FrameStack(ge.StickyActions(GraphWalk(2, max_episode_steps=None), 0.0), 2), LENGTH
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_where_the_horizon_cuts_and_where_an_episode_is_truncated(source):
    # The horizon cuts after t = 3, and the time limit after t = 4.
    first, second = targets(SOURCES[source](), pgest.RolloutMemory(horizon=4), steps=2)
    assert first == of(0, 1, 2, 3)
    # An environment that takes a timestep to reset itself is given one more by the memory or not.
    assert second in (of(4, 0, 1, 2), of(4, 0, 1))


@pytest.mark.parametrize("source", ["one", "NEXT_STEP"])
def test_where_the_longest_piece_of_an_episode_ends(source):
    memory = pgest.BatchMemory(2, max_episode_length=2)
    first, second, *_ = targets(SOURCES[source](), memory, timesteps=12)
    assert first == of(0, 1)
    assert second == of(2, 3)


@pytest.mark.parametrize("source", ["TimeLimit", "NEXT_STEP"])
def test_where_whole_episodes_are_truncated(source):
    (found,) = targets(SOURCES[source](), pgest.BatchMemory(LENGTH), steps=1)
    assert found == TARGETS


def next_masks(view, timesteps=LENGTH):
    """Which action each environment's next mask allows, at each timestep."""
    found = []
    for _ in range(timesteps):
        view.observe()
        mask = view.step(view.action_mask.argmax(axis=1)).next_mask
        assert mask.dtype == np.bool_ and mask.shape == (view.num_envs, 3)
        assert (mask.sum(axis=1) == 1).all()
        found.append(mask.argmax(axis=1).tolist())
    return found


MAKERS = {
    "one": lambda **walk: Walk(**walk),
    "several": lambda **walk: [Walk(**walk) for _ in range(2)],
    "SAME_STEP": lambda **walk: vector("SAME_STEP", **walk),
    "NEXT_STEP": lambda **walk: vector("NEXT_STEP", **walk),
    "DISABLED": lambda **walk: vector("DISABLED", **walk),
}


def view_of(source, **walk):
    env = MAKERS[source](**walk)
    if isinstance(env, list):
        return InProcessEnvironments(env, given=env, seed=0, owned=True)
    return making.view(env, seed=0)


@pytest.mark.parametrize("source", MAKERS)
@pytest.mark.parametrize(
    ("walk", "last"),
    [
        ({}, 2),
        ({"last": "nothing allowed"}, 1),
        ({"last": "no mask"}, 1),
        ({"terminates": True}, 1),
    ],
)
def test_the_next_mask_of_the_last_timestep(source, walk, last):
    view = view_of(source, **walk)
    assert next_masks(view) == [[index] * view.num_envs for index in (1, 2, 0, 1, last)]
    view.observe()
    if source != "NEXT_STEP":
        assert view.action_mask.tolist() == [[True, False, False]] * view.num_envs


@pytest.mark.parametrize(
    ("source", "last"), [("one", 2), ("several", 2), ("SAME_STEP", 1), ("NEXT_STEP", 2)]
)
def test_the_next_mask_of_the_last_timestep_by_a_method(source, last):
    view = view_of(source, says="method")
    assert next_masks(view) == [[index] * view.num_envs for index in (1, 2, 0, 1, last)]


def test_some_are_truncated_while_others_go_on():
    makers = [functools.partial(Walk, length=length) for length in (2, 99)]
    vectors = [SyncVectorEnv(makers, autoreset_mode=mode) for mode in AutoresetMode]
    for env in [pgest.make(lambda: Walk(length=2), num_envs=1), *vectors]:
        view = making.view(env, seed=0)
        assert next_masks(view, 2) == [[1] * view.num_envs, [2] * view.num_envs]


@pytest.mark.slow
@pytest.mark.parametrize("says", ["info", "method"])
def test_the_next_mask_crosses_from_other_processes(says):
    factory = functools.partial(Walk, says, length=2)
    with making.make(factory, 2, vectorization="async") as view:
        assert next_masks(view, 4) == [[1, 1], [2, 2], [1, 1], [2, 2]]


@pytest.mark.parametrize("source", ["one", "NEXT_STEP"])
def test_a_last_mask_of_another_shape_is_an_error(source):
    arguments = {"num_envs": 1} if source == "NEXT_STEP" else {}
    with pytest.raises(making.EnvironmentFailure, match="action_mask"):
        next_masks(view_of(source, last="another shape", **arguments))


class Nested(Walk):
    """Masks of a Tuple with a part that has none."""

    action_space = spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)])

    def mask(self):
        return (super().mask(), None)

    def step(self, action):
        return super().step(action[0])


@pytest.mark.parametrize("mode", [None, "SAME_STEP", "NEXT_STEP"])
def test_masks_of_several_parts(mode):
    env = Nested(length=2)
    if mode:
        makers = [lambda: Nested(length=2)] * 2
        env = SyncVectorEnv(makers, autoreset_mode=AutoresetMode[mode])
    view = making.view(env, seed=0)
    for following in (1, 2):
        view.observe()
        action = (view.action_mask[0].argmax(axis=1), np.zeros([view.num_envs, 2], np.float32))
        mask = view.step(action).next_mask
        assert mask[0].argmax(axis=1).tolist() == [following] * view.num_envs
        assert mask[1] == ()


def test_environments_without_masks_give_none():
    for env in ["CartPole-v1", gymnasium.make_vec("CartPole-v1", num_envs=2)]:
        view = making.view(env, seed=0)
        view.observe()
        assert view.step(np.zeros(view.num_envs, np.int64)).next_mask is None


def test_a_graph_transition_has_the_mask_before_the_reset():
    env = GraphWalk(2, max_episode_steps=2)
    state, seed = env.initial(tf.constant([0, 0])), tf.constant([0, 1])
    for following in (1, 2):
        state, transition = env.step(state, tf.constant([0, 0]), seed)
        assert tf.argmax(transition.next_mask, axis=1).numpy().tolist() == [following] * 2
    assert env.action_mask(state.simulation).numpy()[:, 0].all()
    assert (
        ge.CartPole().step(ge.CartPole().initial(seed), tf.constant([0]), seed)[1].next_mask is None
    )
