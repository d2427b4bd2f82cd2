"""The agent's policies, and the SavedModel that `export_saved_model` writes."""

from __future__ import annotations

import os
import time
from typing import Any

import gymnasium

from pgest.contract import model_fn, run_config
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


def export_saved_model(model: model_lib.Model, policy: model_policy.ModelPolicy, base: Any) -> str:
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
        policy, portable=True, train_step=model.counters.variables["global_step"]
    )
    saver.register_signatures(
        portable_signatures.further(policy, model.export_outputs, policy.export_outputs)
    )
    saver.save(path)
    return path
