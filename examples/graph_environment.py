"""An in-graph environment of one's own: a rocket that has to land gently.

    python examples/graph_environment.py --num-envs 64

Three functions of tensors make it; pgest adds batching, resets, the time limit and statistics. The
same object then opens as a gymnasium vector environment, where NumPy code plays it.
"""

import argparse
from typing import NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf

import pgest
from pgest.graph_environments import GraphEnvironment, as_gymnasium, stateless_noise


class RocketState(NamedTuple):
    """Rockets; every field is float32 [B]. Many [B] tensors run faster than one [B, n]."""

    height: tf.Tensor
    velocity: tf.Tensor
    fuel: tf.Tensor


class Rocket(GraphEnvironment):
    """Burn or fall: touch the ground slower than 1 m/s.

    The reward of a landing is 1 less a tenth for each m/s above; what was not landed gets nothing.
    Observations are height, velocity and fuel, each about 1; action 1 burns.
    """

    GRAVITY, THRUST, SECONDS = 1.6, 4.0, 0.2

    def __init__(self, num_envs=1):
        super().__init__(
            gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32),
            gymnasium.spaces.Discrete(2),
            num_envs=num_envs,
            max_episode_steps=200,
        )

    def start(self, seed):
        """Between 20 and 40 m, falling slowly. Noise is a function of the seed alone."""
        shape = [self.num_envs]
        return RocketState(
            height=stateless_noise.uniform(seed, shape, low=20.0, high=40.0),
            velocity=stateless_noise.uniform(
                stateless_noise.fold(seed, 1), shape, low=-3.0, high=0.0
            ),
            fuel=tf.ones(shape),
        )

    def advance(self, simulation, action, seed):
        """One timestep of all rockets; no resetting in here."""
        burns = tf.cast(tf.equal(action, 1) & (simulation.fuel > 0.0), tf.float32)
        acceleration = self.THRUST * burns - self.GRAVITY
        moved = RocketState(
            height=simulation.height + self.SECONDS * simulation.velocity,
            velocity=simulation.velocity + self.SECONDS * acceleration,
            fuel=simulation.fuel - 0.01 * burns,
        )
        landed = moved.height <= 0.0
        too_fast = tf.maximum(-moved.velocity - 1.0, 0.0)
        reward = tf.where(landed, 1.0 - 0.1 * too_fast, 0.0)
        return moved, reward, landed

    def observe(self, simulation):
        """What the policy sees, [B, 3]."""
        columns = (simulation.height / 40.0, simulation.velocity / 10.0, simulation.fuel)
        return tf.stack(columns, axis=1)


def main():
    """Trains, evaluates, and plays from NumPy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--max-timesteps", type=int, default=1_000_000)
    arguments = parser.parse_args()

    agent = pgest.PGAgent(
        pgest.models.PPO(learning_rate=1e-3, entropy_weight=0.01),
        memory=pgest.RolloutMemory(horizon=64),
        optimizer_params={"epochs": 4, "minibatch_size": 16 * arguments.num_envs},
        config=pgest.RunConfig(
            tf_random_seed=arguments.seed, log_step_count_steps=None, iterations_per_loop=8
        ),
    )
    rockets = Rocket(num_envs=arguments.num_envs)
    before = agent.evaluate(rockets, episodes=100)
    agent.train(rockets, max_timesteps=arguments.max_timesteps)
    after = agent.evaluate(rockets, episodes=100)
    print(f"Greedy return before: {before['return_mean']:.2f}, after: {after['return_mean']:.2f}")

    # The same environment for code that only knows gymnasium: here without any burning.
    envs = as_gymnasium(Rocket(num_envs=8))
    envs.reset(seed=arguments.seed)
    total, landings = 0.0, 0
    for _ in range(100):
        _, rewards, terminated, _, _ = envs.step(np.zeros(8, np.int64))
        total, landings = total + rewards.sum(), landings + terminated.sum()
    print(f"A rocket that never burns gets {total / landings:.2f} a landing")


if __name__ == "__main__":
    main()
