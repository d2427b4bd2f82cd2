"""A hook of one's own: keeps an eye on the entropy, and stops when the policy has made up its mind.

python examples/custom_hook.py --max-timesteps 50000
"""

import argparse

import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest


class StopOnEntropyHook(pgest.BaseMonitor):
    """Prints a line every so often, and ends the run once the mean entropy is low.

    Args:
      threshold: entropy of the policy in nats below which the run ends.
      every: how often a line is printed.
    """

    def __init__(self, threshold, every):
        self._threshold = threshold
        self._every = every

    def begin(self, context):
        """Starts the clock; a hook may serve several runs, so state belongs here."""
        self._timer = self._every.timer(context)
        self._longest = 0

    def after_episode(self, context):
        """Sees each finished episode once, also with many environments."""
        (episode,) = context.episodes
        self._longest = max(self._longest, episode.length)

    def after_run(self, context):
        """Sees the metrics of each update."""
        entropy = context.metrics["policy/entropy"]
        if self._timer.due(context):
            print(
                f"timestep {context.timestep:>7,}  step {context.step:>4}  "
                f"entropy {entropy:.3f}  longest episode {self._longest}"
            )
        if entropy < self._threshold:
            context.request_stop(f"entropy {entropy:.3f} < {self._threshold}")

    def end(self, context):
        """Is always called, also after an error."""
        if context.error is not None:
            print(f"failed after {context.timestep:,} timesteps: {context.error}")
        else:
            print(f"done after {context.timestep:,} timesteps: {context.stop_reason or 'limit'}")


def model_fn(features, labels, mode, params):
    """Policy gradient with the entropy as a metric, which is how a hook gets to see it."""
    hidden = tf_keras.layers.Dense(32, activation="tanh")(features["state"])
    distribution = tfp.distributions.Categorical(logits=tf_keras.layers.Dense(2)(hidden))
    if mode == pgest.Modes.PREDICT:
        return pgest.EstimatorSpec(mode, distribution=distribution)
    loss = -tf.reduce_mean(distribution.log_prob(labels["action"]) * labels["advantage"])
    return pgest.EstimatorSpec(
        mode,
        distribution=distribution,
        loss=loss,
        train_op=pgest.minimize(loss, tf_keras.optimizers.Adam(params["learning_rate"])),
        metrics={"policy/entropy": tf.reduce_mean(distribution.entropy())},
    )


def main():
    """Trains with the hook."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-timesteps", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    agent = pgest.PGAgent(
        model_fn,
        memory=pgest.BatchMemory(batch_size=1000),
        config=pgest.RunConfig(tf_random_seed=arguments.seed),
        params={"learning_rate": 1e-2},
    )
    agent.train(
        "CartPole-v1",
        max_timesteps=arguments.max_timesteps,
        hooks=[StopOnEntropyHook(threshold=0.3, every=pgest.Every(timesteps=5_000))],
    )


if __name__ == "__main__":
    main()
