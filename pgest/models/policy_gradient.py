"""The skeleton of the ready-made models: network, distribution, predictions, loss, train_op."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from pgest import distributions, losses, networks, normalization, schedules
from pgest.contract import foreign_names
from pgest.contract.model_fn import EstimatorSpec, Modes
from pgest.memory import memory
from pgest.models import adam
from pgest.variables import optimization, sharing


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyGradientModel(abc.ABC):
    """A model_fn object; subclasses say what the loss is.

    A user subclasses a ready-made model and overrides `network`, `distribution`, `value` or
    `loss`. Fields are hyper-parameters; those of them that the agent's `params` name are replaced
    by what stands there. `learning_rate`, and every weight, range and norm, may be a
    `pgest.schedules.Schedule`.

    Attributes:
      learning_rate: of the optimizer.
      clip_norm: the largest global norm of the gradients; None does not clip.
      value_weight: of the value's loss, the mean squared error (no 1/2 in it).
      entropy_weight: of the entropy, which the loss rewards.
      value_clip_range: how far the value may move in one update; None lets it.
      hidden_sizes: layers of the policy's network, and of the value's.
      activation: after each of them.
      cell: "lstm" or "gru" makes the model recurrent: a cell between the encoded observation and
        the hidden layers; None leaves it out.
      cell_size: units of the cell.
      share_network: the value stands on the policy's network instead of one of its own.
      box: of bounded or unbounded continuous actions: "gaussian", "squashed_gaussian", "beta".
      state_dependent_std: see `distributions.action_head`.
      noise_interval: explore with `distributions.StateDependentNoise` (gSDE), a matrix for so many
        timesteps of an environment; None: noise of its own for every action. `initial_std` is
        then that of the matrix: exp(-2) = 0.135 is a common choice.
      initial_std: see `distributions.action_head`.
      normalize_observation: running mean 0 and variance 1, clipped to +-10.
      normalize_reward: rewards divided by the running standard deviation of the return, for
        returns and advantages.
      reward_discount: of that running return; a number, as the statistics run on.
    """

    learning_rate: Any = 3e-4
    clip_norm: Any = 0.5
    value_weight: Any = 0.5
    entropy_weight: Any = 0.0
    value_clip_range: Any = None
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: networks.Activation = "tanh"
    cell: str | None = None
    cell_size: int = 64
    share_network: bool = False
    box: distributions.BoxFamily = "gaussian"
    state_dependent_std: bool = False
    noise_interval: int | None = None
    initial_std: float = 1.0
    normalize_observation: bool = False
    normalize_reward: bool = False
    reward_discount: float = 0.99

    @property
    def predicts_value(self) -> bool:
        """Whether the model has a value to bootstrap and to build advantages from."""
        return True

    def default_memory(self) -> memory.BatchMemory:
        """A new memory of the kind that the model was made for; the agent's where it gets none."""
        return memory.BatchMemory(batch_size=2000)

    def default_optimizer_params(self) -> dict[str, Any]:
        """The update that the model was made for; the agent's where it gets no memory.

        What the agent's `optimizer_params` say goes before it.
        """
        return {}

    def __call__(
        self,
        features: Mapping[str, Any],
        labels: Mapping[str, Any] | None,
        mode: Modes,
        params: Mapping[str, Any] | None = None,
    ) -> EstimatorSpec:
        """The model_fn."""
        model = self.with_params(params)
        normalizer, scaler = model._normalizer(), model._reward_scaler(mode)
        if normalizer is not None:
            features = {**features, "state": normalizer(features["state"])}
        # Network
        hidden, policy_state = model.network(features)
        # Distribution
        distribution = model.distribution(hidden, features)
        # Predictions
        predictions: dict[str, tf.Tensor] = {}
        if model.predicts_value:
            predictions["value"] = model.value(hidden, features)
        if scaler is not None:
            predictions["reward_scale"] = tf.fill(tf.shape(hidden)[:-1], scaler.scale)
        spec = {
            "predictions": predictions,
            "distribution": distribution,
            "policy_state": policy_state,
        }
        if mode == Modes.PREDICT:
            return EstimatorSpec(mode, **spec)
        # Loss
        loss, metrics = model.loss(distribution, predictions.get("value"), labels or {})
        if mode == Modes.EVAL:
            return EstimatorSpec(mode, loss=loss, metrics=metrics, **spec)
        # train_op
        train_op = model.train_op(loss, features, labels or {})
        after_batch = _after_batch(normalizer, scaler)
        return EstimatorSpec(
            mode, loss=loss, train_op=train_op, metrics=metrics, after_batch=after_batch, **spec
        )

    def __repr__(self) -> str:
        """The fields, and after a # the memory and the update that the model was made for."""
        fields = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self))
        update = self.default_optimizer_params()
        return f"{type(self).__name__}({fields})  # made for {self.default_memory()!r}, {update}"

    def with_params(self, params: Mapping[str, Any] | None) -> PolicyGradientModel:
        """This model with the hyper-parameters that `params` names.

        Raises:
          ValueError: a name is no hyper-parameter of the model.
        """
        known = {field.name for field in dataclasses.fields(self)}
        unknown = sorted(set(params or ()) - known)
        if unknown:
            raise ValueError(
                f"params has {', '.join(unknown)}, which {type(self).__name__} does not know; "
                f"expected any of {', '.join(sorted(known))}.{foreign_names.hints(unknown)}"
            )
        return dataclasses.replace(self, **(params or {}))

    # --- what a user overrides -----------------------------------------------------------------

    def network(self, features: Mapping[str, Any]) -> tuple[tf.Tensor, Any]:
        """From the observation to the policy's last hidden layer.

        Args:
          features: what model_fn got, with a normalised `state` where the model normalises: leaves
            `[B, ...]`, `[N, ...]`, or `[T, B, ...]` of a recurrent model in TRAIN.

        Returns:
          float32 `[..., units]`, and the next policy state, None of a feed-forward model.
        """
        hidden = self.encode(features, "policy_encoder")
        state = None
        if self.cell is not None:
            hidden, state = networks.unroll(self._cell(), hidden, features)
        return networks.mlp(hidden, self.hidden_sizes, self.activation, name="policy"), state

    def distribution(self, hidden: tf.Tensor, features: Mapping[str, Any]) -> Any:
        """From the last hidden layer to the distribution of actions."""
        return distributions.action_head(
            sharing.get_action_space(),
            hidden,
            box=self._box(),
            state_dependent_std=self.state_dependent_std,
            initial_std=self.initial_std,
            action_mask=features.get("action_mask"),
        )

    def value(self, hidden: tf.Tensor, features: Mapping[str, Any]) -> tf.Tensor:
        """The value of the observation, without the last axis: `[B]`, `[N]` or `[T, B]`."""
        # A cell remembers what the observation does not show, so the value needs it too.
        if not self.share_network and self.cell is None:
            encoded = self.encode(features, "value_encoder")
            hidden = networks.mlp(encoded, self.hidden_sizes, self.activation, name="value")
        return tf.squeeze(networks.dense(hidden, 1, gain=1.0, name="value_output"), axis=-1)

    @abc.abstractmethod
    def loss(
        self, distribution: Any, value: tf.Tensor | None, labels: Mapping[str, Any]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss and the metrics of a minibatch; leaves of `labels` are as `value`'s."""

    def add_value_and_entropy(
        self,
        policy_loss: tf.Tensor,
        distribution: Any,
        value: tf.Tensor | None,
        labels: Mapping[str, Any],
        metrics: dict[str, tf.Tensor],
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The whole loss, and `metrics` with its parts: what the models' losses have in common.

        Its weights are the fields `value_weight` and `entropy_weight`.
        """
        loss = policy_loss
        if value is not None:
            value_loss = losses.value_loss(
                value,
                labels["value_target"],
                old_value=labels["value"],
                clip_range=self.hyperparameter("value_clip_range", metrics),
                pessimistic=False,
            )
            metrics["loss/value"] = value_loss
            loss += self.hyperparameter("value_weight", metrics) * value_loss
        entropy_loss = losses.entropy_loss(_entropy(distribution, labels))
        metrics["loss/entropy"] = entropy_loss
        loss += self.hyperparameter("entropy_weight", metrics) * entropy_loss
        return loss, metrics

    def optimizer(self) -> tf_keras.optimizers.Optimizer:
        """The optimizer of the loss."""
        return adam.Adam(schedules.learning_rate(self.learning_rate), epsilon=1e-5)

    def train_op(
        self, loss: tf.Tensor, features: Mapping[str, Any], labels: Mapping[str, Any]
    ) -> Any:
        """One step down the loss."""
        clip_norm = self.hyperparameter("clip_norm", sharing.current().metrics)
        return optimization.minimize(loss, self.optimizer(), clip_norm=clip_norm)

    # --- for those who override ----------------------------------------------------------------

    def encode(self, features: Mapping[str, Any], name: str) -> tf.Tensor:
        """The observation as one vector; images go through layers named `name`."""
        space = sharing.get_observation_space()
        return networks.encode_observation(space, features["state"], name=name)

    def hyperparameter(self, name: str, metrics: dict[str, tf.Tensor]) -> Any:
        """The present value of a hyper-parameter; a schedule's is noted among the metrics."""
        given = getattr(self, name)
        present = schedules.value(given)
        if present is not given:
            metrics[f"hyperparameter/{name}"] = present
        return present

    # --- the parts that stay -------------------------------------------------------------------

    def _box(self) -> distributions.BoxFamily | distributions.StateDependentNoise:
        if self.noise_interval is None:
            return self.box
        if self.box == "beta" or self.state_dependent_std:
            raise ValueError(
                f"noise_interval={self.noise_interval} makes a Gaussian with noise of its own; got "
                f"box={self.box!r}, state_dependent_std={self.state_dependent_std}: leave them out."
            )
        squash = self.box == "squashed_gaussian"
        return distributions.StateDependentNoise(self.noise_interval, squash)

    def _cell(self) -> tf_keras.layers.Layer:
        cells: dict[str, Callable[..., tf_keras.layers.Layer]] = {
            "lstm": tf_keras.layers.LSTMCell,
            "gru": tf_keras.layers.GRUCell,
        }
        if self.cell not in cells:
            raise ValueError(f"cell is {self.cell!r}; expected 'lstm', 'gru' or None.")
        return cells[self.cell](self.cell_size, name="cell")

    def _normalizer(self) -> normalization.ObservationNormalizer | None:
        if not self.normalize_observation:
            return None
        return normalization.ObservationNormalizer(sharing.get_observation_space())

    def _reward_scaler(self, mode: Modes) -> normalization.RewardScaler | None:
        if not self.normalize_reward:
            return None
        # Acting and evaluation only read, so they may have other numbers of environments.
        num_envs = sharing.get_num_envs() if mode == Modes.TRAIN else None
        return normalization.RewardScaler(num_envs, discount=self.reward_discount)


def _entropy(distribution: Any, labels: Mapping[str, Any]) -> tf.Tensor:
    """The entropy; where a distribution has none in closed form, its estimate from the samples.

    The estimate's gradient is the entropy's, by the score function (Williams 1992): that of
    -log_prob itself is 0 in the mean. Samples of the policy that acted are weighted by their ratio.
    """
    try:
        return distribution.entropy()
    except NotImplementedError:
        log_prob = distribution.log_prob(labels["action"])
        acted = labels.get("log_prob")
        ratio = tf.exp(log_prob - tf.stop_gradient(log_prob if acted is None else acted))
        return -ratio * tf.stop_gradient(log_prob)


def _after_batch(
    normalizer: normalization.ObservationNormalizer | None,
    scaler: normalization.RewardScaler | None,
) -> Callable[[dict[str, Any]], Any] | None:
    """What merges a batch `[T, B, ...]` into the running statistics; None without any."""
    if normalizer is None and scaler is None:
        return None

    def update(batch: dict[str, Any]) -> Any:
        operations = []
        if normalizer is not None:
            operations.append(normalizer.update(batch["state"]))
        if scaler is not None:
            ended = tf.logical_or(batch["terminated"], batch["truncated"])
            env_index = batch.get(memory.ENV_INDEX)
            operations.append(scaler.update(batch["reward"], ended, env_index=env_index))
        return operations

    return update
