"""TensorBoard: which tags there are, and the hook that writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorboard.compat.proto import summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.plugins.scalar import summary_v2

from pgest.contract import foreign_names
from pgest.hooks import episode_means, intervals, monitor, run_pages

TAGS: Mapping[str, str] = {
    "episode/return": "Mean undiscounted return of the training episodes that ended since the "
    "last point. They explore; the greedy return is under `eval/`.",
    "episode/length": "Mean timesteps of the same episodes.",
    "episode/<key>": "Mean of a numeric entry of the environment's last `info`, such as "
    "`is_success`, over the same episodes. The keys `return` and `length` become "
    "`episode/info/return` and `episode/info/length`.",
    "loss": "The loss that the last update minimised.",
    "loss/policy": "The part of the loss that improves the policy.",
    "loss/value": "The part of the loss that fits the value to its target.",
    "loss/entropy": "The part of the loss that rewards exploring.",
    "policy/entropy": "Mean entropy of the policy in nats; falls as the policy makes up its mind.",
    "policy/kl": "Kullback-Leibler divergence from the policy that acted to the present one, "
    "looked at before each step of the update; the mean over the steps. So it is 0 where an update "
    "is one step.",
    "policy/clip_fraction": "Share of the timesteps whose probability ratio PPO clipped.",
    "value/explained_variance": "1 where the value predicts the returns exactly, 0 where it is "
    "no better than their mean, below 0 where it is worse.",
    "gradient_norm": "Global norm of the gradients before clipping.",
    "learning_rate": "The optimizer's learning rate, the mean over the update's steps.",
    "speed/steps_per_second": "Steps (executions of the train_op) a second.",
    "speed/timesteps_per_second": "Timesteps (actions taken in environments) a second, all "
    "environments together.",
    "speed/episodes_per_second": "Finished episodes a second.",
}
"""Documented tags; a `metrics` entry of a model_fn appears under its own name besides."""

EVALUATION_TAGS: Mapping[str, str] = {
    "episode/return": "Mean undiscounted return of the evaluation's greedy episodes.",
    "episode/length": "Mean timesteps of the same episodes.",
    "spread/return_std": "Standard deviation of the return over these episodes.",
    "spread/return_min": "The lowest return among these episodes.",
    "spread/return_max": "The highest return among these episodes.",
    "spread/length_std": "Standard deviation of the length over these episodes.",
    "spread/length_min": "The fewest timesteps that one of them took.",
    "spread/length_max": "The most timesteps that one of them took.",
    "episode/<key>": "Mean of a numeric entry of the environment's last `info`.",
    "loss": "The loss of the model in EVAL mode, where it has one.",
    "<name>": "An `eval_metric_ops` entry of the model.",
}
"""Documented tags of evaluations, in the runs `eval` and `eval_<name>`.

They have the names of the training tags, so that both curves are in one chart; what training has
not is in a group of its own."""

# Tells TensorBoard that a tensor belongs to its scalars page.
_SCALAR_METADATA = summary_v2.scalar_pb("any", 0.0).value[0].metadata

_NO_CURVES = frozenset({"global_step", "global_timestep", "global_episode", "episodes"})
_COUNTER_OF_AXIS = {"global_timestep": "timestep", "global_step": "step"}


def require_x_axis(hook: str, x_axis: str) -> str:
    """`x_axis`, if there is one of that name.

    Raises:
      ValueError: it is neither "global_timestep" nor "global_step".
    """
    if x_axis not in _COUNTER_OF_AXIS:
        raise ValueError(
            f'{hook} takes x_axis="global_timestep" or x_axis="global_step"; got {x_axis!r}.'
        )
    return x_axis


def write_scalars(
    context: monitor.RunContext,
    scalars: Mapping[str, float],
    *,
    x_axis: str = "global_timestep",
    timestep: int | None = None,
) -> None:
    """Writes one point for each tag at the context's present counter.

    Args:
      context: where to; nothing happens for a run without a `model_dir`.
      scalars: floats by tag.
      x_axis: "global_timestep" or "global_step".
      timestep: in place of the context's own.
    """
    writer = context.summary_writer
    if writer is None or not scalars:
        return
    step = getattr(context, _COUNTER_OF_AXIS[x_axis])
    if timestep is not None and x_axis == "global_timestep":
        step = timestep
    with context.writing_summaries(), writer.as_default(step=step):
        write_points(scalars, TAGS)


def write_points(scalars: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """Writes one point for each tag with the default writer, at its step.

    One op does it for all tags: `tf.summary.scalar` takes about 2 ms a tag, longer than many an
    update.

    Args:
      scalars: floats by tag.
      tags: `TAGS` or `EVALUATION_TAGS`, whose sentences the points carry.
    """
    summary = summary_pb2.Summary(
        value=[_point(tag, value, _description(tag, tags)) for tag, value in scalars.items()]
    )
    with tf.summary.record_if(True):
        tf.summary.experimental.write_raw_pb(summary.SerializeToString())


def evaluation_scalars(results: Mapping[str, float]) -> dict[str, float]:
    """What TensorBoard shows of an evaluation: `EVALUATION_TAGS` by name.

    Args:
      results: what `PGAgent.evaluate` returns. Its counters and the number of episodes are left
        out: as curves they say nothing.

    Example:
      >>> evaluation_scalars({"return_mean": 9.0, "return_std": 1.0, "info/success_mean": 0.5,
      ...                     "accuracy": 0.8, "global_step": 100.0, "episodes": 10.0})
      {'episode/return': 9.0, 'spread/return_std': 1.0, 'episode/success': 0.5, 'accuracy': 0.8}
    """
    scalars = {}
    for name, value in results.items():
        if name in _NO_CURVES:
            continue
        if name.startswith("info/"):
            name = f"episode/{name[len('info/') :].removesuffix('_mean')}"
        elif name in ("return_mean", "length_mean"):
            name = f"episode/{name.removesuffix('_mean')}"
        elif name.startswith(("return_", "length_")):
            name = f"spread/{name}"
        scalars[name] = value
    return scalars


def _description(tag: str, tags: Mapping[str, str]) -> str:
    """What is known of a tag; those of an environment's info and of a model have one for all."""
    if tag in tags:
        return tags[tag]
    return tags["episode/<key>"] if tag.startswith("episode/") else tags.get("<name>", "")


