"""Solves CartPole-v1 in seconds: environment and training in one compiled program.

    python examples/graph_cartpole.py --seed 0

Collecting, advantages, epochs and minibatches are one XLA program, ten iterations a call. The first
call compiles it; how long that and training took is printed. Then the greedy policy plays
gymnasium's own CartPole-v1.
"""

import argparse
import time

import pgest

SOLVED = 475.0  # gymnasium's own threshold for CartPole-v1
NUM_ENVS = 16
HORIZON = 64


class Stopwatch(pgest.BaseMonitor):
    """Notes when the first call of the program, which compiles it, has returned."""

    def begin(self, context):
        """Starts."""
        self.started, self.compiled, self.timestep = time.perf_counter(), None, 0

    def after_run(self, context):
        """Notes the first call."""
        if self.compiled is None:
            self.compiled, self.timestep = time.perf_counter(), context.timestep

    def end(self, context):
        """Prints both times; what came after the first call is training alone."""
        training = time.perf_counter() - self.compiled
        timesteps = context.timestep - self.timestep
        print(f"Compiled, first call included: {self.compiled - self.started:.1f} s")
        print(f"Trained: {timesteps:,} timesteps in {training:.1f} s", end=" ")
        print(f"({timesteps / training:,.0f} a second)")


def main():
    """Trains, then plays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-timesteps", type=int, default=40 * 10 * NUM_ENVS * HORIZON)
    arguments = parser.parse_args()

    agent = pgest.PGAgent(
        # The learning rate falls to zero at the end of the run: the policy that is reached stays.
        pgest.models.PPO(learning_rate=pgest.schedules.linear(1e-3, 0.0), entropy_weight=0.0),
        memory=pgest.RolloutMemory(HORIZON),
        optimizer_params={"epochs": 8, "minibatch_size": 256},
        config=pgest.RunConfig(
            tf_random_seed=arguments.seed,
            log_step_count_steps=None,
            iterations_per_loop=10,
            intra_op_parallelism_threads=1,  # 16 environments have no work for more
        ),
    )
    env = pgest.graph_environments.CartPole(num_envs=NUM_ENVS)
    agent.train(env, max_timesteps=arguments.max_timesteps, hooks=[Stopwatch()])

    results = agent.evaluate("CartPole-v1", episodes=20)
    solved = "solved" if results["return_mean"] >= SOLVED else "not solved"
    print(f"Greedy return in gymnasium's CartPole-v1: {results['return_mean']:.1f} ({solved})")


if __name__ == "__main__":
    main()
