"""`PGAgent`: everything around a model_fn."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pgest.agents import descriptions, evaluator, exports, loops, resuming, runs, trainers
from pgest.agents import trainer as trainer_lib
from pgest.agents.event_files import EventWriters
from pgest.agents.saved_state import SavedState
from pgest.contract import episodes as episodes_lib
from pgest.contract import foreign_names, run_config, update_config
from pgest.contract import model_fn as model_fn_lib
from pgest.hooks import defaults, monitor
from pgest.memory import memory as memory_lib
from pgest.policies.tf_policies import TFPolicy
from pgest.tracing import model as model_lib
from pgest.variables import checkpoints, counters


class PGAgent:
    """Trains, evaluates and exports a policy that a model_fn describes.

    Args:
      model_fn: `model_fn(features, labels[, mode[, params[, config[, model_dir]]]])` returning an
        `EstimatorSpec`; a function, bound method, `functools.partial` or object with `__call__`.
      memory: a `BatchMemory`; it decides when there is enough for an update. None takes the memory
        and the update that a ready-made model was made for; `optimizer_params` go before those.
      optimizer_params: an `UpdateConfig`, or a dict of its fields: discount, gae_lambda, epochs
        and the like.
      model_dir: directory of checkpoints and TensorBoard files. If it holds a checkpoint, training
        goes on from there.
      config: a `RunConfig`; its own model_dir serves where `model_dir` is None.
      params: hyper-parameters that model_fn gets as `params`.
      warm_start_from: a checkpoint, or a model_dir, whose variables are taken over where they fit;
        only where `model_dir` has no checkpoint yet.

    Attributes:
      stop_reason: why the last `train` ended, such as "max_steps=100 is reached"; None before.

    Raises:
      ValueError: model_fn's arguments do not fit, `memory` is no `BatchMemory`, an unknown
        optimizer parameter, or two different model_dirs.
      TypeError: a type is wrong; `params` is no dict.

    Example:

        agent = pgest.PGAgent(model_fn, memory=pgest.BatchMemory(2000), model_dir="runs/cartpole",
                              params={"learning_rate": 1e-2})
        agent.train(gymnasium.make("CartPole-v1"), max_episodes=500)
    """

    @foreign_names.told
    def __init__(
        self,
        model_fn: Callable[..., model_fn_lib.EstimatorSpec],
        memory: memory_lib.BatchMemory | None = None,
        optimizer_params: update_config.UpdateConfig | Mapping[str, Any] | None = None,
        model_dir: str | os.PathLike[str] | None = None,
        config: run_config.RunConfig | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        warm_start_from: str | os.PathLike[str] | None = None,
    ):
        if memory is None:
            memory, optimizer_params = runs.settings_of(model_fn, optimizer_params)
        if not isinstance(memory, memory_lib.BatchMemory):
            raise ValueError(
                f"memory is {type(memory).__name__}; expected a BatchMemory, for example "
                "pgest.BatchMemory(batch_size=2000)."
            )
        self.config = run_config.resolved(config, model_dir)
        run_config.set_threads(self.config)
        self.model_dir = None if self.config.model_dir is None else os.fspath(self.config.model_dir)
        self.memory = memory
        if params is not None and not isinstance(params, Mapping):
            raise TypeError(f"params is {type(params).__name__}; expected a dict, or None.")
        self.params = dict(params or {})
        self.update_config = update_config.UpdateConfig.of(optimizer_params)
        seed = self.config.tf_random_seed
        seed = random.SystemRandom().randrange(2**31) if seed is None else int(seed)
        self.model = model_lib.Model(
            model_fn_lib.ModelFn(model_fn, params), self.params, self.config, seed
        )
        self._saved = SavedState(self.model, self.model_dir, warm_start_from)
        self._trainer: trainer_lib.Trainer | None = None
        self._run: runs.Run | None = None
        self._evaluator = evaluator.Evaluator(self.model)
        self._policies: exports.AgentPolicies | None = None
        self.events = EventWriters(self.model_dir if self.model.is_chief else None)
        self.stop_reason: str | None = None

    def __repr__(self) -> str:
        return descriptions.described(self)

    def _repr_html_(self) -> str:
        return descriptions.described_html(self)

    @property
    def counters(self) -> counters.Counters:
        """The three counters; those of the newest checkpoint before anything was built."""
        self._saved.restore()
        return self.model.counters

    @property
    def global_step(self) -> int:
        """Executions of the `train_op` since the model was born."""
        return self.counters.step

    @property
    def global_timestep(self) -> int:
        """Actions that environments took since the model was born."""
        return self.counters.timestep

    @property
    def global_episode(self) -> int:
        """Episodes finished since the model was born."""
        return self.counters.episode

    @foreign_names.told_train
    def train(  # noqa: PLR0913 - the signature is the ancestor's
        self,
        env: Any,
        episodes: int | None = None,
        steps: int | None = None,
        hooks: Sequence[monitor.BaseMonitor] | None = None,
        max_steps: int | None = None,
        max_episodes: int | None = None,
        *,
        timesteps: int | None = None,
        max_timesteps: int | None = None,
    ) -> PGAgent:
        """Trains until the first limit is reached or a hook asks to stop.

        `steps`, `episodes` and `timesteps` are this many more; the forms with `max_` are up to
        this many since the model was born, so a second `train(max_steps=100)` does nothing.

        Args:
          env: a gymnasium Env, a VectorEnv, an id, a factory, or an environment of `pgest.make`.
            An episode under way goes on if the same object is given again.
          episodes: episodes to finish.
          steps: executions of the `train_op`.
          hooks: `BaseMonitor`s, beside the defaults (see `hooks.default_hooks`).
          max_steps: see above.
          max_episodes: see above.
          timesteps: actions to take, of all environments together.
          max_timesteps: see above.

        Returns:
          The agent.

        Raises:
          ValueError: both of a pair are given, a limit is below 1, or model_fn does not fit env.
          ModelDirInUseError: another run trains in `model_dir`.
          KeyboardInterrupt: after Ctrl-C, once a checkpoint is written; not at a prompt.
          TypeError: a limit is no integer, or a hook no `BaseMonitor`.
        """
        hooks = () if hooks is None else hooks
        defaults.check_hooks(hooks)
        given = (steps, max_steps), (timesteps, max_timesteps), (episodes, max_episodes)
        with self._saved.lock, runs.Run(self, env, runs.absolute_limits(self, *given)) as run:
            if run.is_over() and not resuming.is_left_open(run, *self._saved.run_state()):
                return self
            trainer = self._trainer_for(env)
            self.counters.publish(run.progress)
            resuming.begin(trainer, run, trainer.all_hooks(hooks), *self._saved.take_run())
            while not run.is_over():
                trainer.collect(run)
                if trainer.ready(run):
                    trainer.update(run)
        return self

    def run_episode(  # noqa: PLR0913 - the signature is the ancestor's
        self,
        env: Any,
        sess: loops.HostLoop,
        features: Mapping[str, Any],
        labels: Mapping[str, Any],
        no_run_hooks: Callable[[], bool],
        global_step: tf.Variable,
        update_episode_op: Callable[[], None],
        update_timestep_op: Callable[[], None],
        estimator_spec: Mapping[str, Any],
    ) -> episodes_lib.EpisodeStatistics:
        """Plays one episode of one environment and stores it; override it to do more.

        `train` calls it again and again where `env` is one environment. It acts, and runs no
        hook: updates come between its calls. Where a limit, or a full memory, cuts the episode,
        it returns what it has with `complete=False`, and the next call goes on with the same
        episode.

        We need to tell `global_step` from `global_timestep`: the first is moved by the `train_op`
        and drives learning-rate decay; the second counts how often the agent acted and drives
        exploration.

        Args:
          env: the environment, as an `EnvironmentView` of one.
          sess: the loop that acts; `sess.step()` takes one timestep (act, step, store) and
            returns its `Transition`. It stands where the MonitoredTrainingSession stood.
          features: specs of the features while acting, by name.
          labels: specs of what a timestep stores, by name.
          no_run_hooks: says whether acting has to pause (a limit, a full memory, an interrupt).
            In TensorFlow 1 this was the op that kept training hooks from firing while acting.
          global_step: the int64 variable of executed steps.
          update_episode_op: call it once when the episode has ended.
          update_timestep_op: call it once after each timestep.
          estimator_spec: specs of what acting gives: `action`, `predictions`.

        Returns:
          Statistics of the episode: rewards, total, max, min, avg, length, loss, complete.
        """
        return loops.play_episode(sess, no_run_hooks, update_episode_op, update_timestep_op)

    @foreign_names.told
    def evaluate(
        self,
        env: Any,
        episodes: int = 10,
        checkpoint_path: str | None = None,
        name: str | None = None,
        *,
        greedy: bool = True,
        hooks: Sequence[monitor.BaseMonitor] = (),
    ) -> dict[str, float]:
        """Plays episodes and says how good they were.

        Args:
          env: as for `train`. Environments that pgest makes play the same episodes each time,
            of some ids several at once in copies (`RunConfig.evaluate_in_copies`).
          episodes: how many; shared out among the environments of a vector.
          checkpoint_path: evaluate these weights: a checkpoint, a directory (its newest), or
            "best" (what an `EvaluationHook` kept in `model_dir`); by default the present ones, in
            a process that has not trained those of the newest checkpoint.
          name: TensorBoard's directory is `eval_<name>` instead of `eval`.
          greedy: take the mode of the distribution; False samples from it, as training does.
          hooks: begin, after_episode and end, with the results as metrics, beside the model's own.

        Returns:
          `return_mean`, `_std`, `_min`, `_max` and the like for `length`, `loss` and the
          `eval_metric_ops` of model_fn where it has them, and the three counters.
        """
        memory_lib.check_size("episodes", episodes)
        with self._saved.weights(checkpoint_path, trained=self._trainer is not None):
            results = self._evaluator.evaluate(
                env, episodes, self.update_config, greedy=greedy, hooks=hooks
            )
            for counter in counters.NAMES:  # of the weights that were evaluated
                results[counter] = float(getattr(self.counters, counter[len("global_") :]))
        if self._trainer is not None and self._trainer.uses(env):
            self._trainer.forget_episode()  # its environment was taken away from it
        evaluator.write_summaries(self.events, name, results, self._run)
        return results

    @foreign_names.told
    def predict(
        self,
        observations: Any,
        checkpoint_path: str | None = None,
        *,
        env: Any = None,
        action_mask: Any = None,
    ) -> Iterator[dict[str, Any]]:
        """Yields the greedy action and the predictions of each observation.

        Args:
          observations: a nest of arrays `[N, ...]`.
          checkpoint_path: as in `evaluate`.
          env: what tells the spaces, in a process that has neither trained nor evaluated.
          action_mask: bools `[N, n]`, or a nest of them as the environment's own mask is one.

        Yields:
          `{"action": ..., "environment_action": ..., <prediction>: ...}`, a row an observation.
        """
        with self._saved.weights(checkpoint_path, trained=self._trainer is not None, publish=False):
            acted = self._evaluator.predictor.act(observations, env, action_mask)
        yield from acted.rows()

    @property
    def policy(self) -> TFPolicy:
        """The greedy policy over the live variables.

        Raises:
          RuntimeError: it is not built yet: train, or call `check(env)` first.
        """
        return self._agent_policies().greedy

    @property
    def collect_policy(self) -> TFPolicy:
        """The policy that training acts with: it samples, and gives log-probabilities."""
        return self._agent_policies().collect

    @property
    def raw_policy(self) -> TFPolicy:
        """The policy that samples; `policy` is its mode."""
        return self._agent_policies().raw

    @foreign_names.told
    def export_saved_model(
        self,
        export_dir_base: str | os.PathLike[str],
        *,
        checkpoint_path: str | None = None,
        env: Any = None,
        batch_size: int | None = None,
    ) -> str:
        """Writes the policy into a new timestamped directory; any TensorFlow can load it.

        `serving_default` takes a bare observation and gives the greedy action; `sample` also takes
        noise. Everything the policy needs, normalisers and masks included, is inside.

        Args:
          export_dir_base: the directory that holds the timestamped ones.
          checkpoint_path: as in `evaluate`.
          env: what tells the spaces, in a process that has not trained; as for `train`.
          batch_size: of all signatures, for a compiler that needs to know it; None for any.

        Returns:
          The path of the new directory, which appears when it is complete.

        Raises:
          RuntimeError: the policy is not built, and there is no `env` to build it with.
        """
        with self._saved.weights(checkpoint_path, trained=self._trainer is not None):
            policy = self._agent_policies(env).raw
            return exports.export_saved_model(self.model, policy, export_dir_base, batch_size)

    def _agent_policies(self, env: Any = None) -> exports.AgentPolicies:
        if self._policies is None:
            self._policies = exports.policies_of(self.model, self._trainer, env)
        return self._policies

    def check(self, env: Any, *, timesteps: int = 100) -> str:
        """Traces every mode, looks at `timesteps` timesteps, shows and returns what was found.

        Each variable with the modes that use it, traces, what XLA compiles, and a table of what a
        gymnasium environment gave to random actions. Nothing is trained or counted; an episode
        under way is dropped. What training would stop at raises; what it would not see warns.
        Programs print the text that comes back, notebooks show it as tables.
        """
        trainer = self._trainer_for(env)
        self._evaluator.build(env, self.update_config)
        return trainer_lib.report(trainer, timesteps)

    def save_checkpoint(self) -> str | None:
        """Writes a checkpoint now; returns its path, None without a model_dir or finite weights.

        Raises:
          ModelDirInUseError: another run trains in `model_dir`.
        """
        return self._saved.save(lambda: resuming.state_of(self._trainer, self._run))

    def latest_checkpoint(self) -> str | None:
        """Path of the newest checkpoint in `model_dir`; None where there is none."""
        self._saved.wait()
        return checkpoints.latest(self.model_dir)

    def get_variable_names(self) -> list[str]:
        """Names of all variables, of the live model or else of the newest checkpoint."""
        return sorted(self._saved.live_or_saved())

    def get_variable_value(self, name: str) -> np.ndarray:
        """The value of a variable, of the live model or else of the newest checkpoint.

        Raises:
          KeyError: there is no such variable.
        """
        values = self._saved.live_or_saved()
        if name not in values:
            raise KeyError(f"There is no variable {name!r}; there are {', '.join(sorted(values))}.")
        return np.asarray(values[name])

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What TensorBoard's HParams page shows, but for the environment."""
        return descriptions.hyperparameters(self)

    @property
    def summary_writer(self) -> tf.summary.SummaryWriter | None:
        """The TensorBoard writer of `model_dir`, opened at first use; None without one."""
        return self.events.writer()

    def _trainer_for(self, env: Any) -> trainer_lib.Trainer:
        """The trainer under way if it steps this very environment, else one for it."""
        if self._trainer is None or not self._trainer.uses(env):
            self._saved.restore()
            view, make = trainers.prepared(self, env, PGAgent)
            previous, self._trainer = self._trainer, None
            if previous is not None:
                previous.leave()
            self._trainer = make()
            self._evaluator.predictor.remember(view, self._trainer.actor)
            self._saved.check_whole_model()
        return self._trainer
