"""Films of the policy while it learns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import gymnasium
import tensorflow as tf
from tensorboard.compat.proto import summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2

from pgest.environments import view
from pgest.hooks import filming, intervals, monitor


class VideoHook(monitor.BaseMonitor):
    """Films greedy episodes every so often: files to keep, pictures in TensorBoard.

    Each film is `timestep-<global_timestep>.mp4`. TensorBoard's images page has it as a small GIF
    that moves, under the hook's name. The episodes begin alike each time, so films can be
    compared; their returns are in TensorBoard's run `eval_<name>`, and no stop hook sees them.

    It needs `pip install 'pgest[video]'`.

    Args:
      env: an environment of the hook's own: an id, a factory, or a `gymnasium.Env` that renders
        "rgb_array"; never the one that is trained on.
      every: how often.
      episodes: how many episodes a film shows.
      directory: where the films go; `videos/` in the run's `model_dir` unless given.
      name: tells several of these hooks apart, in TensorBoard.
      at_end: whether to film once more at a regular end, where weights have changed since.

    Raises:
      TypeError: `every` is no `Every`, `episodes` no integer, or `env` is nothing of these.
      ValueError: `episodes` is not positive; or, when the run begins, `env` does not render
        "rgb_array", is the environment trained on, or there is no directory.
      ImportError: when the run begins: imageio-ffmpeg is not installed.

    Example:
      >>> hook = VideoHook("CartPole-v1", monitor.Every(timesteps=20_000))
    """

    def __init__(
        self,
        env: Any,
        every: monitor.Every,
        *,
        episodes: int = 1,
        directory: str | os.PathLike[str] | None = None,
        name: str = "video",
        at_end: bool = True,
    ) -> None:
        if isinstance(env, view.EnvironmentView) or not (
            isinstance(env, str | gymnasium.Env) or callable(env)
        ):
            raise TypeError(
                f"VideoHook takes an id, a factory or a gymnasium.Env; got {type(env).__name__}: "
                'pass for example "CartPole-v1".'
            )
        self._env = env
        self._every = intervals.require_every("VideoHook", every)
        self._episodes = intervals.positive_count("VideoHook(episodes=…)", episodes)
        self._given = None if directory is None else os.fspath(directory)
        self._name = name
        self._at_end = at_end
        self._filmed: filming.Filmed | None = None

    def begin(self, context: monitor.RunContext) -> None:
        """Starts the clock and makes the environment."""
        if self._env is context.environment and isinstance(self._env, gymnasium.Env):
            raise ValueError(
                "VideoHook was given the environment that is trained on; a film would break "
                "off its episode. Give it one of its own, such as an id."
            )
        if self._given is None and context.model_dir is None:
            raise ValueError("VideoHook needs a directory where the run has no model_dir.")
        self._directory = self._given or os.path.join(str(context.model_dir), "videos")
        self._timer = self._every.timer(context)
        self._filmed_at = context.step
        if self._filmed is None:
            self._filmed = filming.Filmed(_made(self._env))

    def state(self) -> dict[str, Any]:
        """When the next film is due."""
        return {"timer": self._timer.state(), "filmed_at": self._filmed_at}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the clock."""
        self._timer.restore(state["timer"])
        self._filmed_at = state["filmed_at"]

    def after_run(self, context: monitor.RunContext) -> None:
        """Films where it is time."""
        if self._timer.due(context):
            self._film(context)

    def after_episode(self, context: monitor.RunContext) -> None:
        """Films where it is time: episodes end between updates as well."""
        self.after_run(context)

    def end(self, context: monitor.RunContext) -> None:
        """Films the final weights, and closes the environment where it is the hook's."""
        filmed = self._filmed
        if filmed is None:
            return
        try:
            if self._at_end and context.error is None and self._filmed_at != context.step:
                self._film(context)
        finally:
            filmed.finish()
            if filmed.env is not self._env:
                filmed.close()
            self._filmed = None

    def _film(self, context: monitor.RunContext) -> None:
        filmed = self._filmed
        if filmed is None or not context.healthy:
            return
        self._filmed_at = context.step
        # Names of equal length stand in the order of time.
        path = os.path.join(self._directory, f"timestep-{context.timestep:010d}.mp4")
        filmed.film(path)
        context.run_evaluation(filmed, episodes=self._episodes, name=self._name)
        filmed.finish()
        if context.summary_writer is not None:
            _write_gif(context, self._name, filmed.animation(path), filmed.size)


def _made(env: Any) -> Any:
    if isinstance(env, gymnasium.Env):
        return env
    return gymnasium.make(env, render_mode="rgb_array") if isinstance(env, str) else env()


def _write_gif(context: monitor.RunContext, tag: str, gif: bytes, size: tuple[int, int]) -> None:
    """What `tf.summary.image` writes for a picture, which it would write as a PNG."""
    # Importing the plugin takes a while, and few runs have pictures.
    from tensorboard.plugins.image import metadata

    width, height = size
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING,
        tensor_shape=tensor_shape_pb2.TensorShapeProto(
            dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=3)]
        ),
        string_val=[str(width).encode(), str(height).encode(), gif],
    )
    described = metadata.create_summary_metadata(None, "A greedy episode.")
    value = summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=described)
    writer: Any = context.summary_writer
    with (
        context.writing_summaries(),
        writer.as_default(step=context.timestep),
        tf.summary.record_if(True),
    ):
        text = summary_pb2.Summary(value=[value]).SerializeToString()
        tf.summary.experimental.write_raw_pb(text)
