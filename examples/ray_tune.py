"""Many runs with Ray Tune: ASHA ends the worse ones early, PBT lets them go on from the better.

pip install 'ray[tune]' matplotlib
python examples/ray_tune.py asha --trials 16 --cpus 4
python examples/ray_tune.py pbt --trials 4 --cpus 4
"""

import argparse
import os
import pathlib
import shutil

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tell nobody

import ray
from ray import tune

import pgest

RATES = tune.loguniform(1e-5, 1e-2)


def agent_of(settings, model_dir):
    return pgest.PGAgent(
        pgest.models.PPO(learning_rate=settings["learning_rate"]),
        memory=pgest.RolloutMemory(horizon=128),
        optimizer_params={"epochs": 4, "minibatch_size": 128},
        # All trials begin with the same weights. A process of Ray's has the cores that it was
        # promised; one is TensorFlow's.
        config=pgest.RunConfig(
            model_dir=model_dir,
            tf_random_seed=1,
            keep_checkpoint_max=1,
            intra_op_parallelism_threads=1,
        ),
    )


def trial(settings):
    """Trains and reports by turns, each time with a checkpoint; goes on from one if Tune says so.

    Args:
      settings: `learning_rate`, and `timesteps` of each turn.
    """
    model_dir = pathlib.Path(tune.get_context().get_trial_dir(), "run")
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:  # this trial's, after a failure, or a better one's
        shutil.rmtree(model_dir, ignore_errors=True)
        checkpoint.to_directory(str(model_dir))
    agent = agent_of(settings, model_dir)
    environments = pgest.make("CartPole-v1", num_envs=4)
    while True:  # until the scheduler ends it
        turn = agent.global_timestep // settings["timesteps"] + 1
        agent.train(environments, max_timesteps=turn * settings["timesteps"])
        value = agent.evaluate("CartPole-v1", episodes=10)["return_mean"]
        report = {"return": value, "turn": turn, "timesteps": agent.global_timestep}
        tune.report(report, checkpoint=tune.Checkpoint.from_directory(str(model_dir)))


def scheduler_of(name, turns):
    of_turns = {"time_attr": "turn", "metric": "return", "mode": "max"}
    if name == "asha":
        return tune.schedulers.ASHAScheduler(
            **of_turns, max_t=turns, grace_period=1, reduction_factor=2
        )
    return tune.schedulers.PopulationBasedTraining(
        **of_turns,
        perturbation_interval=1,
        hyperparam_mutations={"learning_rate": RATES},
        synch=True,  # all are compared after equally many turns, however fast each is
    )


def study(name, arguments, trainable=trial, rates=RATES):
    """Runs all trials.

    Args:
      name: of the scheduler, "asha" or "pbt".
      arguments: of the command line.
      trainable: what a trial runs.
      rates: the learning rates to begin with, as Tune draws or lists them.

    Returns:
      Ray's ResultGrid.
    """
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"learning_rate": rates, "timesteps": arguments.timesteps},
        tune_config=tune.TuneConfig(
            scheduler=scheduler_of(name, arguments.turns), num_samples=arguments.trials
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(pathlib.Path(arguments.directory).absolute()),
            stop={"turn": arguments.turns},
            verbose=0,
        ),
    )
    return tuner.fit()


def figure_of(results):
    """What each trial learnt; a trial of PBT has the curve of the ones that it comes from."""
    runs = {
        f"{number}: learning rate {result.config['learning_rate']:.1e}": [f"{result.path}/run"]
        for number, result in enumerate(results)
    }
    return pgest.plot_runs(runs, "episode/return")


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scheduler", choices=["asha", "pbt"])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--turns", type=int, default=8, help="reports of a trial, at most")
    parser.add_argument("--timesteps", type=int, default=4096, help="of a turn")
    parser.add_argument("--cpus", type=int, help="at once; all of the machine's")
    parser.add_argument("--directory", default="runs/ray", help="a plot of the study is there too")
    return parser


def main():
    """Prints each trial's last report, and draws what all of them learnt."""
    arguments = options().parse_args()
    ray.init(num_cpus=arguments.cpus, include_dashboard=False)
    results = study(arguments.scheduler, arguments)
    for result in results:
        found = result.metrics
        print(f"{found['trial_id']}: turn {found['turn']}, return {found['return']:.1f}")
    best = results.get_best_result("return", "max")
    print(f"Best return {best.metrics['return']:.1f}, {best.config}: {best.checkpoint.path}")
    figure_of(results).savefig(pathlib.Path(arguments.directory, f"{arguments.scheduler}.png"))


if __name__ == "__main__":
    main()
