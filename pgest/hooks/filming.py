"""Films of episodes: each frame of an environment goes into a video file as it comes."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import gymnasium
import numpy as np

from pgest.hooks import extras

# What TensorBoard shows in a column: more would only be larger.
_ANIMATION_FRAMES, _ANIMATION_WIDTH = 100, 320
# Frames smaller than the first, such as MinAtar's of 10 × 10, are enlarged to the second.
_TINY, _ENLARGED = 48, 128


class Filmed(gymnasium.Wrapper):
    """An environment that writes its frames into a file, between `film` and `finish`.

    Args:
      env: renders "rgb_array".

    Raises:
      ImportError: imageio-ffmpeg is not installed.
      ValueError: `env` renders something else.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._ffmpeg = extras.imported("imageio_ffmpeg", "A video", "video")
        if env.render_mode != "rgb_array":
            raise ValueError(
                f"{env} has the render_mode {env.render_mode!r}, which gives no pictures for a "
                'film: make it with gymnasium.make(..., render_mode="rgb_array").'
            )
        self._path: str | None = None
        self._writer: Any = None
        self.frames = 0
        self.size = (0, 0)  # width and height

    def film(self, path: str | os.PathLike[str]) -> None:
        """Begins a film; the file appears when it is finished.

        Args:
          path: of an .mp4 file; its directory is made.
        """
        self.finish()
        self._path = os.fspath(path)
        os.makedirs(os.path.dirname(os.path.abspath(self._path)), exist_ok=True)
        self.frames = 0

    def finish(self) -> None:
        """Ends the film, if there is one."""
        path, self._path = self._path, None
        writer, self._writer = self._writer, None
        if writer is not None and path is not None:
            writer.close()
            os.replace(_unfinished(path), path)

    def reset(self, **kwargs: Any) -> Any:
        """Resets, and writes the first frame."""
        result = self.env.reset(**kwargs)
        self._write()
        return result

    def step(self, action: Any) -> Any:
        """Steps, and writes a frame."""
        result = self.env.step(action)
        self._write()
        return result

    def close(self) -> None:
        """Ends the film and closes the environment."""
        self.finish()
        super().close()

    def _write(self) -> None:
        if self._path is None:
            return
        frame = _pixels(self.env.render())
        if self._writer is None:
            height, width = frame.shape[:2]
            self.size = (width, height)
            fps = self.env.metadata.get("render_fps", 30)
            # Without the macro block the frame would be scaled to a multiple of 16; players need
            # an even size only.
            self._writer = self._ffmpeg.write_frames(
                _unfinished(self._path), self.size, fps=fps, macro_block_size=2
            )
            self._writer.send(None)
        self._writer.send(frame.tobytes())
        self.frames += 1

    def animation(self, path: str | os.PathLike[str]) -> bytes:
        """A small GIF of a film, of its whole length, for pages that show pictures.

        Args:
          path: the film that was finished last.

        Raises:
          RuntimeError: ffmpeg cannot make it; says why.
        """
        every = -(-self.frames // _ANIMATION_FRAMES)
        fps = self.env.metadata.get("render_fps", 30)
        width = min(self.size[0], _ANIMATION_WIDTH)
        filters = (
            f"select='not(mod(n,{every}))',scale={width}:-2,"
            "split[a][b];[a]palettegen[p];[b][p]paletteuse"
        )
        command = [self._ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", os.fspath(path)]
        command += ["-filter_complex", filters, "-r", f"{fps / every}", "-f", "gif", "-"]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0 or not done.stdout:
            raise RuntimeError(f"ffmpeg made no GIF of {path}: {done.stderr.decode().strip()}")
        return done.stdout


def _pixels(frame: Any) -> np.ndarray:
    """A frame as uint8 `[height, width, 3]`; what renders floats has 1 for white."""
    frame = np.asarray(frame)
    if np.issubdtype(frame.dtype, np.floating):
        frame = np.rint(np.clip(frame, 0.0, 1.0) * 255.0).astype(np.uint8)
    side = min(frame.shape[:2])
    times = 1 if side >= _TINY else -(-_ENLARGED // side)
    return frame.repeat(times, axis=0).repeat(times, axis=1)


def _unfinished(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".unfinished-{name}")
