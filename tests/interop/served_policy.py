"""A BentoML service of an export: `PGEST_EXPORT=<directory> bentoml serve served_policy:Policy`.

Plain TensorFlow and BentoML; no pgest.
"""

import os

import bentoml
import numpy as np
import tensorflow as tf


@bentoml.service
class Policy:
    """Observations in, the most probable actions out."""

    def __init__(self) -> None:
        # Held, since a signature lives no longer than the object that it is of.
        self.loaded = tf.saved_model.load(os.environ["PGEST_EXPORT"])
        self.serve = self.loaded.signatures["serving_default"]

    @bentoml.api
    def act(self, observations: list[list[float]]) -> list[int]:
        """The action for each row."""
        rows = tf.constant(np.asarray(observations, np.float32))
        return self.serve(observation=rows)["action"].numpy().tolist()
