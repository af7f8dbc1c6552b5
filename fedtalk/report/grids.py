"""Tables of the page, and those of a sweep: what is looked at first, then all measures by row of the runs' own tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedtalk.sweeps.summary import SHOWN

CONTROLS = ("swapped_audio", "silence", "copy_reference", "copy_moved", "grey", "truth", "codec")


@dataclass(frozen=True)
class Grid:
    """A table."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str], str]]
    """Name, cells, and the CSS class of the line."""
    note: str = ""


def sweep_grids(summary: Mapping[str, Any]) -> list[Grid]:
    """The first one is of the measures that `fedtalk sweep` prints, a row a measure and a column a variation."""
    variations = summary["variations"]
    names = list(variations)
    measures = list(dict.fromkeys(name for entry in variations.values() for name in entry["measures"]))
    note = f"mean [95 % interval over seeds]; below it the paired difference to {names[0]}, bold where its interval excludes 0"

    def rows(chosen: Sequence[str], whole: bool) -> list[tuple[str, list[str], str]]:
        return [
            (
                (measure.replace(".", ": ") if whole else measure.rpartition(".")[2]).replace("_", " "),
                [_estimate(entry["measures"].get(measure)) for entry in variations.values()],
                "control" if measure.rpartition(".")[0].rpartition(".")[2] in CONTROLS else "",
            )
            for measure in chosen
        ]

    first = [measure for measure in SHOWN if measure in measures] or measures
    grids = [Grid("what differs", names, rows(first, True), note)]
    grids += [Grid(title, names, rows(chosen, False), note) for title, chosen in _by_row(measures).items()]
    return grids


def _by_row(measures: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for measure in measures:
        found.setdefault(measure.rpartition(".")[0] or "measures", []).append(measure)
    return found


def _estimate(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    interval = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
    text = f"{row['mean']:.3f}{interval}"
    other = row.get("against_first")
    if other is None:
        return text
    spread = "" if other["low"] is None else f" [{other['low']:+.3f}, {other['high']:+.3f}]"
    mark = "*" if other["excludes_zero"] else ""
    return f"{text}\n{mark}{other['mean']:+.3f}{spread}"
