"""Reward scaling where episodes are cut: the running return goes on in the environment's next row.

Batches `[N, 1]` hold the environments end to end: a RolloutMemory's where resets take steps, and a
BatchMemory's.
"""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.vector import AutoresetMode

import pgest
from pgest import normalization
from tests.distributions.distribution_families import close

LENGTHS = {0: 200, 1: 150, 2: 70, 3: 200}  # of the episodes of each environment


class PendulumLike(gymnasium.Env):
    """Rewards of a slow swing between -16 and 0, whatever the actions."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, index=0):
        self.index = index
        self.random = np.random.default_rng(index)
        self.time = 0

    def reset(self, *, seed=None, options=None):
        self.time, self.phase = 0, self.random.uniform(0, 2 * np.pi)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        reward = -8 + 8 * np.sin(self.phase + self.time / 20)
        self.time += 1
        return np.zeros(1, np.float32), reward, False, self.time >= LENGTHS[self.index], {}


def environments(num_envs):
    return [lambda index=index: PendulumLike(index) for index in range(num_envs)]


def vector(num_envs, mode):
    return gymnasium.vector.SyncVectorEnv(environments(num_envs), autoreset_mode=mode)


def statistics(env, memory, *, timesteps=4800, jit_compile=False):
    """Mean and standard deviation of the running return, and how many rows they are of."""
    model = pgest.models.A2C(learning_rate=0.0, hidden_sizes=(4,), normalize_reward=True)
    config = pgest.RunConfig(
        tf_random_seed=0, log_step_count_steps=None, save_summary_steps=0, jit_compile=jit_compile
    )
    agent = pgest.PGAgent(model, memory, config=config)
    agent.train(env, timesteps=timesteps)
    names = ("reward_mean", "reward_variance", "reward_count")
    mean, variance, count = (agent.get_variable_value(name) for name in names)
    return np.array([mean, np.sqrt(variance)]), int(count)


def column(*values, dtype):
    return tf.constant(values, dtype, shape=[len(values), 1])


# --- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_environments_end_to_end_by_hand(jit_compile):
    """Discount 1/2; three environments, of which the second has no rows in the second batch."""
    scaler = normalization.RewardScaler(3, discount=0.5)

    def update(rewards, ended, env_index):
        scaler.update(rewards, ended, env_index=env_index)
        return scaler.running_return.read_value()

    if jit_compile is not None:
        update = tf.function(update, jit_compile=jit_compile)
    # Environment 0: 2, then 1 + 2 / 2 = 2, a cut, and 4 + 2 / 2 = 5.
    # Environment 1: 8; it starts from 0, not from the other's 5. Environment 2: 6, an end, then 3.
    carried = update(
        column(2, 1, 4, 8, 6, 3, dtype=tf.float32),
        column(False, False, False, False, True, False, dtype=tf.bool),
        column(0, 0, 0, 1, 2, 2, dtype=tf.int32),
    )
    assert carried.numpy().tolist() == [5, 8, 3]
    first = [2, 2, 5, 8, 6, 3]
    close(scaler.moments.mean, np.mean(first, dtype=np.float32), 1e-6)
    close(scaler.moments.variance, np.var(first, dtype=np.float32), 1e-5)
    # Environment 0: 1 + 5 / 2 = 3.5, an end, then 7. Environment 2: 2.5 + 3 / 2 = 4, and an end.
    carried = update(
        column(1, 7, 2.5, dtype=tf.float32),
        column(True, False, True, dtype=tf.bool),
        column(0, 0, 2, dtype=tf.int32),
    )
    assert carried.numpy().tolist() == [7, 8, 0]
    rows = [*first, 3.5, 7, 4]
    close(scaler.moments.mean, np.mean(rows, dtype=np.float32), 1e-6)
    close(scaler.moments.variance, np.var(rows, dtype=np.float32), 1e-5)
    assert int(scaler.moments.count) == 9


def test_columns_and_the_same_rows_end_to_end_agree():
    random = np.random.default_rng(0)
    rewards = random.normal(1, 2, (60, 3)).astype(np.float32)
    ended = random.random((60, 3)) < 0.1
    env_index = np.repeat(np.arange(3, dtype=np.int32), 20)[:, None]
    columns, end_to_end = (normalization.RewardScaler(3, discount=0.9) for _ in range(2))
    for start in (0, 20, 40):
        part = slice(start, start + 20)
        columns.update(rewards[part], ended[part])
        flat = [array[part].T.reshape(-1, 1) for array in (rewards, ended)]
        end_to_end.update(*flat, env_index=env_index)
        close(end_to_end.running_return, columns.running_return, 1e-5)
    close(end_to_end.moments.mean, columns.moments.mean, 1e-5)
    close(end_to_end.moments.variance, columns.moments.variance, 1e-5)


def test_environments_that_have_been_left_are_not_carried_on():
    scaler = normalization.RewardScaler(1, discount=0.5)
    scaler.update(column(4, dtype=tf.float32), column(False, dtype=tf.bool))
    scaler.update(
        column(1, 8, 8, dtype=tf.float32),
        column(False, False, False, dtype=tf.bool),
        env_index=column(0, 1, 2, dtype=tf.int32),
    )
    assert scaler.running_return.numpy().tolist() == [3]
    close(scaler.moments.mean, np.float32((4 + 3 + 8 + 8) / 4), 1e-6)


def test_rows_end_to_end_need_their_environments():
    scaler = normalization.RewardScaler(2, discount=0.5)
    flat = (tf.zeros([6, 1]), tf.zeros([6, 1], tf.bool))
    with pytest.raises(ValueError, match=r"of 2 environments got rewards \(6, 1\).*env_index="):
        scaler.update(*flat)
    with pytest.raises(ValueError, match=r"of 2 environments got rewards \(3, 2\)"):
        scaler.update(
            tf.zeros([3, 2]), tf.zeros([3, 2], tf.bool), env_index=tf.zeros([3, 2], tf.int32)
        )


# --- memories ------------------------------------------------------------------------------------


def test_memories_say_which_environment_a_row_is_of():
    memory = pgest.BatchMemory(episodes=3)
    flags = {"terminated": np.array([True, False, True]), "truncated": np.zeros([3], np.bool_)}
    memory.step_vector(flags)
    memory.step_vector(flags, np.array([True, True, False]))
    batch = memory.sample()
    assert batch["env_index"].dtype == np.int32
    assert batch["env_index"].tolist() == [0, 0, 2]  # the second environment's episode goes on
    memory = pgest.RolloutMemory(horizon=2)
    for acted in ([True, True, True], [True, False, True], [True, False, False]):
        memory.step_vector(flags, np.array(acted))
    assert memory.sample()["env_index"].tolist() == [0, 0, 0, 1, 2, 2]


def test_a_model_is_not_given_the_environments_of_rows():
    seen = {}

    def model_fn(features, labels, mode, params):
        seen.setdefault(mode, set()).update({*features, *(labels or ())})
        return pgest.models.A2C(hidden_sizes=(4,))(features, labels, mode, params)

    agent = pgest.PGAgent(model_fn, pgest.BatchMemory(episodes=2))
    agent.train(vector(2, AutoresetMode.SAME_STEP), steps=1)
    assert "reward" in seen[pgest.Modes.TRAIN]
    assert not any("env_index" in names for names in seen.values())


# --- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("jit_compile", [False, True])
def test_resets_that_take_steps_change_no_statistics(jit_compile):
    """The same rewards whether a reset takes a step or not; in gymnasium's autoreset by default."""
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    theirs = vec_env.VecNormalize(vec_env.DummyVecEnv(environments(4)), gamma=0.99)
    theirs.reset()
    for _ in range(1200):
        theirs.step(np.zeros(4, int))
    expected = [theirs.ret_rms.mean, np.sqrt(theirs.ret_rms.var)]
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        found, count = statistics(
            vector(4, mode), pgest.RolloutMemory(horizon=5), jit_compile=jit_compile
        )
        assert count == 4800
        np.testing.assert_allclose(found, expected, rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 4])
def test_pieces_have_the_statistics_of_whole_episodes(num_envs):
    found = []
    for longest in (None, 5):
        env = vector(num_envs, AutoresetMode.SAME_STEP) if num_envs > 1 else PendulumLike()
        memory = pgest.BatchMemory(batch_size=200, max_episode_length=longest)
        found.append(statistics(env, memory)[0])
    np.testing.assert_allclose(found[1], found[0], rtol=0.05)


def test_a_rollout_that_overflows():
    """Somebody's run_episode may play past the horizon: the batch is then end to end, too."""

    class Whole(pgest.PGAgent):
        def run_episode(self, env, loop, features, labels, must_pause, *more):
            return super().run_episode(env, loop, features, labels, lambda: False, *more)

    model = pgest.models.A2C(learning_rate=0.0, hidden_sizes=(4,), normalize_reward=True)
    config = pgest.RunConfig(tf_random_seed=0, log_step_count_steps=None, jit_compile=False)
    agent = Whole(model, pgest.RolloutMemory(horizon=50), config=config)
    agent.train(PendulumLike(), timesteps=400)
    assert agent.global_step > 1
    assert agent.get_variable_value("reward_count") == 50 * agent.global_step
