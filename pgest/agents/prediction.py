"""Prediction: the greedy action for each of many observations, by one program for any number."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from pgest import specs
from pgest.agents import batch_specs
from pgest.environments import making
from pgest.environments import spaces as environment_spaces
from pgest.environments import view as environment_view
from pgest.environments.action_masks import allowed_choices, batch_masks
from pgest.graph_environments import graph_environment, gymnasium_view
from pgest.hooks import defaults, monitor
from pgest.tracing import acting
from pgest.tracing import model as model_lib


class Predictor:
    """Acts greedily on observations from outside of any environment.

    Args:
      model: the model.
    """

    def __init__(self, model: model_lib.Model):
        self._model = model
        self._actors: dict[Any, acting.Actor] = {}
        self._spaces: tuple[gymnasium.Space, gymnasium.Space] | None = None
        self._mask_spec: Any = None

    def remember(self, view: environment_view.EnvironmentView, actor: acting.Actor) -> None:
        """Keeps the spaces and whether there are masks, for `act`."""
        self._spaces = (view.observation_space, view.action_space)
        self._mask_spec = batch_specs.mask_spec(actor.mask_spec)

    def act(self, observations: Any, env: Any = None, action_mask: Any = None) -> acting.Acted:
        """The greedy actions and predictions for observations `[N, ...]`, from episodes' start."""
        if env is not None:
            view = making.view(on_host(env, 1), seed=0)
            self._spaces = (view.observation_space, view.action_space)
            if view is not env:
                view.close()
        if self._spaces is None:
            raise ValueError(
                "predict does not know the spaces yet: pass env=... (an id or an environment), or "
                "train or evaluate first."
            )
        observations = _checked_observations(self._spaces[0], observations)
        size = len(tf.nest.flatten(observations)[0])
        mask = _checked_masks(self._spaces[1], self._mask_spec, action_mask, size)
        actor = self._actor(size, self._spaces, batch_specs.mask_spec(mask))
        reset = np.ones([size], np.bool_)
        with told(self._model, self._model.prediction_hooks, env):
            return actor(observations, 0, mask, actor.initial_state(size), reset)

    def _actor(
        self, size: int, spaces: tuple[gymnasium.Space, gymnasium.Space], mask_spec: Any
    ) -> acting.Actor:
        """The program for any number of observations; for `size` where model_fn has to know it."""
        try:
            return self._made(None, spaces, mask_spec)
        except (TypeError, ValueError):
            # It calculates with the number of rows while it is traced, as layers that keep a state
            # do. Whatever else is wrong is raised again here.
            return self._made(size, spaces, mask_spec)

    def _made(
        self,
        size: int | None,
        spaces: tuple[gymnasium.Space, gymnasium.Space],
        mask_spec: Any,
    ) -> acting.Actor:
        key = (size, str(spaces), str(mask_spec))
        if key not in self._actors:
            self._actors[key] = acting.Actor(self._model, *spaces, size, mask_spec, explore=False)
        return self._actors[key]


@contextlib.contextmanager
def told(
    model: model_lib.Model, hooks: Sequence[monitor.BaseMonitor], env: Any
) -> Iterator[monitor.RunContext]:
    """Begins and ends the hooks that model_fn gave for an evaluation or a prediction."""
    defaults.check_hooks(hooks)
    config, counters = model.config, model.counters
    model_dir = None if config.model_dir is None else os.fspath(config.model_dir)
    context = monitor.RunContext(model_dir=model_dir, config=config, environment=env)
    context.step, context.timestep = counters.step, counters.timestep
    context.episode = counters.episode
    begun: list[monitor.BaseMonitor] = []
    try:
        for hook in hooks:
            begun.append(hook)
            hook.begin(context)
        yield context
    except BaseException as error:
        context.error = error
        raise
    finally:
        for hook in begun:
            hook.end(context)


def on_host(env: Any, num_envs: int) -> Any:
    """An in-graph environment as a gymnasium vector environment; anything else as it is."""
    if isinstance(env, graph_environment.GraphEnvironment):
        return gymnasium_view.as_gymnasium(env.with_num_envs(num_envs))
    return env


class _UnfitObservationsError(environment_view.EnvironmentFailure, ValueError):
    """What an environment may not give either; the caller gave it, hence a ValueError too."""


def _checked_observations(space: gymnasium.Space, observations: Any) -> Any:
    """Observations `[N, ...]` as arrays of the dtypes of one observation's spec.

    Raises:
      ValueError: they are not a batch of what the space holds.
    """
    observation_spec = specs.observation_spec(space)
    expected = tf.nest.map_structure(lambda leaf: (None, *leaf.shape), observation_spec)
    parts = environment_spaces.batched(space, 1, "observation_space")
    try:
        found = tf.nest.map_structure(np.asarray, parts.convert(observations))
    except environment_spaces.Misfit as error:
        raise _UnfitObservationsError(
            f"predict takes a nest of shapes {expected}: {error}."
        ) from error
    shapes = tf.nest.map_structure(np.shape, found)
    for spec, leaf in zip(tf.nest.flatten(observation_spec), tf.nest.flatten(found), strict=True):
        if leaf.shape[1:] != tuple(spec.shape) or leaf.ndim == 0:
            raise ValueError(
                f"predict got observations of shape {shapes}; expected {expected}: the batch comes "
                "first. A single observation is observation[None]."
            )
    for part, leaf in parts.leaves(found):
        outside = part.outside(leaf) if len(leaf) else None
        if outside is not None:
            raise _UnfitObservationsError(
                f"predict got {outside[1]} in row {outside[0]}, which is not in {part.path}, "
                f"{part.space}."
            )
    return found


def _checked_masks(action_space: Any, expected: Any, masks: Any, size: int) -> Any:
    """Masks `[N, n]` as bools, or None.

    Raises:
      ValueError: they are missing, of other shapes than the environment's, or allow nothing.
    """
    if masks is None:
        if expected is None:
            return None
        raise ValueError(
            f"predict needs action_mask=..., bools of the shapes {_batch_shapes(expected)}, as the "
            "environment gives masks; all True allows every action."
        )
    masks = batch_masks(masks)
    found = batch_specs.mask_spec(masks)
    sizes = {np.shape(leaf)[:1] for leaf in tf.nest.flatten(masks)}
    if sizes != {(size,)} or (expected is not None and found != expected):
        raise ValueError(
            f"predict got {size} observations and an action_mask of the shapes "
            f"{tf.nest.map_structure(np.shape, masks)}; expected "
            f"{_batch_shapes(found if expected is None else expected)}, where N is {size}."
        )
    for choices in allowed_choices(action_space, masks):
        allowed = choices.reshape(size, -1).all(axis=1)
        if not allowed.all():
            raise ValueError(f"predict: action_mask[{int(allowed.argmin())}] allows no action.")
    return masks


def _batch_shapes(spec: Any) -> Any:
    return tf.nest.map_structure(lambda leaf: ("N", *leaf.shape), spec)
