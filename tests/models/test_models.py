"""The ready-made models on every space, with masks, normalisers, schedules, and in checkpoints."""

import ast
import dataclasses
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from gymnasium import spaces
from tensorflow_probability import distributions as tfd

import pgest
from pgest import models, schedules
from tests.model_fns import weights
from tests.models.model_environments import AnySpaces, Masked

SMALL = {"hidden_sizes": (8,)}
BOX = spaces.Box(-1, 1, (3,), np.float32)
CONFIG = pgest.RunConfig(tf_random_seed=0, jit_compile=False)


def train(model, env, *, memory=None, steps=2, num_envs=2, **settings):
    # An empty memory is false.
    memory = pgest.RolloutMemory(horizon=8) if memory is None else memory
    agent = pgest.PGAgent(
        model,
        memory,
        optimizer_params=settings.pop("optimizer_params", None),
        config=settings.pop("config", CONFIG),
        **settings,
    )
    return agent.train(pgest.make(env, num_envs=num_envs), steps=steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("observation_space", "action_space", "settings"),
    [
        (spaces.Dict(a=BOX, b=spaces.Discrete(3)), spaces.Discrete(3, start=2), {}),
        (spaces.Tuple((BOX, spaces.MultiBinary(2))), spaces.MultiDiscrete([2, 3]), {}),
        (spaces.MultiDiscrete([2, 4]), spaces.MultiBinary(3), {}),
        (BOX, spaces.Box(-2, 2, (2,), np.float32), {"state_dependent_std": True}),
        (BOX, spaces.Box(-2, 3, (2,), np.float32), {"box": "squashed_gaussian"}),
        (BOX, spaces.Box(-2, 3, (2, 2), np.float32), {"box": "beta"}),
        (
            BOX,
            spaces.Dict(
                move=spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (1,), np.float32))),
                jump=spaces.MultiBinary(1),
            ),
            {},
        ),
        (spaces.Box(0, 255, (36, 36, 1), np.uint8), spaces.Discrete(2), {"share_network": True}),
    ],
    ids=["dict", "tuple", "multi", "dependent", "squashed", "beta", "nested", "image"],
)
def test_every_space_trains(observation_space, action_space, settings):
    make = lambda: AnySpaces(observation_space, action_space)  # noqa: E731
    agent = train(models.PPO(normalize_observation=True, **SMALL, **settings), make)
    assert agent.global_step == 2
    values = weights(agent)
    assert all(np.isfinite(value).all() for value in values.values())
    assert any(name.startswith("action") for name in values)
    assert np.isfinite(agent.evaluate(make, episodes=2)["loss"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "cell"),
    [
        (models.VPG, None),
        (models.A2C, "gru"),
        (models.PPO, "lstm"),
        (models.TRPO, None),
        (models.TRPO, "gru"),
    ],
)
def test_every_weight_is_trained(model, cell):
    env = pgest.make(lambda: AnySpaces(BOX, spaces.Discrete(3)), num_envs=2)
    agent = pgest.PGAgent(
        model(cell=cell, cell_size=4, **SMALL), pgest.RolloutMemory(horizon=8), config=CONFIG
    )
    agent.check(env)
    before = weights(agent)
    after = weights(agent.train(env, steps=2))
    for part in ("policy_0", "action", "value_output", "cell" if cell else "value_0"):
        assert (before[f"{part}/kernel"] != after[f"{part}/kernel"]).any()


@pytest.mark.slow
@pytest.mark.parametrize("action_space", [spaces.Discrete(4), spaces.MultiDiscrete([3, 3])])
@pytest.mark.parametrize("cell", [None, "gru"])
def test_masked_actions_are_never_taken_and_their_weights_get_no_gradient(action_space, cell):
    # The environment itself refuses a masked action.
    model = models.PPO(cell=cell, cell_size=4, entropy_weight=0.1, **SMALL)
    agent = train(model, lambda: Masked(action_space), steps=3)
    agent.evaluate(lambda: Masked(action_space), episodes=2)
    values = weights(agent)
    never = [3] if action_space == spaces.Discrete(4) else [2, 5]
    sometimes = [0, 1]
    slots = values["optimizer/Adam/v/action/kernel"]
    assert (slots[:, never] == 0).all()
    assert (slots[:, sometimes] > 0).all()


