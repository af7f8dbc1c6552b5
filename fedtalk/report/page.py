"""The page: sections out of the material, rendered by one template, everything inside one file."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from fedtalk.errors import ArtifactError
from fedtalk.evaluation.specs import unit_and_goal
from fedtalk.report.charts import client_curves_chart, clients_chart, curves_chart, differences_chart
from fedtalk.report.collect import Curve, Material, RunRecord, collect
from fedtalk.report.grids import Grid, named, plain, run_grids, side_by_side, sweep_grids
from fedtalk.report.pictures import EmbeddedVideo, embedded_videos, picture_uri
from fedtalk.report.privacy import privacy_grids, unbounded
from fedtalk.storage import atomic_path
from fedtalk.version import __version__

FIRST_CURVES = ("held_out/loss", "held_out/diffusion", "train/loss", "round/update_norm", "privacy/epsilon_prv")
"""Curves that are shown at once; the others are behind a fold."""
MOST_CURVES = 60
"""Charts behind the fold; a page of more would take minutes to make and to open."""
OF_CLIENTS = "client_"
"""What tags begin with that have a client's name behind the stroke."""
SPREAD_ROWS = ("personal", "trained", "no_adapter")
SPREAD_MEASURES = ("psnr_mouth", "mouth_corr", "identity")


@dataclass(frozen=True)
class RunSection:
    """One run on the page."""

    name: str
    folder: str
    what: str
    config: str
    grids: list[Grid] = field(default_factory=list)
    charts: list[str] = field(default_factory=list)
    videos: list[EmbeddedVideo] = field(default_factory=list)
    sheet: str = ""
    damaged: str = ""
    """What of the run's pictures can't be shown, and why."""
    unavailable: Mapping[str, str] = field(default_factory=dict)


