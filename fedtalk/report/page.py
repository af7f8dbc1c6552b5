"""The page: sections out of the material, rendered by one template, everything inside one file."""

from __future__ import annotations

import base64
import mimetypes
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fedtalk.errors import ArtifactError
from fedtalk.report.charts import clients_chart, curves_chart
from fedtalk.report.collect import Curve, Material, RunRecord, collect
from fedtalk.report.grids import CONTROLS, Grid, sweep_grids
from fedtalk.storage import atomic_path
from fedtalk.version import __version__

FIRST_CURVES = ("held_out/loss", "held_out/diffusion", "train/loss", "round/update_norm", "privacy/epsilon_prv")
"""Curves that are shown at once; the others are behind a fold."""
SPREAD_ROWS = ("personal", "trained", "no_adapter")
SPREAD_MEASURES = ("psnr_mouth", "mouth_corr", "identity")
LARGEST_VIDEO = 4_000_000
"""Bytes; larger files are named and not embedded."""
LARGEST_WIDTH = 1600
"""Of a contact sheet, in pixels."""


@dataclass(frozen=True)
class EmbeddedVideo:
    title: str
    data: str
    """A data URI; empty where the file is too large."""
    note: str


@dataclass(frozen=True)
class RunSection:
    """One run on the page."""

    name: str
    folder: str
    config: str
    grids: list[Grid] = field(default_factory=list)
    charts: list[str] = field(default_factory=list)
    videos: list[EmbeddedVideo] = field(default_factory=list)
    sheet: str = ""
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
    shown = _curves(material.runs)
    return environment.get_template("report.html.j2").render(
        title=_title(material),
        version=__version__,
        date=time.strftime("%Y-%m-%d"),
        sweep=None if material.sweep is None else sweep_grids(material.sweep),
        about=None if material.sweep is None else material.sweep["about"],
        failed=[] if material.sweep is None else material.sweep["failed"],
        first_curves=[chart for tag, chart in shown if tag in FIRST_CURVES],
        other_curves=[chart for tag, chart in shown if tag not in FIRST_CURVES],
        privacy=_privacy(material.runs),
        runs=_sections(material, videos),
    )


def _title(material: Material) -> str:
    if material.sweep is not None:
        return f"Sweep of {len(material.sweep['variations'])} variations"
    return material.runs[0].name if len(material.runs) == 1 else f"{len(material.runs)} runs"


def _curves(runs: Sequence[RunRecord]) -> list[tuple[str, str]]:
    tags: dict[str, dict[str, list[Curve]]] = {}
    for run in runs:
        for tag, curve in run.curves.items():
            tags.setdefault(tag, {}).setdefault(run.group, []).append(curve)
    order = [tag for tag in FIRST_CURVES if tag in tags] + [tag for tag in tags if tag not in FIRST_CURVES]
    return [(tag, curves_chart(tag, tags[tag])) for tag in order]


def _privacy(runs: Sequence[RunRecord]) -> Grid | None:
    """The last value of what monitors logged below ``privacy/``, a column a run."""
    names = list(dict.fromkeys(tag for run in runs for tag in run.curves if tag.startswith("privacy/")))
    if not names:
        return None
    shown = [run for run in runs if any(tag in run.curves for tag in names)]
    rows = []
    for tag in names:
        cells = [f"{list(run.curves[tag].values())[-1]:.4g}" if tag in run.curves else "" for run in shown]
        rows.append((tag.removeprefix("privacy/").replace("_", " "), cells, ""))
    return Grid("privacy after the last round", [run.name for run in shown], rows)


def _sections(material: Material, videos: int) -> list[RunSection]:
    """Of all runs; those of a sweep have pictures in the first one of each variation, or the page would be too large to open."""
    sections, shown = [], set[str]()
    for run in material.runs:
        pictured = material.sweep is None or run.group not in shown
        shown.add(run.group)
        sections.append(_section(run if pictured else replace(run, videos=[], contact_sheet=None), videos))
    return sections


def _section(run: RunRecord, videos: int) -> RunSection:
    grids: list[Grid] = []
    charts: list[str] = []
    if run.metrics is not None:
        grids = [_metrics_grid(task, rows, run.metrics) for task, rows in _tasks(run.metrics).items()]
        grids += [_comparisons(run.metrics)] if run.metrics.get("comparisons") else []
        charts = _spread(run.metrics)
    return RunSection(
        run.name, str(run.folder.name), run.config, grids, charts, _videos(run, videos),
        "" if run.contact_sheet is None else _picture_uri(run.contact_sheet),
        {} if run.metrics is None else run.metrics.get("about", {}).get("unavailable", {}),
    )  # fmt: skip


