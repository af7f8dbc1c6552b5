"""`fedtalk prepare RAW CLIENTS`: ordinary videos to aligned clips, one folder a person."""

from __future__ import annotations

import json

from fedtalk.data.faces import Finder
from fedtalk.data.layouts import Layout
from fedtalk.data.prepare import prepare as prepare_clients
from fedtalk.machine import usable_cores


def prepare(
    raw: str,
    clients: str,
    layout: Layout = "folder",
    size: int | None = None,
    clip_seconds: float | None = 2.0,
    finder: Finder = "dlib",
    detect_every: int = 5,
    face: str | int = "speaking",
    jobs: int | None = None,
    overwrite: bool = False,
) -> None:
    """Turn a folder of ordinary videos into aligned clips, one folder a person.

    Args:
        raw: folder with one folder a person, each with videos in any format that ffmpeg reads.
        clients: folder to write; also gets rejects.csv, which says what was left out and why.
        layout: how RAW is laid out: folder (one folder a person), cremad, grid, hdtf, lrs3, ravdess or voxceleb2.
        size: height and width of the clips in pixels; the shipped backbone's by default.
        clip_seconds: length of a clip; null for whole stretches with one face throughout.
        finder: face finder: dlib (needs no download), yunet or face-alignment.
        detect_every: find the face in every n-th frame and follow it in between.
        face: whom to take where several faces are seen: speaking (mouth that moves with the sound), a number from the left,
            or the file of a picture of the person; face.jpg in a person's folder goes before speaking.
        jobs: videos that are worked on at a time; all usable cores by default.
        overwrite: make clips again that are there already.
    """
    prepare_clients(
        raw, clients, layout=layout, size=_shipped_size() if size is None else size, clip_seconds=clip_seconds,
        finder=finder, detect_every=detect_every, face=face, jobs=usable_cores() if jobs is None else jobs,
        overwrite=overwrite,
    )  # fmt: skip


def _shipped_size() -> int:
    """Height and width of the frames that the shipped backbone makes."""
    from fedtalk.talker.backbone import shipped_folder  # imports the networks' libraries, which take seconds

    stored = json.loads((shipped_folder() / "backbone.json").read_text(encoding="utf-8"))
    return int(stored["architecture"]["size"])