def _point(tag: str, value: float, description: str) -> summary_pb2.Summary.Value:
    """What `tf.summary.scalar` writes for a tag."""
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_FLOAT,
        tensor_shape=tensor_shape_pb2.TensorShapeProto(),
        float_val=[float(value)],
    )
    point = summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=_SCALAR_METADATA)
    # TensorBoard shows it where one points at a chart's title.
    point.metadata.summary_description = description
    return point


class SummarySaverHook(monitor.BaseMonitor):
    """Writes episodes and metrics to TensorBoard.

    Each time it writes a point for the means over the episodes that ended since the last time
    (`episode/return`, `episode/length`, numeric `info` entries) and for each metric of the last
    update under its own name; see `TAGS`. It also asks for the `tf.summary` calls inside the
    model_fn, at the first update and at the one after each firing. When the run begins it writes
    the hyper-parameters, and a text with the settings, versions and command; when it ends, how. The
    first update, and what is left at the end, is written always.

    Args:
      every: how often.
      x_axis: "global_timestep" or "global_step": what the points are drawn against. With
        timesteps, runs of different batch sizes can be compared.

    Raises:
      TypeError: `every` is no `Every`.
      ValueError: an unknown `x_axis`.

    Example:
      >>> hook = SummarySaverHook(monitor.Every(timesteps=10_000), x_axis="global_step")
    """

    @foreign_names.told
    def __init__(self, every: monitor.Every, *, x_axis: str = "global_timestep") -> None:
        self._every = intervals.require_every("SummarySaverHook", every)
        self._x_axis = require_x_axis("SummarySaverHook", x_axis)

    def begin(self, context: monitor.RunContext) -> None:
        """Starts the clock and writes the hyper-parameters."""
        self._timer = self._every.timer(context)
        self._means = episode_means.EpisodeMeans()
        self._ask = True
        self._metrics_written_at: int | None = None
        if context.hyperparameters and context.summary_writer is not None:
            with context.writing_summaries():
                run_pages.write_hparams(
                    context.summary_writer, context.hyperparameters, model_dir=context.model_dir
                )
            run_pages.write_text(context)

    def state(self) -> dict[str, Any]:
        """What the next points are made of, and when they are due."""
        return {
            "timer": self._timer.state(),
            "means": self._means.state(),
            "ask": self._ask,
            "metrics_written_at": self._metrics_written_at,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the curves."""
        self._timer.restore(state["timer"])
        self._means.restore(state["means"])
        self._ask, self._metrics_written_at = state["ask"], state["metrics_written_at"]

    def before_run(self, context: monitor.RunContext) -> None:
        """Asks for the summaries of the model_fn."""
        if self._ask:
            context.request_summaries()
            self._ask = False

    def after_run(self, context: monitor.RunContext) -> None:
        """Writes where it is time."""
        if self._timer.due(context) or self._metrics_written_at is None:
            self._write(context)

    def after_episode(self, context: monitor.RunContext) -> None:
        """Takes the episode in, and writes where it is time."""
        for episode in context.episodes:
            self._means.add(episode)
        if self._timer.due(context):
            self._write(context)

    def end(self, context: monitor.RunContext) -> None:
        """Writes what came since and brings it to the disk."""
        self._write(context)
        run_pages.write_end(context)
        context.flush_summaries()

    def _write(self, context: monitor.RunContext) -> None:
        scalars = self._means.take()
        # Between two updates the metrics are still those of the first: one point is enough.
        if context.metrics and self._metrics_written_at != context.step:
            self._metrics_written_at = context.step
            if context.batch_timestep is None:
                scalars.update(context.metrics)
            else:  # no timestep comes between the last two updates: each is drawn at its batch
                write_scalars(
                    context,
                    context.metrics,
                    x_axis=self._x_axis,
                    timestep=context.batch_timestep,
                )
        write_scalars(context, scalars, x_axis=self._x_axis)
        self._ask = True
