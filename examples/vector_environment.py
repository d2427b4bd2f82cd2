"""Trains on many environments at once, made by gymnasium or by pgest.

python examples/vector_environment.py --num-envs 16 --max-timesteps 100000
"""

import argparse
import time

import gymnasium
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest


def model_fn(features, labels, mode, params):
    """A policy and a value, each on two layers of its own, and the clipped loss of PPO."""
    distribution = tfp.distributions.Categorical(logits=network(features["state"], 2))
    value = tf.squeeze(network(features["state"], 1), axis=-1)
    predictions = {"value": value}
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution, predictions=predictions)
    ratio = tf.exp(distribution.log_prob(labels["action"]) - labels["log_prob"])
    advantage, clipped = labels["advantage"], tf.clip_by_value(ratio, 0.8, 1.2)
    policy_loss = -tf.reduce_mean(tf.minimum(ratio * advantage, clipped * advantage))
    value_loss = tf.reduce_mean(tf.square(value - labels["value_target"]))
    loss = policy_loss + 0.5 * value_loss
    rate = pgest.schedules.learning_rate(pgest.schedules.linear(params["learning_rate"], 0.0))
    optimizer = tf_keras.optimizers.Adam(rate)
    return pgest.EstimatorSpec(
        mode,
        distribution=distribution,
        predictions=predictions,
        loss=loss,
        train_op=pgest.minimize(loss, optimizer, clip_norm=0.5),
        metrics={"loss/policy": policy_loss, "loss/value": value_loss},
    )


def network(state, units):
    """Two layers, and an output of `units`."""
    for _ in range(2):
        state = tf_keras.layers.Dense(64, activation="tanh")(state)
    return tf_keras.layers.Dense(units)(state)


def train(name, environments, max_timesteps, seed):
    """Trains a new agent and prints how fast and how far it went."""
    agent = pgest.PGAgent(
        model_fn,
        # 32 timesteps of every environment an update; an episode under way goes on in the next.
        memory=pgest.RolloutMemory(horizon=32),
        optimizer_params={"discount": 0.98, "gae_lambda": 0.8, "epochs": 10, "minibatch_size": 256},
        # The network is too small to share out among threads.
        config=pgest.RunConfig(tf_random_seed=seed, intra_op_parallelism_threads=1),
        params={"learning_rate": 1e-3},
    )
    history = pgest.HistoryHook()
    started = time.perf_counter()
    agent.train(environments, max_timesteps=max_timesteps, hooks=[history])
    speed = agent.global_timestep / (time.perf_counter() - started)
    results = agent.evaluate("CartPole-v1", episodes=5)
    print(f"{name:<32} {speed:>8,.0f} timesteps/s   greedy return {results['return_mean']:.1f}")


def main():
    """Trains on three kinds of vectors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--max-timesteps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    count, rest = arguments.num_envs, (arguments.max_timesteps, arguments.seed)

    train("pgest, one after the other", pgest.make("CartPole-v1", num_envs=count), *rest)
    native = pgest.make("CartPole-v1", num_envs=count, vectorization="native")
    train("pgest, CartPole's own vector", native, *rest)
    # One of your own works as well, in each of gymnasium's autoreset modes.
    own = gymnasium.make_vec("CartPole-v1", num_envs=count, vectorization_mode="sync")
    train("gymnasium.make_vec", own, *rest)
    own.close()


if __name__ == "__main__":
    main()
