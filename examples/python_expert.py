"""A Python policy inside of a TensorFlow graph: an expert plays, and a network imitates it.

    python examples/python_expert.py --updates 500

The expert is a rule of one line. `TFPyPolicy` makes a `TFPolicy` of it, so one `tf.function` holds
environments, expert, network and optimizer. A policy that runs Python cannot be exported; the
network that has learnt from it can.
"""

import argparse

import gymnasium
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

import pgest
from pgest import graph_environments, specs


class Expert(pgest.PyPolicy):
    """Pushes the cart to the side that the pole falls to; a batch of carts at once."""

    def _action(self, time_step, policy_state):
        angle, speed = time_step.observation[:, 2], time_step.observation[:, 3]
        return pgest.PolicyStep(np.int64(3 * angle + speed > 0), policy_state)


class Imitator(pgest.TFPolicy):
    """A network that learns what to do from whoever knows."""

    def __init__(self, time_step_spec, action_spec):
        super().__init__(time_step_spec, action_spec)
        layers = tf_keras.layers
        self.network = tf_keras.Sequential([layers.Dense(32, "tanh"), layers.Dense(2)])
        self.network.build([None, 4])

    def _distribution(self, time_step, policy_state):
        logits = self.network(time_step.observation)
        return pgest.PolicyStep(tfp.distributions.Categorical(logits=logits), policy_state)


def main():
    """Imitates the expert, exports the network, plays with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--output", default="imitator")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tf_keras.utils.set_random_seed(arguments.seed)

    env = graph_environments.CartPole(num_envs=16)
    time_step_spec = pgest.time_step_spec(specs.observation_spec(env.observation_space))
    action_spec = specs.action_spec(env.action_space)
    expert = pgest.TFPyPolicy(Expert(time_step_spec, action_spec), py_policy_is_batched=True)
    imitator = Imitator(time_step_spec, action_spec)
    optimizer = tf_keras.optimizers.Adam(1e-2)
    optimizer.build(imitator.variables())

    @tf.function
    def imitate(state, seed):
        """One update on what the expert does; the imitator acts, so it sees its own mistakes."""
        time_step = pgest.restart(env.observation(state), batch_size=env.num_envs)
        right = expert.action(time_step).action
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(imitator.distribution(time_step).action.log_prob(right))
        gradients = tape.gradient(loss, imitator.variables())
        optimizer.apply_gradients(zip(gradients, imitator.variables(), strict=True))
        chosen = imitator.action(time_step, seed=seed).action
        state, _ = env.step(state, chosen, seed)
        return state, loss

    state = env.initial(tf.constant([0, arguments.seed]))
    for update in range(1, arguments.updates + 1):
        state, loss = imitate(state, tf.constant([1 + arguments.seed, update]))
        if update % 100 == 0 or update == arguments.updates:
            print(f"Update {update}: loss {loss:.3f}")

    pgest.PolicySaver(pgest.GreedyPolicy(imitator)).save(arguments.output)
    play = pgest.load_policy(arguments.output).player()
    host = gymnasium.make("CartPole-v1")
    observation, _ = host.reset(seed=arguments.seed)
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = host.step(play(observation))
        total, ended = total + float(reward), terminated or truncated
    print(f"The imitator's return: {total:.0f}")
    host.close()


if __name__ == "__main__":
    main()
