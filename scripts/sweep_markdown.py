"""A sweep's JSON as Markdown: methods in rows, measures in columns, differences with intervals, controls below."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from fedtalk.sweeps.statistics import compare, estimate

CONTROLS = ("no_adapter", "swapped_audio", "copy_moved", "copy_reference", "truth")
ADAPTERS = {"personal": "personal adapters where a method has them", "trained": "the released adapter"}
"""What a row of a run's table was made with."""


def cell(values: dict[int, float], first: dict[int, float]) -> str:
    """Mean, half the interval, and the paired difference from the first row with its interval; ``*`` excludes 0.

    Args:
        values: by seed; empty for none.
        first: the first row's; the same object for the first row itself.
    """
    if not values:
        return ""
    found = estimate(list(values.values()))
    text = f"{found.mean:.3f}" + (f" ± {(found.high - found.low) / 2:.3f}" if found.seeds > 1 else "")
    if values is first or not values.keys() & first.keys():
        return text
    other = compare(values, first)
    inside = f" [{other.difference.low:+.3f}, {other.difference.high:+.3f}]" if other.difference.seeds > 1 else ""
    return f"{text}; {other.difference.mean:+.3f}{inside}{'*' if inside and other.excludes_zero else ''}"


def by_seed(summary: dict[str, Any], variation: str, row: str, measure: str) -> dict[int, float]:
    """A variation's values of a measure, in the row of its runs' tables that is shown: ``trained`` where they lack ``row``."""
    runs = [run for run in summary["runs"] if run["variation"] == variation]
    own = row if any(f"{row}.psnr" in run["measures"] for run in runs) else "trained"
    values = {run["seed"]: run["measures"].get(f"{own}.{measure}") for run in runs}
    return {seed: value for seed, value in values.items() if value is not None}


def table(
    summary: dict[str, Any], folder: Path, title: str, row: str, measures: Sequence[str], labels: Sequence[str]
) -> list[str]:
    """Lines of one sweep.

    Args:
        summary: the content of its ``sweep.json``.
        folder: of the sweep.
        title: of the table.
        row: of each run's own table; ``trained`` for a run without it.
        measures: in columns.
        labels: of the variations, in their order.
    """
    about, variations = summary["about"], summary["variations"]
    named = dict(zip(variations, labels, strict=True))
    lines = [
        f"**{title}, {ADAPTERS[row]}** ({len(about['seeds'])} seeds, {about['date']}; {len(summary['failed'])} runs failed)",
        "",
        "| | " + " | ".join(measures) + " | bytes a client sends |",
        "| --- |" + " ---: |" * (len(measures) + 1),
    ]
    there = [name for name, entry in variations.items() if entry["measures"]]
    first = {measure: by_seed(summary, there[0], row, measure) for measure in measures}
    for name in there:
        shown = {m: first[m] if name == there[0] else by_seed(summary, name, row, m) for m in measures}
        cells = [cell(shown[measure], first[measure]) for measure in measures]
        lines.append(f"| {named[name]} | " + " | ".join([*cells, sent(summary, name, folder)]) + " |")
    for control in CONTROLS:
        means = [variations[there[0]]["measures"].get(f"{control}.{measure}") for measure in measures]
        cells = ["" if one is None else f"{one['mean']:.3f}" for one in means]
        lines.append(f"| *{control}* | " + " | ".join([*cells, ""]) + " |")
    return [*lines, "", *way_to_oracle(summary, row, measures, named)]


def sent(summary: dict[str, Any], variation: str, folder: Path) -> str:
    """Bytes of what a client sends in a round, four a number, without privacy; of centralised training, where clips are what is
    sent, that."""
    for one in summary["runs"]:
        run = folder / "runs" / one["folder"]
        path = run / "checkpoints" / "last.ckpt"
        if one["variation"] == variation and path.exists():
            config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
            if config["data"]["init_args"].get("centralised"):
                return "its clips"
            saved = torch.load(path, map_location="cpu", weights_only=True)
            parts = [saved["server"]["state"], saved["server"].get("controls", {})] if saved["round"] else []
            return f"{4 * sum(value.numel() for part in parts for value in part.values()):,}"
    return ""


