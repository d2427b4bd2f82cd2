"""gSDE: noise that is a function of the state, the seed and the timestep."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import pgest
from pgest import distributions, graph_environments, models
from pgest.contract import model_fn
from pgest.tracing import acting
from pgest.tracing import model as model_lib

tfd = tfp.distributions
SPACE = gymnasium.spaces.Box(-2.0, 2.0, (3,), np.float32)
OBSERVATIONS = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)


def actor(num_envs=2, seed=0, jit_compile=False, **fields):
    """Acts with a fresh PPO."""
    ppo = models.PPO(**{"noise_interval": 4, "initial_std": 0.2, "hidden_sizes": (8,), **fields})
    config = pgest.RunConfig(jit_compile=jit_compile)
    model = model_lib.Model(model_fn.ModelFn(ppo, None), {}, config, seed=seed)
    return acting.Actor(model, OBSERVATIONS, SPACE, num_envs)


def acted(an_actor, timesteps, observation=None):
    """Actions `[len(timesteps), B, 3]` on one observation for all."""
    rows = an_actor.num_envs
    if observation is None:
        observation = np.tile(np.linspace(-1, 1, 4, dtype=np.float32), [rows, 1])
    return np.stack([an_actor(observation, np.int64(t)).action for t in timesteps])


def test_one_state_has_one_action_until_the_next_matrix():
    # 2 environments and 4 timesteps of each: the matrices change at 8, 16, ...
    actions = acted(actor(), [0, 2, 4, 6, 8, 10, 14, 16])
    changes = [not np.array_equal(*pair) for pair in zip(actions, actions[1:], strict=False)]
    assert changes == [False, False, False, True, False, False, True]
    assert (actions[:, 0] != actions[:, 1]).all()  # each environment has a matrix of its own


def test_another_seed_is_another_noise():
    first, second = (acted(actor(seed=seed), [0]) for seed in (0, 1))
    assert (np.abs(first - second) > 1e-3).any()


def test_the_noise_is_that_matrix_times_the_features():
    """As linear as the features: with the network's inputs to the head doubled, so is the noise."""
    head = distributions.StateDependentNoise(every=1)
    features, log_std = tf.constant([[0.5, -1.0]]), tf.constant([[0.0], [-1.0]])
    space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    explored = []

    def look(features, labels, mode):
        for scale in (1.0, 2.0):
            given = head.distribution(space, tf.zeros([1, 1]), scale * features["state"], log_std)
            explored.append(given.sample(seed=(0, 0)))
        # h**2 @ S**2 = 0.25 * 1 + 1 * exp(-2) = 0.3853353
        assert given.batch_shape == [1] and given.event_shape == [1]
        prediction = {"results": given.mode(), "variance": 0.25 * given.variance()[:, 0]}
        return pgest.EstimatorSpec(mode, prediction)

    model = model_lib.Model(model_fn.ModelFn(look, None), {}, pgest.RunConfig(), seed=0)
    observations = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    found = acting.Actor(model, observations, space, 1, explore=False)
    outputs = found(features.numpy(), np.int64(0)).predictions
    # (4 * 0.3853353 + 1e-6) / 4
    np.testing.assert_allclose(outputs["variance"], 0.38533553, rtol=1e-6)
    assert len(explored) >= 2


def moments(squash):
    """Of 4,000 environments in one state: the noise's mean and variance over matrices."""
    fields = {"box": "squashed_gaussian"} if squash else {}
    many = actor(4000, **fields)
    actions = acted(many, [0])[0]
    return actions.mean(0), actions.std(0), many


@pytest.mark.parametrize("squash", [False, True])
def test_over_matrices_the_actions_have_the_density_that_is_said(squash):
    mean, std, many = moments(squash)
    observation = np.tile(np.linspace(-1, 1, 4, dtype=np.float32), [4000, 1])
    given = many(observation, np.int64(0))
    # log_prob is of the marginal: its mean over samples is minus the entropy.
    assert given.predictions["log_prob"].shape == (4000,)
    if not squash:
        entropy = np.log(std * np.sqrt(2 * np.pi * np.e)).sum()
        np.testing.assert_allclose(-given.predictions["log_prob"].mean(), entropy, atol=0.06)
        np.testing.assert_allclose(mean, 0.0, atol=0.05)
    else:
        assert (np.abs(given.action) <= 2.0).all()


def test_with_and_without_xla_it_is_the_same():
    first, second = (acted(actor(jit_compile=jit), [0, 8]) for jit in (False, True))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


def new_agent(directory=None, **fields):
    model = models.PPO(noise_interval=4, initial_std=0.2, hidden_sizes=(8,), **fields)
    config = pgest.RunConfig(tf_random_seed=0, log_step_count_steps=None, jit_compile=False)
    memory = pgest.RolloutMemory(16)
    return pgest.PGAgent(model, memory, {"epochs": 2}, model_dir=directory, config=config)


def weights(agent):
    names = [name for name in agent.get_variable_names() if "action" in name]
    return {name: agent.get_variable_value(name) for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("cell", [None, "gru"])
def test_a_run_that_goes_on_has_the_noise_that_it_would_have_had(cell, tmp_path):
    env = lambda: pgest.make("Pendulum-v1", num_envs=2)  # noqa: E731
    whole = new_agent(cell=cell).train(env(), max_timesteps=96)
    new_agent(tmp_path, cell=cell).train(env(), max_timesteps=42)
    resumed = new_agent(tmp_path, cell=cell).train(env(), max_timesteps=96)
    expected, found = weights(whole), weights(resumed)
    assert expected.keys() == found.keys() and "action_log_std" in expected
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)
    assert (expected["action_log_std"] != np.float32(np.log(0.2))).any()  # it is learnt


@pytest.mark.slow
def test_it_trains_in_the_graph():
    agent = new_agent(box="squashed_gaussian")
    agent.train(graph_environments.Pendulum(num_envs=4), max_timesteps=128)
    assert agent.global_timestep == 128
    assert np.isfinite(agent.evaluate("Pendulum-v1", episodes=1)["return_mean"])


def test_an_export_draws_from_the_gaussian(tmp_path):
    agent = new_agent().train("Pendulum-v1", max_timesteps=32)
    exported = tf.saved_model.load(agent.export_saved_model(tmp_path))
    state = tf.constant([[1.0, 0.0, 0.5]])
    greedy = exported.signatures["serving_default"](observation=state)["action"]
    (row,) = agent.predict(state.numpy())
    np.testing.assert_allclose(greedy[0], row["environment_action"], rtol=1e-5, atol=1e-6)
    step = pgest.restart(state, batch_size=1)
    drawn = [agent.collect_policy.action(step, seed=(0, i)).action.numpy() for i in range(3)]
    assert len({float(action[0, 0]) for action in drawn}) == 3


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: distributions.StateDependentNoise(every=0), ValueError, "every=0"),
        (lambda: distributions.StateDependentNoise(every=1.5), TypeError, "an integer"),
        (lambda: actor(box="beta"), ValueError, "box='beta'"),
        (lambda: actor(state_dependent_std=True), ValueError, "state_dependent_std=True"),
        (lambda: models.PPO(use_sde=True), TypeError, "noise_interval=4, initial_std=0.135"),
    ],
)
def test_what_does_not_fit_is_told(make, error, match):
    with pytest.raises(error, match=match):
        make()
