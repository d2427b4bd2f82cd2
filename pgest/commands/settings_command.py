"""`pgest settings`: what a task uses, and which tasks there are."""

from __future__ import annotations

from pathlib import Path

import click

from pgest.commands import options, task_settings


@click.command(
    cls=options.Command,
    example="pgest settings\npgest settings --algo ppo --env LunarLander-v3 > mine.yaml",
)
@click.option("--algo", type=click.Choice(sorted(task_settings.MODELS)), help="The algorithm.")
@click.option("--env", "env_id", help="The id of an environment.")
@click.option(
    "-p", "assignments", metavar="KEY=VALUE", multiple=True, help="Settings, over all others."
)
@click.option("--config", type=click.Path(path_type=Path), help="A YAML file of settings.")
def settings(
    algo: str | None, env_id: str | None, assignments: tuple[str, ...], config: Path | None
) -> None:
    """Print the settings of a task as YAML, or the tasks that have their own."""
    with options.told_plainly():
        if algo is not None and env_id is not None:
            found = task_settings.tuned(algo, env_id).changed(options.changes(config, assignments))
            click.echo(f"# {algo} on {env_id}: {found.source}")
            click.echo(task_settings.written(found.values), nl=False)
            return
        for algorithm, task in task_settings.tasks():
            if algo in (None, algorithm) and env_id in (None, task):
                click.echo(f"{algorithm} {task}")
