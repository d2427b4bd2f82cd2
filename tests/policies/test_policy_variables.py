"""Copying and mixing the variables of policies."""

import numpy as np
import pytest
import tensorflow as tf

from pgest.policies import ready_made
from tests.policies.policy_fakes import DISCRETE, TIME_STEP, CategoricalPolicy, CountingPolicy


@pytest.mark.parametrize(("tau", "expected"), [(1.0, 1.0), (0.5, 0.75), (0.0, 0.5)])
def test_update_mixes_variables(tau, expected):
    source, target = CategoricalPolicy([1.0] * 3), CategoricalPolicy([0.5] * 3)
    assert target.update(source, tau) is None
    np.testing.assert_allclose(target.logits, [expected] * 3)
    np.testing.assert_allclose(source.logits, [1.0] * 3)


def test_update_has_a_tau_for_what_is_not_trained():
    class Two(ready_made.TFPolicy):
        def __init__(self, value):
            super().__init__(TIME_STEP, DISCRETE)
            self.trained = tf.Variable(value)
            self.mean = tf.Variable(value, trainable=False)
            self.count = tf.Variable(int(value), trainable=False)

        def values(self):
            return [float(variable) for variable in (self.trained, self.mean, self.count)]

    target = Two(0.0)
    target.update(Two(8.0), tau=0.5, tau_non_trainable=0.25)
    # Counts are copied: 2.0 would be no count that ever was.
    assert target.values() == [4.0, 2.0, 8.0]
    target.update(Two(1.0), tau=0.0, tau_non_trainable=1.0)
    assert target.values() == [4.0, 1.0, 1.0]
    target.update(Two(0.0), tau=0.5)
    assert target.values() == [2.0, 0.5, 0.0]


def test_update_inside_a_graph():
    source, target = CategoricalPolicy([1.0] * 3), CategoricalPolicy([0.0] * 3)

    @tf.function
    def update():
        target.update(source, 0.25)

    update()
    update()
    np.testing.assert_allclose(target.logits, [0.4375] * 3)


def test_update_can_pair_by_name():
    class Swapped(ready_made.TFPolicy):
        def __init__(self, names):
            super().__init__(TIME_STEP, DISCRETE, name="swapped")
            self.first = tf.Variable(float(len(names[0])), name=names[0])
            self.second = tf.Variable(float(len(names[1])), name=names[1])

    source, target = Swapped(["a", "bb"]), Swapped(["bb", "a"])
    target.update(source, sort_variables_by_name=True)
    assert (float(target.first), float(target.second)) == (2.0, 1.0)
    target.update(source)
    assert (float(target.first), float(target.second)) == (1.0, 2.0)


def test_update_refuses_what_does_not_pair():
    policy = CategoricalPolicy()
    with pytest.raises(TypeError, match="expected a TFPolicy"):
        policy.update(tf.Module())
    with pytest.raises(ValueError, match="tau: got 2, expected a number in"):
        policy.update(CategoricalPolicy(), tau=2)
    with pytest.raises(ValueError, match="categorical_policy/logits:0 .*expected the same shape"):
        policy.update(CategoricalPolicy([1.0, 2.0]))
    with pytest.raises(ValueError, match="got 0 variables to copy to 1"):
        policy.update(CountingPolicy())
    assert ready_made.RandomTFPolicy(TIME_STEP, DISCRETE).update(CountingPolicy()) is None
