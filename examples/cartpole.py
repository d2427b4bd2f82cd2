"""Trains CartPole-v1 until the greedy policy solves it, then exports the policy.

    python examples/cartpole.py --seed 0 --model-dir runs/cartpole

The model is a plain function. Its loss is that of PPO (Schulman et al. 2017,
https://arxiv.org/abs/1707.06347); everything around the loss is the agent's work. Run it again with
the same --model-dir and it goes on where it stopped.
"""

import argparse
import logging
import os

import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest

SOLVED = 475.0  # gymnasium's own threshold for CartPole-v1
MAX_TIMESTEPS = 200_000
PARAMS = {
    "learning_rate": 1e-3,
    "decay_steps": 8_000,  # what 200,000 timesteps come to: 10 epochs of minibatches of 256
    "clip_ratio": 0.2,
    "value_weight": 0.5,
    "entropy_weight": 0.0,
}
OPTIMIZER_PARAMS = {
    "discount": 0.99,
    "gae_lambda": 0.95,
    "epochs": 10,
    "minibatch_size": 256,
}


def model_fn(features, labels, mode, params):
    """A policy and a value over two layers each, trained by the clipped surrogate of PPO."""
    state = features["state"]
    hidden = state
    for layer in range(2):
        hidden = tf_keras.layers.Dense(64, activation="tanh", name=f"policy_{layer}")(hidden)
    logits = tf_keras.layers.Dense(2, name="logits")(hidden)
    distribution = tfp.distributions.Categorical(logits=logits)

    hidden = state
    for layer in range(2):
        hidden = tf_keras.layers.Dense(64, activation="tanh", name=f"value_{layer}")(hidden)
    value = tf.squeeze(tf_keras.layers.Dense(1, name="value")(hidden), axis=-1)

    # What is predicted while acting comes back in `labels`, so the agent knows the values.
    predictions = {"value": value}
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution, predictions=predictions)

    ratio = tf.exp(distribution.log_prob(labels["action"]) - labels["log_prob"])
    clipped = tf.clip_by_value(ratio, 1.0 - params["clip_ratio"], 1.0 + params["clip_ratio"])
    advantage = labels["advantage"]
    policy_loss = -tf.reduce_mean(tf.minimum(ratio * advantage, clipped * advantage))
    value_loss = tf.reduce_mean(tf.square(value - labels["value_target"]))
    entropy = tf.reduce_mean(distribution.entropy())
    loss = policy_loss + params["value_weight"] * value_loss - params["entropy_weight"] * entropy

    # Smaller and smaller steps, over `global_step`: the policy that is reached stays.
    learning_rate = tf_keras.optimizers.schedules.PolynomialDecay(
        params["learning_rate"], decay_steps=params["decay_steps"], end_learning_rate=0.0
    )
    optimizer = tf_keras.optimizers.Adam(learning_rate, epsilon=1e-5)
    return pgest.EstimatorSpec(
        mode,
        distribution=distribution,
        predictions=predictions,
        loss=loss,
        train_op=pgest.minimize(loss, optimizer, clip_norm=0.5),
        metrics={
            "loss/policy": policy_loss,
            "loss/value": value_loss,
            "policy/entropy": entropy,
            "policy/clip_fraction": tf.reduce_mean(
                tf.cast(tf.abs(ratio - 1.0) > params["clip_ratio"], tf.float32)
            ),
            "learning_rate": learning_rate(pgest.get_global_step()),
        },
    )


def main():
    """Trains, evaluates, exports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model-dir", default="runs/cartpole")
    parser.add_argument("--max-timesteps", type=int, default=MAX_TIMESTEPS)
    parser.add_argument("--episodes", type=int, default=20, help="of the last evaluation")
    arguments = parser.parse_args()
    logging.basicConfig(level="WARNING")

    agent = pgest.PGAgent(
        model_fn,
        memory=pgest.BatchMemory(batch_size=2048),
        optimizer_params=OPTIMIZER_PARAMS,
        config=pgest.RunConfig(model_dir=arguments.model_dir, tf_random_seed=arguments.seed),
        params=PARAMS,
    )
    # CartPole's own vector implementation: one call acts in eight carts, or evaluates twenty.
    carts = pgest.make("CartPole-v1", num_envs=8, vectorization="native")
    others = pgest.make("CartPole-v1", num_envs=20, vectorization="native")
    agent.train(
        carts,
        max_timesteps=arguments.max_timesteps,
        hooks=[
            pgest.ProgressBarHook(),
            pgest.EvaluationHook(others, pgest.Every(timesteps=5_000), episodes=20),
            # Two evaluations in a row, so that one lucky one does not end the run.
            pgest.StopOnReturnHook(495.0, on="evaluation", window=2),
        ],
    )

    results = agent.evaluate(others, episodes=arguments.episodes, name="final")
    path = agent.export_saved_model(os.path.join(arguments.model_dir, "export"))
    print(
        f"Greedy return over {arguments.episodes} episodes: {results['return_mean']:.1f} "
        f"(solved at {SOLVED:.0f}), after {agent.global_timestep:,} timesteps"
    )
    print(f"Exported to {path}")


if __name__ == "__main__":
    main()
