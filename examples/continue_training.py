"""Stops, comes back in another agent, continues, and starts a second model from the first.

python examples/continue_training.py --model-dir runs/continue
"""

import argparse
import os

import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest


def model_fn(features, labels, mode, params):
    """Policy gradient; the learning rate decays over `global_step`, which checkpoints carry on."""
    hidden = tf_keras.layers.Dense(32, activation="tanh", name="hidden")(features["state"])
    logits = tf_keras.layers.Dense(2, name="logits")(hidden)
    distribution = tfp.distributions.Categorical(logits=logits)
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution)
    loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    schedule = tf_keras.optimizers.schedules.PolynomialDecay(params["learning_rate"], 100, 1e-4)
    train_op = pgest.minimize(loss, tf_keras.optimizers.Adam(schedule))
    return pgest.EstimatorSpec(mode, distribution=distribution, loss=loss, train_op=train_op)


def new_agent(model_dir, **kwargs):
    """What a new process would make: nothing but the model_fn and a directory."""
    return pgest.PGAgent(
        model_fn,
        memory=pgest.BatchMemory(batch_size=500),
        config=pgest.RunConfig(
            model_dir=model_dir, tf_random_seed=0, save_checkpoints_steps=2, keep_checkpoint_max=3
        ),
        params={"learning_rate": 1e-2},
        **kwargs,
    )


def say(what, agent):
    """Prints the three counters."""
    print(
        f"{what:<28} step {agent.global_step}, timestep {agent.global_timestep}, "
        f"episode {agent.global_episode}"
    )


def main():
    """Trains in pieces."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir", default="runs/continue")
    arguments = parser.parse_args()

    agent = new_agent(arguments.model_dir)
    agent.train("CartPole-v1", max_steps=4)
    say("up to 4 steps in all:", agent)

    agent = new_agent(arguments.model_dir)
    agent.train("CartPole-v1", max_steps=4)
    say("again, and nothing to do:", agent)

    agent.train("CartPole-v1", steps=3)
    say("3 more:", agent)
    print("newest checkpoint:", agent.latest_checkpoint())

    warm = new_agent(os.path.join(arguments.model_dir, "warm"), warm_start_from=arguments.model_dir)
    warm.train("CartPole-v1", steps=1)
    say("a new model, warm weights:", warm)


if __name__ == "__main__":
    main()