def gains(summary: dict[str, Any], labels: Sequence[str]) -> list[str]:
    """What adapters bring over the backbone alone, paired by seed; ``labels`` of the variations, in their order."""
    columns = [
        (row, measure)
        for row in ("trained", "personal")
        for measure in ("psnr_mouth", "mouth_corr", "mouth_corr_pooled")
    ]
    found: dict[str, dict[tuple[str, str], str]] = {}
    for name, label in zip(summary["variations"], labels, strict=True):
        runs = [run["measures"] for run in summary["runs"] if run["variation"] == name]
        for row, measure in columns:
            pairs = [(run.get(f"{row}.{measure}"), run.get(f"no_adapter.{measure}")) for run in runs]
            differences = [one - other for one, other in pairs if one is not None and other is not None]
            if differences:
                found.setdefault(label, {})[row, measure] = interval(differences)
    shown = [column for column in columns if any(column in cells for cells in found.values())]
    titles = [f"{'released' if row == 'trained' else row}: {measure}" for row, measure in shown]
    return _lines("less no adapter", titles, {k: [cells.get(c, "") for c in shown] for k, cells in found.items()})


def interval(differences: Sequence[float]) -> str:
    """Mean with Student's 95 % interval; alone where there is one value."""
    found = estimate(differences)
    return f"{found.mean:+.3f}" + (f" [{found.low:+.3f}, {found.high:+.3f}]" if found.seeds > 1 else "")


def _lines(corner: str, titles: Sequence[str], rows: dict[str, list[str]]) -> list[str]:
    """A table in Markdown; nothing where it has no rows."""
    if not rows:
        return []
    head = [f"| {corner} | " + " | ".join(titles) + " |", "| --- |" + " ---: |" * len(titles)]
    return [*head, *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()), ""]


def over_people(summary: dict[str, Any], folder: Path, row: str, labels: Sequence[str]) -> list[str]:
    """Differences from the first variation and from no adapter with intervals over people, each person's values averaged over
    seeds: how far they carry to others, where all seeds measure the same people.

    Args:
        summary: the content of the sweep's ``sweep.json``.
        folder: of the sweep.
        row: of each run's own table; ``trained`` for a run without it.
        labels: of the variations, in their order.
    """
    runs = [
        (run, json.loads((folder / "runs" / run["folder"] / "metrics.json").read_text())) for run in summary["runs"]
    ]

    def by_person(variation: str, row: str, measure: str) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for run, metrics in runs:
            for clip in metrics["clips"] if run["variation"] == variation else []:
                rows = clip["dub"]
                values = rows.get(row, {}) if row in metrics else rows.get("trained", {})
                if values.get(measure) is not None:
                    found.setdefault(clip["client"], []).append(values[measure])
        return {person: sum(values) / len(values) for person, values in found.items()}

    def difference(one: dict[str, float], other: dict[str, float]) -> str:
        common = sorted(one.keys() & other.keys())
        return interval([one[person] - other[person] for person in common]) if len(common) > 1 else ""

    measures = ("psnr_mouth", "mouth_corr", "identity")
    rows, first = {}, next(iter(summary["variations"]))
    for name, label in zip(summary["variations"], labels, strict=True):
        others = [("no adapter", name, "no_adapter"), *([] if name == first else [(labels[0], first, row)])]
        for other, variation, other_row in others:
            cells = [difference(by_person(name, row, m), by_person(variation, other_row, m)) for m in measures]
            if any(cells):
                rows[f"{label} less {other}"] = cells
    return _lines("intervals over people", measures, rows)


def way_to_oracle(summary: dict[str, Any], row: str, measures: Sequence[str], named: dict[str, str]) -> list[str]:
    """Which share of the way from FedAvg to oracle weights each rule goes, where there is such a way."""
    if not {"oracle", "fedavg"} <= summary["variations"].keys():
        return []
    lines = []
    for measure in measures[:3]:
        values = {name: by_seed(summary, name, row, measure) for name in summary["variations"]}
        first, best = values["fedavg"], values["oracle"]
        if not first.keys() & best.keys():
            continue
        found = compare(best, first)
        way, seeds = found.difference, sorted(first.keys() & best.keys())
        if way.seeds > 1 and not found.excludes_zero:
            lines.append(
                f"- {measure}: no way from fedavg to oracle, {way.mean:+.4f} [{way.low:+.4f}, {way.high:+.4f}]"
            )
        elif abs(way.mean) > 1e-9:
            shares = ", ".join(
                f"{named[name]} {sum(of[seed] - first[seed] for seed in seeds) / len(seeds) / way.mean:+.2f}"
                for name, of in values.items()
                if name not in ("oracle", "fedavg") and of.keys() >= set(seeds)
            )
            lines.append(f"- {measure}, share of the way from fedavg to oracle ({way.mean:+.4f}): {shares}")
    return [*lines, ""]
