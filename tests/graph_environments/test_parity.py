"""In-graph classics equal gymnasium's own, step by step."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

from pgest import graph_environments

STEPS = 500


def balance(state, rng):
    """Keeps CartPole's pole up, so that whole episodes are seen."""
    del rng
    return int(state[2] + 0.3 * state[3] + 0.05 * state[0] + 0.1 * state[1] > 0)


def pump(state, rng):
    """Drives MountainCar and Acrobot with their own speed, so that they reach their goals."""
    del rng
    return 2 if state[-1] > 0 else 0


def pump_force(state, rng):
    return np.array([np.sign(state[-1]) * rng.uniform(0.5, 1.2)], np.float32)


def at_random(space):
    """Random actions, beyond the bounds too where there are bounds."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return lambda state, rng: int(rng.integers(space.n))
    low, high = 1.2 * space.low, 1.2 * space.high
    return lambda state, rng: rng.uniform(low, high).astype(np.float32)


def compiled_advance(env):
    @tf.function(jit_compile=True, autograph=False)
    def advance(simulation, action):
        moved, reward, terminated = env.advance(simulation, action, tf.constant([0, 0]))
        return moved, reward, terminated, env.observe(moved)

    return advance


def simulation_of(reference, env):
    state = type(env.start(tf.constant([0, 0])))
    return state(*(tf.constant([float(number)], env.dtype) for number in reference.state))


def deviations(name, env, *, choose=None, resync=False, steps=STEPS, seed=0):
    """Largest differences over `steps` timesteps with the same actions; a reset realigns both.

    Returns:
        of observations, of rewards, number of differing terminations, number of terminations.
    """
    reference = gymnasium.make(name).unwrapped
    reference.reset(seed=seed)
    choose = choose or at_random(reference.action_space)
    rng = np.random.default_rng(seed)
    advance = compiled_advance(env)
    simulation = simulation_of(reference, env)
    observation_difference = reward_difference = 0.0
    differing = ended = 0
    for _ in range(steps):
        if resync:
            simulation = simulation_of(reference, env)
        action = choose(np.array(reference.state), rng)
        expected, expected_reward, expected_terminated, *_ = reference.step(action)
        simulation, reward, terminated, observation = advance(
            simulation, tf.constant(np.asarray(action)[None])
        )
        difference = np.abs(observation.numpy()[0] - expected).max()
        observation_difference = max(observation_difference, difference)
        reward_difference = max(reward_difference, abs(float(reward[0]) - expected_reward))
        differing += bool(terminated[0]) != expected_terminated
        ended += expected_terminated
        if expected_terminated:
            reference.reset()
            simulation = simulation_of(reference, env)
    return observation_difference, reward_difference, differing, ended


CLASSICS = {
    "CartPole-v1": graph_environments.CartPole,
    "Pendulum-v1": graph_environments.Pendulum,
    "Acrobot-v1": graph_environments.Acrobot,
    "MountainCar-v0": graph_environments.MountainCar,
    "MountainCarContinuous-v0": graph_environments.MountainCarContinuous,
}


@pytest.mark.parametrize("name", CLASSICS)
def test_500_random_actions_give_gymnasiums_observations_without_any_resync(name):
    observation, reward, differing, _ = deviations(name, CLASSICS[name](), seed=3)
    assert observation < 1e-5
    assert reward < 1e-5
    assert differing == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CLASSICS)
def test_each_timestep_equals_gymnasiums_in_both_dtypes(name, dtype):
    observation, reward, differing, _ = deviations(
        name, CLASSICS[name](dtype=dtype), resync=True, steps=200
    )
    assert observation < 1e-5
    assert reward < 1e-5
    assert differing == 0


@pytest.mark.parametrize(
    ("name", "choose"),
    [
        ("Acrobot-v1", pump),
        ("MountainCar-v0", pump),
        ("MountainCarContinuous-v0", pump_force),
    ],
)
def test_episodes_that_reach_the_goal_equal_gymnasiums_without_any_resync(name, choose):
    observation, reward, differing, ended = deviations(name, CLASSICS[name](), choose=choose)
    assert ended > 0
    assert observation < 1e-5
    assert reward < 1e-5
    assert differing == 0


def test_a_balanced_pole_equals_gymnasiums_at_each_of_500_timesteps():
    # Aligned at each timestep: the upright pole multiplies a difference by about 1.08 in each, so
    # that two float64 programs that round one last bit apart part visibly within 500.
    observation, reward, differing, ended = deviations(
        "CartPole-v1", graph_environments.CartPole(), choose=balance, resync=True
    )
    assert ended == 0
    assert observation < 1e-6
    assert reward == 0.0
    assert differing == 0


@pytest.mark.parametrize("name", CLASSICS)
def test_spaces_and_time_limit_are_gymnasiums(name):
    reference, env = gymnasium.make(name), CLASSICS[name]()
    assert env.observation_space == reference.observation_space
    assert env.action_space == reference.action_space
    assert env.max_episode_steps == reference.spec.max_episode_steps


@pytest.mark.parametrize("name", CLASSICS)
def test_starts_are_spread_as_gymnasiums(name):
    env = CLASSICS[name](num_envs=4096)
    starts = np.stack([field.numpy() for field in env.start(tf.constant([5, 6]))], axis=1)
    reference = gymnasium.make(name).unwrapped
    theirs = []
    for seed in range(500):
        reference.reset(seed=seed)
        theirs.append(np.array(reference.state, np.float64))
    theirs = np.array(theirs)
    spread = np.ptp(theirs, axis=0)
    np.testing.assert_allclose(starts.min(axis=0), theirs.min(axis=0), atol=0.03 * spread.max())
    np.testing.assert_allclose(starts.max(axis=0), theirs.max(axis=0), atol=0.03 * spread.max())
    np.testing.assert_allclose(starts.mean(axis=0), theirs.mean(axis=0), atol=0.1 * spread.max())
    np.testing.assert_allclose(starts.std(axis=0), theirs.std(axis=0), rtol=0.1, atol=1e-9)


@pytest.mark.parametrize("name", CLASSICS)
def test_first_observations_lie_in_the_space(name):
    env = CLASSICS[name](num_envs=64)
    observation = env.observation(env.initial(tf.constant([1, 2]))).numpy()
    assert observation.dtype == env.observation_space.dtype
    assert all(env.observation_space.contains(row) for row in observation)


@pytest.mark.parametrize("name", CLASSICS)
def test_an_unknown_dtype_is_an_error(name):
    with pytest.raises(ValueError, match="dtype='float16': expected 'float32' or 'float64'"):
        CLASSICS[name](dtype="float16")
