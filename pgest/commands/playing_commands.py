"""What comes after `pgest train`: evaluate a run, watch it, export its policy."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import click

from pgest.commands import options, run_directories, task_environments
from pgest.hooks import filming

_EPISODES = click.option("--episodes", type=click.IntRange(min=1), default=10, show_default=True)


@click.command(
    cls=options.Command, example="pgest evaluate runs/ppo-CartPole-v1/seed0 --episodes 20"
)
@options.RUN
@_EPISODES
@options.BEST
@click.option("--json", "as_json", is_flag=True, help="All results, as JSON.")
def evaluate(run: Path, episodes: int, best: bool, as_json: bool) -> None:
    """Play greedy episodes with the policy of RUN and say how good they were."""
    with options.told_plainly():
        found = run_directories.read(run)
        path = run_directories.checkpoint(found, best)
        results = found.agent().evaluate(found.played(), episodes, checkpoint_path=path)
    if as_json:
        click.echo(json.dumps(results))
        return
    spread = f"{results['return_min']:.1f} to {results['return_max']:.1f}"
    click.echo(
        f"Return {results['return_mean']:.1f} ± {results['return_std']:.1f} ({spread}), length "
        f"{results['length_mean']:.1f}, over {episodes} episodes, at timestep "
        f"{int(results['global_timestep']):,}."
    )


@click.command(
    cls=options.Command,
    example="pgest export runs/ppo-CartPole-v1/seed0 exported",
)
@options.RUN
@click.argument("directory", type=click.Path(path_type=Path))
@options.BEST
def export(run: Path, directory: Path, best: bool) -> None:
    """Write the policy of RUN as a SavedModel into a new directory below DIRECTORY.

    Any TensorFlow loads it, without pgest: `serving_default` takes an observation.
    """
    with options.told_plainly():
        found = run_directories.read(run)
        path = run_directories.checkpoint(found, best)
        agent = found.agent()
        with contextlib.redirect_stdout(io.StringIO()):  # its table
            agent.check(found.played(), timesteps=0)  # tells the policy its spaces
        written = agent.export_saved_model(directory, checkpoint_path=path)
    click.echo(written)


@click.command(
    cls=options.Command,
    example="pgest enjoy runs/ppo-CartPole-v1/seed0\n"
    "pgest enjoy runs/ppo-CartPole-v1/seed0 --video cartpole.mp4",
)
@options.RUN
@click.option("--episodes", type=click.IntRange(min=1), default=1, show_default=True)
@options.BEST
@click.option(
    "--video", type=click.Path(path_type=Path), metavar="FILE.mp4", help="Instead of a window."
)
def enjoy(run: Path, episodes: int, best: bool, video: Path | None) -> None:
    """Watch the policy of RUN play greedily, in a window or in a file."""
    with options.told_plainly():
        found = run_directories.read(run)
        path = run_directories.checkpoint(found, best)
        environment: Any = task_environments.made(
            found.played(), render_mode="human" if video is None else "rgb_array"
        )
        if video is not None:
            environment = _filmed(environment, video)
        try:
            results = found.agent().evaluate(environment, episodes, checkpoint_path=path)
        finally:
            environment.close()
    click.echo(f"Return {results['return_mean']:.1f}{'' if video is None else f', in {video}'}.")


def _filmed(environment: Any, video: Path) -> filming.Filmed:
    try:
        filmed = filming.Filmed(environment)
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    filmed.film(video)
    return filmed
