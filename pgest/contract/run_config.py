"""How a run is carried out: where it writes, how often, and from which seed."""

from __future__ import annotations

import dataclasses
import numbers
import os
import warnings
from typing import Any

import tensorflow as tf

from pgest.variables import workers

EVALUATOR = "evaluator"  # the `task_type` of who evaluates beside those who train
# TensorFlow reads checkpoints by pattern: what it has written under such a name it does not find.
_PATTERN_CHARACTERS = "*?[\\"


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Settings of a run; change one with `dataclasses.replace(config, ...)`.

    Attributes:
      model_dir: directory of checkpoints, TensorBoard files and exports; None writes nothing. An
        agent makes it absolute when it is made, `~` expanded.
      tf_random_seed: seeds initial weights, sampling, minibatches and environments. Two runs of
        one seed on one machine end in bit-equal weights. None draws a seed; checkpoints keep it.
      save_checkpoints_steps: a checkpoint every so many steps.
      save_checkpoints_secs: a checkpoint every so many seconds; 600 where no other is given.
      save_checkpoints_episodes: a checkpoint every so many episodes.
      keep_checkpoint_max: how many checkpoints are kept; None or 0 keeps all.
      keep_checkpoint_every_n_hours: one checkpoint in so many hours is kept for ever.
      save_summary_steps: TensorBoard is written every so many steps; 0 or None never.
      log_step_count_steps: speed is logged every so many steps; 0 or None never.
      jit_compile: "auto" compiles with XLA what has a static shape and falls back, with one
        warning, where XLA refuses; True raises instead; False never compiles.
      iterations_per_loop: with an in-graph environment, how many iterations (collect and
        update) one call of the compiled program runs.
      intra_op_parallelism_threads: threads that one TensorFlow op or XLA program may use, in the
        whole process, so it must be known before TensorFlow has done anything; None leaves
        TensorFlow's own choice, every core. Waking a thread takes longer than a small network: 1
        halves the processor time of acting in 8 to 64 environments, and of in-graph training in
        few. Leave it where convolutions or wide layers have work for several cores.
      overlap_updates: with environments on the host, run each update in a thread while the next
        batch is collected. It is then collected by the weights from before that update, so that
        batches are one update old when they are trained on, from the third on. For losses that
        correct for old actions, as PPO's does, and where a second core is free. Two runs of one
        seed stay bit-equal, though one that was resumed is not to one that never stopped; limits
        stay exact, and a call of `train` ends with its last update.
        Hooks, checkpoints and evaluations see whole updates alone: an update counts, and
        `after_run` tells of it, once the next batch is there. Hooks that assign to what the update
        reads, a learning rate for one, do so in `after_run`.
      save_histograms: TensorBoard also gets histograms of the weights, of the gradients before
        clipping and of the actions, each time that a summary is written. Such an update takes
        longer. In-graph environments write none.
      save_graph: TensorBoard also gets the graph of a training step, once, before the first.
      train_distribute: a `tf.distribute.MultiWorkerMirroredStrategy`, made before anything else
        uses TensorFlow: the processes that the environment variable TF_CONFIG names train one
        model together. Each has its own environments; counters and limits are of all of them.
      evaluate_in_copies: whether evaluations play greedy episodes in several copies of an
        environment at once (see "How a run flows"). None: of ids of gymnasium's classic control,
        Blackjack, CliffWalking and Taxi, whose episodes follow from seed and actions alone.
        True: of every id and factory, which promises the same of yours, and that up to 32 may
        stand beside each other. False: never.

    Raises:
      ValueError: a value is out of range, or two of `save_checkpoints_*` are given.
      TypeError: a value is of another type.

    Example:

    >>> RunConfig(tf_random_seed=1).keep_checkpoint_max
    5
    """

    model_dir: str | os.PathLike[str] | None = None
    tf_random_seed: int | None = None
    save_checkpoints_steps: int | None = None
    save_checkpoints_secs: float | None = None
    save_checkpoints_episodes: int | None = None
    keep_checkpoint_max: int | None = 5
    keep_checkpoint_every_n_hours: float = 10000.0
    save_summary_steps: int | None = 10
    log_step_count_steps: int | None = 100
    jit_compile: bool | str = "auto"
    iterations_per_loop: int = 1
    intra_op_parallelism_threads: int | None = None
    overlap_updates: bool = False
    save_histograms: bool = False
    save_graph: bool = False
    train_distribute: Any = None
    evaluate_in_copies: bool | None = None

    def __post_init__(self) -> None:
        clocks = ("save_checkpoints_steps", "save_checkpoints_secs", "save_checkpoints_episodes")
        given = [name for name in clocks if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"RunConfig got {' and '.join(given)}: give one of them, or add a "
                "CheckpointSaverHook for each."
            )
        for name in (*clocks, "keep_checkpoint_every_n_hours", "iterations_per_loop"):
            optional = name in clocks
            _check_number(name, getattr(self, name), smallest=1e-9, optional=optional)
        _check_number("intra_op_parallelism_threads", self.intra_op_parallelism_threads, 1e-9)
        for name in ("keep_checkpoint_max", "save_summary_steps", "log_step_count_steps"):
            _check_number(name, getattr(self, name), smallest=0)
        if self.tf_random_seed is not None:
            _check_number("tf_random_seed", self.tf_random_seed, smallest=0)
            if self.tf_random_seed >= 2**31:
                raise ValueError(
                    f"RunConfig.tf_random_seed is {self.tf_random_seed}; expected less than 2**31."
                )
        _check_path("model_dir", self.model_dir)
        for name in ("overlap_updates", "save_histograms", "save_graph"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f"RunConfig.{name} is {value!r}; expected True or False.")
        if not isinstance(self.evaluate_in_copies, bool | None):
            raise TypeError(
                f"RunConfig.evaluate_in_copies is {self.evaluate_in_copies!r}; expected None, "
                "True or False."
            )
        if not isinstance(self.jit_compile, bool) and self.jit_compile != "auto":
            raise ValueError(
                f"RunConfig.jit_compile is {self.jit_compile!r}; expected 'auto', True or False."
            )
        _check_strategy(self)

    @property
    def task_type(self) -> str:
        """What this process is in its cluster: "chief", "worker", …; "worker" without one."""
        return self._task.kind

    @property
    def task_id(self) -> int:
        """The number of this process among those of its `task_type`."""
        return self._task.index

    @property
    def num_worker_replicas(self) -> int:
        """How many processes train, the chief among them; 1 without a cluster."""
        return self._task.num_workers

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints; that of the first worker where none is chief."""
        return self._task.rank == 0

    @property
    def _task(self) -> workers.Task:
        if self.train_distribute is None:
            return workers.Task.of_environment()
        return workers.task_of(self.train_distribute)


