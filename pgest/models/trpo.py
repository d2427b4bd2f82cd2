"""Trust region policy optimisation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from pgest import losses
from pgest.contract import foreign_names
from pgest.memory import memory
from pgest.models import policy_gradient
from pgest.variables import sharing, workers

# As in sb3-contrib: a residual whose squared norm is smaller counts as none.
_RESIDUAL_TOLERANCE = 1e-10
# Keeps the critic's shuffling apart from the sampling of actions.
_SHUFFLE_STREAM = 0x3C6EF372


@foreign_names.told_fields
@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class TRPO(policy_gradient.PolicyGradientModel):
    """TRPO (Schulman et al. 2015, https://arxiv.org/abs/1502.05477).

    The policy takes the natural gradient's direction, found by conjugate gradients on Fisher-vector
    products, as far as the divergence from the policy that acted stays below `target_kl` and the
    surrogate improves; where no length of step does both, it stays as it was, to the bit. The
    value is then fitted by an optimizer of its own, which leaves alone what it shares with the
    policy. All of it is one `train_op`, so one `global_step`: give the agent neither epochs nor
    minibatches. `learning_rate` is the value's; `clip_norm`, `value_weight` and `value_clip_range`
    play no part.

    Attributes:
      target_kl: the trust region: the largest mean KL divergence from the policy that acted.
      cg_steps: iterations of conjugate gradients.
      cg_damping: added to the Fisher matrix's diagonal.
      line_search_steps: lengths of step that are tried, each `line_search_shrinkage` of the last.
      line_search_shrinkage: see above.
      critic_passes: how often the value is fitted to the whole batch.
      critic_minibatch_size: timesteps a step of the value's optimizer; None takes the whole batch,
        as a recurrent model always does. Where it does not divide the batch, the last minibatch
        is filled up with timesteps of the first.

    Example:

        agent = pgest.PGAgent(pgest.models.TRPO(), pgest.RolloutMemory(horizon=2048))
    """

    learning_rate: Any = 1e-3
    target_kl: Any = 0.01
    cg_steps: int = 15
    cg_damping: Any = 0.1
    line_search_steps: int = 10
    line_search_shrinkage: Any = 0.8
    critic_passes: int = 10
    critic_minibatch_size: int | None = 128

    def default_memory(self) -> memory.BatchMemory:
        """A rollout of 2048 timesteps of each environment."""
        return memory.RolloutMemory(horizon=2048)

    def loss(
        self, distribution: Any, value: tf.Tensor | None, labels: Mapping[str, Any]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The surrogate and the entropy; the value's loss is only reported beside them."""
        log_prob = distribution.log_prob(labels["action"])
        policy_loss = losses.surrogate_loss(log_prob, labels["log_prob"], labels["advantage"])
        metrics = {"loss/policy": policy_loss}
        return self.add_value_and_entropy(policy_loss, distribution, value, labels, metrics)

    def surrogate(self, distribution: Any, labels: Mapping[str, Any]) -> tf.Tensor:
        """What the policy's step makes smaller: the loss without a value."""
        return self.loss(distribution, None, labels)[0]

    def train_op(
        self, loss: tf.Tensor, features: Mapping[str, Any], labels: Mapping[str, Any]
    ) -> Any:
        """The policy's step, then the value's steps."""
        everything = sharing.current().trainable_variables
        policy = _Policy(self, features, labels, everything)
        stepped = self._improve_policy(policy)
        with tf.control_dependencies(stepped):
            if not self.predicts_value:
                return tf.group(*stepped)
            critic = [v for v in everything if all(v is not other for other in policy.variables)]
            return self._fit_value(critic, features, labels)

    def _improve_policy(self, policy: _Policy) -> list[tf.Tensor]:
        """Steps within the trust region; what it returns is known when the step is made."""
        surrogate, gradient = policy.surrogate_and_gradient()

        metrics = sharing.current().metrics
        target_kl = self.hyperparameter("target_kl", metrics)
        damping = self.hyperparameter("cg_damping", metrics)
        shrinkage = self.hyperparameter("line_search_shrinkage", metrics)

        def fisher_product(vector: tf.Tensor) -> tf.Tensor:
            return policy.fisher_vector_product(vector) + damping * vector

        direction = conjugate_gradients(fisher_product, -gradient, steps=self.cg_steps)
        # The longest step for which the quadratic model of the divergence stays in the region.
        curvature = tf.reduce_sum(direction * fisher_product(direction))
        longest = tf.sqrt(2.0 * target_kl / curvature) * direction
        before = policy.flat_weights()

        def search(tried: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
            fraction = tf.pow(shrinkage, tf.cast(tried, tf.float32))
            with tf.control_dependencies(policy.assign(before + fraction * longest)):
                present, divergence = policy.surrogate_and_divergence()
            accepted = tf.logical_and(divergence < target_kl, present < surrogate)
            return tried + 1, accepted, fraction, divergence

        tried, accepted, fraction, divergence = tf.while_loop(
            lambda tried, accepted, *_: ~accepted,
            search,
            (tf.constant(0), tf.constant(False), tf.constant(0.0), tf.constant(0.0)),
            maximum_iterations=self.line_search_steps,
        )
        with tf.control_dependencies([tried]):
            stepped = policy.restore_unless(accepted, before)
        metrics["policy/kl"] = tf.where(accepted, divergence, 0.0)
        metrics["policy/line_search_success"] = tf.cast(accepted, tf.float32)
        metrics["policy/step_fraction"] = tf.where(accepted, fraction, 0.0)
        return stepped

    def _fit_value(
        self, critic: list[tf.Variable], features: Mapping[str, Any], labels: Mapping[str, Any]
    ) -> tf.Tensor:
        build = sharing.current()
        optimizer = self.optimizer()
        with build.applying("critic_optimizer"):
            optimizer.build(critic)
        recurrent = "policy_state" in features  # also by a network of the user's own
        rows = _Rows(features, labels, None if recurrent else self.critic_minibatch_size)

        def fit(minibatch: tf.Tensor, order: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            part_features, part_labels = rows.take(minibatch, order)
            with tf.GradientTape() as tape, sharing.reuse():
                hidden, _ = self.network(part_features)
                value = self.value(hidden, part_features)
                error = losses.value_loss(value, part_labels["value_target"])
            gradients = workers.means_over_workers(tape.gradient(error, critic))
            with build.applying("critic_optimizer"):
                applied = optimizer.apply_gradients(zip(gradients, critic, strict=True))
            with tf.control_dependencies([applied]):
                return minibatch + 1, order

        def fit_all(number: tf.Tensor) -> tuple[tf.Tensor]:
            order = rows.shuffled(build, number)
            done, _ = tf.while_loop(lambda i, _: i < rows.minibatches, fit, (0, order))
            with tf.control_dependencies([done]):
                return (number + 1,)

        (passes,) = tf.while_loop(
            lambda number: number < self.critic_passes, fit_all, (tf.constant(0),)
        )
        return passes


class _Policy:
    """The policy's part of a model, as a function of one flat vector of weights.

    The distribution that acted is built where this is made; the others are built anew, with the
    weights as they are then.
    """

    def __init__(
        self,
        model: TRPO,
        features: Mapping[str, Any],
        labels: Mapping[str, Any],
        candidates: Sequence[tf.Variable],
    ):
        self._model = model
        self._features = features
        self._labels = labels
        self._acted = self._distribution()
        self.variables = list(candidates)
        gradients = self._surrogate_gradients()[1]
        pairs = zip(candidates, gradients, strict=True)
        self.variables = [variable for variable, gradient in pairs if gradient is not None]
        self._sizes = [variable.shape.num_elements() for variable in self.variables]

    def surrogate_and_gradient(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The surrogate, a scalar, and its gradient, flat."""
        surrogate, gradients = self._surrogate_gradients()
        surrogate, gradient = workers.means_over_workers([surrogate, _flat(gradients)])
        return surrogate, gradient

    def surrogate_and_divergence(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The surrogate, and the mean divergence from the policy that acted."""
        distribution = self._distribution()
        surrogate = self._model.surrogate(distribution, self._labels)
        surrogate, divergence = workers.means_over_workers(
            [surrogate, self._divergence(distribution)]
        )
        return surrogate, divergence

    def fisher_vector_product(self, vector: tf.Tensor) -> tf.Tensor:
        """The Fisher matrix times a flat vector.

        It is the Hessian of the divergence at the policy that acted, so the product is the
        gradient of the divergence's slope along the vector (Pearlmutter 1994).
        """
        parts = self._unflattened(vector)
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                divergence = self._divergence(self._distribution())
            gradients = inner.gradient(divergence, self.variables)
            slope = tf.add_n(
                [tf.reduce_sum(g * part) for g, part in zip(gradients, parts, strict=True)]
            )
        return workers.mean_over_workers(_flat(outer.gradient(slope, self.variables)))

    def flat_weights(self) -> tf.Tensor:
        """The weights as they are, flat."""
        return _flat([variable.read_value() for variable in self.variables])

    def assign(self, weights: tf.Tensor) -> list[Any]:
        """Assigns flat weights; returns what to wait for."""
        parts = zip(self.variables, self._unflattened(weights), strict=True)
        return [variable.assign(part) for variable, part in parts]

    def restore_unless(self, accepted: tf.Tensor, weights: tf.Tensor) -> list[Any]:
        """Leaves the weights where `accepted`, and assigns flat ones where not."""
        return self.assign(tf.where(accepted, self.flat_weights(), weights))

    def _distribution(self) -> Any:
        with sharing.reuse():
            hidden, _ = self._model.network(self._features)
            return self._model.distribution(hidden, self._features)

    def _surrogate_gradients(self) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
        with tf.GradientTape() as tape:
            surrogate = self._model.surrogate(self._distribution(), self._labels)
        return surrogate, tape.gradient(surrogate, self.variables)

    def _divergence(self, distribution: Any) -> tf.Tensor:
        try:
            return tf.reduce_mean(tfd.kl_divergence(self._acted, distribution))
        except NotImplementedError:
            # Of a distribution without one: its estimate from the actions, with the same Hessian
            # in expectation.
            log_prob = distribution.log_prob(self._labels["action"])
            return losses.approx_kl(log_prob, self._labels["log_prob"])

    def _unflattened(self, vector: tf.Tensor) -> list[tf.Tensor]:
        parts = tf.split(vector, self._sizes)
        return [
            tf.reshape(part, variable.shape)
            for part, variable in zip(parts, self.variables, strict=True)
        ]


class _Rows:
    """A batch in minibatches, in another order at every pass."""

    def __init__(self, features: Mapping[str, Any], labels: Mapping[str, Any], size: int | None):
        self._features = dict(features)
        self._labels = {"value_target": labels["value_target"]}
        self._size = size
        target = labels["value_target"]
        self._count = target.shape[0] if target.shape[0] is not None else tf.shape(target)[0]
        self.minibatches: Any = 1 if size is None else -(-self._count // size)

    def shuffled(self, build: sharing.Build, number: tf.Tensor) -> tf.Tensor:
        """The order of pass `number`: int32, as long as all minibatches together."""
        if self._size is None:
            return tf.zeros([0], tf.int32)
        step = tf.cast(sharing.get_global_step().read_value(), tf.int32)
        stream = tf.constant(build.store.seed ^ _SHUFFLE_STREAM, tf.int32) + number
        seed = tf.stack([stream, step])
        if build.exchange is not None:
            seed = tf.random.experimental.stateless_fold_in(seed, build.exchange.workers.rank)
        keys = tf.random.stateless_uniform([self._count], seed)
        order = tf.argsort(keys)
        places = tf.range(self.minibatches * self._size) % self._count
        return tf.gather(order, places)

    def take(self, minibatch: tf.Tensor, order: tf.Tensor) -> tuple[Any, Any]:
        """Features and labels of a minibatch."""
        if self._size is None:
            return self._features, self._labels
        rows = tf.slice(order, [minibatch * self._size], [self._size])
        return tf.nest.map_structure(
            lambda leaf: tf.gather(leaf, rows), (self._features, self._labels)
        )


def conjugate_gradients(
    product: Callable[[tf.Tensor], tf.Tensor], target: tf.Tensor, *, steps: int
) -> tf.Tensor:
    """Solves `A x = target` for a symmetric positive definite A that is known by its products.

    Hestenes & Stiefel 1952, from x = 0, as in Schulman et al. 2015, appendix C.

    Args:
      product: from a vector `[n]` to A times it.
      target: float `[n]`.
      steps: at most so many products; n are enough but for rounding.

    Returns:
      x, `[n]`.

    Example:

    >>> matrix = tf.constant([[2., 0.], [0., 4.]])
    >>> product = lambda vector: tf.linalg.matvec(matrix, vector)
    >>> conjugate_gradients(product, tf.constant([2., 2.]), steps=2).numpy().round(4).tolist()
    [1.0, 0.5]
    """

    def unfinished(x: Any, residual: Any, direction: Any, norm: tf.Tensor) -> tf.Tensor:
        return norm >= _RESIDUAL_TOLERANCE

    def improve(x: Any, residual: Any, direction: Any, norm: tf.Tensor) -> tuple[Any, ...]:
        image = product(direction)
        length = norm / tf.reduce_sum(direction * image)
        x += length * direction
        residual -= length * image
        next_norm = tf.reduce_sum(tf.square(residual))
        return x, residual, residual + next_norm / norm * direction, next_norm

    start = (tf.zeros_like(target), target, target, tf.reduce_sum(tf.square(target)))
    return tf.while_loop(unfinished, improve, start, maximum_iterations=steps)[0]


def _flat(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0)
