"""Distributions in terms of tensorflow-probability alone.

A SavedModel with a distribution of pgest's own in it would load only where pgest is imported. TFP's
classes load wherever TFP is imported, in TF-Agents too.
"""

from __future__ import annotations

from typing import Any

import tensorflow_probability as tfp

from pgest.distributions import bounded

tfd, tfb = tfp.distributions, tfp.bijectors


def as_loadable(distribution: Any) -> Any:
    """The same distribution made of TFP's classes.

    Squashed Gaussians and bounded Betas become transformed distributions, which sample and have
    `log_prob`, but neither `mode` nor `entropy`.

    Raises:
      TypeError: a class that is not TFP's own, or one that cannot leave a traced function.

    >>> as_loadable(tfd.Normal(0., 1.)).name
    'Normal'
    """
    if isinstance(distribution, tfd.Independent):
        inner = as_loadable(distribution.distribution)
        if inner is distribution.distribution:
            return distribution
        return tfd.Independent(inner, distribution.reinterpreted_batch_ndims)
    if isinstance(distribution, bounded.SquashedNormal):
        half = 0.5 * (distribution.high - distribution.low)
        middle = 0.5 * (distribution.high + distribution.low)
        normal = tfd.Normal(distribution.loc, distribution.scale)
        return _transformed(normal, [tfb.Shift(middle), tfb.Scale(half), tfb.Tanh()])
    if isinstance(distribution, bounded.BoundedBeta):
        width = distribution.high - distribution.low
        beta = tfd.Beta(distribution.concentration1, distribution.concentration0)
        return _transformed(beta, [tfb.Shift(distribution.low), tfb.Scale(width)])
    kind = type(distribution)
    if not kind.__module__.startswith("tensorflow_probability."):
        raise TypeError(
            f"{kind.__module__}.{kind.__name__} is not a class of tensorflow-probability, so the "
            "file would load only where its module is imported; save with portable=True."
        )
    return distribution


def _transformed(base: Any, bijectors: list[Any]) -> Any:
    return tfd.TransformedDistribution(base, tfb.Chain(bijectors))
