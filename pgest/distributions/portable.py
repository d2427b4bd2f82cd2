"""Distributions as plain tensors and built-in operations, for exports without TFP.

`parameters` describes a distribution as a dict of tensors; `sample_with_noise` and `mode` act on it
with operations that TensorFlow Lite has too, given uniform noise of `noise_shape`. `sample` is the
same draw from a seed: what an export samples from the same noise, and the same with XLA and
without, which TFP's own samplers are not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from pgest.distributions import bounded, joint, noise
from pgest.specs import checks


@dataclasses.dataclass(frozen=True)
class PortableForm:
    """How a family of scalar (or one-axis) distributions is written in built-in operations.

    Functions get the distribution without its `tfd.Independent` wrappers.
    """

    parameters: Callable[[Any], dict[str, tf.Tensor]]
    """To its tensors by name, each of the distribution's batch shape at least."""

    noise_per_element: Callable[[Any], int]
    """How many uniform numbers one element of the event takes."""

    sample: Callable[[Any, tf.Tensor], tf.Tensor]
    """From noise `[batch..., event..., noise_per_element]` to the action."""

    mode: Callable[[Any], tf.Tensor]
    """To the action of the highest probability, or what stands for it."""


_FORMS: dict[type, PortableForm] = {}

# The parameters whose shapes make a distribution's.
_GAUSSIAN = ("loc", "scale")
_POINT = ("loc", "atol", "rtol")
_SQUASHED = ("loc", "scale", "low", "high")
_BETA = ("concentration1", "concentration0", "low", "high")


def register(family: type, form: PortableForm) -> None:
    """Makes a distribution class portable; subclasses are with it.

    Args:
        family: a subclass of `tfd.Distribution`.
        form: its description.
    """
    _FORMS[family] = form


def parameters(distribution: tfd.Distribution) -> dict[str, tf.Tensor]:
    """Plain tensors that describe a distribution.

    Args:
        distribution: of a registered family, or `tfd.Independent`, `tfd.TransformedDistribution` or
            `JointDistribution` of them.

    Returns:
        Tensors by name: `logits` of Categorical (`[..., n]`) and Bernoulli, `loc` and `scale` of
        Gaussians, `concentration1` and `concentration0` of Betas, with `low` and `high` where the
        action is bounded. Of a joint distribution each name has the action's path in front, as in
        `"arm/loc"` or `"0/logits"`.

    Raises:
        TypeError: a family without a portable form.

    >>> sorted(parameters(joint.JointDistribution({"arm": tfd.Normal([0.], [1.])})))
    ['arm/loc', 'arm/scale']
    """
    if isinstance(distribution, joint.JointDistribution):
        return {
            f"{path}/{name}": tensor
            for path, component in _paths(distribution.distributions)
            for name, tensor in parameters(component).items()
        }
    inner = _unwrap(distribution)
    return _form(inner).parameters(inner)


def noise_size(distribution: tfd.Distribution) -> int:
    """How many uniform numbers a draw takes, for each row of the batch.

    Raises:
        TypeError: a family without a portable form.
        ValueError: the event shape is not static.

    >>> noise_size(tfd.Categorical(logits=[[0., 0., 0.]]))
    3
    """
    if isinstance(distribution, joint.JointDistribution):
        return sum(noise_size(component) for _, component in _paths(distribution.distributions))
    inner = _unwrap(distribution)
    event = tf.nest.flatten(distribution.event_shape)[0]
    if not event.is_fully_defined():
        raise ValueError(
            f"{distribution} has no static event shape, so no fixed number of noise numbers."
        )
    return event.num_elements() * _form(inner).noise_per_element(inner)


def noise_shape(distribution: tfd.Distribution) -> tf.TensorShape:
    """The static shape of the noise for `sample_with_noise`: `[*batch, noise_size]`.

    >>> noise_shape(tfd.Categorical(logits=tf.zeros([5, 3])))
    TensorShape([5, 3])
    """
    return distribution.batch_shape.concatenate([noise_size(distribution)])


