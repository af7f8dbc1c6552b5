"""Tables of the page: those of a sweep, and those of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedtalk.evaluation.shown import BEST, WORST_BY
from fedtalk.evaluation.specs import HIGHER, LOWER, ONE, unit_and_goal
from fedtalk.sweeps.summary import SHOWN, cell, seed_counts, titled

CONTROLS = (
    "no_adapter", "swapped_audio", "silence", "copy_reference", "copy_moved", "grey", "truth", "codec",
)  # fmt: skip
ARROWS = {HIGHER: "↑", LOWER: "↓", ONE: "→1"}
WORST_CLIPS = 8
OF_CLIPS = ("psnr_mouth", "mouth_corr", "identity", "flicker")
"""Measures of the table of worst clips."""


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
                f"{plain(row.replace('.', ' '))}: {named(name)}" if whole and row else named(name),
                [_bold(cell(entry["measures"].get(measure), *counts[one])) for one, entry in variations.items()],
                "control" if row.rpartition(".")[2] in CONTROLS else "",
            )
            for measure in chosen
            for row, _, name in [measure.rpartition(".")]
        ]

    first = [measure for measure in SHOWN if measure in measures] or measures
    grids = [Grid("What differs", columns, rows(first, True), note)]
    grids += [Grid(title, columns, rows(chosen, False)) for title, chosen in _by_row(measures).items()]
    return grids


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
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    about = metrics.get("about", {})
    clips, fewer = about.get("clips", "?"), about.get("fewer_clips", {})
    lines = [
        (
            plain(name) + (f" ({fewer[name]} of {clips} clips)" if name in fewer else ""),
            [f"{row[column]:.3f}" if column in row else "" for column in columns],
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


def _worst_clips(clips: Sequence[Mapping[str, Any]]) -> Grid:
    order = sorted((clip for clip in clips if WORST_BY in own_row(clip)), key=lambda clip: own_row(clip)[WORST_BY])
    rows = [
        (clip["client"], [f"{own_row(clip)[name]:.3f}" if name in own_row(clip) else "" for name in OF_CLIPS], "")
        for clip in order[:WORST_CLIPS]
    ]
    return Grid(
        "Worst clips", [named(name) for name in OF_CLIPS], rows,
        f"by the mouth's PSNR, with the personal adapter where there is one; {len(rows)} of {len(order)} clips",
    )  # fmt: skip
