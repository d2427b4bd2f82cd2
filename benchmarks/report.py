"""Prints the stored results as the Markdown tables of docs/performance.md.

python benchmarks/report.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import training_speed
from support import measuring


def rows_of(name: str) -> list[dict[str, Any]]:
    """The stored rows of a benchmark, in the order of the goals."""
    labels = [row.label for row in training_speed.ROWS]

    def place(row: dict[str, Any]) -> int:
        of_goal = [at for at, label in enumerate(labels) if row["work"].startswith(label)]
        return of_goal[0] if of_goal else len(labels)

    path = measuring.RESULTS / f"{name}.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return sorted(rows, key=place)


def table(header: Iterable[str], lines: Iterable[Iterable[Any]]) -> None:
    """Prints one."""
    header = list(header)
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for line in lines:
        print("| " + " | ".join(str(cell) for cell in line) + " |")
    print()


def rate(row: dict[str, Any], name: str) -> str:
    """Thousands of timesteps a second, or seconds of a whole run."""
    if f"{name} seconds" in row:
        return f"{row[f'{name} seconds']:.1f} s"
    return f"{row[f'{name} timesteps/s']:,}"


def training_line(row: dict[str, Any]) -> list[str]:
    """One row beside its peer."""
    if "ratio" not in row:
        return [row["work"], "not measured: " + row.get("not measured", "yet"), "", "", "", ""]
    endings = (" timesteps/s", " seconds")
    columns = [key.removesuffix(end) for key in row for end in endings if key.endswith(end)]
    peer = next(name for name in columns if name != "pgest")
    span = f"{row['ratio lowest']:.2f} to {row['ratio highest']:.2f}"
    held = "yes" if row["ratio"] >= row["goal"] else "**no**"
    learnt = [key.removesuffix(" return") for key in row if key.endswith(" return")]
    wrong = [name for name in learnt if "NOT" in row[f"{name} return"]]
    learns = f"not {', '.join(wrong)}" if wrong else ", ".join(learnt)
    return [
        row["work"],
        rate(row, "pgest"),
        f"{peer}: {rate(row, peer)}",
        f"**{row['ratio']:.2f}** ({span})",
        f"{row.get('CPU ratio', '')}",
        f"{row['goal']}, {held}",
        learns,
    ]


def memory_line(row: dict[str, Any]) -> list[str]:
    """One run's memory."""
    peak, slope = row["peak over idle TensorFlow MB"], row["slope MB per million timesteps"]
    held = {True: "yes", False: "**no**"}
    line = [row["work"].removeprefix("memory: "), f"{row['timesteps']:,}", str(peak)]
    line.append(f"{row['goal MB']}, {held[row['peak holds']]}")
    if "slope holds" not in row:
        return [*line, "too short", ""]
    return [*line, f"{slope:.2f}", f"1, {held[row['slope holds']]}"]


def main() -> None:
    """Prints all tables."""
    header = ["work", "pgest", "peer", "ratio (lowest to highest)", "by CPU time", "goal", "learnt"]
    table(header, map(training_line, rows_of("training_speed")))
    header = ["work", "limit", "pgest", "fraction", "goal"]
    table(
        header,
        (
            [
                row["work"],
                f"{row['limit timesteps/s']:,}",
                f"{row['pgest timesteps/s']:,}",
                f"{row['fraction']:.2f}",
                row["goal"],
            ]
            for row in rows_of("limits")
        ),
    )
    parts = ["environment", "act", "memory", "update", "hooks", "the in-graph program",
             "collecting and advantages", "4 epochs", "the loop itself"]  # fmt: skip
    table(
        ["work", "us/timestep", *parts],
        (
            [row["work"], row["us/timestep"], *(row.get(part, "") for part in parts)]
            for row in rows_of("loop_profile")
        ),
    )
    footprint = rows_of("footprint")
    table(
        [
            "memory of",
            "timesteps",
            "peak over idle TensorFlow, MB",
            "goal",
            "MB per million",
            "goal",
        ],
        (memory_line(row) for row in footprint if "goal MB" in row),
    )
    for row in footprint:
        if "seconds" in row:
            print(f"`import pgest` beyond TensorFlow: {row['seconds']} s (goal {row['goal']} s).")


if __name__ == "__main__":
    main()
