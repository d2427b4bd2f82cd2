"""What the agent says of itself, as text for terminals and as tables for notebooks."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class CheckReport(str):
    """What `PGAgent.check` found: the text, which a notebook shows as a table, and once.

    Args:
      model: the part on modes, variables and compilation.
      rows: what was looked at in the environment, what was seen, and what is wrong (else empty).

    Attributes:
      rows: as given.

    >>> report = CheckReport("traces: TRAIN 1", [("reward", "1 to 1", "")])
    >>> print(report)
    traces: TRAIN 1
    <BLANKLINE>
    the environment, with random actions:
    reward  1 to 1  ok
    >>> report
    <CheckReport: 1 thing looked at in the environment, 0 faults>
    """

    rows: tuple[tuple[str, str, str], ...]
    _model: str
    _shown_in: object

    def __new__(cls, model: str, rows: Iterable[Sequence[str]] = ()) -> CheckReport:  # noqa: D102
        looked_at = tuple((name, seen, fault) for name, seen, fault in rows)
        report = super().__new__(cls, "\n".join([model, *_environment_lines(looked_at)]))
        report.rows, report._model, report._shown_in = looked_at, model, None
        return report

    def __repr__(self) -> str:
        faults = sum(bool(fault) for _, _, fault in self.rows)
        things = "thing" if len(self.rows) == 1 else "things"
        return (
            f"<CheckReport: {len(self.rows)} {things} looked at in the environment, "
            f"{faults} {'fault' if faults == 1 else 'faults'}>"
        )

    def show(self) -> None:
        """Prints the text; a notebook gets the tables."""
        shell = _ipython()
        self._shown_in = None if shell is None else shell.execution_count
        if not hasattr(shell, "kernel"):
            print(self)
            return
        display = sys.modules["IPython"].display.display
        display({"text/plain": str(self), "text/html": self._repr_html_()}, raw=True)

    def _repr_html_(self) -> str:
        found = [f'<pre style="line-height: 1.3">{html.escape(self._model)}</pre>']
        if self.rows:
            rows = [(name, seen, fault or "ok") for name, seen, fault in self.rows]
            found.append(table(rows, header=("the environment", "with random actions", "")))
        return "\n".join(found)

    def _ipython_display_(self) -> None:
        """IPython's way to show the result of a cell: not again where `check` has just done so."""
        shell = _ipython()
        if shell is None or self._shown_in != shell.execution_count:
            self.show()


class EvaluationResults(dict[str, float]):
    """Numbers by name, which a notebook shows as a table.

    >>> results = EvaluationResults({"return_mean": 500.0})
    >>> results
    {'return_mean': 500.0}
    >>> "<td>500</td>" in results._repr_html_()
    True
    """

    def _repr_html_(self) -> str:
        return table([(name, f"{value:,.6g}") for name, value in self.items()])


def table(rows: Iterable[Sequence[Any]], header: Sequence[str] = ()) -> str:
    """Rows of text as an HTML table, columns to the left.

    >>> table([("a", 1)])
    '<table style="text-align: left"><tbody><tr><td>a</td><td>1</td></tr></tbody></table>'
    """
    cells = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    return (
        '<table style="text-align: left">'
        + (f"<thead><tr>{head}</tr></thead>" if head else "")
        + f"<tbody>{''.join(f'<tr>{row}</tr>' for row in cells)}</tbody></table>"
    )


def settings_table(title: str, settings: Mapping[str, Any]) -> str:
    """Settings by name below a title, for notebooks."""
    return f"<b>{html.escape(title)}</b>" + table(settings.items())


def _environment_lines(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    if not rows:
        return []
    named, seen = (max(len(row[column]) for row in rows) for column in range(2))
    lines = [f"{row[0]:{named}}  {row[1]:{seen}}  {row[2] or 'ok'}" for row in rows]
    return ["", "the environment, with random actions:", *lines]


def _ipython() -> Any:
    """The shell of IPython or of a notebook; None in other programs."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
