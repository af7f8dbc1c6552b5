"""What finished runs left in their folders, read for a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtalk.errors import ArtifactError
from fedtalk.privacy.ledger_report import shown_epsilons
from fedtalk.report.sweep_json import check_summary
from fedtalk.sweeps.sweep import UNFINISHED

Curve = dict[int, float]
"""Values by step (a round)."""


@dataclass(frozen=True)
class RunRecord:
    """One run."""

    name: str
    """As the page shows it: the folder, or the variation and seed of a sweep."""
    folder: Path
    group: str
    """Runs of one group are averaged: the variation of a sweep, else the run itself."""
    config: str
    """``config.yaml`` as it is; empty where there is none."""
    curves: dict[str, Curve]
    """TensorBoard's scalars by tag."""
    metrics: dict[str, Any] | None
    """``metrics.json`` of `fedtalk test`."""
    videos: list[Path] = field(default_factory=list)
    contact_sheet: Path | None = None
    epsilons: list[dict[str, Any]] = field(default_factory=list)
    """What the ledger says by adversary; empty for a run that spent nothing."""
    audit: dict[str, Any] | None = None
    """``audit.json`` of `fedtalk audit`."""


@dataclass(frozen=True)
class Material:
    """All that a page shows."""

    runs: list[RunRecord]
    sweep: dict[str, Any] | None = None
    """``sweep.json``, or ``unfinished.json`` of a sweep that goes on."""
    folder: str = ""
    """Name of the sweep's folder."""
    lost: list[str] = field(default_factory=list)
    """Finished runs of the sweep whose folders can't be read any more, each with the reason; its tables still have them."""


def collect(folders: Sequence[Path]) -> Material:
    """Read runs, or one sweep.

    Args:
        folders: of runs, or a single folder of `fedtalk sweep`.

    Raises:
        ArtifactError: a folder that holds neither, a damaged file, a sweep beside others, a folder given twice.
    """
    if not folders:
        raise ArtifactError("report: expected at least one folder of a run or a sweep, got none")
    real = [folder.expanduser().resolve() for folder in folders]
    if len(set(real)) < len(real):
        raise ArtifactError(f"report: expected each folder once, got {', '.join(map(str, folders))}")
    sweeps = [folder for folder in folders if _summary(folder.expanduser()) is not None]
    if sweeps:
        if len(folders) > 1:
            raise ArtifactError(f"report: a sweep makes a page of its own; give {sweeps[0]} alone, or runs without it")
        return _sweep(folders[0].expanduser())
    names = _short_names(real)
    return Material([read_run(folder, name, name) for folder, name in zip(real, names, strict=True)])


def _summary(folder: Path) -> Path | None:
    """A sweep's summary; that of one that goes on before that of an earlier one in the same folder."""
    return next((path for name in (UNFINISHED, "sweep.json") if (path := folder / name).is_file()), None)


def _sweep(folder: Path) -> Material:
    path = _summary(folder)
    assert path is not None, "asked of a folder without a summary"
    summary = _json(path)
    check_summary(summary, path)
    runs, lost = [], []
    for entry in summary["runs"]:
        name = f"{entry['variation']}, seed {entry['seed']}"
        try:
            runs.append(read_run(folder / "runs" / entry["folder"], name, entry["variation"]))
        except ArtifactError as error:
            lost.append(f"{name}: {str(error).removeprefix('report: ')}")
    return Material(runs, summary, folder.resolve().name, lost)


def read_run(folder: Path, name: str, group: str) -> RunRecord:
    """One run's record.

    Raises:
        ArtifactError: the folder is no run's, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise ArtifactError(f"report: {folder} is no folder; expected one in which `fedtalk fit` ran")
    config, metrics, curves = folder / "config.yaml", folder / "metrics.json", folder / "tensorboard"
    if (folder / "runs").is_dir() and not config.exists():
        raise ArtifactError(
            f"report: {folder} is of a sweep that has no finished run yet, or one that ended without sweep.json; go on with its "
            "command, or name folders of single runs below runs/"
        )
    if not any(path.exists() for path in (config, metrics, curves)):
        raise ArtifactError(
            f"report: {folder} holds none of config.yaml, metrics.json and tensorboard/; expected a folder in which "
            "`fedtalk fit` or `fedtalk test` ran"
        )
    sheet, audit = folder / "contact_sheet.png", folder / "audit" / "audit.json"
    measured = _json(metrics) if metrics.exists() else None
    # A run that trained on after it was tested has spent more since.
    epsilons = shown_epsilons(folder) or (measured or {}).get("privacy", [])
    return RunRecord(
        name, folder, group, config.read_text(encoding="utf-8", errors="replace") if config.exists() else "",
        read_curves(curves) if curves.is_dir() else {}, measured,
        [path for path in sorted((folder / "videos").glob("*.mp4")) if not (path.name.startswith(".") or path.is_dir())],
        sheet if sheet.exists() else None, epsilons, _json(audit) if audit.exists() else None,
    )  # fmt: skip


def read_curves(folder: Path) -> dict[str, Curve]:
    """Scalars of TensorBoard's event files; where a resumed run wrote a step again, the later value counts.

    Later by the clock when it was written: the files' own times are those of a copy where the folder was copied.
    """
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    found: dict[str, dict[int, tuple[float, float]]] = {}
    for path in sorted(folder.glob("events.*")):
        events = EventAccumulator(str(path), size_guidance={SCALARS: 0})
        events.Reload()
        for tag in events.Tags()[SCALARS]:
            curve = found.setdefault(tag, {})
            for event in events.Scalars(tag):
                if event.step not in curve or curve[event.step][0] <= event.wall_time:
                    curve[event.step] = event.wall_time, event.value
    return {tag: {step: value for step, (_, value) in sorted(curve.items())} for tag, curve in sorted(found.items())}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"report: {path} can't be read ({error}); run `fedtalk test` again to make it anew"
        ) from error
    if not isinstance(found, dict):
        raise ArtifactError(f"report: {path}: expected a JSON object, got {type(found).__name__}")
    return found


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]
