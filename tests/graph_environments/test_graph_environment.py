"""The base of in-graph environments: reset, time limit, statistics, randomness, wrappers."""

import itertools

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

from pgest import graph_environments
from pgest.graph_environments import stateless_noise, trigonometry

ALL = [
    graph_environments.CartPole,
    graph_environments.Pendulum,
    graph_environments.Acrobot,
    graph_environments.MountainCar,
    graph_environments.MountainCarContinuous,
    graph_environments.Breakout,
]


class Counter(graph_environments.GraphEnvironment):
    """Counts up from a start of 0 or 100; environment i terminates at its start + 3 + i.

    The reward is the action, so statistics can be done by hand.
    """

    def __init__(self, num_envs=2, max_episode_steps=None):
        super().__init__(
            gymnasium.spaces.Box(0, 200, (1,)),
            gymnasium.spaces.Box(-10, 10, ()),
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
        )

    def start(self, seed):
        hundred = 100.0 * tf.cast(
            stateless_noise.integers(seed, [self.num_envs], bound=2), tf.float32
        )
        return {"count": hundred, "start": hundred}

    def advance(self, simulation, action, seed):
        count = simulation["count"] + 1.0
        lengths = 3.0 + tf.range(self.num_envs, dtype=tf.float32)
        moved = {"count": count, "start": simulation["start"]}
        return moved, action, count - simulation["start"] >= lengths

    def observe(self, simulation):
        return simulation["count"][:, tf.newaxis]


def roll(env, actions, seed=0):
    """Steps through `actions` eagerly; returns the transitions, and the state before each."""
    state = env.initial(tf.constant([seed, 0]))
    states, transitions = [], []
    for timestep, action in enumerate(actions):
        states.append(state)
        state, transition = env.step(state, tf.constant(action), tf.constant([seed, timestep + 1]))
        transitions.append(transition)
    return transitions, states


def random_actions(env, steps, seed=0):
    rng = np.random.default_rng(seed)
    if isinstance(env.action_space, gymnasium.spaces.Discrete):
        return rng.integers(env.action_space.n, size=(steps, env.num_envs)).astype(np.int32)
    shape = (steps, env.num_envs, *env.action_space.shape)
    return rng.uniform(env.action_space.low, env.action_space.high, shape).astype(np.float32)


def compiled_rollout(env, actions, jit_compile):
    """A whole rollout as one program, a function of its seed.

    It gives the last state, observations, rewards, ends, true next observations, returns so far.
    """
    steps = len(actions)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(seed):
        def body(timestep, state, arrays):
            state, given = env.step(
                state, tf.constant(actions)[timestep], tf.stack([seed, timestep])
            )
            written = (
                given.observation,
                given.reward,
                given.terminated,
                given.truncated,
                given.next_observation,
                given.progress.total,
            )
            arrays = tuple(a.write(timestep, x) for a, x in zip(arrays, written, strict=True))
            return timestep + 1, state, arrays

        state = env.initial(tf.stack([seed, -1]))
        observation = env.observation(state).dtype
        dtypes = (observation, tf.float32, tf.bool, tf.bool, observation, tf.float32)
        arrays = tuple(tf.TensorArray(dtype, steps) for dtype in dtypes)
        _, state, arrays = tf.while_loop(
            lambda timestep, *_: timestep < steps, body, (0, state, arrays)
        )
        return tf.nest.flatten(state), tuple(array.stack() for array in arrays)

    return lambda seed: tf.nest.map_structure(lambda x: x.numpy(), run(tf.constant(seed)))


def test_a_terminated_episode_gives_its_true_last_observation_and_the_next_ones_first():
    transitions, states = roll(Counter(num_envs=1), [[0.0]] * 4)
    start = float(states[0].simulation["start"][0])
    last = transitions[2]
    assert last.terminated.numpy().tolist() == [True]
    assert last.next_observation.numpy().tolist() == [[start + 3.0]]
    new_start = float(states[3].simulation["start"][0])
    assert last.observation.numpy().tolist() == [[new_start]]
    assert transitions[3].next_observation.numpy().tolist() == [[new_start + 1.0]]


def test_between_ends_both_observations_are_the_same():
    transitions, _ = roll(Counter(num_envs=2), [[0.0, 0.0]] * 2)
    for transition in transitions:
        np.testing.assert_array_equal(transition.observation, transition.next_observation)
        assert not transition.ended.numpy().any()