def test_at_ratio_one_the_gradients_of_ppo_trpo_and_vpg_are_one():
    log_prob = tf.constant([-1.0, -0.5, -2.0])
    labels = {"advantage": tf.constant([1.0, -2.0, 0.5]), "log_prob": log_prob}
    logits = tf.random.stateless_normal([3, 4], [0, 1])
    labels["action"] = tf.constant([0, 3, 2])
    gradients = []
    for model in (models.VPG(baseline=False), models.PPO(), models.TRPO()):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            distribution = tfd.Categorical(logits=logits)
            labels["log_prob"] = tf.stop_gradient(distribution.log_prob(labels["action"]))
            loss, _ = model.loss(distribution, None, labels)
        gradients.append(tape.gradient(loss, logits))
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-7)
    np.testing.assert_allclose(gradients[0], gradients[2], atol=1e-7)
    assert np.abs(gradients[0]).max() > 0.1


def test_a_user_overrides_one_method():
    class Twice(models.A2C):
        def network(self, features):
            hidden = tf.concat([features["state"], tf.square(features["state"])], -1)
            return hidden, None

    agent = train(Twice(), lambda: AnySpaces(BOX, spaces.Discrete(2)))
    assert agent.get_variable_value("action/kernel").shape == (6, 2)


def test_params_replace_hyperparameters():
    agent = train(
        models.PPO(), lambda: AnySpaces(BOX, spaces.Discrete(2)), params={"hidden_sizes": (5,)}
    )
    assert agent.get_variable_value("policy_0/kernel").shape == (3, 5)
    with pytest.raises(ValueError, match="params has clip_range, which PPO does not know"):
        models.PPO().with_params({"clip_range": 0.1})
    with pytest.raises(ValueError, match="cell is 'rnn'; expected 'lstm', 'gru' or None"):
        train(models.PPO(cell="rnn"), lambda: AnySpaces(BOX, spaces.Discrete(2)))


class TestNormalizers:
    MODEL = models.PPO(normalize_observation=True, normalize_reward=True, **SMALL)

    def make(self):
        return AnySpaces(spaces.Box(3, 5, (3,), np.float32), spaces.Discrete(2))

    @pytest.mark.parametrize("num_envs", [1, 3])
    @pytest.mark.parametrize(
        "memory", [lambda: pgest.RolloutMemory(15), lambda: pgest.BatchMemory(batch_size=45)]
    )
    def test_statistics_are_of_every_timestep(self, memory, num_envs):
        agent = train(self.MODEL, self.make, memory=memory(), num_envs=num_envs, steps=2)
        count = int(agent.get_variable_value("observation_count"))
        assert count == int(agent.get_variable_value("reward_count")) >= 2 * 15 * num_envs
        moments = [agent.get_variable_value(f"observation_{n}") for n in ("mean", "variance")]
        np.testing.assert_allclose(moments[0], 4, atol=0.3)
        np.testing.assert_allclose(moments[1], 1 / 3, atol=0.2)
        # Rewards are of variance 1 and discounted over at most five timesteps.
        assert 1.0 < agent.get_variable_value("reward_variance") < 6.0

    def test_evaluation_leaves_them_alone_whatever_its_number_of_environments(self):
        agent = train(self.MODEL, self.make)
        before = weights(agent)
        agent.evaluate(pgest.make(self.make, num_envs=5), episodes=5)
        after = weights(agent)
        assert all((before[name] == after[name]).all() for name in before)

    @pytest.mark.slow
    def test_they_are_in_the_checkpoint_and_another_number_of_environments_goes_on(self, tmp_path):
        config = dataclasses.replace(CONFIG, model_dir=str(tmp_path))
        first = train(self.MODEL, self.make, config=config)
        first.save_checkpoint()
        with pytest.warns(UserWarning, match="there are 3 environments now") as told:
            second = train(self.MODEL, self.make, config=config, num_envs=3, steps=1)
        assert told[0].filename == __file__
        counts = [int(agent.get_variable_value("reward_count")) for agent in (first, second)]
        assert counts == [32, 32 + 24]

    @pytest.mark.slow
    def test_they_are_in_the_export(self, tmp_path):
        agent = train(self.MODEL, self.make)
        loaded = tf.saved_model.load(agent.export_saved_model(tmp_path))
        serve = loaded.signatures["serving_default"]
        states = np.random.default_rng(0).uniform(3, 5, (50, 3)).astype(np.float32)
        (name,) = serve.structured_input_signature[1]
        served = next(iter(serve(**{name: tf.constant(states)}).values())).numpy()
        greedy = np.array([row["action"] for row in agent.predict(states)])
        assert 0 < greedy.sum() < 50
        assert (served == greedy).all()

    def test_without_a_value_rewards_are_scaled_too(self):
        agent = train(
            models.VPG(baseline=False, normalize_reward=True, **SMALL),
            self.make,
            memory=pgest.BatchMemory(batch_size=20),
        )
        assert agent.get_variable_value("reward_count") >= 40


