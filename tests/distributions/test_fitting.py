"""A distribution with fewer or more actions than the action space is told while tracing."""

import gymnasium
import pytest
import tensorflow as tf
import tf_keras
from gymnasium import spaces
from tensorflow_probability import distributions as tfd

import pgest
from pgest import distributions
from pgest.distributions import fitting

JOINT = spaces.Dict(jump=spaces.Discrete(2), turn=spaces.Tuple([spaces.Discrete(3)]))


def categorical(size):
    return tfd.Categorical(logits=tf.zeros([1, size]))


def mixture(size):
    return tfd.MixtureSameFamily(
        tfd.Categorical(logits=[[0.0, 0.0]]), tfd.Categorical(logits=tf.zeros([1, 2, size]))
    )


def joint(size):
    return distributions.JointDistribution({"jump": categorical(2), "turn": (categorical(size),)})


FEW = [
    (spaces.Discrete(3), categorical(2), "Categorical of 2 .* has 3: action 2 would never be"),
    (spaces.Discrete(5), tfd.Categorical(probs=[[0.5, 0.5]]), "of 2 .*actions 2 to 4 would never"),
    (spaces.Discrete(3), tfd.Bernoulli(logits=[0.0]), "Bernoulli of 2 choices"),
    (spaces.Discrete(6), tfd.Binomial(4.0, logits=[0.0]), "Binomial of 5 choices"),
    (spaces.Discrete(3), mixture(2), "Categorical of 2"),
    (
        spaces.Discrete(3),
        tfd.Mixture(tfd.Categorical(logits=[[0.0, 0.0]]), [categorical(3), categorical(2)]),
        "Categorical of 2",
    ),
    (spaces.Discrete(3, start=4), categorical(2), "Categorical of 2"),
    (
        spaces.MultiDiscrete([3, 3]),
        tfd.Independent(tfd.Categorical(logits=tf.zeros([1, 2, 2])), 1),
        r"Categorical of 2.*sum\(nvec\) of pgest.get_action_space",
    ),
    (spaces.MultiDiscrete([3, 3]), tfd.Sample(categorical(2), 2), "Categorical of 2"),
    (
        spaces.MultiBinary(2),
        tfd.Independent(tfd.Categorical(logits=tf.zeros([1, 2, 3])), 1),
        "of 3 choices",
    ),
    (JOINT, joint(2), "action/turn/0 is drawn from a Categorical of 2"),
    (spaces.Discrete(2), categorical(4), "of 4 .* the environment does not know action 2"),
    (spaces.Discrete(2), tfd.FiniteDiscrete([1, 2], logits=[[0.0, 0.0]]), r"outcomes \[2"),
]


@pytest.mark.parametrize(("space", "distribution", "message"), FEW)
def test_sizes_that_differ_are_told(space, distribution, message):
    with pytest.raises(ValueError, match=message):
        fitting.check_fits(space, distribution)


FITTING = [
    (spaces.Discrete(3), categorical(3)),
    (spaces.Discrete(2), tfd.Bernoulli(logits=[0.0])),
    (spaces.Discrete(4), tfd.FiniteDiscrete([0, 2], logits=[[0.0, 0.0]])),
    (spaces.MultiDiscrete([2, 3]), distributions.multi_categorical(tf.zeros([1, 5]), [2, 3])),
    (spaces.MultiBinary(3), distributions.bernoulli(tf.zeros([1, 3]))),
    (spaces.Box(-1, 1, (2,)), distributions.gaussian(tf.zeros([1, 2]), tf.zeros([2]))),
    (JOINT, joint(3)),
]


@pytest.mark.parametrize(("space", "distribution"), FITTING)
def test_what_fits_passes(space, distribution):
    fitting.check_fits(space, distribution)


@pytest.mark.parametrize(("env", "size"), [("Acrobot-v1", 2), ("CartPole-v1", 4)])
@pytest.mark.parametrize("act", ["train", "evaluate", "check"])
def test_every_way_to_act_tells(env, size, act):
    def model_fn(features, labels, mode):
        distribution = tfd.Categorical(logits=tf_keras.layers.Dense(size)(features["state"]))
        loss, train_op = tf.zeros([]), tf.no_op()
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)

    agent = pgest.PGAgent(model_fn, pgest.BatchMemory(batch_size=10))
    known = gymnasium.make(env).action_space.n
    arguments = {"train": {"steps": 1}, "evaluate": {"episodes": 1}, "check": {}}[act]
    with pytest.raises(ValueError, match=rf"of {size} choices.*has {known}.*action_head"):
        getattr(agent, act)(env, **arguments)


@pytest.mark.parametrize("size", [1, 3])
def test_in_graph_environments_tell_too(size):
    def model_fn(features, labels, mode):
        distribution = tfd.Categorical(logits=tf_keras.layers.Dense(size)(features["state"]))
        return pgest.EstimatorSpec(mode, distribution=distribution, loss=0.0, train_op=tf.no_op())

    agent = pgest.PGAgent(model_fn, pgest.RolloutMemory(4))
    with pytest.raises(ValueError, match=f"Categorical of {size} choices"):
        agent.train(pgest.graph_environments.CartPole(num_envs=2), steps=1)