def write_report(folders: Sequence[Path], out: Path, videos: int = 6) -> Path:
    """Write the page of runs or a sweep.

    Args:
        folders: see `fedtalk.report.collect.collect`.
        out: the HTML file; written atomically.
        videos: embedded videos of each run, at most.

    Raises:
        ArtifactError: as for `collect`.
        OutputError: ``out`` can't be written.
    """
    text = render(collect(folders), videos)
    with atomic_path(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out


def render(material: Material, videos: int = 6) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fedtalk.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    shown, sweep = _curves(material.runs), material.sweep
    several = sweep is None and len(material.runs) > 1
    return environment.get_template("report.html.j2").render(
        title=_title(material),
        version=__version__,
        date=time.strftime("%Y-%m-%d"),
        sweep=None if sweep is None else sweep_grids(sweep),
        differences=[] if sweep is None else _differences(sweep),
        together=side_by_side({run.name: run.metrics for run in material.runs}) if several else [],
        about=None if sweep is None else sweep["about"],
        failed=[] if sweep is None else sweep["failed"],
        pending=0 if sweep is None else sweep.get("pending", 0),
        lost=material.lost,
        first_curves=shown.first,
        other_curves=shown.others,
        unshown_curves=shown.unshown,
        privacy=privacy_grids(material.runs),
        unbounded=unbounded(material.runs),
        runs=_sections(material, videos),
    )


def _title(material: Material) -> str:
    if material.sweep is not None:
        count = len(material.sweep["variations"])
        return f"{material.folder}: sweep of {count} variation{'' if count == 1 else 's'}"
    return material.runs[0].name if len(material.runs) == 1 else f"{len(material.runs)} runs"


def _differences(sweep: Mapping[str, Any]) -> list[str]:
    """A forest plot for each row and measure of `SPREAD_ROWS` and `SPREAD_MEASURES` in which variations differ."""
    first, *others = sweep["variations"]
    charts = []
    for row in SPREAD_ROWS:
        for measure in SPREAD_MEASURES:
            entries = {name: sweep["variations"][name]["measures"].get(f"{row}.{measure}", {}) for name in others}
            found = {name: one["against_first"] for name, one in entries.items() if one.get("against_first")}
            if any(one["mean"] for one in found.values()):
                unit = unit_and_goal(measure)[0]
                title = f"{plain(row)}: {named(measure, unit=False)}, less {first}"
                charts.append(differences_chart(title, unit, found))
    return charts


@dataclass(frozen=True)
class _Charts:
    first: list[str]
    others: list[str]
    unshown: list[str]
    """Tags that the page has no room for."""


def _curves(runs: Sequence[RunRecord]) -> _Charts:
    """By tag, a line a group; what is logged of each client is a chart for all of them."""
    tags: dict[str, dict[str, list[Curve]]] = {}
    of_clients: dict[str, dict[str, dict[str, list[Curve]]]] = {}
    groups = list(dict.fromkeys(run.group for run in runs))
    for run in runs:
        for tag, curve in run.curves.items():
            kind, _, client = tag.partition("/")
            if kind.startswith(OF_CLIENTS) and client:
                of_clients.setdefault(kind, {}).setdefault(run.group, {}).setdefault(client, []).append(curve)
            else:
                tags.setdefault(tag, {}).setdefault(run.group, []).append(curve)
    first = [tag for tag in FIRST_CURVES if tag in tags]
    others = [*of_clients, *(tag for tag in tags if tag not in FIRST_CURVES)]
    charts = [
        client_curves_chart(tag.replace("_", " "), of_clients[tag], groups)
        if tag in of_clients
        else curves_chart(tag, tags[tag], groups)
        for tag in others[:MOST_CURVES]
    ]
    return _Charts([curves_chart(tag, tags[tag], groups) for tag in first], charts, others[MOST_CURVES:])


def _sections(material: Material, videos: int) -> list[RunSection]:
    """Of all runs; those of a sweep have pictures in the first one of each variation, or the page would be too large to open."""
    sections, shown = [], set[str]()
    for run in material.runs:
        pictured = material.sweep is None or run.group not in shown
        shown.add(run.group)
        sections.append(_section(run if pictured else replace(run, videos=[], contact_sheet=None), videos))
    return sections


def _section(run: RunRecord, videos: int) -> RunSection:
    metrics = run.metrics or {}
    sheet, damaged = "", ""
    try:
        sheet = "" if run.contact_sheet is None else picture_uri(run.contact_sheet)
    except ArtifactError as error:
        damaged = str(error).removeprefix("report: ")
    return RunSection(
        run.name, str(run.folder.name), what_was_run(run.config), run.config, run_grids(metrics) if metrics else [],
        _spread(metrics), embedded_videos(run.videos, metrics.get("clips", []), videos),
        sheet, damaged, metrics.get("about", {}).get("unavailable", {}),
    )  # fmt: skip


def what_was_run(config: str) -> str:
    """A run's config in a line; empty for one that says nothing of it.

    >>> what_was_run("seed_everything: 3\\ntrainer: {rounds: 9, aggregation: {class_path: fedtalk.ISFA}, privacy: null}")
    'ISFA, 9 rounds, without noise, seed 3'
    """
    try:
        read = yaml.safe_load(config)
    except yaml.YAMLError:
        return ""
    settings: dict[str, Any] = read if isinstance(read, dict) else {}
    trainer = settings.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    parts = [_class(settings.get("model")), _class(settings.get("data")), _class(trainer.get("aggregation"))]
    if "rounds" in trainer:
        parts.append(f"{trainer['rounds']} rounds")
    if "privacy" in trainer:
        parts.append("private" if trainer["privacy"] else "without noise")
    if "seed_everything" in settings:
        parts.append(f"seed {settings['seed_everything']}")
    return ", ".join(part for part in parts if part)


def _class(entry: Any) -> str:
    """The name of a class in a config, with its few numbers that say how large it is."""
    if not isinstance(entry, dict) or "class_path" not in entry:
        return ""
    name, given = str(entry["class_path"]).rpartition(".")[2], entry.get("init_args")
    given = given if isinstance(given, dict) else {}
    size = [f"{given[key]} {key}" for key in ("speakers", "clips", "frames") if isinstance(given.get(key), int)]
    size += (
        [f"rank {given['adapter']['rank']}"]
        if isinstance(given.get("adapter"), dict) and "rank" in given["adapter"]
        else []
    )
    return name + (f" ({', '.join(size)})" if size else "")


def _spread(metrics: Mapping[str, Any]) -> list[str]:
    charts = []
    for measure in SPREAD_MEASURES:
        rows: dict[str, dict[str, list[float]]] = {}
        for clip in metrics.get("clips", []):
            for row in SPREAD_ROWS:
                value = clip.get("dub", {}).get(row, {}).get(measure)
                if value is not None and math.isfinite(value):
                    rows.setdefault(plain(row), {}).setdefault(clip["client"], []).append(value)
        if rows:
            charts.append(clients_chart(named(measure), unit_and_goal(measure)[0], rows))
    return charts
