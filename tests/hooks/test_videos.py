"""Films of real episodes, read back from the files and from TensorBoard's."""

import sys

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

import pgest
from pgest import hooks
from pgest.hooks import filming, monitor
from tests import model_fns
from tests.hooks.hooks_driver import Run, Update

ffmpeg = pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("pygame")


class Bars(gymnasium.Env):
    """Pictures of which one can tell the number: frame t is of the colour 20 t."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode="rgb_array"):
        self.render_mode = render_mode
        self.open = True

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(1, np.float32), 1.0, self.time == 7, False, {}

    def render(self):
        return np.full([48, 64, 3], 20 * self.time, np.uint8)

    def close(self):
        self.open = False


def frames(path):
    """The pictures of a film, uint8 `[N, height, width, 3]`."""
    reader = ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader])


def animations(directory, tag):
    """What TensorBoard has on its images page: (step, width, height, frames)."""
    events = event_accumulator.EventAccumulator(str(directory), {"tensors": 0}).Reload()
    assert events.SummaryMetadata(tag).plugin_data.plugin_name == "images"
    found = []
    for event in events.Tensors(tag):
        width, height, gif = event.tensor_proto.string_val
        found.append((event.step, int(width), int(height), tf.io.decode_gif(gif).numpy()))
    return found


def test_films_and_moving_pictures_every_so_often_and_at_the_end(tmp_path):
    made = []

    def factory():
        made.append(Bars())
        return made[-1]

    config = pgest.RunConfig(tf_random_seed=0, jit_compile=False, save_summary_steps=0)
    agent = pgest.PGAgent(model_fns.policy_gradient, pgest.BatchMemory(14), {}, tmp_path, config)
    hook = pgest.VideoHook(factory, pgest.Every(steps=2))
    agent.train(lambda: Bars(None), steps=3, hooks=[hook])
    films = sorted((tmp_path / "videos").iterdir())
    assert [film.name for film in films] == ["timestep-0000000028.mp4", "timestep-0000000042.mp4"]
    shown = frames(films[0])
    assert shown.shape == (8, 48, 64, 3)  # the reset and seven timesteps
    np.testing.assert_allclose(shown.mean((1, 2, 3)), 20 * np.arange(8), atol=4)
    pictures = animations(tmp_path, "video")
    assert [step for step, *_ in pictures] == [28, 42]
    _, width, height, gif = pictures[0]
    assert (width, height) == (64, 48) and gif.shape == (8, 48, 64, 3)
    np.testing.assert_allclose(gif.mean((1, 2, 3)), 20 * np.arange(8), atol=4)
    (environment,) = made
    assert not environment.open


def test_a_long_film_is_a_short_animation(tmp_path):
    environment = filming.Filmed(gymnasium.make("Pendulum-v1", render_mode="rgb_array"))
    environment.film(tmp_path / "film.mp4")
    environment.reset(seed=0)
    for _ in range(200):
        environment.step(np.zeros(1, np.float32))
    environment.finish()
    gif = tf.io.decode_gif(environment.animation(tmp_path / "film.mp4"))
    assert len(frames(tmp_path / "film.mp4")) == 201
    assert gif.shape == (67, 320, 320, 3)  # each third of 500 times 500


def test_small_frames_of_floats_are_enlarged(tmp_path):
    class Small(Bars):
        def render(self):
            return np.full([10, 12, 3], 0.2)

    environment = filming.Filmed(Small())
    environment.film(tmp_path / "film.mp4")
    environment.reset(seed=0)
    environment.finish()
    (frame,) = frames(tmp_path / "film.mp4")
    assert frame.shape == (130, 156, 3)  # 13 times each
    np.testing.assert_allclose(frame, 51, atol=4)  # 0.2 of 255


def test_films_are_no_evaluations_and_films_of_broken_weights_are_not_made(tmp_path):
    hook, run = hooks.VideoHook(Bars, monitor.Every(steps=1)), Run(tmp_path)
    run.run_evaluation = lambda env, episodes, name: (env.reset(), {"return_mean": 0.0})[1]
    run.drive([hook], [Update(timesteps=5)])
    assert not run.evaluations and len(list((tmp_path / "videos").iterdir())) == 1
    run.mark_unhealthy("loss is nan")
    run.drive([hook], [Update(timesteps=5)])
    assert len(list((tmp_path / "videos").iterdir())) == 1


def test_an_environment_of_the_user_stays_open(tmp_path):
    environment, run = Bars(), Run(tmp_path)
    run.run_evaluation = lambda env, episodes, name: (env.reset(), {"return_mean": 0.0})[1]
    run.drive([hooks.VideoHook(environment, monitor.Every(steps=1))], [Update(timesteps=5)])
    assert environment.open


def test_what_cannot_be_filmed_is_told(tmp_path, monkeypatch):
    every = monitor.Every(steps=1)
    with pytest.raises(ValueError, match=r"render_mode None.*render_mode=.rgb_array"):
        Run(tmp_path).drive([hooks.VideoHook(lambda: Bars(None), every)], [])
    with pytest.raises(ValueError, match="needs a directory where the run has no model_dir"):
        Run().drive([hooks.VideoHook(Bars, every)], [])
    environment = Bars()
    with pytest.raises(ValueError, match="the environment that is trained on"):
        Run(tmp_path, environment=environment).drive([hooks.VideoHook(environment, every)], [])
    with pgest.make("CartPole-v1") as several, pytest.raises(TypeError, match="takes an id"):
        hooks.VideoHook(several, every)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"pip install 'pgest\[video\]'"):
        Run(tmp_path).drive([hooks.VideoHook(Bars, every)], [])
