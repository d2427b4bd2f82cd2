"""Losses, gradients and TRPO's step on one batch, beside Stable-Baselines3's own `train()`."""

import copy

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

import pgest
from pgest import distributions, models, returns
from pgest.contract import model_fn
from pgest.tracing import model as model_lib

sb3 = pytest.importorskip("stable_baselines3")
sb3_contrib = pytest.importorskip("sb3_contrib")
torch = pytest.importorskip("torch")
kl_divergence = sb3.common.distributions.kl_divergence

ROWS = 96
both_spaces = pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])


def peer(algorithm, env_id, **settings):
    """A model of Stable-Baselines3 whose weights are far from a fresh policy's."""
    model = algorithm(
        "MlpPolicy", env_id, n_steps=ROWS, gamma=0.99, device="cpu", seed=0, **settings
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    model._logger = sb3.common.logger.Logger(None, [])
    return model


def random_batch(model, seed=0):
    """Rows that no policy collected: every quantity is random, ratios are far from 1."""
    generator = np.random.default_rng(seed)
    space = model.observation_space
    state = generator.normal(size=(ROWS, *space.shape)).astype(np.float32)
    discrete = isinstance(model.action_space, gymnasium.spaces.Discrete)
    if discrete:
        action = generator.integers(model.action_space.n, size=[ROWS])
    else:
        action = generator.normal(size=(ROWS, *model.action_space.shape)).astype(np.float32)
    with torch.no_grad():
        given = torch.as_tensor(action)
        value, log_prob, _ = model.policy.evaluate_actions(torch.as_tensor(state), given)
    noise = lambda scale: scale * generator.normal(size=ROWS).astype(np.float32)  # noqa: E731
    return {
        "state": state,
        "action": action,
        "log_prob": log_prob.numpy() + noise(0.15),
        "value": value.numpy().ravel() + noise(0.3),
        "advantage": noise(2.0) + 0.5,
        "value_target": noise(3.0),
    }


def fill(model, batch):
    """Puts the batch where Stable-Baselines3 looks for it."""
    buffer = model.rollout_buffer
    buffer.reset()
    column = lambda array: np.asarray(array).reshape(ROWS, 1, *array.shape[1:])  # noqa: E731
    buffer.observations = column(batch["state"])
    buffer.actions = column(batch["action"]).reshape(ROWS, 1, -1).astype(buffer.actions.dtype)
    buffer.log_probs = column(batch["log_prob"])
    buffer.values = column(batch["value"])
    buffer.advantages = column(batch["advantage"])
    buffer.returns = column(batch["value_target"])
    buffer.full = True


def peer_weights(model):
    """By pgest's names, kernels as pgest has them."""
    layers = {"action": model.policy.action_net, "value_output": model.policy.value_net}
    for index in range(2):
        layers[f"policy_{index}"] = model.policy.mlp_extractor.policy_net[2 * index]
        layers[f"value_{index}"] = model.policy.mlp_extractor.value_net[2 * index]
    found = {}
    for name, layer in layers.items():
        found[f"{name}/kernel"] = (layer.weight, True)
        found[f"{name}/bias"] = (layer.bias, False)
    if hasattr(model.policy, "log_std"):
        found["action_log_std"] = (model.policy.log_std, False)
    return found


def numpy_of(tensor, transposed):
    array = tensor.detach().numpy().copy()
    return array.T if transposed else array


class Ours:
    """A ready-made model with a peer's weights, and its TRAIN trace on a batch."""

    def __init__(self, model, theirs, batch):
        config = pgest.RunConfig(jit_compile=False)
        wrapped = model_fn.ModelFn(model, None)
        self.model = model_lib.Model(wrapped, {}, config, seed=0)
        self.model.store.spaces = (theirs.observation_space, theirs.action_space)
        copied = {n: numpy_of(*pair) for n, pair in peer_weights(theirs).items()}
        self.model.store.saved_value = lambda name, shape: copied.get(name)
        self.labels = {name: tf.constant(v) for name, v in batch.items() if name != "state"}
        self.labels["advantage"] = returns.normalize(self.labels["advantage"])
        self.features = {"state": tf.constant(batch["state"])}

    def losses_and_gradients(self):
        @tf.function(autograph=False)
        def run(features, labels):
            spec, build = self.model.call(features, labels, pgest.Modes.TRAIN)
            variables = build.trainable_variables
            gradients = tf.gradients(spec.loss, variables)
            found = {id(v): n for n, v in build.requested.items()}
            return {"loss": spec.loss, **spec.metrics}, {
                found[id(v)]: g for v, g in zip(variables, gradients, strict=True)
            }

        return run(self.features, self.labels)

    def step(self, *labels):
        """One step; or one for each of the labels that stand for the batch's own."""

        @tf.function(autograph=False)
        def run(features, labels):
            spec, build = self.model.call(features, labels, pgest.Modes.TRAIN)
            with tf.control_dependencies([spec.train_op]):
                return {k: tf.identity(v) for k, v in {**spec.metrics, **build.metrics}.items()}

        return [run(self.features, {**self.labels, **given}) for given in labels or [{}]][-1]


def close(ours, theirs, name=""):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=name)


