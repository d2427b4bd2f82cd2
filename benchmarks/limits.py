"""How near pgest comes to what the machine allows. Frozen: only what pgest does may change here.

    python benchmarks/limits.py [--quick] [--rows "one environment"]

One environment: nothing that acts with a compiled policy can be faster than one step of the
environment plus one call of a compiled policy. Both are timed alone, in plain gymnasium and plain
TensorFlow: the policy is one XLA program of two 64 x 64 tanh networks with a sampled action, its
log-probability and the value, fed with one observation and read back, called in the cheapest way
that TensorFlow has. The goal is 0.6 of that.

In the graph: PPO with PureJaxRL's settings does so many matrix products an iteration, and they take
their time. A program of those products alone, forward and backward, with nothing around them but
what keeps XLA from leaving them out, gives the limit. The goal is half of that.

From images: the convolutions and matrix products of acting and of the minibatches, in TensorFlow's
own code, are the limit. The goal is 0.8 of that.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import time
from collections.abc import Mapping
from typing import Any

import collecting
import gymnasium
import numpy as np
import tensorflow as tf
import training_speed
from support import measuring
from support.serving import Contestant, Work

HIDDEN = 64
HORIZON, EPOCHS, MINIBATCHES = 128, 4, 4
ONE_ENVIRONMENT_GOAL, PRODUCTS_GOAL, IMAGES_GOAL = 0.6, 0.5, 0.8


# --- one environment ----------------------------------------------------------------------------


def environment_steps(count: int = 4000):
    """`count` steps of CartPole-v1, and the resets between them; no policy."""
    env = gymnasium.make("CartPole-v1")
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(2, size=count).tolist()

    def piece() -> int:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return count

    return piece


def compiled_calls(count: int = 4000):
    """`count` calls of a compiled policy, from a numpy observation to numpy results."""
    policy, value = network(2), network(1)

    @tf.function(
        jit_compile=True,
        autograph=False,
        input_signature=[tf.TensorSpec([1, 4]), tf.TensorSpec([2], tf.int32)],
    )
    def act(observation, seed):
        logits = forward(policy, observation)
        noise = tf.random.stateless_uniform([1, 2], seed, minval=1e-7)
        action = tf.argmax(logits - tf.math.log(-tf.math.log(noise)), axis=-1)
        log_prob = -tf.nn.sparse_softmax_cross_entropy_with_logits(action, logits)
        return action, log_prob, forward(value, observation)[:, 0]

    concrete = act.get_concrete_function()
    captured = concrete.captured_inputs
    call = concrete.inference_fn.call_flat
    observations = np.random.default_rng(0).normal(size=[count, 1, 4]).astype(np.float32)
    seed = tf.constant([0, 1])

    def piece() -> int:
        for observation in observations:
            for result in call(tf.constant(observation), seed, *captured):
                result.numpy()
        return count

    return piece


def network(outputs: int) -> list[tuple[tf.Variable, tf.Variable]]:
    """Kernels and biases of a 64 x 64 network on four numbers."""
    widths = (4, HIDDEN, HIDDEN, outputs)
    return [
        (
            tf.Variable(tf.random.stateless_normal(shape, [0, i]) * 0.1),
            tf.Variable([0.0] * shape[1]),
        )
        for i, shape in enumerate(zip(widths, widths[1:], strict=False))
    ]


def forward(layers: list[tuple[tf.Variable, tf.Variable]], observation: tf.Tensor) -> tf.Tensor:
    """The network's output."""
    for kernel, bias in layers[:-1]:
        observation = tf.tanh(observation @ kernel + bias)
    kernel, bias = layers[-1]
    return observation @ kernel + bias


def one_environment(rounds: int) -> list[dict[str, Any]]:
    """What part of the limit collecting reaches, and training with updates every five steps."""
    work = training_speed.a2c(1)
    trainer = Contestant("pgest_agent", work)
    trainer.make()
    contestants = {
        "step": environment_steps(),
        "call": compiled_calls(),
        "collecting": collecting.piece(collecting.pgest_collector(2048), 2048, 4096),
        "A2C, 5 steps": lambda: trainer.train(4000),
    }
    timings = measuring.alternate(contestants, rounds)
    trainer.close()
    limits = [
        1 / (1 / step + 1 / call)
        for step, call in zip(timings["step"].rates, timings["call"].rates, strict=True)
    ]
    return [
        {
            "work": f"one environment, {name}",
            "environment's step us": round(1e6 / timings["step"].rate, 1),
            "compiled call us": round(1e6 / timings["call"].rate, 1),
            **reached(timings[name].rates, limits, ONE_ENVIRONMENT_GOAL),
        }
        for name in ("collecting", "A2C, 5 steps")
    ]


# --- the matrix products of PPO ------------------------------------------------------------------


def matrix_products(num_envs: int, iterations: int):
    """`iterations` of PPO's products alone; returns a piece, of `128 * num_envs` timesteps each."""
    kernels = [kernel for outputs in (2, 1) for kernel, _ in network(outputs)]
    rows = HORIZON * num_envs // MINIBATCHES

    @tf.function(jit_compile=True, autograph=False)
    def run(observation, minibatch):
        def iteration(index, observation, kernels):
            _, observation = tf.while_loop(
                lambda step, _: step < HORIZON + 1,  # the last for the value that follows
                lambda step, rows: (step + 1, rows + 1e-9 * outputs_of(kernels, rows)),
                (0, observation),
            )
            _, kernels = tf.while_loop(
                lambda step, _: step < EPOCHS * MINIBATCHES,
                lambda step, kernels: (step + 1, after_step(kernels, minibatch)),
                (0, kernels),
            )
            return index + 1, observation, kernels

        return tf.while_loop(
            lambda index, *_: index < iterations,
            iteration,
            (0, observation, [tf.convert_to_tensor(kernel) for kernel in kernels]),
        )

    observation, minibatch = tf.ones([num_envs, 4]), tf.ones([rows, 4])

    def piece() -> int:
        run(observation, minibatch)[1].numpy()
        return iterations * HORIZON * num_envs

    return piece


