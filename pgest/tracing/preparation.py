"""From a batch as the memory hands it over to what a model_fn gets: features and labels."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from pgest import returns, schedules
from pgest.contract import update_config
from pgest.memory import memory
from pgest.tracing import lru
from pgest.variables import counters as counters_lib

# A prediction of this name multiplies the rewards of which returns and advantages are made; they
# are clipped then, as those of Stable-Baselines3's VecNormalize.
REWARD_SCALE = "reward_scale"
_SCALED_REWARD_LIMIT = 10.0
# What the loop writes besides the model's own predictions.
_STORED = ("state", "action", "reward", "terminated", "truncated", "action_mask", "reset")
_MADE = (memory.CUT, memory.BOOTSTRAP_VALUE, memory.ENV_INDEX, "policy_state")

# By settings, for later agents.
_traces = lru.LRUCache(16)


def traced(
    config: update_config.UpdateConfig,
    recurrent: bool,
    counters: counters_lib.Counters,
    signature: dict[str, Any],
) -> Any:
    """A `Preparation` of batches of the signature, as a concrete function.

    Without schedules it reads no variable, and is the same for all agents of a process.
    """
    settings = config.discount, config.gae_lambda, config.target_kl
    shared = not any(map(schedules.is_schedule, settings))
    key = settings, recurrent, repr(signature)
    concrete = _traces.get(key) if shared else None
    if concrete is None:
        prepare = Preparation(config, recurrent, counters)
        concrete = tf.function(prepare, autograph=False).get_concrete_function(signature)
        if shared:
            _traces.put(key, concrete)
    return concrete


class Preparation:
    """From a batch as the memory hands it over to features and labels, as tensors.

    Args:
      config: discount and the like.
      recurrent: keep time first, `[T, B, ...]`; else timesteps are flat, `[N, ...]`.
      counters: what schedules follow.
    """

    def __init__(
        self,
        config: update_config.UpdateConfig,
        recurrent: bool,
        counters: counters_lib.Counters,
    ):
        self._config = config
        self._recurrent = recurrent
        self._counters = counters

    def __call__(self, batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict]:
        """Returns features, labels and metrics of a batch with leaves `[T, B, ...]`."""
        terminated, truncated = batch["terminated"], batch["truncated"]
        done = tf.logical_or(terminated, truncated)
        ended = tf.logical_or(done, batch[memory.CUT])
        labels = {name: value for name, value in batch.items() if name not in (*_STORED, *_MADE)}
        labels |= {name: batch[name] for name in ("action", "reward", "terminated", "truncated")}
        labels["done"] = done
        discount = schedules.value(self._config.discount, self._counters)
        lambda_ = schedules.value(self._config.gae_lambda, self._counters)
        labels |= _targets(batch, ended, discount, lambda_)
        present = {"discount": discount, "gae_lambda": lambda_}
        present["target_kl"] = schedules.value(self._config.target_kl, self._counters)
        metrics = {f"hyperparameter/{n}": v for n, v in present.items() if tf.is_tensor(v)}
        if "value" in batch:
            metrics["value/explained_variance"] = returns.explained_variance(
                batch["value"], labels["value_target"]
            )
        features = {"state": batch["state"]}
        if "action_mask" in batch:
            features["action_mask"] = batch["action_mask"]
        if self._recurrent:
            features["reset"], features["policy_state"] = batch["reset"], batch["policy_state"]
        else:
            features, labels = tf.nest.map_structure(_merge_time, (features, labels))
        return features, labels, metrics


def bootstrapped_at_horizon(batch: dict[str, Any], values: tf.Tensor) -> dict[str, Any]:
    """The batch with the values `[B]` of what follows it, in the columns that its end cuts."""
    bootstrap, cut = batch[memory.BOOTSTRAP_VALUE], batch[memory.CUT]
    last = tf.where(cut[-1], values, bootstrap[-1])[None]
    return {**batch, memory.BOOTSTRAP_VALUE: tf.concat([bootstrap[:-1], last], axis=0)}


def _targets(
    batch: dict[str, Any], ended: tf.Tensor, discount: Any, lambda_: Any
) -> dict[str, tf.Tensor]:
    bootstrap = batch[memory.BOOTSTRAP_VALUE]
    rewards = batch["reward"]
    if REWARD_SCALE in batch:
        # The reward itself stays what the environment gave; values are of scaled rewards.
        rewards = rewards * tf.reshape(batch[REWARD_SCALE], tf.shape(rewards))
        limit = _SCALED_REWARD_LIMIT
        rewards = tf.clip_by_value(rewards, -limit, limit)
    sequence = (rewards, batch["terminated"], ended)
    if "value" not in batch:
        reward_to_go = returns.discounted_returns(*sequence, bootstrap, discount=discount)
        targets = {"advantage": reward_to_go, "value_target": reward_to_go}
        return {"discount_reward": reward_to_go, **targets}
    values = batch["value"]
    following = tf.concat([values[1:], bootstrap[-1:]], axis=0)
    next_values = tf.where(ended, bootstrap, following)
    reward_to_go = returns.discounted_returns(*sequence, next_values, discount=discount)
    advantage = returns.gae(
        rewards,
        values,
        next_values,
        batch["terminated"],
        ended,
        discount=discount,
        lambda_=lambda_,
    )
    return {
        "discount_reward": reward_to_go,
        "advantage": advantage,
        "value_target": advantage + values,
    }


def _merge_time(leaf: tf.Tensor) -> tf.Tensor:
    """`[T, B, ...]` to `[N, ...]`."""
    shape = leaf.shape
    size = -1 if None in shape[:2] else shape[0] * shape[1]
    return tf.reshape(leaf, [size, *shape[2:]])
