"""`prepare` on drawn heads, and what it made."""

from __future__ import annotations

from pathlib import Path

from heads import DotFinder

from fedtalk.data.clip import Clip
from fedtalk.data.prepare import PrepareReport, prepare


def run(tmp_path: Path, **options: object) -> PrepareReport:
    settings: dict = {"finder": DotFinder(), "clip_seconds": 1.0, "progress": False, "size": 64, **options}
    return prepare(tmp_path / "raw", tmp_path / "clients", **settings)


def clips_of(tmp_path: Path, person: str = "anna") -> list[Clip]:
    return [Clip.load(path) for path in sorted((tmp_path / "clients" / person).glob("*.npz"))]


def stamps(tmp_path: Path) -> dict[str, int]:
    clips = sorted((tmp_path / "clients").glob("[!.]*/*.npz"))
    return {path.name: path.stat().st_mtime_ns for path in clips}
