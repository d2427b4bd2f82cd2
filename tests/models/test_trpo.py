"""TRPO's parts by themselves: Fisher products, conjugate gradients, the line search."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

import pgest
from pgest import models
from pgest.contract import model_fn
from pgest.models import trpo
from pgest.tracing import model as model_lib
from pgest.variables import sharing
from tests.model_fns import weights
from tests.models.model_environments import AnySpaces

BOX = spaces.Box(-1, 1, (3,), np.float32)
CONFIG = pgest.RunConfig(tf_random_seed=0, jit_compile=False)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_conjugate_gradients_solve(size):
    generator = np.random.default_rng(size)
    root = generator.normal(size=(size, size))
    matrix = tf.constant(root @ root.T + np.eye(size), tf.float32)
    target = tf.constant(generator.normal(size=size), tf.float32)
    product = lambda vector: tf.linalg.matvec(matrix, vector)  # noqa: E731
    found = trpo.conjugate_gradients(product, target, steps=2 * size)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, target), rtol=1e-3, atol=1e-4)
    nothing = trpo.conjugate_gradients(product, tf.zeros([size]), steps=3)
    assert (nothing.numpy() == 0).all()


@pytest.mark.slow
def test_the_fisher_vector_product_is_the_hessian_of_the_divergence():
    """And the Fisher matrix by its definition: the mean outer product of scores."""
    model = models.TRPO(hidden_sizes=(2,))
    wrapped = model_lib.Model(model_fn.ModelFn(model, None), {}, CONFIG, seed=0)
    wrapped.store.spaces = (BOX, spaces.Discrete(3))
    features = {"state": tf.random.stateless_normal([7, 3], [0, 1])}
    labels = {
        "action": tf.zeros([7], tf.int64),
        "log_prob": tf.zeros([7]),
        "advantage": tf.ones([7]),
    }

    @tf.function(autograph=False)
    def run(features, labels):
        with sharing.building(wrapped.store, "TRAIN") as build:
            hidden, _ = model.network(features)
            logits = model.distribution(hidden, features).logits
            policy = trpo._Policy(model, features, labels, build.trainable_variables)
            size = sum(v.shape.num_elements() for v in policy.variables)
            rows = [policy.fisher_vector_product(row) for row in tf.unstack(tf.eye(size))]
            log_probs = tf.nn.log_softmax(logits)
            scores = [
                tf.concat([tf.reshape(g, [-1]) for g in tf.gradients(entry, policy.variables)], 0)
                for entry in tf.unstack(tf.reshape(log_probs, [-1]))
            ]
        return tf.stack(rows), tf.stack(scores), tf.exp(tf.reshape(log_probs, [-1]))

    product, scores, probabilities = (part.numpy() for part in run(features, labels))
    fisher = np.einsum("k,ki,kj->ij", probabilities / 7, scores, scores)
    assert np.abs(fisher).max() > 1e-3
    np.testing.assert_allclose(product, fisher, atol=1e-6)


class NeverBetter(models.TRPO):
    """Its surrogate has the right gradient and never improves."""

    def surrogate(self, distribution, labels):
        surrogate = super().surrogate(distribution, labels)
        return surrogate - tf.stop_gradient(surrogate)


@pytest.mark.slow
def test_what_joins_the_loss_joins_the_surrogate():
    """As OpenAI Baselines' entropy bonus; and the loss of a subclass."""

    class Pulled(models.TRPO):
        def loss(self, distribution, value, labels):
            loss, metrics = super().loss(distribution, value, labels)
            return loss + 100.0 * distribution.logits[0, 0], metrics

    def trained(model):
        agent = pgest.PGAgent(model, pgest.RolloutMemory(horizon=32), config=CONFIG)
        env = pgest.make(lambda: AnySpaces(BOX, spaces.Discrete(2)), num_envs=2)
        agent.train(env, steps=3)
        return agent

    small = {"hidden_sizes": (4,), "cg_steps": 3}
    plain, entropic, pulled = (
        weights(trained(model))["action/bias"]
        for model in (
            models.TRPO(**small),
            models.TRPO(entropy_weight=10.0, **small),
            Pulled(**small),
        )
    )
    assert np.ptp(entropic) < np.ptp(plain)
    assert pulled[0] < pulled[1] - 0.1


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_failed_line_search_leaves_the_policy_bit_equal(jit_compile):
    config = pgest.RunConfig(tf_random_seed=0, jit_compile=jit_compile)
    results = {}
    for model in (NeverBetter, models.TRPO):
        agent = pgest.PGAgent(
            model(hidden_sizes=(4,), cg_steps=3), pgest.RolloutMemory(horizon=32), config=config
        )
        env = pgest.make(lambda: AnySpaces(BOX, spaces.Discrete(2)), num_envs=2)
        agent.check(env)
        before = weights(agent)
        history = pgest.HistoryHook()
        agent.train(env, steps=1, hooks=[history])
        after = weights(agent)
        changed = {n for n in before if before[n].tobytes() != after[n].tobytes()}
        results[model] = changed, history.records[-1]
    changed, record = results[NeverBetter]
    assert record["policy/line_search_success"] == record["policy/kl"] == 0.0
    assert not [name for name in changed if name.startswith(("policy", "action"))]
    assert "value_0/kernel" in changed
    changed, record = results[models.TRPO]
    assert record["policy/line_search_success"] == 1.0
    assert 0.0 < record["policy/kl"] < 0.01
    assert "policy_0/kernel" in changed


def test_the_value_is_fitted_and_its_minibatches_fill_up():
    agent = pgest.PGAgent(
        models.TRPO(hidden_sizes=(4,), critic_passes=3, critic_minibatch_size=10),
        pgest.RolloutMemory(horizon=16),
        config=CONFIG,
    )
    agent.train(pgest.make(lambda: AnySpaces(BOX, spaces.Discrete(2)), num_envs=2), steps=2)
    # 32 timesteps are four minibatches of ten, in each of three passes and two updates.
    assert int(agent.get_variable_value("iteration")) == 2 * 3 * 4
    assert agent.global_step == 2
