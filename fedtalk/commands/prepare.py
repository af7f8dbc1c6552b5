"""`fedtalk prepare`."""

from __future__ import annotations

from fedtalk.data.prepare import prepare as prepare_clients


def prepare(
    raw: str,
    clients: str,
    layout: str = "folder",
    size: int = 64,
    clip_seconds: float | None = 2.0,
    finder: str = "dlib",
    detect_every: int = 5,
    overwrite: bool = False,
) -> None:
    """Turn a folder of ordinary videos into aligned clips, one folder a person.

    Args:
        raw: folder with one folder a person, each with videos in any format that ffmpeg reads.
        clients: folder to write; also gets rejects.csv, which says what was left out and why.
        layout: how RAW is laid out: folder (one folder a person) or grid (GRID corpus).
        size: height and width of the clips in pixels.
        clip_seconds: length of a clip; null for whole stretches with one face throughout.
        finder: face finder: dlib (needs no download), yunet or face-alignment.
        detect_every: find the face in every n-th frame and follow it in between.
        overwrite: make clips again that are there already.
    """
    report = prepare_clients(
        raw, clients, layout=layout, size=size, clip_seconds=clip_seconds, finder=finder, detect_every=detect_every,
        overwrite=overwrite,
    )  # fmt: skip
    print(report)
