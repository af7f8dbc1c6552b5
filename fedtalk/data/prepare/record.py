"""What was prepared: one small file a video, so that a run that is killed knows what is done and what is not.

``CLIENTS/.prepare/`` holds for each video its record (settings, state of the file, clips, rejects), the followed face,
which another size or length of clips needs not find again, and clips that are not complete yet.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedtalk.data.choosing import Track
from fedtalk.data.layouts import Source
from fedtalk.data.prepare.report import Reject
from fedtalk.data.prepare.settings import Settings
from fedtalk.errors import OutputError
from fedtalk.storage import atomic_path, remove_leftovers, write_json

FOLDER = ".prepare"
ARRAYS = ("eyes", "mouth", "opening", "motion", "sizes")


@dataclass
class Outcome:
    """What became of one video."""

    names: list[str] = field(default_factory=list)
    """Files of its clips."""
    rejects: list[Reject] = field(default_factory=list)
    seconds: float = 0.0
    """Length of the video."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Its lines of the manifest, one a clip."""


class Record:
    """The records below a clients folder."""

    def __init__(self, clients: Path, raw: Path) -> None:
        self.clients, self.folder = clients, clients / FOLDER
        # not the path itself: clients folders are shared, and paths name people and machines
        self._root = hashlib.sha256(str(raw.resolve()).encode(errors="surrogateescape")).hexdigest()[:12]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(clients)  # of runs that were killed while they wrote
        except OSError as error:
            raise OutputError(
                f"clients folder {clients} can't be used ({error.strerror or error}); choose another"
            ) from error

    def entry(self, source: Source) -> dict[str, Any] | None:
        """What was noted of a video; None where nothing was, or the note is damaged."""
        return _read(self.folder / f"{key_of(source)}.json")

    def is_current(self, entry: dict[str, Any] | None, source: Source, settings: Settings) -> bool:
        """Whether the clips on disk are those that would be made now."""
        return (
            entry is not None
            and entry.get("state") == state_of(source)
            and entry.get("settings") == asdict(settings)
            and all((self.clients / source.person / name).is_file() for name in entry["clips"])
        )

    def staging(self, source: Source) -> Path:
        """Folder for the clips of a video until all are there."""
        return self.folder / key_of(source)

    def commit(self, source: Source, settings: Settings, outcome: Outcome) -> None:
        """Put the finished clips of a video in place of its former ones.

        Former clips go first, then the record is written, then the new ones come: wherever this is cut off, some clip
        of the record is missing, and the video is done again.
        """
        self._remove(self.entry(source))
        entry = {
            "label": source.label,
            "person": source.person,
            "root": self._root,
            "state": state_of(source),
            "settings": asdict(settings),
            "seconds": round(outcome.seconds, 2),
            "clips": outcome.names,
            "rejects": [[reject.start, reject.reason] for reject in outcome.rejects],
            "rows": outcome.rows,
        }
        write_json(self.folder / f"{key_of(source)}.json", entry)
        staging = self.staging(source)
        if outcome.names:
            (self.clients / source.person).mkdir(parents=True, exist_ok=True)
        for name in outcome.names:
            (staging / name).replace(self.clients / source.person / name)
        shutil.rmtree(staging, ignore_errors=True)

    def prune(self, sources: list[Source]) -> tuple[list[str], list[str]]:
        """Remove the clips of videos that are no longer there.

        Returns:
            labels of videos whose clips were removed; labels of videos of another raw folder, whose clips are kept.
        """
        known = {key_of(source) for source in sources}
        withdrawn, elsewhere = [], []
        for path in sorted(self.folder.glob("*.json")):
            entry = _read(path)
            if path.stem in known or entry is None:
                continue
            if entry.get("root") != self._root:
                elsewhere.append(entry["label"])
                continue
            withdrawn.append(entry["label"])
            self._remove(entry)
            (self.folder / f"{path.stem}.npz").unlink(missing_ok=True)
            path.unlink()
        for path in self.folder.iterdir():  # staged by a run that was killed
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        return sorted(withdrawn), sorted(elsewhere)

    def entries(self) -> list[dict[str, Any]]:
        """All records, in the order of their labels."""
        found = [entry for path in self.folder.glob("*.json") if (entry := _read(path)) is not None]
        return sorted(found, key=lambda entry: entry["label"])

    def _remove(self, entry: dict[str, Any] | None) -> None:
        if entry is None:
            return
        folder = self.clients / entry["person"]
        for name in entry["clips"]:
            (folder / name).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def load_track(folder: Path, source: Source, settings: Settings) -> Track | None:
    """The face followed by an earlier run, if it was followed the same way in the same file."""
    path = folder / f"{key_of(source)}.npz"
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            if about["state"] != state_of(source) or about["settings"] != settings.of_tracking:
                return None
            arrays = {name: stored[name] for name in ARRAYS}
    except Exception:  # absent or damaged in one of numpy's dozen ways: it is followed again
        return None
    runs = [(int(a), int(b)) for a, b in about["runs"]]
    gaps = [(int(start), str(reason)) for start, reason in about["gaps"]]
    return Track(**arrays, runs=runs, gaps=gaps, error=about["error"], notes=about["notes"])


def save_track(folder: Path, source: Source, settings: Settings, track: Track) -> None:
    """Keep a followed face for later runs, atomically."""
    about = {
        "state": state_of(source), "settings": settings.of_tracking,
        "runs": track.runs, "gaps": track.gaps, "error": track.error, "notes": track.notes,
    }  # fmt: skip
    arrays = {name: getattr(track, name) for name in ARRAYS}
    with atomic_path(folder / f"{key_of(source)}.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)


def key_of(source: Source) -> str:
    """Names a video among all of a clients folder."""
    return hashlib.sha256(source.label.encode()).hexdigest()[:20]


def state_of(source: Source) -> list[int]:
    """Size and time of change of a video's files."""
    files = [source.path] + ([source.sound] if source.sound else [])
    return [fact for path in files for fact in (path.stat().st_size, path.stat().st_mtime_ns)]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        return entry if {"label", "person", "clips", "rejects", "rows"} <= entry.keys() else None
    except (OSError, ValueError, AttributeError):
        return None
