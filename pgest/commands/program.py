"""The program `pgest`: it gathers the commands."""

from __future__ import annotations

from typing import Any

import click

from pgest.commands import (
    options,
    playing_commands,
    plotting_command,
    settings_command,
    training_command,
    tuning_command,
)


class _Program(click.Group):
    """Says Ctrl-C with the same exit code at every moment; click would say 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(options.INTERRUPTED) from None


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pgest", prog_name="pgest")
def pgest() -> None:
    """Policy gradients on TensorFlow, from the command line.

    `pgest train` trains; the other commands take the directory of a run. Each says with --help what
    it takes, and shows an example.
    """


for command in (
    training_command.train,
    tuning_command.tune,
    playing_commands.evaluate,
    playing_commands.enjoy,
    playing_commands.export,
    plotting_command.plot,
    settings_command.settings,
):
    pgest.add_command(command)


def main() -> None:
    """What the console script and `python -m pgest` call; it ends the process."""
    pgest(prog_name="pgest")