def test_only_the_environment_that_ended_starts_afresh():
    transitions, states = roll(Counter(num_envs=2), [[0.0, 0.0]] * 4)
    assert transitions[2].ended.numpy().tolist() == [True, False]
    assert states[3].progress.length.numpy().tolist() == [0, 3]
    assert transitions[3].ended.numpy().tolist() == [False, True]


def test_the_time_limit_truncates_and_does_not_terminate():
    transitions, _ = roll(Counter(num_envs=2, max_episode_steps=2), [[0.0, 0.0]] * 4)
    assert [t.truncated.numpy().tolist() for t in transitions] == [[False] * 2, [True] * 2] * 2
    assert not any(t.terminated.numpy().any() for t in transitions)


def test_an_end_at_the_limit_is_terminated_and_truncated_as_in_gymnasium():
    transitions, _ = roll(Counter(num_envs=1, max_episode_steps=3), [[0.0]] * 3)
    assert transitions[2].terminated.numpy().tolist() == [True]
    assert transitions[2].truncated.numpy().tolist() == [True]


def test_episode_statistics_are_those_of_the_finished_episode():
    actions = [[1.0, 5.0], [-2.0, 5.0], [4.0, 5.0], [7.0, -1.0]]
    transitions, states = roll(Counter(num_envs=2), actions)
    # Environment 0 ends after 1, -2, 4; environment 1 after 5, 5, 5, -1.
    first = transitions[2].progress
    assert (float(first.total[0]), int(first.length[0])) == (3.0, 3)
    assert (float(first.max[0]), float(first.min[0])) == (4.0, -2.0)
    second = transitions[3].progress
    assert (float(second.total[1]), int(second.length[1])) == (14.0, 4)
    assert (float(second.max[1]), float(second.min[1])) == (5.0, -1.0)
    assert float(second.total[0]) == 7.0  # environment 0's next episode began at nought
    assert states[3].progress.max.numpy().tolist() == [float("-inf"), 5.0]