class Recorder(pgest.BaseMonitor):
    """Keeps the metrics of every update."""

    def __init__(self):
        self.metrics = []

    def after_run(self, context):
        self.metrics.append((context.timestep, dict(context.metrics)))


def test_schedules_are_followed_and_reported():
    model = models.PPO(
        learning_rate=schedules.linear(1.0, 0.0),
        clip_ratio=schedules.linear(0.4, 0.2, over=64, clock="global_timestep"),
        entropy_weight=pgest.Schedule(lambda step: 0.5**step, clock="global_step"),
        **SMALL,
    )
    recorder = Recorder()
    agent = pgest.PGAgent(
        model,
        pgest.RolloutMemory(horizon=8),
        optimizer_params={"discount": schedules.linear(0.9, 1.0), "gae_lambda": 0.5},
        config=CONFIG,
    )
    env = pgest.make(lambda: AnySpaces(BOX, spaces.Discrete(2)), num_envs=2)
    agent.train(env, timesteps=64, hooks=[recorder])
    series = lambda name: [metrics[name] for _, metrics in recorder.metrics]  # noqa: E731
    assert [timestep for timestep, _ in recorder.metrics] == [16, 32, 48, 64]
    np.testing.assert_allclose(series("learning_rate"), [0.75, 0.5, 0.25, 0.0], atol=1e-6)
    np.testing.assert_allclose(
        series("hyperparameter/clip_ratio"), [0.35, 0.3, 0.25, 0.2], rtol=1e-5
    )
    np.testing.assert_allclose(
        series("hyperparameter/entropy_weight"), [1, 0.5, 0.25, 0.125], rtol=1e-5
    )
    np.testing.assert_allclose(
        series("hyperparameter/discount"), [0.925, 0.95, 0.975, 1.0], rtol=1e-5
    )
    assert "hyperparameter/gae_lambda" not in recorder.metrics[0][1]


FALLING = schedules.linear(0.4, 0.0, over=64, clock="global_timestep")


@pytest.mark.parametrize(
    ("model", "settings", "names"),
    [
        (
            models.PPO(
                clip_norm=FALLING, value_weight=FALLING, value_clip_range=FALLING, **SMALL
            ),
            {"target_kl": FALLING, "epochs": 2},
            ["clip_norm", "value_weight", "value_clip_range", "target_kl"],
        ),
        (
            models.TRPO(
                target_kl=FALLING, cg_damping=FALLING, line_search_shrinkage=FALLING, **SMALL
            ),
            {},
            ["target_kl", "cg_damping", "line_search_shrinkage"],
        ),
    ],
    ids=["ppo", "trpo"],
)  # fmt: skip
def test_every_weight_range_and_norm_may_be_a_schedule(model, settings, names):
    recorder = Recorder()
    agent = pgest.PGAgent(model, pgest.RolloutMemory(horizon=8), settings, config=CONFIG)
    env = pgest.make(lambda: AnySpaces(BOX, spaces.Discrete(2)), num_envs=2)
    agent.train(env, timesteps=48, hooks=[recorder])
    for name in names:
        found = [metrics[f"hyperparameter/{name}"] for _, metrics in recorder.metrics]
        np.testing.assert_allclose(found, [0.3, 0.2, 0.1], rtol=1e-5, err_msg=name)