def _check_number(name: str, value: object, smallest: float, optional: bool = True) -> None:
    """Raises unless `value` is a number of at least `smallest`, or None; integers where counted."""
    if value is None and optional:
        return
    fractions = name in ("save_checkpoints_secs", "keep_checkpoint_every_n_hours")
    kind = numbers.Real if fractions else numbers.Integral
    if isinstance(value, bool) or not isinstance(value, kind):
        wanted = "a number" if fractions else "an integer"
        raise TypeError(f"RunConfig.{name} is {value!r}; expected {wanted}.")
    if not float(value) >= smallest:  # NaN is not
        wanted = "0 or more" if smallest == 0 else "more than 0"
        raise ValueError(f"RunConfig.{name} is {value}; expected {wanted}.")


def _check_strategy(config: RunConfig) -> None:
    """Raises unless training can be distributed as `config` says, if it says so at all."""
    strategy = config.train_distribute
    if strategy is None:
        return
    name, start = type(strategy).__name__, "RunConfig.train_distribute is"
    wanted = "expected a tf.distribute.MultiWorkerMirroredStrategy"
    if isinstance(strategy, type):
        raise TypeError(f"{start} the class {strategy.__name__}; make one: {strategy.__name__}().")
    if "ParameterServer" in name:
        raise ValueError(
            f"{start} a {name}; {wanted}: gradients of old weights, as parameter servers get them, "
            "are not built."
        )
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        more = ""
        if isinstance(strategy, (tf.distribute.MirroredStrategy, tf.distribute.OneDeviceStrategy)):
            more = " Several GPUs in one process are not used: start a process for each."
        raise TypeError(f"{start} {strategy!r}, a {name}; {wanted}.{more}")
    _check_cluster(config, strategy.num_replicas_in_sync, workers.task_of(strategy))


