"""Tables of the page: those of a sweep, and those of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedtalk.evaluation.shown import BEST, WORST_BY
from fedtalk.evaluation.specs import HIGHER, LOWER, ONE, unit_and_goal
from fedtalk.sweeps.execution import flatten
from fedtalk.sweeps.summary import SHOWN, cell, seed_counts, titled

CONTROLS = (
    "no_adapter", "swapped_audio", "silence", "copy_reference", "copy_moved", "grey", "truth", "codec",
)  # fmt: skip
ARROWS = {HIGHER: "↑", LOWER: "↓", ONE: "→1"}
WORST_CLIPS = 8
OF_CLIPS = ("psnr_mouth", "mouth_corr", "identity", "flicker")
"""Measures of the table of worst clips."""
FOR_CONTROLS = "mouth_corr_donor"
"""The measure that a control, swapped audio, should be good at; of all others it is right to be bad at some."""
FIRST_COLUMNS = ("psnr_mouth", "mouth_corr", FOR_CONTROLS, "identity", "flicker")
"""What narrow screens show of a run's table without scrolling."""


@dataclass(frozen=True)
class Grid:
    """A table."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str], str]]
    """Name, cells, and the CSS class of the line. A line of a cell that begins with a star is bold."""
    note: str = ""


def named(measure: str, unit: bool = True) -> str:
    """A measure as tables name it: with its unit, where there is room, and where it should go.

    >>> named("psnr_mouth"), named("mouth_amplitude")
    ('psnr mouth, dB ↑', 'mouth amplitude →1')
    """
    of, goal = unit_and_goal(measure)
    name = measure.replace("_", " ") + (f", {of}" if unit and of else "")
    return f"{name} {ARROWS[goal]}" if goal in ARROWS else name


def plain(row: str) -> str:
    """A row's name as words."""
    return row.replace("_", " ")


def _line(measure: str, whole: bool) -> tuple[str, str]:
    """Name and CSS class of a line of one measure, such as ``personal.psnr_mouth``; which way a control goes isn't said."""
    row, _, name = measure.rpartition(".")
    control = row.rpartition(".")[2] in CONTROLS
    shown = named(name)
    if control and name != FOR_CONTROLS:
        shown = shown.rstrip("".join(ARROWS.values())).rstrip()
    return f"{plain(row.replace('.', ' '))}: {shown}" if whole and row else shown, "control" if control else ""


def sweep_grids(summary: Mapping[str, Any]) -> list[Grid]:
    """The first one is of the measures that `fedtalk sweep` prints, a row a measure and a column a variation."""
    variations, counts, seeds = summary["variations"], seed_counts(summary), len(summary["about"]["seeds"])
    names, columns = list(variations), [titled(name, summary) for name in variations]
    measures = list(dict.fromkeys(name for entry in variations.values() for name in entry["measures"]))
    note = "mean [95 % interval over seeds]" if seeds > 1 else "one seed: no intervals"
    if len(names) > 1:
        note += (
            f"; below it the difference to {names[0]}, seed by seed, bold where its interval excludes 0 (paired t test, "
            "uncorrected: one of twenty is by chance)"
        )

    def rows(chosen: Sequence[str], whole: bool) -> list[tuple[str, list[str], str]]:
        return [
            (
                name,
                [_bold(cell(entry["measures"].get(measure), *counts[one])) for one, entry in variations.items()],
                kind,
            )
            for measure in chosen
            for name, kind in [_line(measure, whole)]
        ]

    first = [measure for measure in SHOWN if measure in measures] or measures
    grids = [Grid("What differs", columns, rows(first, True), note)]
    grids += [Grid(title, columns, rows(chosen, False)) for title, chosen in _by_row(measures).items()]
    return grids


def side_by_side(runs: Mapping[str, Mapping[str, Any] | None]) -> list[Grid]:
    """Of several runs' ``metrics.json``: the measures that `fedtalk sweep` prints, a column a run; empty if none has any."""
    measured = {name: metrics for name, metrics in runs.items() if metrics}
    found = {name: flatten(metrics) for name, metrics in measured.items()}
    known = dict.fromkeys(measure for values in found.values() for measure in values)
    rows = []
    for measure in [measure for measure in SHOWN if measure in known] or list(known):
        name, kind = _line(measure, True)
        rows.append((name, [_number(values.get(measure)) for values in found.values()], kind))
    if not rows:
        return []
    clips = [str(metrics.get("about", {}).get("clips", "?")) for metrics in measured.values()]
    rows.append(("held-out clips", clips, ""))
    note = "means over each run's own held-out clips, without an interval: `fedtalk sweep` says what differs by more than chance"
    return [Grid("Side by side", list(measured), rows, note)]