def compare_gradients(gradients, model):
    theirs = peer_weights(model)
    assert set(gradients) == set(theirs)
    for name, (parameter, transposed) in theirs.items():
        close(gradients[name], numpy_of(parameter.grad, transposed), name)


@both_spaces
@pytest.mark.parametrize("value_clip_range", [None, 0.2])
def test_ppo(env_id, value_clip_range):
    theirs = peer(
        sb3.PPO, env_id, batch_size=ROWS, n_epochs=1, ent_coef=0.02, vf_coef=0.7,
        clip_range_vf=value_clip_range, max_grad_norm=1e9,
    )  # fmt: skip
    batch = random_batch(theirs)
    ours = Ours(
        models.PPO(entropy_weight=0.02, value_weight=0.7, value_clip_range=value_clip_range),
        theirs,
        batch,
    )
    terms, gradients = ours.losses_and_gradients()
    fill(theirs, batch)
    theirs.train()
    log = theirs.logger.name_to_value
    close(terms["loss/policy"], log["train/policy_gradient_loss"])
    close(terms["loss/value"], log["train/value_loss"])
    close(terms["loss/entropy"], log["train/entropy_loss"])
    close(terms["loss"], log["train/loss"])
    close(terms["policy/clip_fraction"], log["train/clip_fraction"])
    assert 0.1 < log["train/clip_fraction"] < 0.9
    compare_gradients(gradients, theirs)


@both_spaces
def test_a2c(env_id):
    theirs = peer(
        sb3.A2C, env_id, ent_coef=0.02, vf_coef=0.4, max_grad_norm=1e9, normalize_advantage=True
    )
    batch = random_batch(theirs)
    ours = Ours(models.A2C(entropy_weight=0.02, value_weight=0.4), theirs, batch)
    terms, gradients = ours.losses_and_gradients()
    fill(theirs, batch)
    theirs.train()
    log = theirs.logger.name_to_value
    close(terms["loss/policy"], log["train/policy_loss"])
    close(terms["loss/value"], log["train/value_loss"])
    close(terms["loss/entropy"], log["train/entropy_loss"])
    compare_gradients(gradients, theirs)


@pytest.mark.parametrize("algorithm", [sb3.PPO, sb3.A2C])
def test_state_dependent_noise(algorithm):
    """gSDE's log-probabilities, losses and gradients."""
    theirs = peer(
        algorithm, "Pendulum-v1", use_sde=True, policy_kwargs={"log_std_init": -2.0},
        ent_coef=0.02, max_grad_norm=1e9, normalize_advantage=True,
        **({"batch_size": ROWS, "n_epochs": 1} if algorithm is sb3.PPO else {}),
    )  # fmt: skip
    assert theirs.policy.log_std.shape == (64, 1)
    batch = random_batch(theirs)
    model = {"PPO": models.PPO, "A2C": models.A2C}[algorithm.__name__]
    ours = Ours(model(noise_interval=4, entropy_weight=0.02), theirs, batch)

    @tf.function(autograph=False)
    def log_probabilities():
        spec, _ = ours.model.call(ours.features, None, pgest.Modes.PREDICT)
        return spec.distribution.log_prob(ours.labels["action"]), spec.distribution.entropy()

    with torch.no_grad():
        pair = torch.as_tensor(batch["state"]), torch.as_tensor(batch["action"])
        _, log_prob, entropy = theirs.policy.evaluate_actions(*pair)
    close(log_probabilities()[0], log_prob)
    close(log_probabilities()[1], entropy)
    terms, gradients = ours.losses_and_gradients()
    fill(theirs, batch)
    theirs.train()
    log = theirs.logger.name_to_value
    name = "policy_gradient_loss" if algorithm is sb3.PPO else "policy_loss"
    close(terms["loss/policy"], log[f"train/{name}"])
    close(terms["loss/entropy"], log["train/entropy_loss"])
    compare_gradients(gradients, theirs)


