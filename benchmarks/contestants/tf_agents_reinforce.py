"""TF-Agents' REINFORCE on one CartPole-v1, as its own example and its tutorial train it.

The variant "dynamic driver" is the example's (`examples/reinforce`): the driver in a TensorFlow
function, a `TFUniformReplayBuffer` emptied for each update. "py driver" is the tutorial's: acting
through `PyTFEagerPolicy` from Python, here with a list in place of Reverb.
"""

from __future__ import annotations

import collections
import statistics

import tensorflow as tf
from support import serving
from tf_agents.agents.reinforce import reinforce_agent
from tf_agents.drivers import dynamic_episode_driver, py_driver
from tf_agents.environments import suite_gym, tf_py_environment
from tf_agents.networks import actor_distribution_network
from tf_agents.policies import py_tf_eager_policy
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.trajectories import trajectory
from tf_agents.utils import common, nest_utils

_LONGEST = 501  # boundary steps are stored too


class Trainer:
    """A `ReinforceAgent` that goes on training.

    Args:
      work: what to do.
    """

    def __init__(self, work: serving.Work):
        tf.random.set_seed(0)
        self._work = work
        self._env = suite_gym.load(work.environment)
        self._tf_env = tf_py_environment.TFPyEnvironment(suite_gym.load(work.environment))
        specs = self._tf_env.observation_spec(), self._tf_env.action_spec()
        network = actor_distribution_network.ActorDistributionNetwork(
            *specs, fc_layer_params=(64, 64), activation_fn=tf.keras.activations.tanh
        )
        self._agent = reinforce_agent.ReinforceAgent(
            self._tf_env.time_step_spec(),
            self._tf_env.action_spec(),
            actor_network=network,
            optimizer=tf.keras.optimizers.Adam(work.learning_rate),
            gamma=work.discount,
            normalize_returns=True,
            train_step_counter=tf.Variable(0, dtype=tf.int64),
        )
        self._agent.initialize()
        self._train = common.function(self._agent.train)
        dynamic = work.variant == "dynamic driver"
        self._experience = self._dynamic_driver() if dynamic else self._py_driver()
        self._returns: collections.deque[float] = collections.deque(maxlen=50)
        self.timesteps = 0

    def train(self, timesteps: int) -> None:
        """Takes at least so many more."""
        until = self.timesteps + timesteps
        while self.timesteps < until:
            experience = self._experience()
            self._train(experience)
            # Every timestep of CartPole-v1 gives 1, every boundary step 0.
            taken = int(tf.reduce_sum(experience.reward))
            self.timesteps += taken
            self._returns.append(taken / self._work.episodes)

    def recent_return(self) -> float | None:
        """The mean of the latest hundred episodes: fifty updates of two."""
        return statistics.fmean(self._returns) if self._returns else None

    def _dynamic_driver(self):
        memory = tf_uniform_replay_buffer.TFUniformReplayBuffer(
            self._agent.collect_data_spec, batch_size=1, max_length=_LONGEST * self._work.episodes
        )
        driver = dynamic_episode_driver.DynamicEpisodeDriver(
            self._tf_env,
            self._agent.collect_policy,
            observers=[memory.add_batch],
            num_episodes=self._work.episodes,
        )
        run = common.function(driver.run)

        def experience():
            memory.clear()
            run()
            return memory.gather_all()

        return experience

    def _py_driver(self):
        stored: list[trajectory.Trajectory] = []
        policy = py_tf_eager_policy.PyTFEagerPolicy(
            self._agent.collect_policy, use_tf_function=True, batch_time_steps=True
        )
        driver = py_driver.PyDriver(
            self._env, policy, [stored.append], max_episodes=self._work.episodes
        )

        def experience():
            stored.clear()
            driver.run(self._env.reset())
            return tf.nest.map_structure(
                lambda leaf: tf.constant(leaf[None]), nest_utils.stack_nested_arrays(stored)
            )

        return experience


if __name__ == "__main__":
    serving.serve(Trainer)
