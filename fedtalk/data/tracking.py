"""Following one face through a video: eyes, mouth and lips for each frame, and where there is no face."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fedtalk.data.clip import FRAME_RATE
from fedtalk.data.faces import Face, FaceFinder, FacePlacer
from fedtalk.errors import MediaError

LONGEST_MOVE = 1.2
"""Distance, in distances between the eyes, that a face may move between two looks; more is a cut or somebody else."""


@dataclass
class Track:
    """One face through a video. Rows belong to frames; a frame without the face has NaN."""

    eyes: np.ndarray
    """(F, 2, 2) float32."""
    mouth: np.ndarray
    """(F, 2) float32."""
    opening: np.ndarray
    """(F,) float32; NaN also where the finder gives none."""
    runs: list[tuple[int, int]]
    """First frame and frame after the last of each stretch with one face throughout."""
    gaps: list[tuple[int, str]]
    """First frame and reason of each stretch between the runs."""
    width: int
    """Of the pictures, in pixels."""
    height: int
    error: str | None
    """Why the video could not be read further than the last row; None where it ended."""

    def __len__(self) -> int:
        return len(self.eyes)


def track_face(frames: Iterable[np.ndarray], finder: FaceFinder, *, every: int, longest_gap: int) -> Track:
    """Follow the most prominent face: the largest at first, then the one nearest to where it was.

    Faces are looked for in every ``every``-th frame. In between, the box is interpolated and, where the finder is a
    `FacePlacer`, landmarks are placed in it; else the landmarks are interpolated. At most ``every + longest_gap``
    frames are held at a time.

    Args:
        frames: (H, W, 3) uint8 RGB each.
        finder: see `fedtalk.data.faces.face_finder`.
        every: frames from one look to the next.
        longest_gap: frames between two sightings that are bridged; a longer gap ends the run.
    """
    faces: list[Face | None] = []
    runs: list[tuple[int, int]] = []
    cuts: set[int] = set()
    pending: list[np.ndarray] = []
    last: Face | None = None

    def look() -> None:
        """Search the newest frame and settle all that wait for its outcome."""
        nonlocal pending, last
        face = _nearest(finder.find(pending[-1]), last)
        if face is None:
            if last is not None and len(pending) <= longest_gap:
                return
            faces.extend([None] * len(pending))
        elif last is None or _jumps(last, face) or len(pending) > max(every, longest_gap):
            faces.extend([None] * (len(pending) - 1))
            if last is not None and _jumps(last, face):
                cuts.add(len(faces))
            runs.append((len(faces), len(faces) + 1))
            faces.append(face)
        else:
            for step, frame in enumerate(pending[:-1], start=1):
                faces.append(_between(last, face, step / len(pending), frame, finder))
            faces.append(face)
            runs[-1] = (runs[-1][0], len(faces))
        pending, last = [], face

    width = height = 0
    error = None
    try:
        for index, frame in enumerate(frames):
            height, width = frame.shape[:2]
            pending.append(frame)
            if index % every == 0:
                look()
    except MediaError as failure:  # what was read so far is good
        error = str(failure)
    if pending:
        look()
    faces.extend([None] * len(pending))  # the face was lost and the video ended before the gap grew too long
    return Track(
        np.array([np.full((2, 2), np.nan) if f is None else f.eyes for f in faces], np.float32).reshape(-1, 2, 2),
        np.array([np.full(2, np.nan) if f is None else f.mouth for f in faces], np.float32).reshape(-1, 2),
        np.array([np.nan if f is None or f.opening is None else f.opening for f in faces], np.float32),
        runs,
        _gaps(runs, cuts, len(faces)),
        width,
        height,
        error,
    )


def _gaps(runs: list[tuple[int, int]], cuts: set[int], count: int) -> list[tuple[int, str]]:
    """What lies between the runs, each with its reason."""
    starts = [0, *(stop for _, stop in runs)]
    stops = [*(start for start, _ in runs), count]
    return [
        (
            start,
            f"{'the face jumps (a cut or somebody else)' if stop in cuts else 'no face found'} "
            f"for {(stop - start) / FRAME_RATE:.2f} s",
        )
        for start, stop in zip(starts, stops, strict=True)
        if stop > start
    ]


def _nearest(faces: list[Face], last: Face | None) -> Face | None:
    if not faces:
        return None
    if last is None:
        return max(faces, key=lambda face: face.area)
    return min(faces, key=lambda face: float(np.linalg.norm(face.eyes.mean(0) - last.eyes.mean(0))))


def _jumps(before: Face, after: Face) -> bool:
    distances = [max(float(np.linalg.norm(face.eyes[1] - face.eyes[0])), 1e-6) for face in (before, after)]
    moved = float(np.linalg.norm(after.eyes.mean(0) - before.eyes.mean(0)))
    return moved > LONGEST_MOVE * max(distances) or not 0.6 < distances[1] / distances[0] < 1 / 0.6


def _between(before: Face, after: Face, weight: float, frame: np.ndarray, finder: FaceFinder) -> Face:
    def mix(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (1 - weight) * one + weight * other

    box = mix(before.box, after.box)
    if isinstance(finder, FacePlacer):
        return finder.place(frame, box)
    opening = None
    if before.opening is not None and after.opening is not None:
        opening = (1 - weight) * before.opening + weight * after.opening
    return Face(box, mix(before.eyes, after.eyes), mix(before.mouth, after.mouth), before.confidence, opening=opening)