@pytest.mark.parametrize("learn_features", [False, True])
def test_squashed_state_dependent_noise(learn_features):
    """Log-probabilities and their gradients, between bounds of -1 and 1."""
    generator = np.random.default_rng(0)
    loc, features = (generator.normal(size=(ROWS, n)).astype(np.float32) for n in (2, 8))
    log_std = generator.normal(size=(8, 2)).astype(np.float32) - 1.0
    action = np.tanh(generator.normal(size=(ROWS, 2))).astype(np.float32)
    given = [torch.tensor(array, requires_grad=True) for array in (loc, log_std, features)]
    theirs = sb3.common.distributions.StateDependentNoiseDistribution(
        2, squash_output=True, learn_features=learn_features, epsilon=1e-6
    )
    theirs.proba_distribution_net(8, latent_sde_dim=8)
    theirs.proba_distribution(*given)
    log_prob = theirs.log_prob(torch.as_tensor(action))
    log_prob.sum().backward()
    noise = distributions.StateDependentNoise(4, squash=True, learn_features=learn_features)
    space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    variables = [tf.constant(array) for array in (loc, features, log_std)]

    def look(features, labels, mode):
        distribution = noise.distribution(space, *variables)
        found = distribution.log_prob(action)
        gradients = tf.gradients(found, [variables[0], variables[2], variables[1]])
        results = [found, *(part for part in gradients if part is not None)]
        return pgest.EstimatorSpec(mode, {"results": results})

    config = pgest.RunConfig(jit_compile=False)
    model = model_lib.Model(model_fn.ModelFn(look, None), {}, config, seed=0)

    @tf.function(autograph=False)
    def run():
        return model.call({}, None, pgest.Modes.PREDICT)[0].predictions["results"]

    found, *gradients = run()
    # Their correction adds 1e-6 to the slope of tanh.
    np.testing.assert_allclose(found, log_prob.detach(), rtol=1e-4, atol=1e-4)
    expected = [part.grad for part in given if part.grad is not None]
    assert len(gradients) == len(expected) == 2 + learn_features
    for ours, grad in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, grad, rtol=1e-4, atol=1e-4)


def with_weights(policy, theirs, found):
    """A copy of a peer's policy with weights by pgest's names."""
    kept, theirs.policy = theirs.policy, copy.deepcopy(policy)
    for name, (parameter, transposed) in peer_weights(theirs).items():
        array = found[name].numpy()
        parameter.data = torch.as_tensor(array.T.copy() if transposed else array)
    copied, theirs.policy = theirs.policy, kept
    return copied


