"""The three counters of a model: steps, timesteps and episodes since it was born.

* `global_step` counts executions of the `train_op`; it drives learning-rate decay.
* `global_timestep` counts actions that environments took; it drives exploration.
* `global_episode` counts finished episodes.

All three are int64 `tf.Variable`s, saved in every checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

GLOBAL_STEP = "global_step"
GLOBAL_TIMESTEP = "global_timestep"
GLOBAL_EPISODE = "global_episode"
NAMES = (GLOBAL_STEP, GLOBAL_TIMESTEP, GLOBAL_EPISODE)


class Counters:
    """The counters' variables, and their values on the host.

    The loop advances `timestep` and `episode` as Python integers, thousands of times a second;
    `publish` copies them to the variables before a compiled program may read them. `step` is
    advanced by the `train_op` itself, inside the program, so its variable is the truth.

    Example:

    >>> counters = Counters()
    >>> counters.timestep += 3
    >>> counters.publish()
    >>> int(counters.variables["global_timestep"])
    3
    """

    def __init__(self) -> None:
        with tf.init_scope():
            self.variables = {
                name: tf.Variable(0, trainable=False, dtype=tf.int64, name=name) for name in NAMES
            }
            # Of the run under way, 0 to 1; no count, so no checkpoint holds it.
            self.progress = tf.Variable(0.0, trainable=False, name="progress")
        self.step = 0
        self.timestep = 0
        self.episode = 0
        # How many workers act when this one does.
        self.workers = 1

    def count_timestep(self) -> None:
        """Counts one action of one environment, and of that of each worker in step with it."""
        self.timestep += self.workers

    def count_episode(self) -> None:
        """Counts one finished episode."""
        self.episode += 1

    def publish(
        self, progress: float | None = None, read: Callable[[tf.Variable], bool] | None = None
    ) -> None:
        """Copies the host's `timestep` and `episode`, and a run's progress, to the variables.

        Args:
          progress: of the run, 0 to 1; None leaves it as it is.
          read: says of a variable whether the program that comes next reads it; the others keep
            their old values, since each copy costs as much as a small program. None: copy all.
        """
        for variable, value in (
            (self.progress, progress),
            (self.variables[GLOBAL_TIMESTEP], self.timestep),
            (self.variables[GLOBAL_EPISODE], self.episode),
        ):
            if value is not None and (read is None or read(variable)):
                variable.assign(value)

    def refresh(self) -> None:
        """Reads all three variables back, after a restore or a compiled iteration."""
        self.step = int(self.variables[GLOBAL_STEP].numpy())
        self.timestep = int(self.variables[GLOBAL_TIMESTEP].numpy())
        self.episode = int(self.variables[GLOBAL_EPISODE].numpy())
