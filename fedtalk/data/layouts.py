"""Trees of raw videos: which file is whose.

A layout is a function that takes the folder of raw videos and returns its `Sources`. `LAYOUTS` holds them by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedtalk.errors import ConfigurationError, MediaError

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
    """Path below the person's folder, with forward slashes."""


@dataclass(frozen=True)
class Sources:
    """What a tree of raw videos holds."""

    videos: list[Source]
    """Ordered by person and name."""
    others: list[Source]
    """Files that are no videos by their suffix, hidden files left out."""


def find_sources(raw: str | os.PathLike[str], layout: str) -> Sources:
    """List the videos below ``raw``, laid out as ``layout`` says.

    Raises:
        ConfigurationError: unknown layout.
        MediaError: no such folder, or none of its videos lies where the layout expects it.
    """
    if layout not in LAYOUTS:
        raise ConfigurationError(f"layout: expected one of {', '.join(sorted(LAYOUTS))}, got {layout!r}")
    raw = Path(raw)
    if not raw.is_dir():
        raise MediaError(f"raw videos {raw}: expected a folder, got {'a file' if raw.exists() else 'nothing there'}")
    return LAYOUTS[layout](raw)


def folder_layout(raw: Path) -> Sources:
    """One folder a person, videos of any kind at any depth in it.

    Raises:
        MediaError: videos lie in ``raw`` itself, or there are none.
    """
    tree = f"expected one folder a person:\n  {raw}/anna/any name.mp4\n  {raw}/bert/holiday/1.mov"
    flat = sorted(path.name for path in raw.iterdir() if _is_video(path))
    if flat:
        raise MediaError(
            f"raw videos {raw}: {tree}\ngot {len(flat)} videos without a person's folder ({flat[0]}, ...). "
            "Move each into a folder named after its speaker."
        )
    people = sorted(path for path in raw.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [_below(person) for person in people]
    videos = [source for sources in found for source in sources.videos]
    if not videos:
        raise MediaError(f"raw videos {raw}: {tree}\ngot {len(people)} folders with no video in them")
    return Sources(videos, [source for sources in found for source in sources.others])


def grid_layout(raw: Path) -> Sources:
    """The GRID corpus: folders ``s1`` to ``s34`` of ``.mpg`` files; folders of other names are not speakers.

    Raises:
        MediaError: there is no such folder, or no video in them.
    """
    people = [path for path in raw.iterdir() if path.is_dir() and re.fullmatch(r"s\d+", path.name)]
    found = [_below(person) for person in sorted(people, key=lambda path: int(path.name[1:]))]
    videos = [source for sources in found for source in sources.videos]
    if not videos:
        raise MediaError(
            f"raw videos {raw}: expected GRID's tree s1/*.mpg ... s34/*.mpg, got {len(people)} such folders"
        )
    return Sources(videos, [source for sources in found for source in sources.others])


LAYOUTS: dict[str, Callable[[Path], Sources]] = {"folder": folder_layout, "grid": grid_layout}
"""Layouts by name."""


def _is_video(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def _below(person: Path) -> Sources:
    videos: list[Source] = []
    others: list[Source] = []
    for path in sorted(person.rglob("*")):
        name = path.relative_to(person)
        if path.is_dir() or any(part.startswith(".") for part in name.parts):
            continue
        source = Source(person.name, path, name.as_posix())
        (videos if _is_video(path) else others).append(source)
    return Sources(videos, others)