def run_grids(metrics: Mapping[str, Any]) -> list[Grid]:
    """Of a run's ``metrics.json``: each task's rows, differences, and the clips that came out worst."""
    grids = [_rows_grid(task, rows, metrics) for task, rows in _tasks(metrics).items()]
    grids += [_differences(metrics["comparisons"])] if metrics.get("comparisons") else []
    return grids + ([worst] if (worst := _worst_clips(metrics.get("clips", []))).rows else [])


def _bold(text: str) -> str:
    """A star behind an interval is a mark in front of its line."""
    return "\n".join(f"*{line.replace(']*', ']')}" if "]*" in line else line for line in text.split("\n"))


def _by_row(measures: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for measure in measures:
        found.setdefault(measure.rpartition(".")[0] or "measures", []).append(measure)
    return found


def _tasks(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    dub = {name: row for name, row in metrics.items() if isinstance(row, dict) and "psnr" in row}
    return {"Dub": dub} | ({"Portrait": metrics["portrait"]} if metrics.get("portrait") else {})


def _rows_grid(task: str, rows: Mapping[str, Mapping[str, float]], metrics: Mapping[str, Any]) -> Grid:
    known = dict.fromkeys(name for row in rows.values() for name in row)
    columns = [name for name in FIRST_COLUMNS if name in known] + [name for name in known if name not in FIRST_COLUMNS]
    about = metrics.get("about", {})
    clips, fewer = about.get("clips", "?"), about.get("fewer_clips", {})
    lines = [
        (
            plain(name) + (f" ({fewer[name]} of {clips} clips)" if name in fewer else ""),
            [_number(row.get(column)) for column in columns],
            "control" if name in CONTROLS else "",
        )
        for name, row in rows.items()
    ]
    note = (
        f"means over {clips} held-out clips of {about.get('clients', '?')} clients; identity by {about.get('identity', '?')}, "
        f"opening by {about.get('openness', '?')}"
    )
    return Grid(task, [named(column, unit=False) for column in columns], lines, note)


def _differences(comparisons: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Grid:
    measures = list(dict.fromkeys(name for entry in comparisons.values() for name in entry))
    lines = []
    for pair, entry in comparisons.items():
        cells = []
        for name in measures:
            found = entry.get(name)
            if found and None in found.values():
                found = None
            mark = "*" if found and (found["low"] > 0 or found["high"] < 0) else ""
            cells.append(f"{mark}{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]" if found else "")
        lines.append((plain(pair), cells, ""))
    return Grid(
        "Differences", [named(name) for name in measures], lines,
        "mean over clips [95 % bootstrap interval over clients, too narrow with few of them], bold where it excludes 0",
    )  # fmt: skip


def own_row(clip: Mapping[str, Any]) -> Mapping[str, float]:
    """The scores of a clip's own talker: its personal adapter's, else the trained one's."""
    rows: Mapping[str, Mapping[str, float]] = clip.get("dub", {})
    return next((rows[name] for name in BEST if name in rows), {})


def worth(clip: Mapping[str, Any]) -> float:
    """What clips are ordered by: `WORST_BY` of the own talker; least where that is no number, most where it wasn't measured."""
    value = own_row(clip).get(WORST_BY, math.inf)
    return -math.inf if value is None or math.isnan(value) else value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _worst_clips(clips: Sequence[Mapping[str, Any]]) -> Grid:
    order = sorted((clip for clip in clips if WORST_BY in own_row(clip)), key=worth)
    rows = [
        (clip["client"], [_number(own_row(clip).get(name)) for name in OF_CLIPS], "") for clip in order[:WORST_CLIPS]
    ]
    return Grid(
        "Worst clips", [named(name) for name in OF_CLIPS], rows,
        f"by the mouth's PSNR, with the personal adapter where there is one; {len(rows)} of {len(order)} clips",
    )  # fmt: skip
