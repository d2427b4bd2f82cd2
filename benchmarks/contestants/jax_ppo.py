"""PPO in JAX, whole iterations in one program, written to PureJaxRL's published configuration.

4 epochs of 4 minibatches, separate networks of two tanh layers, Adam at a constant
learning rate, clipped value loss; environments are vmapped and choose between a step and a reset
as gymnax does. Constant, since pieces have no end to anneal towards.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from support import serving

jax.block_until_ready(jnp.zeros([1]))  # JAX is up before any clock runs

CLIP = 0.2
MAX_GRADIENT_NORM = 0.5
NUM_MINIBATCHES = 4


# --- CartPole-v1, one; callers vmap --------------------------------------------------------------


class CartPole(NamedTuple):
    """One cart with its pole, and its episode so far."""

    physics: jax.Array
    time: jax.Array
    total: jax.Array


def reset(key: jax.Array) -> CartPole:
    """A fresh episode."""
    physics = jax.random.uniform(key, [4], minval=-0.05, maxval=0.05)
    return CartPole(physics, jnp.int32(0), jnp.float32(0.0))


def step(key: jax.Array, state: CartPole, action: jax.Array):
    """The next state (of a fresh episode where this one ended), reward, end, return so far."""
    x, x_dot, theta, theta_dot = state.physics
    force = jnp.where(action == 1, 10.0, -10.0)
    sine, cosine = jnp.sin(theta), jnp.cos(theta)
    push = (force + 0.05 * theta_dot**2 * sine) / 1.1
    angular = (9.8 * sine - cosine * push) / (0.5 * (4.0 / 3.0 - 0.1 * cosine**2 / 1.1))
    linear = push - 0.05 * angular * cosine / 1.1
    change = jnp.stack([x_dot, linear, theta_dot, angular])
    physics = state.physics + 0.02 * change
    time, total = state.time + 1, state.total + 1.0
    fell = (jnp.abs(physics[0]) > 2.4) | (jnp.abs(physics[2]) > 12 * jnp.pi / 180)
    done = fell | (time >= 500)
    moved = CartPole(physics, time, total)
    following = jax.tree.map(lambda new, old: jnp.where(done, new, old), reset(key), moved)
    return following, jnp.float32(1.0), done, total


# --- the network --------------------------------------------------------------------------------


def make_network(key: jax.Array, width: int) -> dict[str, Any]:
    """Weights of a policy and a value, two hidden layers each."""
    sizes = {"policy": (4, width, width, 2), "value": (4, width, width, 1)}
    last_gain = {"policy": 0.01, "value": 1.0}
    network = {}
    for name, widths in sizes.items():
        layers = []
        for index, (fan_in, fan_out) in enumerate(zip(widths, widths[1:], strict=False)):
            key, own = jax.random.split(key)
            gain = last_gain[name] if index == 2 else 2**0.5
            kernel = jax.nn.initializers.orthogonal(gain)(own, [fan_in, fan_out])
            layers.append((kernel, jnp.zeros([fan_out])))
        network[name] = layers
    return network


def apply(network: dict[str, Any], observation: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits `[..., 2]` and value `[...]`."""

    def mlp(layers):
        hidden = observation
        for kernel, bias in layers[:-1]:
            hidden = jnp.tanh(hidden @ kernel + bias)
        kernel, bias = layers[-1]
        return hidden @ kernel + bias

    return mlp(network["policy"]), mlp(network["value"])[..., 0]


def log_probability(logits: jax.Array, action: jax.Array) -> jax.Array:
    """Of an action, `[...]`."""
    logs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(logs, action[..., None], axis=-1)[..., 0]


# --- the iteration ------------------------------------------------------------------------------


class Batch(NamedTuple):
    """What acting gave: `[T, B, ...]`."""

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    done: jax.Array
    value: jax.Array
    log_prob: jax.Array
    total: jax.Array


def advantages_of(batch: Batch, last_value: jax.Array, work: serving.Work) -> jax.Array:
    """Generalised advantage estimation; a time limit counts as an end, as PureJaxRL has it."""

    def backwards(carry, row):
        following, advantage = carry
        going_on = 1.0 - row.done
        delta = row.reward + work.discount * following * going_on - row.value
        advantage = delta + work.discount * work.gae_lambda * going_on * advantage
        return (row.value, advantage), advantage

    start = (last_value, jnp.zeros_like(last_value))
    return jax.lax.scan(backwards, start, batch, reverse=True, unroll=16)[1]


