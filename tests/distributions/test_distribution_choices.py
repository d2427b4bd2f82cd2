"""Several choices in one distribution: what pads the shorter ones, and narrow integers."""

import numpy as np
import tensorflow as tf

from pgest import distributions


def test_a_choice_that_allows_nothing_stays_within_itself():
    mask = np.array([False, False, True, True, True, True, True])
    distribution = distributions.multi_categorical(
        tf.zeros([500, 7]), [2, 5], mask=np.tile(mask, (500, 1))
    )
    drawn = distribution.sample(seed=(1, 2)).numpy()
    assert drawn.max(axis=0).tolist() == [1, 4]
    np.testing.assert_allclose(distribution.entropy(), np.log(2) + np.log(5), rtol=1e-5)
