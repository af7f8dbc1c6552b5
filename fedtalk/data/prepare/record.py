"""What was prepared: one small file a video, so that a run that is killed knows what is done and what is not.

``CLIENTS/.prepare/`` holds for each video its record (settings, state of the file, clips, rejects), the followed face,
which another size or length of clips needs not find again, and clips that are not complete yet.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedtalk.data.choosing import Track
from fedtalk.data.consent import remove_template
from fedtalk.data.layouts import Source
from fedtalk.data.prepare.report import Reject
from fedtalk.data.prepare.settings import Settings
from fedtalk.errors import OutputError
from fedtalk.storage import atomic_path, remove_leftovers, write_json

FOLDER = ".prepare"
COMPLETE = "complete.json"
"""In a folder of staged clips: the record of the video, once all its clips are there."""
WITHDRAWN = "withdrawn.json"
"""Labels of videos whose clips were removed, until the reports say so."""
ARRAYS = ("eyes", "mouth", "opening", "motion", "sizes")


@dataclass
class VideoOutcome:
    """What became of one video."""

    names: list[str] = field(default_factory=list)
    """Files of its clips."""
    rejects: list[Reject] = field(default_factory=list)
    seconds: float = 0.0
    """Length of the video."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Its lines of the manifest, one a clip."""
    state: list[int] = field(default_factory=list)
    """Of its files before they were read, see `state_of`."""


