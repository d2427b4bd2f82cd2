"""Distributions of actions: families, heads, joint distributions, and their portable form."""

from pgest.distributions.bounded import BoundedBeta, SquashedNormal
from pgest.distributions.families import (
    MASKED_LOGIT,
    bernoulli,
    beta,
    categorical,
    gaussian,
    mask_logits,
    multi_categorical,
    squashed_gaussian,
)
from pgest.distributions.heads import BoxFamily, action_head, from_parameters, parameter_size
from pgest.distributions.joint import JointDistribution
from pgest.distributions.portable import (
    PortableForm,
    is_portable,
    mode,
    noise_shape,
    noise_size,
    parameters,
    register,
    sample,
    sample_with_noise,
)
from pgest.distributions.state_dependent_noise import StateDependentNoise

__all__ = [
    "MASKED_LOGIT",
    "BoundedBeta",
    "BoxFamily",
    "JointDistribution",
    "PortableForm",
    "SquashedNormal",
    "StateDependentNoise",
    "action_head",
    "bernoulli",
    "beta",
    "categorical",
    "from_parameters",
    "gaussian",
    "is_portable",
    "mask_logits",
    "mode",
    "multi_categorical",
    "noise_shape",
    "noise_size",
    "parameter_size",
    "parameters",
    "register",
    "sample",
    "sample_with_noise",
    "squashed_gaussian",
]