def test_a_scheduled_target_kl_ends_updates():
    """Under a small target an update ends after the step that has moved the policy."""
    model = models.PPO(learning_rate=0.05, **SMALL)
    # 1e-5 stands between what a step of this rate does (1e-3 or more) and how differently two
    # programs round one distribution (1e-7).
    target = pgest.Schedule(lambda t: tf.where(t < 32, 1.0, 1e-5), "global_timestep")
    settings = {"target_kl": target}
    agent = pgest.PGAgent(
        model, pgest.RolloutMemory(horizon=8), {**settings, "epochs": 5}, config=CONFIG
    )
    env = pgest.make(lambda: AnySpaces(BOX, spaces.Discrete(2)), num_envs=2)
    assert agent.train(env, timesteps=16).global_step == 5
    # The first step of a batch finds the policy that acted, the second one finds it moved.
    assert agent.train(env, timesteps=16).global_step == 5 + 2


def test_hyperparameters_are_those_of_the_model_the_params_and_the_update():
    agent = pgest.PGAgent(
        models.PPO(clip_ratio=0.1),
        pgest.RolloutMemory(horizon=8),
        {"epochs": 3},
        params={"learning_rate": 0.5},
    )
    shown = agent.hyperparameters
    assert (shown["clip_ratio"], shown["learning_rate"], shown["epochs"]) == (0.1, 0.5, 3)


class TestExploration:
    """An epsilon that falls with `global_timestep` while acting."""

    def train(self, remember):
        def model_fn(features, labels, mode):
            logits = tf_keras.layers.Dense(2)(features["state"])
            rate = schedules.linear(1.0, 0.1, over=80, clock="global_timestep")
            epsilon = schedules.value(rate) * tf.ones_like(logits[..., 0])
            if remember and labels is not None:
                epsilon = labels["epsilon"]
            greedy = (1.0 - epsilon)[..., tf.newaxis] * tf.nn.softmax(logits)
            distribution = tfd.Categorical(probs=greedy + epsilon[..., tf.newaxis] / 2.0)
            predictions = {"epsilon": epsilon}
            if mode == pgest.Modes.PREDICT:
                return pgest.EstimatorSpec(mode, predictions, distribution=distribution)
            loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
            train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(1e-2))
            last = tf.reduce_min(labels["epsilon"])
            return pgest.EstimatorSpec(
                mode, predictions, loss, train_op, distribution=distribution, metrics={"last": last}
            )

        recorder = Recorder()
        agent = pgest.PGAgent(model_fn, pgest.RolloutMemory(horizon=20), config=CONFIG)
        agent.train("CartPole-v1", timesteps=100, hooks=[recorder])
        return [metrics for _, metrics in recorder.metrics]

    def test_labels_remember_what_acting_used(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message="The model predicts no value")
            found = self.train(remember=True)
        # Timestep t acts with the rate at t, counted from 0.
        expected = [max(0.1, 1.0 - 0.9 * t / 80) for t in (19, 39, 59, 79, 99)]
        np.testing.assert_allclose([metrics["last"] for metrics in found], expected, rtol=1e-5)
        assert max(metrics["policy/kl"] for metrics in found) < 1e-9

    def test_a_distribution_that_follows_the_counter_in_training_too_only_warns(self):
        with pytest.warns(UserWarning, match="through global_timestep"):
            self.train(remember=False)


PAGES = Path(__file__).parent.parent.parent / "docs" / "algorithms"


def documented(page):
    """Defaults by field, of a page's tables of defaults."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    found = {}
    for table in re.findall(r"^\| (?:field|setting) \| default \|(?:.+\n)+", text, re.MULTILINE):
        for name, default in re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE):
            found[name] = ast.literal_eval(default.strip("` "))
    return found


@pytest.mark.parametrize("model", [models.VPG, models.A2C, models.PPO, models.TRPO])
def test_the_docs_have_every_field_with_its_default(model):
    shared = documented("index")
    update = {field.name for field in dataclasses.fields(pgest.UpdateConfig)}
    defaults = {field.name: field.default for field in dataclasses.fields(model)}
    own = {k: v for k, v in documented(model.__name__.lower()).items() if k in defaults}
    found = {k: v for k, v in shared.items() if k not in update - {"target_kl"}} | own
    for name, default in defaults.items():
        assert found.get(name, "missing") == default, name


def test_the_docs_have_the_defaults_of_an_update():
    found = documented("index")
    for field in dataclasses.fields(pgest.UpdateConfig):
        assert found[field.name] == field.default
