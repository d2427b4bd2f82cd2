"""The agent's policies, and the SavedModel that `export_saved_model` writes."""

from __future__ import annotations

import os
import time
from typing import Any

import gymnasium

from pgest.agents import batch_specs, prediction
from pgest.contract import model_fn, run_config
from pgest.environments import making
from pgest.policies.tf_policies import TFPolicy
from pgest.saved_policies import directories, policy_saver, portable_signatures
from pgest.tracing import acting, model_policy
from pgest.tracing import model as model_lib


class AgentPolicies:
    """The three policies of a model, over its live variables.

    Args:
      model: the model.
      actor: a program of it that was traced.
      spaces: observation and action space of one environment.

    Attributes:
      raw: samples actions.
      greedy: takes the most probable one.
      collect: samples, and gives log-probabilities, as in training.
    """

    def __init__(
        self,
        model: model_lib.Model,
        actor: acting.Actor,
        spaces: tuple[gymnasium.Space, gymnasium.Space],
    ):
        predict = model_fn.Modes.PREDICT
        self.raw = model_policy.ModelPolicy(model, actor, *spaces)
        explores = actor.mode is predict
        self.greedy: TFPolicy = model_policy.GreedyModelPolicy(self.raw) if explores else self.raw
        self.collect: TFPolicy = model_policy.ModelPolicy(
            model, actor, *spaces, mode=actor.mode, emit_log_probability=explores
        )


def policies_of(model: model_lib.Model, trainer: Any, env: Any = None) -> AgentPolicies:
    """The policies of a model.

    Args:
      model: the model.
      trainer: what trains it, or None in a process that has not trained.
      env: in such a process: what tells the spaces and masks. It is reset; only acting is traced.

    Raises:
      RuntimeError: there is neither.
    """
    if trainer is not None:
        view, actor = trainer.view, trainer.actor
        return AgentPolicies(model, actor, (view.observation_space, view.action_space))
    if env is None:
        raise RuntimeError(
            "The policy is not built before training: train first, or call agent.check(env) with "
            "an environment like the one that it acts in; export_saved_model(..., env=env) needs "
            "neither."
        )
    view = making.view(prediction.on_host(env, 1), seed=model.seed)
    try:
        view.reset(0)
        view.observe()
        spaces = (view.observation_space, view.action_space)
        mask_spec = batch_specs.mask_spec(view.action_mask)
    finally:
        if view is not env:
            view.close()
    trained = model.store.num_envs  # an actor that explores notes its own number
    actor = acting.Actor(model, *spaces, 1, mask_spec)
    model.store.num_envs = trained
    return AgentPolicies(model, actor, spaces)


def export_saved_model(
    model: model_lib.Model,
    policy: model_policy.ModelPolicy,
    base: Any,
    batch_size: int | None = None,
) -> str:
    """Writes a portable SavedModel into a new timestamped directory of `base`; returns its path.

    The directory appears when it is complete, as Estimator's exports do.
    """
    base = directories.local(base)
    run_config.check_readable("export_dir_base", base)
    os.makedirs(base, exist_ok=True)
    stamp = int(time.time())
    while os.path.exists(os.path.join(base, str(stamp))):
        stamp += 1
    path = os.path.join(base, str(stamp))
    saver = policy_saver.PolicySaver(
        policy, batch_size, portable=True, train_step=model.counters.variables["global_step"]
    )
    saver.register_signatures(
        portable_signatures.further(policy, model.export_outputs, policy.export_outputs, batch_size)
    )
    saver.save(path)
    return path
