"""The result of a sweep: by variation and measure, with intervals and paired tests; as JSON, CSV, TensorBoard and text."""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedtalk.storage import atomic_path, write_json
from fedtalk.sweeps.cells import difference_text, estimate_text
from fedtalk.sweeps.execution import Finished, SweepOutcome
from fedtalk.sweeps.plan import RUN_FOLDER, PlannedRun
from fedtalk.sweeps.statistics import Comparison, IntervalEstimate, compare, estimate

SHOWN = (
    "personal.psnr_mouth", "personal.mouth_corr", "personal.identity", "personal.flicker", "trained.psnr_mouth",
    "trained.mouth_corr", "trained.mouth_corr_pooled", "no_adapter.psnr_mouth", "no_adapter.mouth_corr",
    "copy_reference.psnr_mouth", "copy_moved.psnr_mouth", "swapped_audio.mouth_corr", "swapped_audio.mouth_corr_donor",
)  # fmt: skip
"""Measures of the printed table: the talker with its adapters, and the controls. The files have all of them."""


def summarise(runs: Sequence[PlannedRun], outcome: SweepOutcome, about: dict[str, Any]) -> dict[str, Any]:
    """What is written as ``sweep.json``.

    Args:
        runs: of the plan, in its order; the first variation is what the others are compared with.
        outcome: of their execution.
        about: what the sweep was asked for.

    Returns:
        ``about``; ``variations``: by name the arguments, seeds, and by measure mean, low, high, seeds and (but for the first
        variation) the paired difference with its interval and p value; ``runs``: every run with its measures, null where one is
        no finite number; ``failed``; and how many are ``pending``.
    """
    names = list(dict.fromkeys(run.variation.name for run in runs))
    by_variation = {name: _by_measure([f for f in outcome.finished if f.run.variation.name == name]) for name in names}
    first = by_variation[names[0]]
    variations: dict[str, Any] = {}
    for name in names:
        measures = {}
        for measure, values in by_variation[name].items():
            row: dict[str, Any] = _numbers(estimate(list(values.values())))
            if name != names[0] and values.keys() & first.get(measure, {}).keys():
                row["against_first"] = _comparison(compare(values, first[measure]))
            measures[measure] = row
        arguments = next(run.variation.arguments for run in runs if run.variation.name == name)
        variations[name] = {"arguments": list(arguments), "measures": measures}
    return {
        "about": about,
        "variations": variations,
        "runs": [
            {"variation": f.run.variation.name, "seed": f.run.seed, "key": f.run.key, "folder": f.folder.name,
             "seconds": round(f.seconds, 1), "measures": {name: _json_number(value) for name, value in f.metrics.items()}}
            for f in sorted(outcome.finished, key=lambda f: (names.index(f.run.variation.name), f.run.seed))
        ],
        "failed": [
            {"variation": f.run.variation.name, "seed": f.run.seed, "folder": f.folder.name, "reason": f.reason}
            for f in outcome.failed
        ],
        "pending": len(runs) - len(outcome.finished) - len(outcome.failed),
    }  # fmt: skip


