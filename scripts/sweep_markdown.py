"""A sweep's JSON as Markdown: methods in rows, measures in columns, differences with intervals, controls below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fedtalk.sweeps.statistics import estimate

CONTROLS = ("no_adapter", "copy_moved", "copy_reference", "truth")


def cell(entry: dict[str, Any] | None) -> str:
    """Mean, half the interval, and the paired difference from the first variation with its interval; ``*`` excludes 0."""
    if entry is None:
        return ""
    text = f"{entry['mean']:.3f}"
    if entry["low"] is not None:
        text += f" ± {(entry['high'] - entry['low']) / 2:.3f}"
    other = entry.get("against_first")
    if other is not None:
        inside = f" [{other['low']:+.3f}, {other['high']:+.3f}]" if other["low"] is not None else ""
        text += f"; {other['mean']:+.3f}{inside}{'*' if other['low'] is not None and other['excludes_zero'] else ''}"
    return text


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
        f"**{title}** ({len(about['seeds'])} seeds, {about['date']}; {len(summary['failed'])} runs failed; row: {row}, where a "
        "method has it)",
        "",
        "| | " + " | ".join(measures) + " | bytes a client sends |",
        "| --- |" + " ---: |" * (len(measures) + 1),
    ]
    there = [name for name, entry in variations.items() if entry["measures"]]
    for name in there:
        found = variations[name]["measures"]
        own = row if f"{row}.psnr" in found else "trained"
        cells = [cell(found.get(f"{own}.{measure}")) for measure in measures]
        lines.append(f"| {named[name]} | " + " | ".join([*cells, sent(summary, name, folder)]) + " |")
    for control in CONTROLS:
        shown = [variations[there[0]]["measures"].get(f"{control}.{measure}") for measure in measures]
        cells = ["" if one is None else f"{one['mean']:.3f}" for one in shown]
        lines.append(f"| *{control}* | " + " | ".join([*cells, ""]) + " |")
    return [*lines, "", *gains(summary, named), *way_to_oracle(summary, row, measures, named)]


def sent(summary: dict[str, Any], variation: str, folder: Path) -> str:
    """Bytes of what a round exchanges, four a number, as a client without privacy sends them."""
    for one in summary["runs"]:
        path = folder / "runs" / one["folder"] / "checkpoints" / "last.ckpt"
        if one["variation"] == variation and path.exists():
            state = torch.load(path, map_location="cpu", weights_only=True)["server"]["state"]
            return f"{4 * sum(value.numel() for value in state.values()):,}"
    return ""


def gains(summary: dict[str, Any], named: dict[str, str]) -> list[str]:
    """What adapters bring over the backbone alone, paired by seed."""
    lines = []
    for name in summary["variations"]:
        runs = [run["measures"] for run in summary["runs"] if run["variation"] == name]
        parts = []
        for row in ("trained", "personal"):
            for measure in ("psnr_mouth", "mouth_corr", "mouth_corr_pooled"):
                pairs = [(run.get(f"{row}.{measure}"), run.get(f"no_adapter.{measure}")) for run in runs]
                differences = [one - other for one, other in pairs if one is not None and other is not None]
                if differences:
                    found = estimate(differences)
                    inside = f" [{found.low:+.3f}, {found.high:+.3f}]" if len(differences) > 1 else ""
                    parts.append(f"{row} {measure} {found.mean:+.3f}{inside}")
        if parts:
            lines.append(f"- {named[name]} less no_adapter: " + "; ".join(parts))
    return [*lines, ""]


def way_to_oracle(summary: dict[str, Any], row: str, measures: Sequence[str], named: dict[str, str]) -> list[str]:
    """Which share of the way from FedAvg to oracle weights each rule goes."""
    if "oracle" not in summary["variations"]:
        return []
    lines = []
    for measure in measures[:3]:
        means = {
            name: entry["measures"][f"{row}.{measure}"]["mean"]
            for name, entry in summary["variations"].items()
            if f"{row}.{measure}" in entry["measures"]
        }
        if {"oracle", "fedavg"} <= means.keys() and abs(means["oracle"] - means["fedavg"]) > 1e-9:
            way = means["oracle"] - means["fedavg"]
            shares = ", ".join(
                f"{named[name]} {(value - means['fedavg']) / way:+.2f}"
                for name, value in means.items()
                if name not in ("oracle", "fedavg")
            )
            lines.append(f"- {measure}, share of the way from fedavg to oracle ({way:+.4f}): {shares}")
    return [*lines, ""]
