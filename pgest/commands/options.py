"""What the commands share on the command line: options with several values, errors, endings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import gymnasium

from pgest.commands import task_settings
from pgest.environments import view

INTERRUPTED = 130
"""The exit code after Ctrl-C, as a shell has it: 128 and the number of SIGINT."""

RUN = click.argument("run", type=click.Path(path_type=Path))
BEST = click.option("--best", is_flag=True, help="The best checkpoint instead of the newest.")


class Command(click.Command):
    """A command whose help ends in an example, and whose repeatable options take lists.

    `--seed 0 1 2` is read as `--seed 0 --seed 1 --seed 2`.

    Args:
      example: command lines that work as they stand.
    """

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        kwargs["epilog"] = f"\b\nExample:\n{_indented(example)}"
        super().__init__(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Spreads lists, then reads them as click does."""
        repeatable = {
            name
            for parameter in self.params
            if isinstance(parameter, click.Option) and parameter.multiple
            for name in parameter.opts
        }
        spread: list[str] = []
        current = None  # the repeatable option whose values are being read
        first = False
        for position, word in enumerate(args):
            if word == "--":
                spread += args[position:]
                break
            if word.startswith("-") and not _is_number(word):
                current, first = (word, True) if word in repeatable else (None, False)
                spread.append(word)
            elif current is not None and not first:
                spread += [current, word]
            else:
                spread.append(word)
                first = False
        return super().parse_args(ctx, spread)


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """Errors that a person can mend, in one sentence and with exit code 2 or 1, not as a trace."""
    try:
        yield
    except task_settings.SettingsError as error:
        raise click.UsageError(str(error)) from error
    except (gymnasium.error.Error, view.EnvironmentFailure) as error:
        raise click.ClickException(f"The environment cannot be made: {error}") from error


def changes(config: Path | None, assignments: tuple[str, ...]) -> dict[str, Any]:
    """Settings of a file, and over them those of the command line."""
    found = {} if config is None else task_settings.read(config)
    found.update(task_settings.assignment(text) for text in assignments)
    return found


def _indented(example: str) -> str:
    return "\n".join(f"  {line}" for line in example.splitlines())


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