def _by_measure(finished: Sequence[Finished]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for one in sorted(finished, key=lambda one: one.run.seed):
        for measure, value in one.metrics.items():
            if math.isfinite(value):
                found.setdefault(measure, {})[one.run.seed] = value
    return found


def _numbers(found: IntervalEstimate) -> dict[str, Any]:
    return {name: _json_number(value) for name, value in asdict(found).items()}


def _comparison(found: Comparison) -> dict[str, Any]:
    return {
        **_numbers(found.difference),
        "p_value": _json_number(found.p_value),
        "excludes_zero": found.excludes_zero,
    }


def _json_number(value: float) -> float | None:
    """JSON knows neither nan nor infinity."""
    return value if math.isfinite(value) else None


def write(summary: dict[str, Any], folder: Path) -> None:
    """Write ``sweep.json``, ``sweep.csv`` (a line a run and measure) and TensorBoard's hparams below ``folder``."""
    write_json(folder / "sweep.json", summary)
    with atomic_path(folder / "sweep.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["variation", "seed", "measure", "value"])
        for run in summary["runs"]:
            writer.writerows([run["variation"], run["seed"], name, value] for name, value in run["measures"].items())
    _write_hparams(summary, folder / "tensorboard")


def _write_hparams(summary: dict[str, Any], folder: Path) -> None:
    """One session a run, so that TensorBoard's hparams page sorts and plots them; written anew with every sweep, and those of
    runs that are not in it are removed.
    """
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    for earlier in folder.glob("*"):
        if not RUN_FOLDER.search(earlier.name):  # somebody else's
            continue
        for old in earlier.glob("events.*"):
            old.unlink()
        with contextlib.suppress(OSError):  # not empty: somebody put something into it
            earlier.rmdir()
    varied = _varied(summary["variations"])
    for run in summary["runs"]:
        settings = {"variation": run["variation"], "seed": run["seed"], **varied[run["variation"]]}
        with SummaryWriter(str(folder / run["folder"])) as writer:
            for part in hparams(settings, {f"sweep/{name}": 0.0 for name in run["measures"]}):
                writer._get_file_writer().add_summary(part)  # type: ignore[no-untyped-call]
            for name, value in run["measures"].items():
                writer.add_scalar(f"sweep/{name}", math.nan if value is None else value)


def _varied(variations: dict[str, Any]) -> dict[str, dict[str, str | float]]:
    """Values of varied keys by variation; numbers where all of a key's are, or TensorBoard would sort 10 before 2."""
    texts = {
        name: dict(
            argument[2:].split("=", 1)
            for argument in entry["arguments"]
            if argument.startswith("--") and "=" in argument
        )
        for name, entry in variations.items()
    }
    found: dict[str, dict[str, str | float]] = {name: {} for name in variations}
    for key in {key for values in texts.values() for key in values}:
        values = {name: one[key] for name, one in texts.items() if key in one}
        try:
            chosen: dict[str, str | float] = {name: float(text) for name, text in values.items()}
        except ValueError:
            chosen = dict(values)
        for name, value in chosen.items():
            found[name][key] = value
    return found


def tables(summary: dict[str, Any], measures: Sequence[str] = ()) -> list[Any]:
    """The table as a person reads it: a row a measure, a column a variation; a star where the paired interval excludes 0.

    Args:
        summary: of `summarise`.
        measures: which; `SHOWN` by default, as far as the runs have them.

    Returns:
        rich renderables.
    """
    from rich.table import Table
    from rich.text import Text

    variations, counts = summary["variations"], seed_counts(summary)
    known = dict.fromkeys(name for entry in variations.values() for name in entry["measures"])
    rows = [name for name in (measures or SHOWN) if name in known] or list(known)
    table = Table(
        title="mean [95 % interval over seeds]; second line: less the first variation, seed by seed; * interval excludes 0, "
        "as one of twenty does by chance"
    )
    table.add_column("")
    for name in variations:
        table.add_column(Text(titled(name, summary)), justify="right")
    for measure in rows:
        cells = [Text(cell(entry["measures"].get(measure), *counts[name])) for name, entry in variations.items()]
        table.add_row(Text(measure), *cells)
    shown: list[Any] = [table]
    if summary["failed"]:
        failed = Table(title=f"{len(summary['failed'])} runs failed")
        for column in ("variation", "seed", "reason"):
            failed.add_column(column)
        for entry in summary["failed"]:
            failed.add_row(Text(entry["variation"]), str(entry["seed"]), Text(entry["reason"]))
        shown.append(failed)
    return shown


def seed_counts(summary: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """By variation, how many seeds it has finished runs of, and how many of them the first variation has too."""
    seeds: dict[str, set[int]] = {name: set() for name in summary["variations"]}
    for run in summary["runs"]:
        seeds[run["variation"]].add(run["seed"])
    first = next(iter(seeds.values()), set())
    return {name: (len(own), len(own & first)) for name, own in seeds.items()}


def titled(variation: str, summary: Mapping[str, Any]) -> str:
    """A variation's name above its column, with its seeds where some are missing."""
    own, pairs = seed_counts(summary)[variation]
    asked = len(summary["about"]["seeds"])
    both = "" if pairs == own else f", {pairs} of them the first's too"
    return variation if own == asked == pairs else f"{variation} ({own} of {asked} seeds{both})"


def cell(row: Mapping[str, Any] | None, seeds: int, pairs: int) -> str:
    """A measure of a variation, and in a second line how it differs from the first variation's; empty where it has none.

    Args:
        row: of ``sweep.json``.
        seeds: that the variation has runs of; fewer than these are named.
        pairs: that the first variation has runs of too; fewer than these are named.
    """
    if row is None:
        return ""
    other = row.get("against_first")
    return estimate_text(row, seeds) + ("" if other is None else f"\n{difference_text(other, pairs)}")
