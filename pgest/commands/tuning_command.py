"""`pgest tune`: searches settings with Optuna, and loses nothing where it is interrupted."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pgest import hooks
from pgest.agents import directory_lock
from pgest.commands import options, run_directories, searching, task_settings
from pgest.hooks import extras
from pgest.variables import whole_files

_BEST = "best.yaml"


@click.command(
    cls=options.Command,
    example="pgest tune --algo ppo --env CartPole-v1 --trials 50 --timesteps 50000\n"
    "pgest tune --algo a2c --env Acrobot-v1 -s 'learning_rate=log(1e-4, 1e-2)' "
    "'hidden_sizes=[[32], [64, 64]]'",
)
@options.model
@click.option("--env", "env_id", required=True, help="The id of a gymnasium environment.")
@click.option("--trials", type=click.IntRange(min=1), default=50, show_default=True, help="In all.")
@click.option(
    "--timesteps", type=click.IntRange(min=1), help="Of each trial. [default: the task's]"
)
@click.option(
    "-s", "ranges", metavar="KEY=RANGE", multiple=True,
    help="What to vary: log(low, high), uniform(low, high), int(low, high) or a list of choices.",
)  # fmt: skip
@click.option("--search", type=click.Path(path_type=Path), help="A YAML file of such ranges.")
@options.settings
@click.option("--evaluations", type=click.IntRange(min=1), default=10, show_default=True,
              help="How often a trial is evaluated, and perhaps pruned.")  # fmt: skip
@click.option("--eval-episodes", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--no-pruning", is_flag=True, help="Run each trial to its end.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the trials' runs.")
@click.option("--study-dir", type=click.Path(path_type=Path),
              help="Where trials go. [default: runs/tune-<algo>-<env>]")  # fmt: skip
@click.option(
    "--storage", metavar="URL|FILE",
    help="Of the study; a file is Optuna's journal. [default: study.db in --study-dir]",
)  # fmt: skip
def tune(**given: Any) -> None:
    """Search settings: train with some, evaluate, and try better ones.

    The same command goes on with its study, up to --trials in all. A trial that was interrupted
    goes on from its checkpoint. Several processes that are given the same command share its trials.
    best.yaml has the best settings, for `pgest train --config`.
    """
    try:
        optuna = extras.imported("optuna", "pgest tune", "tune")
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    with options.told_plainly():
        study = _Study(optuna, given)
        try:
            study.run()
        except KeyboardInterrupt:
            click.echo(
                f"{study.directory}: interrupted; the trial is saved, and the same command goes on "
                "from there.",
                err=True,
            )
            raise click.exceptions.Exit(options.INTERRUPTED) from None
        except OSError as error:
            raise click.ClickException(f"The trial is put back: {error}") from error
        study.report()


class _Study:
    """A study, and the trials of it that run here.

    Args:
      optuna: the library.
      given: the arguments of the command.
    """

    def __init__(self, optuna: Any, given: dict[str, Any]) -> None:
        self._optuna, self._given = optuna, given
        self._settings, changes = options.changed_settings(given)
        ranges = options.changes(given["search"], given["ranges"])
        self._ranges = searching.of(self._settings, ranges, changes)
        name = f"tune-{options.run_name(given)}"
        self.directory = (given["study_dir"] or Path("runs") / name).absolute()
        first = self._training_run(self.directory, {})
        first.environments().close()
        first.agent()  # what is wrong with the settings is found before the first trial
        self.directory.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self._alone():  # Optuna's tables are made once
            self._study = self._opened(name)

    def run(self) -> None:
        """Runs trials until there are as many as were asked for."""
        with self._alone():
            self._take_back()
        while True:
            with contextlib.ExitStack() as running:
                with self._alone():
                    if self._left() <= 0:
                        return
                    trial = self._study.ask()
                    number = _number(trial)
                    running.enter_context(directory_lock.DirectoryLock(self._lock_path(number)))
                    trial.set_user_attr("host", socket.gethostname())
                # A trial's own numbers: two processes do not try the same settings, and a study
                # tries the same ones each time.
                seed = (self._given["seed"] + number) % 2**32
                self._study.sampler = self._optuna.samplers.TPESampler(seed=seed)
                self._run_trial(trial, self.directory / f"trial{number}")

    def report(self) -> None:
        """Says what was best.

        Raises:
          ClickException: no trial came to its end.
        """
        if not self._of_state("COMPLETE"):
            raise click.ClickException(f"No trial came to its end; see {self.directory}.")
        best = self._study.best_trial
        click.echo(
            f"Best return {best.value:.1f}, of trial{_number(best)}: "
            f"{_shown(best.params)}\n{self.directory / _BEST}"
        )

    def _run_trial(self, trial: Any, directory: Path) -> None:
        """Runs one, and tells the study how it ended."""
        states = self._optuna.trial.TrialState
        params = {key: range_.suggest(trial, key) for key, range_ in self._ranges.items()}
        head = f"{directory.name}: "
        try:
            value = self._trained(trial, directory, params)
        except self._optuna.TrialPruned as pruned:
            self._study.tell(trial, state=states.PRUNED)
            click.echo(f"{head}{pruned}; {_shown(params)}")
        except (KeyboardInterrupt, OSError):  # a full disk: other settings would not help
            self._put_back(trial)
            raise
        except Exception as error:  # what does not fit together, weights that became NaN
            self._study.tell(trial, state=states.FAIL)
            reason = (str(error).splitlines() or [""])[0]
            click.echo(f"{head}failed, {type(error).__name__}: {reason}; {_shown(params)}")
        else:
            with self._alone():
                self._study.tell(trial, value)
                self._write_best()
            click.echo(f"{head}return {value:.1f}; {_shown(params)}")

    def _trained(self, trial: Any, directory: Path, params: dict[str, Any]) -> float:
        run = self._training_run(directory, params)
        run.write()
        every = hooks.Every(timesteps=max(1, run.settings.timesteps // self._given["evaluations"]))
        episodes = self._given["eval_episodes"]
        hook = hooks.OptunaPruningHook(
            trial, run.played(), every, episodes=episodes, keep_best=True
        )
        environments = run.environments()
        try:
            agent = run.agent()
            agent.train(environments, hooks=[hook], max_timesteps=run.settings.timesteps)
        finally:
            environments.close()
        if hook.value is None:  # it had come to its end before
            return float(agent.evaluate(run.played(), episodes)["return_mean"])
        return hook.value

    def _training_run(self, directory: Path, params: dict[str, Any]) -> Any:
        settings = self._settings.changed(params)
        seed, model = self._given["seed"], self._given["model"]
        return run_directories.TrainingRun(directory, self._given["env_id"], settings, seed, model)

    def _opened(self, name: str) -> Any:
        optuna, storages = self._optuna, self._optuna.storages
        url = self._given["storage"] or f"sqlite:///{self.directory / 'study.db'}"
        pruner = optuna.pruners.NopPruner()
        if not self._given["no_pruning"]:
            pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
        try:
            if "://" not in url:
                url = storages.JournalStorage(storages.journal.JournalFileBackend(url))
            study = optuna.create_study(
                study_name=name, storage=url, load_if_exists=True, direction="maximize",
                pruner=pruner,
            )  # fmt: skip
        except Exception as error:  # of whichever database the URL names
            reason = (str(error).splitlines() or [""])[0]
            raise task_settings.SettingsError(
                f"The storage {url!r} cannot be opened: {type(error).__name__}: {reason}"
            ) from error
        return study

    def _of_state(self, *names: str) -> list[Any]:
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state.name in names]

    def _left(self) -> int:
        """How many trials are to begin or to go on; one that was put back counts once."""
        begun = {
            _number(trial)
            for trial in self._of_state("COMPLETE", "PRUNED", "FAIL", "RUNNING")
            if "host" in trial.user_attrs  # else it was killed before it had begun
        }
        waiting = {_number(trial) for trial in self._of_state("WAITING")}
        return self._given["trials"] - len(begun - waiting)

    def _take_back(self) -> None:
        """Trials of processes of this machine that were killed go on here."""
        for trial in self._of_state("RUNNING"):
            if trial.user_attrs.get("host") != socket.gethostname():
                continue
            try:
                with directory_lock.DirectoryLock(self._lock_path(_number(trial))):
                    self._put_back(trial)
            except directory_lock.ModelDirInUseError:
                continue  # it is alive

    def _put_back(self, trial: Any) -> None:
        """Lets the next trial go on where this one stands."""
        number = _number(trial)
        self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
        params: dict[str, Any] = {}  # one that was killed at once does not know them all
        for earlier in self._of_state("FAIL"):
            params |= earlier.params if _number(earlier) == number else {}
        self._study.enqueue_trial(params, user_attrs={"goes_on": number})

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time; what is done here takes milliseconds."""
        lock = directory_lock.DirectoryLock(str(self.directory / "running"))
        with contextlib.ExitStack() as held:
            while True:
                try:
                    held.enter_context(lock)
                    break
                except directory_lock.ModelDirInUseError:
                    time.sleep(0.02)
            yield

    def _lock_path(self, number: int) -> str:
        return str(self.directory / "running" / f"trial{number}")

    def _write_best(self) -> None:
        best = self._study.best_trial
        directory = self.directory / f"trial{_number(best)}"
        values = dict(run_directories.read(directory).settings.values)
        values.pop("timesteps", None)  # a run that is not a trial takes the task's
        whole_files.write_text(self.directory / _BEST, task_settings.written(values))


def _number(trial: Any) -> int:
    """What the directory of a trial is called by: that of the one that it goes on with."""
    return int(trial.user_attrs.get("goes_on", trial.number))


def _shown(params: dict[str, Any]) -> str:
    return ", ".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in params.items()
    )