def loss_of(network, work: serving.Work, batch: Batch, advantage: jax.Array, target: jax.Array):
    """The clipped surrogate, the clipped value loss, the entropy."""
    logits, value = apply(network, batch.observation)
    clipped = batch.value + jnp.clip(value - batch.value, -CLIP, CLIP)
    worse = jnp.maximum((value - target) ** 2, (clipped - target) ** 2)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    ratio = jnp.exp(log_probability(logits, batch.action) - batch.log_prob)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage)
    logs = jax.nn.log_softmax(logits)
    entropy = -(jnp.exp(logs) * logs).sum(-1).mean()
    return -gain.mean() + work.value_weight * worse.mean() - work.entropy_weight * entropy


def iteration(work: serving.Work, optimizer, state, _):
    """Collects `[T, B]`, then takes epochs x minibatches steps."""
    network, optimizer_state, environments, observation, key = state

    def act(carry, _):
        environments, observation, key = carry
        key, own, stepping = jax.random.split(key, 3)
        logits, value = apply(network, observation)
        action = jax.random.categorical(own, logits)
        environments, reward, done, total = jax.vmap(step)(
            jax.random.split(stepping, work.num_envs), environments, action
        )
        row = Batch(
            observation, action, reward, done, value, log_probability(logits, action), total
        )
        return (environments, environments.physics, key), row

    carry = (environments, observation, key)
    (environments, observation, key), batch = jax.lax.scan(act, carry, None, work.horizon)
    advantage = advantages_of(batch, apply(network, observation)[1], work)
    data = (batch, advantage, advantage + batch.value)
    size = work.horizon * work.num_envs
    flat = jax.tree.map(lambda leaf: leaf.reshape([size, *leaf.shape[2:]]), data)

    def one_step(carry, minibatch):
        network, optimizer_state = carry
        gradients = jax.grad(loss_of)(network, work, *minibatch)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, network)
        return (optax.apply_updates(network, updates), optimizer_state), None

    def epoch(carry, own):
        order = jax.random.permutation(own, size)
        minibatches = jax.tree.map(
            lambda leaf: jnp.take(leaf, order, axis=0).reshape(
                [NUM_MINIBATCHES, -1, *leaf.shape[1:]]
            ),
            flat,
        )
        return jax.lax.scan(one_step, carry, minibatches)

    key, own = jax.random.split(key)
    (network, optimizer_state), _ = jax.lax.scan(
        epoch, (network, optimizer_state), jax.random.split(own, work.epochs)
    )
    ended = batch.done.sum()
    totals = jnp.where(batch.done, batch.total, 0.0).sum()
    return (network, optimizer_state, environments, observation, key), (totals, ended)


class Trainer:
    """A program that goes on training.

    Args:
      work: what to do.
    """

    def __init__(self, work: serving.Work):
        self._work = work
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(MAX_GRADIENT_NORM),
            optax.adam(work.learning_rate, eps=1e-5),
        )
        self._state: Any = None
        # As in PureJaxRL, the run that starts is one program, first weights and all.
        self._start = jax.jit(
            lambda key, updates: self._iterate(self._fresh(key), updates), static_argnums=1
        )
        self._run = jax.jit(self._iterate, static_argnums=1)
        self._recent: tuple[float, int] = (0.0, 0)
        self.timesteps = 0

    def train(self, timesteps: int) -> None:
        """Takes so many more, in one call."""
        updates = timesteps // (self._work.horizon * self._work.num_envs)
        if self._state is None:
            done = self._start(jax.random.key(0), updates)
        else:
            done = self._run(self._state, updates)
        self._state, (totals, ended) = jax.block_until_ready(done)
        self.timesteps += updates * self._work.horizon * self._work.num_envs
        last = -(-updates // 8)
        self._recent = float(totals[-last:].sum()), int(ended[-last:].sum())

    def _fresh(self, key: jax.Array) -> Any:
        key, own, starts = jax.random.split(key, 3)
        network = make_network(own, self._work.width)
        environments = jax.vmap(reset)(jax.random.split(starts, self._work.num_envs))
        return network, self._optimizer.init(network), environments, environments.physics, key

    def _iterate(self, state: Any, updates: int) -> Any:
        one = functools.partial(iteration, self._work, self._optimizer)
        return jax.lax.scan(one, state, None, updates)

    def recent_return(self) -> float | None:
        """The mean of the episodes that ended in the last eighth of the latest call."""
        totals, ended = self._recent
        return totals / ended if ended else None


if __name__ == "__main__":
    serving.serve(Trainer)
