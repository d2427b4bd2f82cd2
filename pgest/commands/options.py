"""What the commands share on the command line: options with several values, errors, endings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import gymnasium

from pgest.commands import task_settings
from pgest.environments import view

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])

INTERRUPTED = 130
"""The exit code after Ctrl-C, as a shell has it: 128 and the number of SIGINT."""

RUN = click.argument("run", type=click.Path(path_type=Path))
BEST = click.option("--best", is_flag=True, help="The best checkpoint instead of the newest.")


def model(command: _Decorated) -> _Decorated:
    """Options that say what is trained: `--algo` or `--model`."""
    algo = click.option(
        "--algo", type=click.Choice(sorted(task_settings.MODELS)), help="The algorithm."
    )
    own = click.option(
        "--model", metavar="MODULE:NAME", help="A model_fn of your own, instead of --algo."
    )
    return algo(own(command))


def settings(command: _Decorated) -> _Decorated:
    """Options that change settings: `-p`, `--config`, `--num-envs`."""
    assignments = click.option(
        "-p", "assignments", metavar="KEY=VALUE", multiple=True, help="Settings, over all others."
    )
    config = click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="A YAML file of settings, over the tuned ones.",
    )
    num_envs = click.option(
        "--num-envs", type=click.IntRange(min=1), help="Environments stepped at once."
    )
    return assignments(config(num_envs(command)))


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


def changed_settings(given: Mapping[str, Any]) -> tuple[task_settings.Settings, dict[str, Any]]:
    """The settings that a command line asks for, and what it has changed of them.

    Args:
      given: the arguments of `model` and `settings`, `env_id` and `timesteps`.

    Raises:
      UsageError: it does not say what to train.
      SettingsError: settings that do not fit.
    """
    if (given["algo"] is None) == (given["model"] is None):
        raise click.UsageError("Give either --algo or --model.")
    if given["model"] is None:
        found = task_settings.tuned(given["algo"], given["env_id"])
    else:
        found = task_settings.Settings(None, {}, f"for {given['model']}")
    asked = changes(given["config"], given["assignments"])
    asked |= {key: given[key] for key in ("num_envs", "timesteps") if given[key] is not None}
    return found.changed(asked), asked


def run_name(given: Mapping[str, Any]) -> str:
    """What a directory of such runs is called."""
    name = given["algo"] or str(given["model"]).replace(":", ".")
    return f"{name}-{given['env_id'].replace('/', '-')}"


def _indented(example: str) -> str:
    return "\n".join(f"  {line}" for line in example.splitlines())


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
