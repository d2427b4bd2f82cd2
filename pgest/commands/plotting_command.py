"""`pgest plot`: the curves of runs and seeds, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pgest.commands import options
from pgest.hooks import curves, plots


@click.command(
    cls=options.Command,
    example="pgest plot runs/ppo-CartPole-v1 runs/a2c-CartPole-v1 --smooth 10\n"
    "pgest plot runs --tag eval/episode/return --statistic iqm -o curves.png",
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUNS...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("curves.png"),
    show_default=True, help="A .png, .pdf or .svg file.",
)  # fmt: skip
@click.option("--tag", "tags", multiple=True, help="What to draw. [default: the returns there are]")
@click.option(
    "--statistic", type=click.Choice(plots.STATISTICS), default="median", show_default=True,
    help="Of several seeds: the median and its quartiles, or the interquartile mean and its 95 % "
    "interval.",
)  # fmt: skip
@click.option("--x", type=click.Choice(curves.X_AXES), default="timestep", show_default=True)
@click.option(
    "--smooth", type=click.IntRange(min=1), default=1, show_default=True, metavar="POINTS",
    help="Draw means over so many points.",
)  # fmt: skip
def plot(
    runs: tuple[Path, ...], output: Path, tags: tuple[str, ...], statistic: str, x: str, smooth: int
) -> None:
    """Draw the curves of RUNS, those that differ by their seed as one.

    RUNS are directories of runs, or directories above them.
    """
    try:
        figure: Any = plots.plot_runs(runs, *tags, statistic=statistic, x=x, smooth=smooth)
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, dpi=150)
    except (OSError, ValueError) as error:  # no room; a format that is none
        raise click.ClickException(f"{output} cannot be written: {error}") from error
    click.echo(output)