def sample_with_noise(distribution: tfd.Distribution, uniform: tf.Tensor) -> Any:
    """The sample that a tensor of uniform noise stands for.

    Categorical by the Gumbel maximum, Gaussians by Box and Muller, Betas by Marsaglia and Tsang.

    Args:
        distribution: see `parameters`.
        uniform: float `[*batch, noise_size(distribution)]` in [0, 1); axes in front are of samples.

    Returns:
        An action, of the distribution's shape, dtype and structure.

    Raises:
        TypeError: a family without a portable form.

    >>> distribution = tfd.Categorical(logits=[[0., 0.]])
    >>> sample_with_noise(distribution, tf.constant([[0.1, 0.9]])).numpy().tolist()
    [1]
    """
    if isinstance(distribution, joint.JointDistribution):
        components = [component for _, component in _paths(distribution.distributions)]
        sizes = [noise_size(component) for component in components]
        parts = tf.split(uniform, sizes, axis=-1)
        draws = [
            sample_with_noise(component, part)
            for component, part in zip(components, parts, strict=True)
        ]
        return tf.nest.pack_sequence_as(distribution.distributions, draws)
    inner = _unwrap(distribution)
    form = _form(inner)
    event = [*tf.nest.flatten(distribution.event_shape)[0], form.noise_per_element(inner)]
    shaped = tf.reshape(uniform, tf.concat([tf.shape(uniform)[:-1], event], axis=0))
    return form.sample(inner, checks.with_static_shape(shaped, [*uniform.shape[:-1], *event]))


def mode(distribution: tfd.Distribution) -> Any:
    """The deterministic action, as `distribution.mode()`, in built-in operations.

    Raises:
        TypeError: a family without a portable form.

    >>> mode(tfd.Categorical(logits=[[0., 1.]])).numpy().tolist()
    [1]
    """
    if isinstance(distribution, joint.JointDistribution):
        return tf.nest.map_structure(mode, distribution.distributions)
    inner = _unwrap(distribution)
    return _form(inner).mode(inner)


def sample(distribution: tfd.Distribution, seed: Any) -> Any:
    """A sample that is a function of the seed alone: with and without XLA, here and in an export.

    A family without a portable form is sampled by its own `sample(seed=seed)`.

    Args:
        distribution: any TFP distribution.
        seed: int `[2]`.

    Returns:
        An action, of the distribution's shape, dtype and structure.

    >>> distribution = tfd.Normal(tf.zeros([2]), 1.0)
    >>> bool(tf.reduce_all(sample(distribution, (1, 2)) == sample(distribution, (1, 2))))
    True
    """
    if not is_portable(distribution):
        return distribution.sample(seed=seed)
    shape = tf.concat([distribution.batch_shape_tensor(), [noise_size(distribution)]], axis=0)
    uniform = noise.uniform(shape, seed)
    return sample_with_noise(
        distribution, checks.with_static_shape(uniform, noise_shape(distribution))
    )


def is_portable(distribution: tfd.Distribution) -> bool:
    """Whether the functions of this module take the distribution.

    >>> is_portable(tfd.Normal(0., 1.)), is_portable(tfd.Poisson(1.))
    (True, False)
    """
    if isinstance(distribution, joint.JointDistribution):
        return all(is_portable(component) for _, component in _paths(distribution.distributions))
    try:
        _form(_unwrap(distribution))
    except TypeError:
        return False
    return tf.nest.flatten(distribution.event_shape)[0].is_fully_defined()


def _form(distribution: tfd.Distribution) -> PortableForm:
    for family in type(distribution).__mro__:
        if family in _FORMS:
            return _FORMS[family]
    known = ", ".join(sorted(family.__name__ for family in _FORMS))
    raise TypeError(
        f"{type(distribution).__name__} has no form in built-in operations; known are {known}. "
        "Describe it with pgest.distributions.register(family, PortableForm(...))."
    )


def _unwrap(distribution: tfd.Distribution) -> tfd.Distribution:
    while isinstance(distribution, tfd.Independent):
        distribution = distribution.distribution
    return distribution


def _paths(nest: Any, path: str = "") -> list[tuple[str, tfd.Distribution]]:
    """Components with their paths, in the order of `tf.nest.flatten` (dicts by sorted key)."""
    if isinstance(nest, dict):
        children = [(str(key), nest[key]) for key in sorted(nest)]
    elif isinstance(nest, list | tuple):
        children = [(str(index), child) for index, child in enumerate(nest)]
    else:
        return [(path, nest)]
    return [
        pair for key, child in children for pair in _paths(child, f"{path}/{key}" if path else key)
    ]


def _logits(distribution: Any) -> tf.Tensor:
    return tf.cast(distribution.logits_parameter(), tf.float32)  # as the noise is


def _threshold(distribution: Any, level: Any) -> tf.Tensor:
    return tf.cast(tf.sigmoid(_logits(distribution)) > level, distribution.dtype)


def _argmax(distribution: Any, scores: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.argmax(scores, axis=-1), distribution.dtype)