@both_spaces
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("target_kl", "cg_damping"), [(0.01, 0.1), (0.1, 0.03)])
def test_the_step_of_trpo(env_id, seed, target_kl, cg_damping, monkeypatch):
    settings = {"target_kl": target_kl, "cg_damping": cg_damping}
    theirs = peer(sb3_contrib.TRPO, env_id, batch_size=ROWS, n_critic_updates=1, **settings)
    batch = random_batch(theirs, seed)
    # A rollout of the policy itself: ratios are 1.
    with torch.no_grad():
        pair = (torch.as_tensor(batch["state"]), torch.as_tensor(batch["action"]))
        batch["log_prob"] = theirs.policy.evaluate_actions(*pair)[1].numpy()
    model = models.TRPO(critic_passes=1, critic_minibatch_size=None, **settings)
    ours = Ours(model, theirs, batch)
    before = {name: numpy_of(*pair) for name, pair in peer_weights(theirs).items()}
    old = copy.deepcopy(theirs.policy)
    metrics = ours.step()
    fill(theirs, batch)
    divergences = []  # one for the gradient, then one for each length of step

    def noted(*pair):
        divergences.append(kl_divergence(*pair))
        return divergences[-1]

    monkeypatch.setattr(sb3_contrib.trpo.trpo, "kl_divergence", noted)
    # Theirs starts conjugate gradients from noise, ours from zeros. They make rounding larger, the
    # less damping the more (0.0018 of the length at 0.01): theirs is in double precision.
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    theirs.policy.double()
    theirs.rollout_buffer.to_torch = lambda array: torch.tensor(array, dtype=torch.float64)
    theirs.train()
    monkeypatch.undo()
    theirs.policy.float()
    log = theirs.logger.name_to_value
    assert float(metrics["policy/line_search_success"]) == 1.0
    assert log["train/is_line_search_success"] == 1.0
    # The step: its direction, what the line search accepted, its length
    policy = [name for name in before if not name.startswith("value")]
    moved = lambda after: np.concatenate([(after[n] - before[n]).ravel() for n in policy])  # noqa: E731
    their_step = moved({name: numpy_of(*pair) for name, pair in peer_weights(theirs).items()})
    our_step = moved({n: ours.model.store.variables[n].numpy() for n in policy})
    lengths = np.linalg.norm(our_step), np.linalg.norm(their_step)
    assert our_step @ their_step / np.prod(lengths) >= 0.999
    accepted = 0.8 ** (len(divergences) - 2)
    np.testing.assert_allclose(metrics["policy/step_fraction"], accepted, rtol=1e-6)
    np.testing.assert_allclose(*lengths, rtol=5e-4)
    # The divergence: theirs is of (new, old), ours of (old, new) as in the paper
    ours_in_torch = with_weights(old, theirs, ours.model.store.variables)
    with torch.no_grad():
        acted, our_new, their_new = (
            model.get_distribution(torch.as_tensor(batch["state"]))
            for model in (old, ours_in_torch, theirs.policy)
        )
        divergence = lambda *pair: float(kl_divergence(*pair).mean())  # noqa: E731
        pairs = [
            (metrics["policy/kl"], divergence(acted, our_new)),
            (log["train/kl_divergence_loss"], divergence(their_new, acted)),
        ]
    np.testing.assert_allclose(*zip(*pairs, strict=True), rtol=1e-4)


def test_the_critic_of_trpo_from_update_to_update():
    """Its Adam goes on where the update before left it, as theirs does."""
    settings = {"learning_rate": 1e-3}
    theirs = peer(sb3_contrib.TRPO, "CartPole-v1", batch_size=ROWS, n_critic_updates=5, **settings)
    batch = random_batch(theirs)
    model = models.TRPO(critic_passes=5, critic_minibatch_size=None, **settings)
    ours = Ours(model, theirs, batch)
    names = [name for name in peer_weights(theirs) if name.startswith("value")]
    their_weights = lambda: [numpy_of(*peer_weights(theirs)[name]) for name in names]  # noqa: E731
    before = their_weights()
    # Targets that turn back: a fresh Adam would follow them at once.
    targets = [batch["value_target"] + shift for shift in (10.0, -10.0, 10.0)]
    ours.step(*({"value_target": tf.constant(target)} for target in targets))
    for target in targets:
        fill(theirs, {**batch, "value_target": target})
        theirs.train()
    our_weights = [ours.model.store.variables[name].numpy() for name in names]
    moved = lambda after: np.concatenate(  # noqa: E731
        [(new - old).ravel() for new, old in zip(after, before, strict=True)]
    )
    our_way, their_way = moved(our_weights), moved(their_weights())
    # Epsilon, which the bias correction scales here and not there, shows where gradients are tiny.
    # With a fresh Adam for each update it would be 0.3.
    assert np.linalg.norm(our_way - their_way) < 0.05 * np.linalg.norm(their_way)
