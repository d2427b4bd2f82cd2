"""Networks: plain functions that stack `tf_keras` layers, to be called inside a model_fn.

Layers are made anew at every trace and named by the `name` prefix and their position, so a model_fn
that calls these functions alike in every mode shares its weights between modes.
"""

from pgest.networks.feedforward import Activation, cnn, dense, mlp
from pgest.networks.observations import (
    encode_observation,
    flatten_observation,
    is_image,
    preprocess_image,
)
from pgest.networks.recurrent import unroll

__all__ = [
    "Activation",
    "cnn",
    "dense",
    "encode_observation",
    "flatten_observation",
    "is_image",
    "mlp",
    "preprocess_image",
    "unroll",
]
