"""Workers of one run, started and started again by Ray Train.

pip install 'ray[train]'
python examples/ray_train.py --workers 2 --max-timesteps 100000
"""

import argparse
import os
import pathlib
import tempfile

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tell nobody

import ray
from ray import train
from ray.train.tensorflow import TensorflowTrainer


def train_worker(settings):
    """What each worker runs; Ray has set TF_CONFIG.

    Args:
      settings: `max_timesteps` of all workers, and after how many of them Ray gets a checkpoint.
    """
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else of TensorFlow

    import pgest

    # Ray's storage holds the checkpoints, so no directory has to be shared between the machines.
    model_dir = tempfile.mkdtemp()
    checkpoint = train.get_checkpoint()
    if checkpoint is not None:  # a worker was lost, and all of them begin again from here
        checkpoint.to_directory(model_dir)
    config = pgest.RunConfig(
        model_dir=model_dir, keep_checkpoint_max=1, tf_random_seed=0, train_distribute=strategy
    )
    agent = pgest.PGAgent(
        pgest.models.PPO(),
        memory=pgest.RolloutMemory(horizon=128),
        optimizer_params={"epochs": 4, "minibatch_size": 256},
        config=config,
    )
    environments = pgest.make("CartPole-v1", num_envs=8)
    while agent.global_timestep < settings["max_timesteps"]:
        end = agent.global_timestep + settings["timesteps"]
        agent.train(environments, max_timesteps=min(end, settings["max_timesteps"]))
        report = {"timesteps": agent.global_timestep, "episodes": agent.global_episode}
        saved = train.Checkpoint.from_directory(model_dir) if config.is_chief else None
        train.report(report, checkpoint=saved)  # all workers report, the chief saves


def run_of(arguments, worker=train_worker, **settings):
    """Trains to the end, whatever happens to workers on the way, and returns Ray's Result.

    Args:
      arguments: of the command line.
      worker: what each worker runs.
      **settings: further ones for it.
    """
    trainer = TensorflowTrainer(
        worker,
        train_loop_config={
            "max_timesteps": arguments.max_timesteps,
            "timesteps": arguments.report_timesteps,
            **settings,
        },
        scaling_config=train.ScalingConfig(num_workers=arguments.workers),
        run_config=train.RunConfig(
            name="ppo",
            storage_path=str(pathlib.Path(arguments.directory).absolute()),
            failure_config=train.FailureConfig(max_failures=arguments.max_failures),
            checkpoint_config=train.CheckpointConfig(num_to_keep=2),
        ),
    )
    return trainer.fit()


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max-timesteps", type=int, default=100_000, help="of all workers")
    parser.add_argument("--report-timesteps", type=int, default=20_000, help="to a checkpoint")
    parser.add_argument("--max-failures", type=int, default=3)
    parser.add_argument("--directory", default="runs/ray", help="which all machines see")
    return parser


def main():
    """Says where the last checkpoint is."""
    arguments = options().parse_args()
    ray.init(include_dashboard=False)
    result = run_of(arguments)
    print(f"{result.metrics['timesteps']:,} timesteps: {result.checkpoint.path}")


if __name__ == "__main__":
    main()