def _tasks(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    dub = {name: row for name, row in metrics.items() if isinstance(row, dict) and "psnr" in row}
    return {"dub": dub} | ({"portrait": metrics["portrait"]} if metrics.get("portrait") else {})


def _metrics_grid(task: str, rows: Mapping[str, Mapping[str, float]], metrics: Mapping[str, Any]) -> Grid:
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [
        (
            name,
            [f"{row[column]:.3f}" if column in row else "" for column in columns],
            "control" if name in CONTROLS else "",
        )
        for name, row in rows.items()
    ]
    about = metrics.get("about", {})
    note = (
        f"means over {about.get('clips', '?')} held-out clips of {about.get('clients', '?')} clients; identity by "
        f"{about.get('identity', '?')}, opening by {about.get('openness', '?')}"
    )
    return Grid(task, [column.replace("_", " ") for column in columns], lines, note)


def _comparisons(metrics: Mapping[str, Any]) -> Grid:
    measures = list(dict.fromkeys(name for entry in metrics["comparisons"].values() for name in entry))
    lines = []
    for pair, entry in metrics["comparisons"].items():
        cells = []
        for name in measures:
            found = entry.get(name)
            mark = "*" if found and (found["low"] > 0 or found["high"] < 0) else ""
            cells.append(f"{mark}{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]" if found else "")
        lines.append((pair, cells, ""))
    return Grid(
        "differences", [name.replace("_", " ") for name in measures], lines,
        "mean over clips [95 % bootstrap interval over clients], bold where it excludes 0",
    )  # fmt: skip


def _spread(metrics: Mapping[str, Any]) -> list[str]:
    clips, units = metrics.get("clips", []), metrics.get("about", {}).get("measures", {})
    charts = []
    for measure in SPREAD_MEASURES:
        rows: dict[str, dict[str, list[float]]] = {}
        for clip in clips:
            for row in SPREAD_ROWS:
                value = clip.get("dub", {}).get(row, {}).get(measure)
                if value is not None:
                    rows.setdefault(row, {}).setdefault(clip["client"], []).append(value)
        if rows:
            unit = units.get(measure, {}).get("unit", "")
            charts.append(clients_chart(f"{measure.replace('_', ' ')} by client", unit, rows))
    return charts


def _videos(run: RunRecord, most: int) -> list[EmbeddedVideo]:
    """Videos of the clients that came out worst first."""
    clips = [] if run.metrics is None else run.metrics.get("clips", [])
    worth = {clip["client"]: _worth(clip) for clip in reversed(clips)}
    order = sorted(run.videos, key=lambda path: (_client_worth(path.name, worth), path.name))
    found = []
    for path in order[:most]:
        size = path.stat().st_size
        value = _client_worth(path.name, worth)
        note = f"mouth {value:.1f} dB" if value != float("inf") else ""
        if size > LARGEST_VIDEO:
            note = f"{size / 1e6:.1f} MB, too large for the page: {path}"
        found.append(EmbeddedVideo(path.stem, "" if size > LARGEST_VIDEO else _data_uri(path), note))
    return found


def _worth(clip: Mapping[str, Any]) -> float:
    rows = clip.get("dub", {})
    best: Mapping[str, float] = next((rows[name] for name in SPREAD_ROWS if name in rows), {})
    return float(best.get("psnr_mouth", float("inf")))


def _client_worth(file_name: str, worth: Mapping[str, float]) -> float:
    """Of the client whose name begins the file's; the longest that fits."""
    fitting = [client for client in worth if file_name.startswith(client)]
    return worth[max(fitting, key=len)] if fitting else float("inf")


def _picture_uri(path: Path) -> str:
    """A picture as a page needs it: JPEG, at most `LARGEST_WIDTH` wide."""
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ArtifactError(f"report: {path} is no picture; run `fedtalk test` again to make it anew")
    factor = LARGEST_WIDTH / picture.shape[1]
    if factor < 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    _, made = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return f"data:image/jpeg;base64,{base64.b64encode(made.tobytes()).decode()}"


def _data_uri(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
