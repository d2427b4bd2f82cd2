"""Files with a row an update or an episode: CSV and JSON lines."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from pgest.hooks import episode_means, monitor, records
from pgest.variables import whole_files

_ROWS = ("updates", "episodes")
_COUNTERS = ("step", "timestep", "episode")


class _RowsHook(monitor.BaseMonitor):
    """Appends rows to a file; what kind of file, a subclass says.

    A run that goes on has each row once: a checkpoint holds how many there were, and those of a
    run that died before its first checkpoint are beyond the counters that the next one begins with.
    """

    _suffix = ""

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, rows: str = "updates"
    ) -> None:
        if rows not in _ROWS:
            raise ValueError(
                f'{type(self).__name__} takes rows="updates" or rows="episodes"; got {rows!r}.'
            )
        self._rows = rows
        self._given = f"{rows}{self._suffix}" if path is None else os.fspath(path)
        self._file: IO[bytes] | None = None

    @property
    def path(self) -> str:
        """Where the rows are; known once a run has begun."""
        return self._path

    def begin(self, context: monitor.RunContext) -> None:
        """Opens the file, without rows of what the model does not know of."""
        self._path = os.path.abspath(os.path.join(context.model_dir or "", self._given))
        self._maker = records.RecordMaker(context)
        with self._telling():
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self._file = open(self._path, "a+b", buffering=0)
        now = [getattr(context, name) for name in _COUNTERS]
        self._count = self._cut(
            lambda count, row: all(was <= is_ for was, is_ in zip(row, now, strict=True))
        )

    def state(self) -> dict[str, Any]:
        """How many rows there are, and what the next one is made of."""
        return {"count": self._count, **self._maker.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on behind the last row that the checkpoint knows of."""
        self._maker.restore(state)
        self._count = self._cut(lambda count, row: count < state["count"])

    def after_run(self, context: monitor.RunContext) -> None:
        """Writes the row of an update."""
        if self._rows == "updates":
            self._append(self._maker.take(context))

    def after_episode(self, context: monitor.RunContext) -> None:
        """Takes the episode in, or writes its row."""
        if self._rows == "updates":
            self._maker.add_episodes(context)
            return
        for episode in context.episodes:
            means = episode_means.EpisodeMeans()
            means.add(episode)
            values = means.take()
            if values:  # it was not cut short
                self._append({**self._maker.counters(context), **values})

    def end(self, context: monitor.RunContext) -> None:
        """Writes what came since the last update, and closes the file."""
        if self._file is None:
            return
        try:
            if self._rows == "updates" and self._maker.has_news(context):
                self._append(self._maker.take(context))
        finally:
            self._file.close()
            self._file = None

    def _append(self, row: Mapping[str, float]) -> None:
        self._write(self._line(row))
        self._count += 1

    def _write(self, text: str) -> None:
        """Hands text to the system: a row is there although the process may die."""
        file: Any = self._file
        end = file.seek(0, os.SEEK_END)
        with self._telling():
            try:
                left = memoryview(text.encode())
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(end)  # no half row
                raise

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Says of what could not be written where it was to go, and what to do."""
        try:
            yield
        except OSError as error:
            raise OSError(
                f"{type(self).__name__} could not write to {self._path!r}: "
                f"{whole_files.reason(error)} Make room, or let the file be written to, and train "
                "again: it goes on with the run."
            ) from error

    def _cut(self, is_part: Callable[[int, list[float]], bool]) -> int:
        """Keeps the rows from the first on for which `is_part(rows before, counters)` is true.

        Returns:
          How many these are.
        """
        file: Any = self._file
        file.seek(0)
        with io.BufferedReader(io.FileIO(file.fileno(), closefd=False)) as lines:
            end, count = self._read_header(lines), 0
            for line in lines:
                if not line.endswith(b"\n"):  # the writer died while it wrote
                    break
                try:
                    counters = self._counters(line.decode())
                except (ValueError, LookupError, TypeError) as error:
                    raise self._is_no_file_of_ours() from error
                if not is_part(count, counters):
                    break
                end, count = end + len(line), count + 1
        file.truncate(end)
        file.seek(0, os.SEEK_END)
        return count

    def _is_no_file_of_ours(self) -> ValueError:
        name = type(self).__name__
        return ValueError(
            f"{name} was given {self._path!r}, which holds something else than the rows of a "
            f"{name}: choose another path."
        )

    def _read_header(self, lines: IO[bytes]) -> int:
        """Reads what stands before the rows; returns how many bytes that is."""
        return 0

    def _counters(self, line: str) -> list[float]:
        """The counters in a line, in the order of `_COUNTERS`."""
        raise NotImplementedError

    def _line(self, row: Mapping[str, float]) -> str:
        """The line of a row."""
        raise NotImplementedError


class CSVLoggerHook(_RowsHook):
    """Writes a CSV file, with a row for each update or for each episode.

    A row of an update has what a record of `HistoryHook` has: counters, seconds since the run
    began, metrics, means over the episodes since the last row, results of evaluations since. A row
    of an episode has the counters, `episode/return`, `episode/length` and the numbers of the
    environment's last `info`. A column that comes later is put behind the others, and is empty in
    the rows before it. Each row is in the file as soon as it is known.

    A run that is killed and goes on has every row once; a run that goes on after its end appends;
    a model that begins anew begins the file anew.

    Args:
      path: of the file; a relative one is in the run's `model_dir`, where it has one. "updates.csv"
        or "episodes.csv" unless given.
      rows: "updates" or "episodes".

    Raises:
      ValueError: `rows` is something else; or, when the run begins, the file holds something else.
      OSError: the file cannot be written.

    Example:
      >>> hook = CSVLoggerHook(rows="episodes")
    """

    _suffix = ".csv"

    def begin(self, context: monitor.RunContext) -> None:
        """Opens the file."""
        self._columns: list[str] = []
        super().begin(context)

    def _read_header(self, lines: IO[bytes]) -> int:
        header = lines.readline()
        self._columns = []
        if not header.endswith(b"\n"):  # empty, or its writer died
            return 0
        self._columns = next(csv.reader([header.decode(errors="replace")]))
        if not set(_COUNTERS) <= set(self._columns):
            raise self._is_no_file_of_ours()
        return len(header)

    def _counters(self, line: str) -> list[float]:
        values = next(csv.reader([line]))
        return [float(values[self._columns.index(name)]) for name in _COUNTERS]

    def _line(self, row: Mapping[str, float]) -> str:
        row = {" ".join(name.splitlines()): value for name, value in row.items()}
        new = [name for name in row if name not in self._columns]
        if new:
            self._add_columns(new)
        return _csv_line([_text(row[name]) if name in row else "" for name in self._columns])

    def _add_columns(self, names: Sequence[str]) -> None:
        """Writes the file anew, with further columns."""
        file: Any = self._file
        file.seek(0)
        _, *lines = file.read().decode().splitlines() or [""]
        columns, filling = [*self._columns, *names], "," * len(names)
        with self._telling():
            whole_files.write_text(
                self._path,
                _csv_line(columns) + "".join(f"{line}{filling}\n" for line in lines),
            )
            self._file = open(self._path, "a+b", buffering=0)
        file.close()
        self._columns = columns


class JSONLinesHook(_RowsHook):
    """Writes a file of JSON lines: an object for each update or for each episode.

    The rows are those of `CSVLoggerHook`. What a row does not have is left out of it; what JSON has
    no number for, a NaN or an infinity, is null.

    Args:
      path: as for `CSVLoggerHook`; "updates.jsonl" or "episodes.jsonl" unless given.
      rows: "updates" or "episodes".

    Raises:
      ValueError: as for `CSVLoggerHook`.
      OSError: the file cannot be written.

    Example:
      >>> hook = JSONLinesHook("log.jsonl")
    """

    _suffix = ".jsonl"

    def _counters(self, line: str) -> list[float]:
        row = json.loads(line)
        return [float(row[name]) for name in _COUNTERS]

    def _line(self, row: Mapping[str, float]) -> str:
        plain = {name: _plain(value) for name, value in row.items()}
        return json.dumps(plain, allow_nan=False) + "\n"


def _csv_line(values: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _plain(value: float) -> float | None:
    if isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else None