def outputs_of(kernels: list[tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
    """Both networks forward; their outputs, in one number a row so that none can be left out."""
    policy, value = rows, rows
    for kernel in kernels[:3]:
        policy = policy @ kernel
    for kernel in kernels[3:]:
        value = value @ kernel
    return policy[:, :1] + policy[:, 1:] + value


def after_step(kernels: list[tf.Tensor], minibatch: tf.Tensor) -> list[tf.Tensor]:
    """Both networks forward and backward, and kernels moved by what came back."""
    moved = []
    for first, second, last in (kernels[:3], kernels[3:]):
        hidden = minibatch @ first
        deeper = hidden @ second
        gradient = deeper @ last
        last_gradient = tf.matmul(deeper, gradient, transpose_a=True)
        gradient = tf.matmul(gradient, last, transpose_b=True)
        second_gradient = tf.matmul(hidden, gradient, transpose_a=True)
        gradient = tf.matmul(gradient, second, transpose_b=True)
        first_gradient = tf.matmul(minibatch, gradient, transpose_a=True)
        moved += [
            first - 1e-12 * first_gradient,
            second - 1e-12 * second_gradient,
            last - 1e-12 * last_gradient,
        ]
    return moved


def in_graph(num_envs: int, rounds: int) -> dict[str, Any]:
    """What part of the limit PPO in the graph reaches."""
    row = training_speed.in_graph(num_envs)
    trainer = Contestant("pgest_agent", row.work)
    trainer.make()
    products = matrix_products(num_envs, row.piece // (HORIZON * num_envs))
    contestants = {"pgest": lambda: trainer.train(row.piece), "products": products}
    timings = measuring.alternate(contestants, rounds)
    trainer.close()
    return {
        "work": f"PPO in the graph, {num_envs} environments",
        **reached(timings["pgest"].rates, timings["products"].rates, PRODUCTS_GOAL),
    }


# --- the convolutions of PPO from images ---------------------------------------------------------


def convolutions(work: Work, iterations: int):
    """`iterations` of what the network of Mnih et al. multiplies, and nothing between it."""
    shapes = ((8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64), (3136, 512))
    kernels = [tf.Variable(tf.random.stateless_normal(shape, [0, 0]) * 0.02) for shape in shapes]

    @tf.function(autograph=False)
    def features(images):
        for kernel, stride in zip(kernels[:3], (4, 2, 1), strict=True):
            images = tf.nn.conv2d(images, kernel, stride, "VALID")
        return tf.reshape(images, [images.shape[0], -1]) @ kernels[3]

    @tf.function(autograph=False)
    def step(images):
        with tf.GradientTape() as tape:
            found = features(images)
        return tape.gradient(found, kernels)

    acting, minibatch = (
        tf.random.stateless_uniform([rows, 84, 84, 4], [0, 0])
        for rows in (work.num_envs, work.minibatch_size)
    )
    timesteps = work.num_envs * work.horizon

    def piece() -> int:
        for _ in range(iterations):
            for _ in range(work.horizon + 1):  # the last for the value that follows
                features(acting)
            for _ in range(work.epochs * timesteps // work.minibatch_size):
                found = step(minibatch)
        found[0].numpy()
        return iterations * timesteps

    return piece


def from_images(rounds: int) -> dict[str, Any]:
    """What part of the limit PPO from images reaches, by the clock and by processor time."""
    work = training_speed.PIXELS
    trainer = Contestant("pgest_agent", work)
    trainer.make()
    timesteps = work.num_envs * work.horizon
    contestants = {
        "pgest": lambda: trainer.train(timesteps),
        "convolutions": convolutions(work, 1),
    }
    timings = measuring.alternate(contestants, rounds)
    trainer.close()
    ours, limit = timings["pgest"], timings["convolutions"]
    shares = [least / used for least, used in zip(limit.cpu, ours.cpu, strict=True)]
    return {
        "work": "PPO from images, 8 environments",
        **reached(ours.rates, limit.rates, IMAGES_GOAL),
        "fraction by CPU time": round(statistics.median(shares), 2),
    }


def reached(rates: list[float], limits: list[float], goal: float) -> Mapping[str, Any]:
    """The medians, and the median of the fractions of neighbouring pieces."""
    fractions = sorted(rate / limit for rate, limit in zip(rates, limits, strict=True))
    return {
        "limit timesteps/s": round(statistics.median(limits)),
        "pgest timesteps/s": round(statistics.median(rates)),
        "fraction": round(statistics.median(fractions), 2),
        "goal": goal,
        "fraction lowest": round(fractions[0], 2),
        "fraction highest": round(fractions[-1], 2),
        "pieces": len(fractions),
    }


def main() -> None:
    """Measures the rows that were asked for."""
    options = measuring.arguments(__doc__)
    rounds = 3 if options.quick else 9
    started, rows = time.perf_counter(), []
    if options.rows in "one environment":
        rows += one_environment(rounds)
    for num_envs in (512, 2048):
        if options.rows in f"PPO in the graph, {num_envs} environments":
            rows.append(in_graph(num_envs, rounds))
    if options.rows in "PPO from images, 8 environments":
        rows.append(from_images(rounds))
    settings = {"net": "64x64 tanh, twice", "environment": "CartPole-v1"}
    measuring.store("limits", rows, settings, keep=not options.quick)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
