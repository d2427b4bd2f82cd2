"""Observations that count further than one-hot vectors reach."""

import pytest
import tensorflow as tf
from gymnasium import spaces

from pgest import networks


@pytest.mark.parametrize(
    "space, choices",
    [
        (spaces.Discrete(2**20 + 1), "1,048,577"),
        (spaces.Discrete(2**31), "2,147,483,648"),
        (spaces.Discrete(2**32 + 3), "4,294,967,299"),  # TensorFlow's own depth would be 3
        (spaces.Discrete(2**40), "1,099,511,627,776"),  # and here 0
        (spaces.MultiDiscrete([3, 2**40]), "1,099,511,627,779"),
        (spaces.MultiDiscrete([2**20, 1]), "1,048,577"),
        (spaces.MultiDiscrete([2**62, 2**62]), "9,223,372,036,854,775,808"),
    ],
)
def test_more_choices_than_features_are_an_error(space, choices):
    observation = tf.zeros([1, *space.shape], tf.int64)
    for nested in (space, spaces.Dict(a=space)):
        nest = {"a": observation} if nested is not space else observation
        with pytest.raises(ValueError, match=f"has {choices} choices, .*Embedding") as caught:
            networks.flatten_observation(nested, nest)
        assert str(space) in str(caught.value)


def test_the_largest_that_is_taken():
    space = spaces.Discrete(2**20, start=5)
    hot = networks.flatten_observation(space, tf.constant([2**20 + 4], tf.int64))
    assert hot.shape == [1, 2**20] and float(hot[0, -1]) == 1.0 and float(tf.reduce_sum(hot)) == 1.0