def _check_cluster(config: RunConfig, replicas: int, task: workers.Task) -> None:
    """Raises unless a process can train as `task`, with as many replicas in all."""
    start = "RunConfig.train_distribute is"
    if task.rank is None:
        raise ValueError(
            f"{start} given in a process of the kind {task.kind!r}, which does not train: make a "
            "strategy only where RunConfig().task_type is 'chief' or 'worker'."
        )
    if replicas != task.num_workers:
        raise ValueError(
            f"{start} of {replicas} replicas in {task.num_workers} processes; expected one a "
            "process: several GPUs in one process are not used, so start a process for each GPU, "
            "with CUDA_VISIBLE_DEVICES."
        )
    if task.num_workers == 1:
        return
    if config.overlap_updates:
        raise ValueError(
            "RunConfig got train_distribute and overlap_updates: an update that several workers "
            "make together cannot run in a thread beside the acting; leave overlap_updates out."
        )
    if config.jit_compile is True:
        raise ValueError(
            "RunConfig got train_distribute and jit_compile=True: XLA cannot compile an update in "
            "which workers exchange numbers; leave jit_compile out, and it compiles the acting."
        )


def resolved(config: RunConfig | None, model_dir: str | os.PathLike[str] | None) -> RunConfig:
    """A configuration with the model_dir that was given beside it, as an absolute path.

    Raises:
      TypeError: `config` is no RunConfig.
      ValueError: it names another directory.
    """
    if config is not None and not isinstance(config, RunConfig):
        raise TypeError(f"config is {type(config).__name__}; expected a pgest.RunConfig.")
    config = config or RunConfig()
    if model_dir is None and config.model_dir is None:
        return config
    _check_path("model_dir", model_dir)
    given = [absolute(path) for path in (model_dir, config.model_dir) if path is not None]
    if len(set(given)) > 1:
        raise ValueError(f"model_dir is {given[0]!r} and config.model_dir {given[1]!r}; give one.")
    return dataclasses.replace(config, model_dir=given[0])


def absolute(path: str | os.PathLike[str]) -> str:
    """`path` as it is meant now: the working directory may change while an agent lives."""
    return os.path.abspath(os.path.expanduser(path))


def set_threads(config: RunConfig) -> None:
    """Gives TensorFlow the threads that `config` asks for, and warns where it is too late."""
    wanted = config.intra_op_parallelism_threads
    if wanted is None or tf.config.threading.get_intra_op_parallelism_threads() == wanted:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(int(wanted))
    except RuntimeError:
        warnings.warn(
            f"RunConfig.intra_op_parallelism_threads={wanted} comes too late: TensorFlow has made "
            "its threads. Make the agent before anything else uses TensorFlow, or set the "
            f"environment variable TF_NUM_INTRAOP_THREADS={wanted}.",
            stacklevel=3,
        )


def _check_path(name: str, value: object) -> None:
    """Raises unless `value` is a path that TensorFlow can read from, or None."""
    if value is None:
        return
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"RunConfig.{name} is {value!r}; expected a path or None.")
    check_readable(f"RunConfig.{name}", os.fspath(value))


def check_readable(name: str, path: str) -> None:
    """Raises `ValueError` where TensorFlow could not read back what it writes under `path`."""
    if not path:
        raise ValueError(f"{name} is empty; expected a path.")
    if any(character in path for character in _PATTERN_CHARACTERS):
        raise ValueError(
            f"{name} is {path!r}; TensorFlow takes {' '.join(_PATTERN_CHARACTERS)} for patterns "
            "and could not read back what it writes there: use another name."
        )
