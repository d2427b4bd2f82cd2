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
        self._takes: dict[str, _Observations] = {}
        self._known: _Observations | None = None
        self._mask_spec: Any = None

    def remember(self, view: environment_view.EnvironmentView, actor: acting.Actor) -> None:
        """Keeps the spaces and whether there are masks, for `act`."""
        self._know(view.observation_space, view.action_space)
        self._mask_spec = batch_specs.mask_spec(actor.mask_spec)

    def act(self, observations: Any, env: Any = None, action_mask: Any = None) -> acting.Acted:
        """The greedy actions and predictions for observations `[N, ...]`, from episodes' start."""
        if env is not None:
            view = making.view(on_host(env, 1), seed=0)
            self._know(view.observation_space, view.action_space)
            if view is not env:
                view.close()
        known = self._known
        if known is None:
            raise ValueError(
                "predict does not know the spaces yet: pass env=... (an id or an environment), or "
                "train or evaluate first."
            )
        observations, size = known.checked(observations)
        mask = _checked_masks(known.action_space, self._mask_spec, action_mask, size)
        actor = self._actor(known, size, batch_specs.mask_spec(mask))
        # A counter that is not read stays where it is: telling it takes as long as the program.
        self._model.counters.publish(read=actor.program.reads)
        recurrent = (
            (actor.initial_state(size), np.ones([size], np.bool_)) if actor.recurrent else ()
        )
        hooks = self._model.prediction_hooks
        with told(self._model, hooks, env) if hooks else contextlib.nullcontext():
            return actor(observations, 0, mask, *recurrent)

    def _know(self, observation_space: gymnasium.Space, action_space: gymnasium.Space) -> None:
        name = str((observation_space, action_space))
        if name not in self._takes:
            self._takes[name] = _Observations(observation_space, action_space)
        self._known = self._takes[name]

    def _actor(self, known: _Observations, size: int, mask_spec: Any) -> acting.Actor:
        """The program for any number of observations; for `size` where model_fn has to know it."""
        name = "" if mask_spec is None else str(mask_spec)
        actors, spaces = known.actors, (known.observation_space, known.action_space)
        if (None, name) in actors:
            return actors[None, name]
        if not any(masked == name for _, masked in actors):
            # It may calculate with the number of rows while it is traced, as layers that keep a
            # state do. Whatever else is wrong is raised again with the number.
            with contextlib.suppress(TypeError, ValueError):
                actors[None, name] = acting.Actor(
                    self._model, *spaces, None, mask_spec, explore=False
                )
                return actors[None, name]
        if (size, name) not in actors:
            actors[size, name] = acting.Actor(self._model, *spaces, size, mask_spec, explore=False)
        return actors[size, name]


class _Observations:
    """What the observations of some spaces have to be, and the programs that take them.

    Args:
      observation_space: of one environment.
      action_space: of one environment.

    Attributes:
      actors: by the number of observations, None where any will do, and the masks' specs.
    """

    def __init__(self, observation_space: gymnasium.Space, action_space: gymnasium.Space):
        self.observation_space, self.action_space = observation_space, action_space
        self._parts = environment_spaces.batched(observation_space, 1, "observation_space")
        self.actors: dict[tuple[int | None, str], acting.Actor] = {}

    def checked(self, observations: Any) -> tuple[Any, int]:
        """Observations `[N, ...]` as arrays of the dtypes of their space, and N.

        Raises:
          ValueError: they are not a batch of what the space holds.
        """
        try:
            found = self._parts.convert(observations)
        except environment_spaces.Misfit as error:
            raise _UnfitObservationsError(
                f"predict takes a nest of shapes {self._expected()}: {str(error).rstrip('.')}."
            ) from error
        if isinstance(found, (dict, tuple)):
            found = tf.nest.map_structure(np.asarray, found)
        else:
            found = np.asarray(found)
        leaves = list(self._parts.leaves(found))
        size = len(leaves[0][1]) if leaves[0][1].ndim else 0
        for part, leaf in leaves:
            if leaf.shape != (size, *part.shape):
                raise ValueError(
                    f"predict got observations of shape {tf.nest.map_structure(np.shape, found)}; "
                    f"expected {self._expected()}: the batch comes first, of the same size "
                    "everywhere. A single observation is observation[None]."
                )
            if part.is_float and not environment_view.all_finite(leaf):
                row = int(np.isfinite(leaf.reshape(size, -1)).all(axis=1).argmin())
                raise _UnfitObservationsError(
                    f"predict got {leaf[row]} in row {row} of {part.path}; expected finite "
                    "numbers, as of environments."
                )
            outside = part.outside(leaf) if size else None
            if outside is not None:
                raise _UnfitObservationsError(
                    f"predict got {outside[1]} in row {outside[0]}, which is not in {part.path}, "
                    f"{part.space}."
                )
        return found, size

    def _expected(self) -> Any:
        spec = specs.observation_spec(self.observation_space)
        return tf.nest.map_structure(lambda leaf: (None, *leaf.shape), spec)


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
