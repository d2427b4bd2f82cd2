"""Saved policies of strings and of float64, and directories that TensorFlow cannot read."""

import os

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from pgest import specs
from pgest.policies import ready_made, time_steps
from pgest.policies.time_steps import PolicyStep
from pgest.saved_policies import eager_policy, policy_saver
from tests.saved_policies import saved_policy_models as models

tfd = tfp.distributions


class GreetingPolicy(ready_made.TFPolicy):
    """Acts by the number of letters of a string."""

    def __init__(self):
        observation = tf.TensorSpec([], tf.string, "observation")
        action = specs.BoundedTensorSpec([], tf.int64, 0, 9, "action")
        super().__init__(time_steps.time_step_spec(observation), action)

    def _distribution(self, time_step, policy_state):
        letters = tf.strings.length(time_step.observation)
        return PolicyStep(tfd.Deterministic(tf.cast(letters, tf.int64)), policy_state)


@pytest.mark.parametrize("word", ["seven", b"seven", np.str_("seven")])
def test_strings_are_observations(tmp_path, word):
    policy_saver.PolicySaver(GreetingPolicy()).save(tmp_path / "policy")
    loaded = eager_policy.SavedModelPyTFEagerPolicy(tmp_path / "policy", load_specs_from_pbtxt=True)
    assert loaded.action(time_steps.restart(word)).action == 5
    assert loaded.action(time_steps.restart(np.asarray(word, object))).action == 5


class DoublePolicy(ready_made.TFPolicy):
    """Its distribution is of float64."""

    def __init__(self, family):
        action = specs.BoundedTensorSpec([2], tf.float64, -1, 1, "action")
        if family == "categorical":
            action = models.discrete_spec(3)
        super().__init__(models.vector_spec(2), action)
        self._family = family

    def _distribution(self, time_step, policy_state):
        loc = tf.cast(time_step.observation, tf.float64)
        one = tf.ones_like(loc)
        distribution = {
            "categorical": lambda: tfd.Categorical(logits=tf.concat([loc, one[:, :1]], -1)),
            "normal": lambda: tfd.Independent(tfd.Normal(loc, one), 1),
            "diagonal": lambda: tfd.MultivariateNormalDiag(loc, one),
        }[self._family]()
        return PolicyStep(distribution, policy_state)


@pytest.mark.parametrize("family", ["categorical", "normal", "diagonal"])
def test_portable_exports_of_float64(tmp_path, family):
    policy_saver.PolicySaver(DoublePolicy(family), portable=True).save(tmp_path / "policy")
    signatures = tf.saved_model.load(tmp_path / "policy").signatures
    found = signatures["serving_default"](observation=tf.constant([[0.25, -0.5]]))
    expected = [2] if family == "categorical" else [[0.25, -0.5]]
    (action,) = (value.numpy().tolist() for name, value in found.items() if "action" in name)
    assert action == expected


@pytest.mark.parametrize("name", ["run[1]", "a*", "what?"])
def test_a_directory_that_tensorflow_cannot_read_is_refused(tmp_path, name):
    saver = policy_saver.PolicySaver(models.DiscretePolicy())
    for save in (saver.save, saver.save_checkpoint):
        with pytest.raises(ValueError, match="for patterns"):
            save(tmp_path / name)
    assert os.listdir(tmp_path) == []