class PreparationRecord:
    """The records below a clients folder."""

    def __init__(self, clients: Path, raw: Path) -> None:
        self.clients, self.folder, self._root = clients, clients / FOLDER, _name_of(raw)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(clients)  # of runs that were killed while they wrote
        except OSError as error:
            raise OutputError(
                f"clients folder {clients} can't be used ({error.strerror or error}); choose another"
            ) from error

    @staticmethod
    def made_from(clients: Path, raw: Path) -> list[dict[str, Any]]:
        """Records of videos of a raw folder, looked up without touching anything."""
        found = (_read(path) for path in (clients / FOLDER).glob("*.json"))
        return [entry for entry in found if entry is not None and entry.get("root") == _name_of(raw)]

    def entry(self, source: Source) -> dict[str, Any] | None:
        """What was noted of a video; None where nothing was, or the note is damaged."""
        return _read(self.folder / f"{key_of(source)}.json")

    def is_current(self, entry: dict[str, Any] | None, source: Source, settings: Settings) -> bool:
        """Whether the clips on disk are those that would be made now."""
        return (
            entry is not None
            and entry.get("state") == state_of(source, settings)
            and entry.get("settings") == settings.noted
            and all((self.clients / source.person / name).is_file() for name in entry["clips"])
        )

    def staging(self, source: Source) -> Path:
        """Folder for the clips of a video until all are there."""
        return self.folder / key_of(source)

    def commit(self, source: Source, settings: Settings, outcome: VideoOutcome) -> None:
        """Put the finished clips of a video in place of its former ones.

        The new record lies beside the staged clips first: cut off anywhere after that, the next run goes on here and cuts
        nothing again. Former clips go before the record that names the new ones is in place, so that no clip is ever without
        a record.
        """
        entry = {
            "label": source.label,
            "person": source.person,
            "root": self._root,
            "state": outcome.state,
            "settings": settings.noted,
            "seconds": round(outcome.seconds, 2),
            "clips": outcome.names,
            "rejects": [[reject.start, reject.reason] for reject in outcome.rejects],
            "rows": outcome.rows,
        }
        write_json(self.staging(source) / COMPLETE, entry)
        self._put_in_place(key_of(source), entry)

    def _put_in_place(self, key: str, entry: dict[str, Any]) -> None:
        record, staging = self.folder / f"{key}.json", self.folder / key
        if _read(record) != entry:
            self._remove(_read(record))
            write_json(record, entry)
        folder = self.clients / entry["person"]
        if entry["clips"]:
            folder.mkdir(parents=True, exist_ok=True)
        for name in entry["clips"]:
            if (staging / name).is_file():
                (staging / name).replace(folder / name)
        (staging / COMPLETE).unlink(missing_ok=True)
        shutil.rmtree(staging, ignore_errors=True)

    def prune(self, sources: list[Source]) -> tuple[list[str], list[str]]:
        """Remove the clips of videos that are no longer there.

        Returns:
            labels of videos whose clips were removed; labels of videos of another raw folder, whose clips are kept.
        """
        known = {key_of(source) for source in sources}
        gone: dict[Path, dict[str, Any]] = {}
        elsewhere = []
        for path in sorted(self.folder.glob("*.json")):
            entry = _read(path)
            if path.stem in known or entry is None:
                continue
            if entry.get("root") != self._root:
                elsewhere.append(entry["label"])
            else:
                gone[path] = entry
        withdrawn = sorted({*self._untold(), *(entry["label"] for entry in gone.values())})
        if gone:
            write_json(self.folder / WITHDRAWN, withdrawn)
        for path, entry in gone.items():
            self._remove(entry)
            path.with_suffix(".npz").unlink(missing_ok=True)
            path.unlink()
        for path in self.folder.iterdir():  # staged by a run that was killed
            if path.is_dir():
                entry = _read(path / COMPLETE) if path.name in known else None
                if entry is not None and all(self._is_there(path, entry, name) for name in entry["clips"]):
                    self._put_in_place(path.name, entry)
                else:
                    shutil.rmtree(path, ignore_errors=True)
        return withdrawn, sorted(elsewhere)

    def told(self) -> None:
        """The reports with the withdrawn videos are written."""
        (self.folder / WITHDRAWN).unlink(missing_ok=True)

    def _untold(self) -> list[str]:
        """Labels of videos that were withdrawn by a run that was killed before it could report them."""
        try:
            return list(json.loads((self.folder / WITHDRAWN).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return []

    def _is_there(self, staging: Path, entry: dict[str, Any], name: str) -> bool:
        """Whether a clip of a killed run is staged, or was put in place already."""
        placed = _read(self.folder / f"{staging.name}.json") == entry
        return (staging / name).is_file() or (placed and (self.clients / entry["person"] / name).is_file())

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
        if not any(folder.glob("*.npz")):
            remove_template(folder)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def load_track(folder: Path, source: Source, settings: Settings, state: list[int]) -> Track | None:
    """The face followed by an earlier run, if it was followed the same way in the same file."""
    path = folder / f"{key_of(source)}.npz"
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            if about["state"] != state or about["settings"] != settings.of_tracking:
                return None
            arrays = {name: stored[name] for name in ARRAYS}
    except Exception:  # absent or damaged in one of numpy's dozen ways: it is followed again
        return None
    runs = [(int(a), int(b)) for a, b in about["runs"]]
    gaps = [(int(start), str(reason)) for start, reason in about["gaps"]]
    return Track(**arrays, runs=runs, gaps=gaps, error=about["error"], notes=about["notes"])


def save_track(folder: Path, source: Source, settings: Settings, state: list[int], track: Track) -> None:
    """Keep a followed face for later runs, atomically."""
    about = {
        "state": state, "settings": settings.of_tracking,
        "runs": track.runs, "gaps": track.gaps, "error": track.error, "notes": track.notes,
    }  # fmt: skip
    arrays = {name: getattr(track, name) for name in ARRAYS}
    with atomic_path(folder / f"{key_of(source)}.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)


def _name_of(raw: Path) -> str:
    """Stands for a raw folder. Not its path: clients folders are shared, and paths name people and machines."""
    return hashlib.sha256(str(raw.resolve()).encode(errors="surrogateescape")).hexdigest()[:12]


def key_of(source: Source) -> str:
    """Names a video among all of a clients folder."""
    return hashlib.sha256(source.label.encode()).hexdigest()[:20]


def state_of(source: Source, settings: Settings) -> list[int]:
    """Size and time of change of what a video is made from: its files, and the picture of who is meant; 0 where one is gone."""
    facts: list[int] = []
    for path in filter(None, (source.path, source.sound, settings.picture(source))):
        try:
            stat = path.stat()
        except OSError:
            facts.append(0)
        else:
            facts += [stat.st_size, stat.st_mtime_ns]
    return facts


def _read(path: Path) -> dict[str, Any] | None:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        return entry if {"label", "person", "clips", "rejects", "rows"} <= entry.keys() else None
    except (OSError, ValueError, AttributeError):
        return None
