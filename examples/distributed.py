"""Trains one model in as many processes as TF_CONFIG names; alone without it.

python examples/local_workers.py 2 examples/distributed.py --max-timesteps 100000
python examples/local_workers.py 2+evaluator examples/distributed.py --model-dir runs/together
"""

import argparse
import os

import tensorflow as tf

import pgest


def main():
    """Trains PPO on CartPole-v1; who evaluates says how well it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-timesteps", type=int, default=100_000, help="of all workers")
    parser.add_argument("--num-envs", type=int, default=8, help="of each worker")
    parser.add_argument("--model-dir", default="runs/distributed", help="which all of them see")
    arguments = parser.parse_args()

    trains = pgest.RunConfig().task_type != "evaluator"
    strategy = None
    if trains and "TF_CONFIG" in os.environ:
        # Before anything else uses TensorFlow. It waits until all workers are there.
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    config = pgest.RunConfig(model_dir=arguments.model_dir, train_distribute=strategy)
    agent = pgest.PGAgent(
        pgest.models.PPO(),
        memory=pgest.RolloutMemory(horizon=128),
        optimizer_params={"discount": 0.98, "gae_lambda": 0.8, "epochs": 4, "minibatch_size": 256},
        params={"learning_rate": 1e-3},
        config=config,
    )
    environments = pgest.make("CartPole-v1", num_envs=arguments.num_envs)
    results, _ = pgest.train_and_evaluate(
        agent,
        pgest.TrainSpec(environments, max_timesteps=arguments.max_timesteps),
        pgest.EvalSpec("CartPole-v1", throttle_secs=30, start_delay_secs=0),
    )
    if config.is_chief:
        print(f"{config.num_worker_replicas} workers: {agent.global_timestep:,} timesteps")
    if results:
        print(f"greedy return {results['return_mean']:.1f}")


if __name__ == "__main__":
    main()
