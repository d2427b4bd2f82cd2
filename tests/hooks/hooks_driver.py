"""A small real run: counters that move, weights in real checkpoints, a clock set by hand."""

import dataclasses
from collections.abc import Mapping, Sequence

import gymnasium
import numpy as np
import tensorflow as tf

from pgest.contract import episodes
from pgest.hooks import monitor


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@dataclasses.dataclass
class Update:
    """What one update does: acting first (timesteps, episodes), then steps."""

    steps: int = 1
    timesteps: int = 0
    returns: Sequence[float] = ()
    metrics: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"loss": 1.0})
    seconds: float = 0.0
    weight: float | None = None
    info: Mapping[str, float] = dataclasses.field(default_factory=dict)
    complete: bool = True


class PayEnv(gymnasium.Env):
    """One timestep an episode; the reward is the action."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1e6, 1e6, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), float(action[0]), True, False, {}


class Run(monitor.RunContext):
    """A run whose policy plays its one weight as the action."""

    def __init__(self, model_dir=None, *, clock=None, **arguments):
        super().__init__(
            model_dir=None if model_dir is None else str(model_dir),
            clock=clock if clock is not None else Clock(),
            **arguments,
        )
        self.weight = tf.Variable(0.0, name="weight")
        self.evaluation_count = 0
        self.write_count = 0
        self.summary_requests = []
        self.checkpoint = tf.train.Checkpoint(weight=self.weight)

    def write_checkpoint(self):
        if self.model_dir is None:
            return None
        self.write_count += 1
        return self.checkpoint.write(f"{self.model_dir}/ckpt-{self.step}")

    def run_evaluation(self, env, *, episodes, name, hooks=()):
        self.evaluation_count += 1
        returns = []
        for _ in range(episodes):
            env.reset()
            returns.append(env.step(self.weight.numpy()[None])[1])
        return {"return_mean": float(np.mean(returns)), "return_std": float(np.std(returns))}

    def non_finite_variables(self):
        return () if np.isfinite(self.weight.numpy()) else (self.weight.name,)

    def drive(self, hooks: Sequence[monitor.BaseMonitor], updates: Sequence[Update]):
        """Runs the updates as an agent does: begin, act, update, end."""
        for hook in hooks:
            hook.begin(self)
        try:
            for update in updates:
                if self.should_stop:
                    break
                self._act(hooks, update)
                if not self.should_stop:
                    self._update(hooks, update)
        except Exception as error:
            self.error = error
        for hook in hooks:
            try:
                hook.end(self)
            except Exception as error:
                self.error = self.error or error
        if self.error is not None:
            raise self.error
        return self

    def _act(self, hooks, update):
        self.clock.now += update.seconds
        self.timestep += update.timesteps
        for total in update.returns:
            self.episode += 1
            self.episodes = (
                episodes.EpisodeStatistics(
                    total=total,
                    length=10,
                    max=total,
                    min=0.0,
                    avg=total / 10,
                    info=update.info,
                    complete=update.complete,
                ),
            )
            for hook in hooks:
                hook.after_episode(self)
            if self.should_stop:
                break
        self.episodes = ()

    def _update(self, hooks, update):
        for hook in hooks:
            hook.before_run(self)
        self.summary_requests.append(self.take_summary_request())
        self.step += update.steps
        self.metrics = dict(update.metrics)
        if update.weight is not None:
            self.weight.assign(update.weight)
        for hook in hooks:
            hook.after_run(self)


class Recorder(monitor.BaseMonitor):
    """Writes down the counters at which a timer fires."""

    def __init__(self, every):
        self.every = every
        self.fired = []

    def begin(self, context):
        self.timer = self.every.timer(context)

    def after_run(self, context):
        if self.timer.due(context):
            self.fired.append((context.step, context.timestep, context.episode))


def read_scalars(directory):
    """Every scalar point under a directory, from the event files: tag -> [(step, value)]."""
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util import tensor_util

    accumulator = event_accumulator.EventAccumulator(
        str(directory), size_guidance={event_accumulator.TENSORS: 0}
    )
    accumulator.Reload()
    return {
        tag: [
            (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
            for event in accumulator.Tensors(tag)
        ]
        for tag in accumulator.Tags()["tensors"]
        if accumulator.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"
    }