@pytest.mark.parametrize("environment", ALL)
def test_the_same_seed_gives_the_same_rollout_bit_for_bit(environment):
    env = environment(num_envs=3, max_episode_steps=20)
    rollout = compiled_rollout(env, random_actions(env, 50), jit_compile=True)
    once, again, other = rollout(7), rollout(7), rollout(8)
    for mine, yours in zip(tf.nest.flatten(once), tf.nest.flatten(again), strict=True):
        np.testing.assert_array_equal(mine, yours)
    assert any(
        (mine != yours).any()
        for mine, yours in zip(tf.nest.flatten(once), tf.nest.flatten(other), strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("environment", ALL)
def test_xla_gives_what_tensorflow_gives_without_it(environment):
    env = environment(num_envs=4, max_episode_steps=30)
    actions = random_actions(env, 60)
    compiled, plain = (compiled_rollout(env, actions, jit)(3) for jit in (True, False))
    assert (compiled[1][2] | compiled[1][3]).any()  # the rollout goes over resets
    for mine, yours in zip(tf.nest.flatten(compiled), tf.nest.flatten(plain), strict=True):
        np.testing.assert_allclose(
            mine.astype(np.float64), yours.astype(np.float64), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("environment", ALL)
def test_shapes_and_dtypes_are_static_and_stay(environment):
    env = environment(num_envs=3)
    state = env.initial(tf.constant([0, 0]))
    next_state, transition = env.step(
        state, tf.constant(random_actions(env, 1)[0]), tf.constant([0, 1])
    )
    tf.nest.assert_same_structure(state, next_state)
    for before, after in zip(tf.nest.flatten(state), tf.nest.flatten(next_state), strict=True):
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
    for observation in (transition.observation, transition.next_observation):
        assert observation.shape == (3, *env.observation_space.shape)
        assert observation.dtype == env.observation_space.dtype
    assert transition.reward.dtype == tf.float32


def test_environments_of_one_batch_start_differently_and_each_reset_anew():
    env = graph_environments.CartPole(num_envs=50, max_episode_steps=1)
    transitions, _ = roll(env, [[0] * 50] * 20)
    rows = np.concatenate([t.observation.numpy() for t in transitions])
    assert len(np.unique(rows, axis=0)) == 1000


def test_another_number_of_environments_leaves_the_original_alone():
    env = graph_environments.TimeLimit(graph_environments.CartPole(num_envs=2), 9)
    more = env.with_num_envs(5)
    assert (env.num_envs, env.env.num_envs) == (2, 2)
    assert (more.num_envs, more.env.num_envs, more.max_episode_steps) == (5, 5, 9)
    assert more.observation(more.initial(tf.constant([0, 0]))).shape == (5, 4)


def test_wrong_arguments_name_what_was_expected():
    with pytest.raises(ValueError, match="num_envs=0: expected at least 1"):
        graph_environments.CartPole(num_envs=0)
    with pytest.raises(TypeError, match="num_envs=2.0: expected an int"):
        graph_environments.CartPole(num_envs=2.0)
    with pytest.raises(ValueError, match="max_episode_steps=0"):
        graph_environments.CartPole(max_episode_steps=0)
    env = graph_environments.CartPole()
    with pytest.raises(ValueError, match=r"seed has dtype int64 .*expected int32 \[2\]"):
        env.initial(tf.constant([1, 2], tf.int64))
    with pytest.raises(ValueError, match=r"shape \(\).*expected int32 \[2\]"):
        env.initial(tf.constant(3))


def test_noise_is_even_and_unrelated_between_indices_and_seeds():
    numbers = np.stack(
        [stateless_noise.uniform(tf.constant([9, i]), [1000]).numpy() for i in range(200)]
    )
    assert 0.0 <= numbers.min() and numbers.max() < 1.0
    counts, _ = np.histogram(numbers, bins=100, range=(0, 1))
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert 50 < chi_square < 160  # 99 degrees of freedom
    centred = (numbers - 0.5) * np.sqrt(12)
    for first, second in (
        (centred[:, :-1], centred[:, 1:]),  # next index
        (centred[:-1], centred[1:]),  # next seed
        (centred[:-1, 1:], centred[1:, :-1]),
    ):
        assert abs((first * second).mean()) < 4.5 / np.sqrt(first.size)
    assert len(np.unique(numbers)) > 0.985 * numbers.size  # of 2**24 values


@pytest.mark.parametrize("first_word", [0, 1, 123456])
def test_noise_of_two_environments_is_independent(first_word):
    num_seeds, num_envs, bins = 60_000, 24, 64

    @tf.function(jit_compile=True)
    def resets():
        def draw(timestep):
            seed = stateless_noise.fold(tf.stack([first_word, timestep]), 9003)
            return stateless_noise.uniform(seed, [num_envs])

        return tf.map_fn(draw, tf.range(num_seeds), fn_output_signature=tf.float32)

    cells = (resets().numpy() * bins).astype(np.int64)
    expected = num_seeds / bins**2
    freedom = bins**2 - 1
    for first, second in itertools.combinations(range(num_envs), 2):
        counts = np.bincount(cells[:, first] * bins + cells[:, second], minlength=bins**2)
        chi_square = ((counts - expected) ** 2 / expected).sum()
        # NumPy's own generator has a worst pair of 3 to 4.
        assert abs(chi_square - freedom) / np.sqrt(2 * freedom) < 6, (first, second)


def test_both_words_of_a_seed_count_and_are_no_relatives():
    draws = {
        seed: stateless_noise.uniform(tf.constant(seed), [64]).numpy().tobytes()
        for seed in [(0, 0), (0, 1), (1, 0), (1, 1), (-1, 0), (0, -1), (2, 1), (1, 2)]
    }
    assert len(set(draws.values())) == len(draws)
    folded = stateless_noise.fold(tf.constant([3, 4]), 1)
    assert stateless_noise.fold(tf.constant([3, 4]), 0).numpy().tolist() == [3, 4]
    assert folded.numpy().tolist() != [3, 4]


def test_noise_of_whole_numbers_stays_in_bounds():
    draws = stateless_noise.integers(tf.constant([1, 2]), [9000], bound=3).numpy()
    np.testing.assert_allclose(np.bincount(draws), 3000, rtol=0.05)
    with pytest.raises(ValueError, match="bound=129: expected 1 to 128"):
        stateless_noise.integers(tf.constant([1, 2]), [1], bound=129)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-7), ("float64", 2e-15)])
@pytest.mark.parametrize("jit_compile", [True, False])
def test_sine_and_cosine_are_numpys(dtype, tolerance, jit_compile):
    angles = np.linspace(-100, 100, 20001).astype(dtype)
    function = tf.function(trigonometry.sine_and_cosine, jit_compile=jit_compile)
    sine, cosine = function(tf.constant(angles))
    np.testing.assert_allclose(sine, np.sin(angles.astype(np.float64)), rtol=0, atol=tolerance)
    np.testing.assert_allclose(cosine, np.cos(angles.astype(np.float64)), rtol=0, atol=tolerance)
