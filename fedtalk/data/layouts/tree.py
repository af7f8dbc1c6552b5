"""Walking a tree of raw files: links are followed, and nothing is passed over without a reason."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedtalk.data.names import not_data, readable
from fedtalk.errors import MediaError

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv"}
)


@dataclass(frozen=True)
class Source:
    """One raw video."""

    person: str
    """Whose it is; becomes the name of the client folder."""
    path: Path
    name: str
    """Path below the person's folder, with forward slashes; names the video among the person's."""
    sound: Path | None = None
    """File with its sound, for sets that keep it apart; read where the video has no sound track."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """What the set's names say of it (split, emotion, sentence, ...), for the manifest."""

    @property
    def label(self) -> str:
        """How reports call it."""
        return f"{self.person}/{self.name}"


@dataclass(frozen=True)
class Sources:
    """What a tree of raw videos holds."""

    videos: list[Source] = field(default_factory=list)
    """Ordered by person and name."""
    others: list[tuple[str, str]] = field(default_factory=list)
    """What is not used: path below the raw folder, and why."""
    people: list[str] = field(default_factory=list)
    """Everybody who has a folder, with or without a video."""


def walk(folder: Path) -> tuple[list[tuple[Path, str]], list[tuple[str, str]]]:
    """All files below a folder, in order, and what was passed over.

    Returns:
        (path, path below ``folder`` with forward slashes) of files; the same and a reason of what is nobody's data,
        of links to nothing and of files reached a second time.
    """
    files: list[tuple[Path, str]] = []
    others: list[tuple[str, str]] = []
    seen: dict[str, str] = {}

    def descend(inside: Path, prefix: str) -> None:
        try:
            entries = sorted(os.listdir(inside))
        except OSError as error:
            others.append((prefix or ".", f"the folder can't be read ({error.strerror or error})"))
            return
        for entry in entries:
            path, name = inside / entry, f"{prefix}{readable(entry)}"
            reason = not_data(entry)
            if reason:
                others.append((name, f"not used: its name is {reason}" + (" (a folder)" if path.is_dir() else "")))
                continue
            if path.is_symlink() and not path.exists():
                others.append((name, "a link to nothing; what it named was moved or is not mounted"))
                continue
            real = os.path.realpath(path)
            if real in seen and (path.is_symlink() or path.is_dir()):
                others.append((name, f"the same as {seen[real]}, by a link"))
                continue
            seen[real] = name
            if path.is_dir():
                if is_video(path):
                    others.append((name, "a folder with a video's name; what lies in it is looked at"))
                descend(path, f"{name}/")
            else:
                files.append((path, name))

    seen[os.path.realpath(folder)] = "the folder above it"
    descend(folder, "")
    return files, others


def is_video(path: Path) -> bool:
    """Whether a file is a video by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def nothing_found(raw: Path, tree: str, got: str) -> MediaError:
    """The error for a tree without a usable video."""
    return MediaError(f"raw videos {raw}: expected {tree}; got {got}. Choose the right folder or --layout")