def _spread(distribution: Any, over: tuple[str, ...], *names: str) -> dict[str, tf.Tensor]:
    """Parameters of the shape that those of `over` have together.

    As they are where the shapes say so. Elsewhere by an addition: every runtime has that, while few
    have the operation that tells a common shape (BroadcastArgs).
    """
    tensors = {name: tf.convert_to_tensor(getattr(distribution, name)) for name in over}

    def spread(name: str) -> tf.Tensor:
        value = tensors[name]
        for other in tensors.values():
            if other is not value and not _covers(value.shape, other.shape):
                value += tf.zeros_like(other, value.dtype)
        return value

    static = distribution.batch_shape
    return {name: checks.with_static_shape(spread(name), static) for name in names}


def _covers(shape: tf.TensorShape, other: tf.TensorShape) -> bool:
    """Whether a tensor of one shape keeps it beside one of the other."""
    if shape.rank is None or other.rank is None or other.rank > shape.rank:
        return False
    own = shape[shape.rank - other.rank :]
    return all(b == 1 or (a is not None and a == b) for a, b in zip(own, other, strict=True))


register(
    tfd.Categorical,
    PortableForm(
        parameters=lambda d: {"logits": _logits(d)},
        noise_per_element=lambda d: _logits(d).shape[-1],
        sample=lambda d, u: _argmax(d, _logits(d) + noise.gumbel(u)),
        mode=lambda d: _argmax(d, _logits(d)),
    ),
)
register(
    # A Categorical whose actions do not count from 0.
    tfd.FiniteDiscrete,
    PortableForm(
        parameters=lambda d: {"logits": _logits(d), "outcomes": d.outcomes},
        noise_per_element=lambda d: _logits(d).shape[-1],
        sample=lambda d, u: tf.gather(d.outcomes, tf.argmax(_logits(d) + noise.gumbel(u), axis=-1)),
        mode=lambda d: tf.gather(d.outcomes, tf.argmax(_logits(d), axis=-1)),
    ),
)
register(
    tfd.Bernoulli,
    PortableForm(
        parameters=lambda d: {"logits": _logits(d)},
        noise_per_element=lambda d: 1,
        sample=lambda d, u: _threshold(d, u[..., 0]),
        mode=lambda d: _threshold(d, 0.5),
    ),
)
register(
    tfd.Normal,
    PortableForm(
        parameters=lambda d: _spread(d, _GAUSSIAN, *_GAUSSIAN),
        noise_per_element=lambda d: noise.NORMAL_NOISE,
        sample=lambda d, u: d.loc + d.scale * tf.cast(noise.normal(u), d.dtype),
        mode=lambda d: _spread(d, _GAUSSIAN, "loc")["loc"],
    ),
)
register(
    tfd.MultivariateNormalDiag,
    PortableForm(
        parameters=lambda d: {"loc": d.mean(), "scale": d.stddev()},
        noise_per_element=lambda d: noise.NORMAL_NOISE,
        sample=lambda d, u: d.mean() + d.stddev() * tf.cast(noise.normal(u), d.dtype),
        mode=lambda d: d.mean(),
    ),
)
register(
    tfd.Deterministic,
    PortableForm(
        parameters=lambda d: _spread(d, _POINT, "loc"),
        noise_per_element=lambda d: 0,
        sample=lambda d, u: _spread(d, _POINT, "loc")["loc"],
        mode=lambda d: _spread(d, _POINT, "loc")["loc"],
    ),
)
register(
    bounded.SquashedNormal,
    PortableForm(
        parameters=lambda d: _spread(d, _SQUASHED, *_SQUASHED),
        noise_per_element=lambda d: noise.NORMAL_NOISE,
        sample=lambda d, u: d.squash(d.loc + d.scale * noise.normal(u)),
        mode=lambda d: d.squash(d.loc),
    ),
)
register(
    bounded.BoundedBeta,
    PortableForm(
        parameters=lambda d: _spread(d, _BETA, *_BETA),
        noise_per_element=lambda d: noise.BETA_NOISE,
        sample=lambda d, u: d.sample_with_noise(u),
        mode=lambda d: d.mode(),
    ),
)
register(
    # Of a bijector that keeps the event's shape; its mode is the image of the mode, as policies
    # take it.
    tfd.TransformedDistribution,
    PortableForm(
        parameters=lambda d: parameters(d.distribution),
        noise_per_element=lambda d: _form(_unwrap(d.distribution)).noise_per_element(
            _unwrap(d.distribution)
        ),
        sample=lambda d, u: d.bijector.forward(
            _form(_unwrap(d.distribution)).sample(_unwrap(d.distribution), u)
        ),
        mode=lambda d: d.bijector.forward(mode(d.distribution)),
    ),
)
