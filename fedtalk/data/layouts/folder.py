"""One's own videos: a folder a person."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from pathlib import Path

from fedtalk.data.layouts.tree import Source, Sources, is_video, nothing_found, walk
from fedtalk.data.names import not_data, readable
from fedtalk.errors import MediaError

PICTURES = (".jpeg", ".jpg", ".png", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff")
"""Suffixes of the picture of who is meant; of several pictures the first is taken."""
CONSENT = frozenset({"consent.json", "consent.yaml", "consent.yml", "consent.md", "consent.pdf"})
"""Records of consent that may lie beside a person's videos."""


def folder_layout(raw: Path) -> Sources:
    """One folder a person, videos of any kind at any depth in it; ``face.jpg`` beside them shows who is meant.

    Raises:
        MediaError: videos lie in ``raw`` itself, or there are none.
    """
    tree = f"one folder a person, as in {raw}/anna/any name.mp4 and {raw}/bert/holiday/1.mov"
    sources = Sources()
    flat: list[str] = []
    spelt: dict[str, str] = {}
    for entry in sorted(os.listdir(raw)):
        path, name = raw / entry, readable(entry)
        reason = not_data(entry)
        if reason:
            sources.others.append((name, f"not used: its name is {reason}"))
        elif path.is_symlink() and not path.exists():
            sources.others.append((name, "a link to nothing; what it named was moved or is not mounted"))
        elif path.is_dir():
            sources.people.append(name)
            other = spelt.setdefault(unicodedata.normalize("NFKC", name).casefold().strip(), name)
            if other != name:
                remark = "like another's but for case, spaces or Unicode form; taken for two people, who may be one"
                sources.others.append((name, f"its name is {remark}"))
            _person(path, name, sources)
        elif is_video(path):
            flat.append(name)
        else:
            sources.others.append((name, "a file beside the people's folders"))
    if flat:
        raise MediaError(
            f"raw videos {raw}: expected {tree}; got {len(flat)} videos without a person's folder ({flat[0]}, ...). "
            "Move each into a folder named after its speaker."
        )
    if not sources.videos:
        raise nothing_found(raw, tree, f"{len(sources.people)} folders with no video in them")
    return sources


def _person(folder: Path, person: str, sources: Sources) -> None:
    files, others = walk(folder)
    sources.others.extend((f"{person}/{name}", reason) for name, reason in others)
    for path, name in files:
        if is_video(path):
            sources.videos.append(Source(person, path, name))
        elif not _is_face(path.name) and name.lower() not in CONSENT:
            sources.others.append((f"{person}/{name}", f"not a video by its name ({path.suffix or 'no suffix'})"))


def face_picture(video: Path, person: str) -> Path | None:
    """The picture ``face.*`` beside a video or above it, up to the person's folder; None where there is no such folder."""
    looked_at = []
    for folder in video.parents:
        looked_at.append(folder)
        if readable(folder.name) == person:
            break
    else:
        return None
    for folder in looked_at:
        with contextlib.suppress(OSError):  # gone since, or not to be read: reading the video says so
            found = [folder / name for name in sorted(os.listdir(folder)) if _is_face(name)]
            if found:
                return min(found, key=lambda path: PICTURES.index(path.suffix.lower()))
    return None


def _is_face(name: str) -> bool:
    stem, suffix = os.path.splitext(name.lower())
    return stem == "face" and suffix in PICTURES
