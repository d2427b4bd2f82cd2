"""`pgest train`: one run a seed, each in a directory that the other commands take."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pgest import hooks
from pgest.commands import options, run_directories


@click.command(
    cls=options.Command,
    example="pgest train --algo ppo --env CartPole-v1 --seed 0 1 2\n"
    "pgest train --algo ppo --env LunarLander-v3 -p learning_rate=1e-3 epochs=8",
)
@options.model
@click.option("--env", "env_id", required=True, help="The id of a gymnasium environment.")
@click.option("--seed", "seeds", type=int, multiple=True, help="One run each. [default: 0]")
@options.settings
@click.option("--timesteps", type=click.IntRange(min=1), help="Timesteps of the run in all.")
@click.option(
    "--model-dir",
    type=click.Path(path_type=Path),
    help="Where runs go, each in seed<N> of it. [default: runs/<algo>-<env>]",
)
@click.option(
    "--eval-every", type=click.IntRange(min=1), metavar="TIMESTEPS",
    help="Evaluate so often during the run, and keep the best checkpoint.",
)  # fmt: skip
@click.option("--eval-episodes", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def train(**given: Any) -> None:
    """Train a policy, with the settings that are known to suit the task.

    A run that was interrupted goes on where it stopped when the same command is given again.
    """
    with options.told_plainly():
        for run in _runs(given):
            _train(run, given)


def _runs(given: dict[str, Any]) -> list[run_directories.TrainingRun]:
    """The runs asked for; everything that can be wrong with them is found before the first."""
    settings, changes = options.changed_settings(given)
    env_id, model = given["env_id"], given["model"]
    base = given["model_dir"] or Path("runs") / options.run_name(given)
    seeds = given["seeds"] or (0,)
    runs = [
        run_directories.TrainingRun(base / f"seed{seed}", env_id, settings, seed, model)
        for seed in dict.fromkeys(seeds)
    ]
    for run in runs:
        run.environments().close()
        run.agent()
        run.write()
    click.echo(f"Settings: {settings.source}{', changed' if changes else ''}.")
    return runs


def _train(run: run_directories.TrainingRun, given: dict[str, Any]) -> None:
    agent = run.agent()
    before = agent.global_timestep
    if before >= run.settings.timesteps:
        click.echo(f"{run.directory}: has its {before:,} timesteps already.")
        return
    if before:
        click.echo(f"{run.directory}: goes on at timestep {before:,}.")
    watching: list[hooks.BaseMonitor] = []
    if not given["quiet"] and sys.stderr.isatty():
        watching.append(hooks.ProgressBarHook())
    if given["eval_every"] is not None:
        every = hooks.Every(timesteps=given["eval_every"])
        episodes = given["eval_episodes"]
        watching.append(hooks.EvaluationHook(run.played(), every, episodes=episodes))
    environments = run.environments()
    try:
        agent.train(environments, hooks=watching, max_timesteps=run.settings.timesteps)
    except KeyboardInterrupt:
        click.echo(
            f"{run.directory}: interrupted at timestep {agent.global_timestep:,}, which is saved; "
            "the same command goes on from there.",
            err=True,
        )
        raise click.exceptions.Exit(options.INTERRUPTED) from None
    finally:
        environments.close()
    results = agent.evaluate(run.played(), episodes=given["eval_episodes"])
    click.echo(
        f"{run.directory}: greedy return {results['return_mean']:.1f} "
        f"± {results['return_std']:.1f} over {given['eval_episodes']} episodes "
        f"after {agent.global_timestep:,} timesteps."
    )
