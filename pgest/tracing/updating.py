"""The compiled update: returns and advantages, then epochs of minibatches of train_op."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pgest import returns, schedules
from pgest.contract import model_fn, update_config
from pgest.tracing import (
    acting,
    exchanging,
    halves,
    histograms,
    probing,
    programs,
    summary_watch,
    unfused,
)
from pgest.tracing import model as model_lib
from pgest.tracing import preparation as preparation_lib
from pgest.tracing import steps as steps_lib

Modes = model_fn.Modes


@dataclasses.dataclass
class Updated:
    """What one update did.

    Attributes:
      metrics: scalars by name, the mean over its steps.
      steps: how many it executed.
    """

    metrics: dict[str, float]
    steps: int


class UpdateGraph:
    """The graph of an update: what is inside the compiled program, of the host's or in-graph loop.

    Args:
      model: the model.
      config: epochs, minibatches and the like.
      signature: specs of a batch, `[T, B, ...]` by name; `policy_state` is `[B, ...]`.
      recurrent: whether the model has a policy state.
      writer: a summary writer: trace the `tf.summary` calls of the model_fn too. Without one
        they do nothing.

    Attributes:
      prepare: a `Preparation` of batches of the signature, traced.
      step: one execution of the train_op, traced.
      names: of the metrics that `run` returns.
      hooks: the training hooks of model_fn's spec.
      trained: where in the traced step the policy is; None where it has no distribution.
      summaries: has seen whether the model_fn writes any, which a step without a writer leaves out.
      static: whether every shape is known, so that XLA can compile it once.
    """

    def __init__(
        self,
        model: model_lib.Model,
        config: update_config.UpdateConfig,
        signature: dict[str, Any],
        recurrent: bool,
        writer: Any = None,
    ):
        self._model = model
        self._config = config
        self._recurrent = recurrent
        self._writer = writer
        self._histograms = histograms.Histograms(model, writer)
        horizon, num_envs = signature["reward"].shape
        self._common = exchanging.CommonUpdate.of(model.workers, config, recurrent, horizon)
        self._minibatches = self._count_minibatches(horizon, num_envs)
        self.static = horizon is not None and (
            not self._minibatches or self.rows(horizon, num_envs) % self._minibatches == 0
        )
        self._no_order = np.zeros([0, 0], np.int32)
        self.names: tuple[str, ...] = ()
        self.hooks: tuple[Any, ...] = ()
        self._after_batch: Any = None
        self.trained: probing.Trained | None = None
        self.summaries = summary_watch.SummaryWatch()
        # Traced once: the recurrences of long batches are as many operations as all else together.
        self.prepare = preparation_lib.traced(config, recurrent, model.counters, signature)
        features, labels, _ = self.prepare.structured_outputs
        # [B, ...], while all else is [T, B, ...]
        policy_state = features.get("policy_state", ())
        rest = {name: value for name, value in features.items() if name != "policy_state"}
        minibatch = tf.nest.map_structure(self._minibatch_spec, (rest, labels))
        if recurrent:
            minibatch[0]["policy_state"] = tf.nest.map_structure(
                lambda leaf: tf.TensorSpec(
                    [self._minibatches or leaf.shape[0], *leaf.shape[1:]], leaf.dtype
                ),
                policy_state,
            )
        self._halves = self._in_halves(minibatch)
        step = self._train_step if self._halves is None else self._halves.__call__
        self.step = tf.function(step, autograph=False).get_concrete_function(*minibatch)
        self._call_step: Any = self.step
        if not self.static and self._common is None and not programs.convolves(self.step):
            self._call_step = unfused.Unfused(self.step, *minibatch)
        model.store.adopt(self._histograms.without_own(self.step.variables))
        self.permutation_spec = tf.TensorSpec([None, None], tf.int32)
        if self.static:
            rows = self.rows(horizon, num_envs)
            self.permutation_spec = tf.TensorSpec([config.epochs, rows], tf.int32)

    def jit_compile(self, wanted: bool | str, in_loop: bool = False) -> bool | str:
        """Whether XLA is to compile what this graph is in; `wanted` as `Program` takes it."""
        if not self.static or self._common is not None:  # XLA has no exchanges on CPUs
            return False
        in_loop = in_loop or bool(self._minibatches) or self._config.epochs > 1
        if wanted == "auto" and in_loop and programs.convolves(self.step):
            return False
        return wanted

    def check(self, features: Any, labels: Any, *, compare: bool = True) -> None:
        """See `probing.check_log_probabilities`; features and labels are those of a batch."""
        how: Any = {"size": self._minibatches, "recurrent": self._recurrent, "compare": compare}
        probing.check_log_probabilities(self._model, self.trained, features, labels, **how)

    def variables_of(self, program: programs.Program) -> list[tf.Variable]:
        """All variables that a program with this graph in it reads or writes."""
        # TensorFlow does not note what operations read by handle, as those of optimizers do.
        ours = filter(program.reads, self._model.saved_variables().values())
        return list({id(v): v for v in (*program.concrete.variables, *ours)}.values())

    def rows(self, horizon: int, num_envs: int) -> int:
        """What minibatches divide: timesteps, or environments of a recurrent model."""
        return num_envs if self._recurrent else horizon * num_envs

    def max_steps(self, rows: int) -> int:
        """Steps of one update, unless a limit or the KL divergence stops it."""
        return self._config.epochs * -(-rows // (self._minibatches or rows))

    def permutations(self, rows: int, step: int) -> np.ndarray:
        """The order of the rows in each epoch of the update that starts at `step`.

        NumPy's shuffle costs a hundredth of what XLA's sort of random keys does on a CPU.
        """
        if not self._minibatches:
            if self._no_order.shape != (self._config.epochs, rows):
                self._no_order = np.zeros([self._config.epochs, rows], np.int32)
            return self._no_order
        workers = self._model.workers
        own = [] if workers is None else [workers.rank]
        generator = np.random.default_rng([self._model.seed, step, *own])
        order = np.tile(np.arange(rows, dtype=np.int32), (self._config.epochs, 1))
        return generator.permuted(order, axis=1, out=order)

    def _count_minibatches(self, horizon: int | None, num_envs: int | None) -> int | None:
        """The rows of a minibatch: timesteps, or environments of a recurrent model; None: all."""
        size = self._config.minibatch_size
        if size is None:
            return None
        if not self._recurrent:
            return size
        if horizon is None or num_envs is None or size % horizon or num_envs % (size // horizon):
            raise ValueError(
                f"minibatch_size is {size}; a recurrent model trains on whole sequences, so it "
                "must be a multiple of the horizon of a RolloutMemory that divides the batch "
                f"(horizon {horizon}, {num_envs} environments); with a BatchMemory leave it out."
            )
        return size // horizon

    def _minibatch_spec(self, leaf: tf.Tensor) -> tf.TensorSpec:
        shape = leaf.shape.as_list()
        if self._minibatches:
            axis = 1 if self._recurrent else 0
            rows = leaf.shape[axis]
            divides = rows is not None and rows % self._minibatches == 0
            shape[axis] = self._minibatches if divides else None
        return tf.TensorSpec(shape, leaf.dtype)

    def run(
        self, batch: dict[str, Any], permutations: tf.Tensor, steps_left: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the metrics' means `[M]`, steps executed, and how far one moved global_step."""
        features, labels, metrics = self.prepare(batch)
        self._histograms.write_update(labels)
        moments = None
        if self._common is not None:
            size = self._minibatches
            moments, metrics = self._common.begin(labels, metrics, permutations, size)
            if not size:
                labels = self._common.normalized(labels, moments, 0)
        if not self._minibatches and self._config.epochs == 1:
            means, moved, _ = self._call_step(features, labels)
            steps = tf.ones([], tf.int64)
        else:
            means, steps, moved = self._loop((features, labels, moments), permutations, steps_left)
        if self._after_batch is not None:
            # After the last step: until then all of them see the statistics that acted.
            with tf.control_dependencies([means, steps]):
                self._after_batch(batch)
        metrics = {name: v for name, v in metrics.items() if name not in self._step_names}
        self.names = (*self._step_names, *metrics)
        extra = [tf.cast(value, tf.float32) for value in metrics.values()]
        means = tf.concat([means, tf.stack(extra)], 0) if extra else means
        if self._common is not None and self._halves is None:
            (means,) = self._common.exchange(labels).means([means])
        return means, steps, moved

    def _loop(
        self, batch: tuple[Any, Any, Any], permutations: tf.Tensor, steps_left: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        features, labels, moments = batch
        rows = tf.cast(tf.shape(permutations)[1], tf.int64)
        size = tf.cast(rows if not self._minibatches else self._minibatches, tf.int64)
        per_epoch = (rows + size - 1) // size
        total = tf.minimum(per_epoch * self._config.epochs, steps_left)
        target_kl = schedules.value(self._config.target_kl, self._model.counters)
        limit = float("inf") if target_kl is None else 1.5 * target_kl

        def unfinished(step: tf.Tensor, means: Any, moved: Any, kl: tf.Tensor) -> tf.Tensor:
            return tf.logical_and(step < total, kl <= limit)

        def body(step: tf.Tensor, sums: tf.Tensor, moved: tf.Tensor, kl: tf.Tensor) -> Any:
            part = (features, labels)
            if self._minibatches:
                epoch, start = step // per_epoch, (step % per_epoch) * size
                order = permutations[epoch]
                if self._static_rows(permutations):
                    chosen = tf.slice(order, [start], [self._minibatches])
                else:
                    chosen = order[start : tf.minimum(start + size, rows)]
                part = self._gather(features, labels, chosen)
                if self._common is not None:
                    part = (part[0], self._common.normalized(part[1], moments, step))
            values, moved_now, kl = self._call_step(*part)
            return step + 1, sums + values, tf.maximum(moved, moved_now), kl

        zeros = tf.zeros([len(self._step_names)], tf.float32)
        start = (tf.zeros([], tf.int64), zeros, tf.zeros([], tf.int64), tf.zeros([], tf.float32))
        steps, sums, moved, _ = tf.while_loop(unfinished, body, start)
        return sums / tf.cast(steps, tf.float32), steps, moved

    def _static_rows(self, permutations: tf.Tensor) -> bool:
        rows = permutations.shape[1]
        return rows is not None and rows % self._minibatches == 0

    def _gather(self, features: Any, labels: Any, chosen: tf.Tensor) -> tuple[Any, Any]:
        axis = 1 if self._recurrent else 0
        take = lambda leaf: tf.gather(leaf, chosen, axis=axis)  # noqa: E731
        rest = {name: value for name, value in features.items() if name != "policy_state"}
        taken = tf.nest.map_structure(take, rest)
        if self._recurrent:
            taken["policy_state"] = tf.nest.map_structure(
                lambda leaf: tf.gather(leaf, chosen), features["policy_state"]
            )
        return taken, tf.nest.map_structure(take, labels)

    def _in_halves(self, minibatch: tuple[Any, Any]) -> halves.Halves | None:
        """The step in two halves; None of one worker, with summaries, and where it does not fit."""
        if self._common is None or self._writer is not None:
            return None
        split = halves.Halves(
            self._call,
            self._common.exchange,
            minibatch,
            self._model.counters.variables["global_step"],
            self._config.target_kl is not None,
        )
        if not split.fits:
            return None
        self._take_over(split.spec, split.names)
        self.trained = split.trained
        return split

    def _take_over(self, spec: Any, names: Iterable[str]) -> None:
        """What an update needs of the spec of a step, and the metrics of one."""
        self._after_batch = spec.after_batch
        self.hooks = (*spec.training_chief_hooks, *spec.training_hooks)
        self._step_names = tuple(names)

    def _train_step(self, features: Any, labels: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """One execution of train_op: its metrics, how far it moved global_step, and the KL."""
        given = features, labels
        if self._config.normalize_advantage and self._common is None:
            labels = {**labels, "advantage": returns.normalize(labels["advantage"])}
        step_variable = self._model.counters.variables["global_step"]
        before = step_variable.read_value()
        exchange = None if self._common is None else self._common.exchange(labels)
        spec, build = self._call(features, labels, exchange)
        self._histograms.write_step(before, build)
        needs_divergence = self._config.target_kl is not None
        metrics, divergence, log_prob = steps_lib.seen(spec, build, labels, needs_divergence)
        self.trained = probing.Trained.of(*given, log_prob)
        if exchange is not None and needs_divergence:
            (divergence,) = exchange.means([divergence])  # all stop at one step
        moved, counted = steps_lib.executed(spec, step_variable, before)
        with tf.control_dependencies([steps_lib.operation(counted)]):
            self._take_over(spec, metrics)
            values = tf.stack(steps_lib.numbers(metrics))
            return values, tf.identity(moved), tf.cast(divergence, tf.float32)

    def _call(self, features: Any, labels: Any, exchange: Any, half: Any = None) -> Any:
        if self._writer is None:
            with self.summaries.watching():
                return self._model.call(features, labels, Modes.TRAIN, exchange=exchange, half=half)
        with (
            self._writer.as_default(step=self._model.counters.variables["global_timestep"]),
            tf.summary.record_if(True),
        ):
            return self._model.call(features, labels, Modes.TRAIN, rooted=False, exchange=exchange)


class Updater:
    """Runs updates on batches of one signature.

    Args:
      graph: the update.
      signature: specs of a batch.
      jit_compile: as `Program` takes it; only where the graph is static.
      following: what acts, and specs of the features `[B, ...]` that a batch's last timestep led
        to: the update makes their values, from which the last row is bootstrapped where it is cut.
        None where a batch brings all its bootstrap values.
    """

    def __init__(
        self,
        graph: UpdateGraph,
        signature: dict[str, Any],
        jit_compile: bool | str,
        following: tuple[acting.Actor, dict[str, Any]] | None = None,
    ) -> None:
        self.graph = graph
        self._actor = following[0] if following else None
        specs = following[1] if following else {}
        self._program = programs.Program(
            self._run,
            [signature, specs, graph.permutation_spec, tf.TensorSpec([], tf.int64)],
            "the update",
            graph.jit_compile(jit_compile),
        )

    @property
    def jit_compiled(self) -> bool:
        """Whether XLA compiles the update."""
        return self._program.jit_compiled

    def reads(self, variable: tf.Variable) -> bool:
        """Whether the update reads a variable that was made outside of it."""
        return self._program.reads(variable)

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """All variables that the update reads or writes, counters among them."""
        return self.graph.variables_of(self._program)

    def redirect(self, variables: Sequence[tf.Variable], others: Sequence[tf.Variable]) -> None:
        """From here on reads and writes `others` in place of `variables`; it has run before."""
        self._program.redirect(variables, others)

    def __call__(
        self,
        batch: dict[str, Any],
        step: int,
        steps_left: int | None,
        following: dict[str, Any] | None = None,
    ) -> Updated:
        """Runs at most `steps_left` steps on a batch, from the global_step `step` on."""
        rows = self._rows(batch)
        permutations = self.graph.permutations(rows, step)
        limit = 2**62 if steps_left is None else steps_left
        leaves = [*tf.nest.flatten((batch, following or {})), permutations, np.int64(limit)]
        *means, steps, moved = self._program.run_flat(leaves)[0].numpy().tolist()
        steps_lib.check_moved(int(moved))
        return Updated(dict(zip(self.graph.names, means, strict=True)), int(steps))

    def max_steps(self, batch: dict[str, Any]) -> int:
        """How many steps an update on `batch` takes, unless the KL divergence stops it."""
        return self.graph.max_steps(self._rows(batch))

    def _rows(self, batch: dict[str, Any]) -> int:
        return self.graph.rows(*batch["reward"].shape)

    def _run(
        self,
        batch: dict[str, Any],
        following: dict[str, Any],
        permutations: tf.Tensor,
        limit: tf.Tensor,
    ) -> tf.Tensor:
        """The metrics' means, steps and how far one moved: one array, so one transfer."""
        if self._actor is not None:
            state = following.get("policy_state", ())
            values = self._actor.values(following["state"], following.get("action_mask"), state)
            batch = preparation_lib.bootstrapped_at_horizon(batch, values)
        means, *counts = self.graph.run(batch, permutations, limit)
        return tf.concat([means, tf.cast(tf.stack(counts), means.dtype)], axis=0)
