"""Following one face through a video: eyes, mouth and lips for each frame, and where there is no face."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

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


@dataclass
class _Rows:
    faces: list[Face | None] = field(default_factory=list)
    runs: list[list[int]] = field(default_factory=list)
    gaps: list[tuple[int, str]] = field(default_factory=list)


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
    rows = _Rows()
    pending: list[np.ndarray] = []
    last: Face | None = None
    count = width = height = 0
    error = None

    def look() -> None:
        nonlocal pending, last
        face = _nearest(finder.find(pending[-1]), last)
        first = len(rows.faces)
        key = first + len(pending) - 1
        if face is None:
            if last is None or len(pending) > longest_gap:
                rows.faces += [None] * len(pending)
                _note_gap(rows, first, "no face found")
                pending, last = [], None
            return
        if last is None or _jumps(last, face):
            if key > first:
                _note_gap(rows, first, "no face found" if last is None else "the face jumps: a cut or somebody else")
            rows.faces += [None] * (key - first) + [face]
            rows.runs.append([key, key + 1])
        else:
            for step, frame in enumerate(pending[:-1], start=1):
                rows.faces.append(_between(last, face, step / len(pending), frame, finder))
            rows.faces.append(face)
            rows.runs[-1][1] = key + 1
        pending, last = [], face

    try:
        for frame in frames:
            height, width = frame.shape[:2]
            pending.append(frame)
            count += 1
            if (count - 1) % every == 0:
                look()
    except MediaError as failure:  # what was read so far is good
        error = str(failure)
    if pending:
        look()
    if pending:  # the face was lost and the video ended before the gap was long enough to end the run
        _note_gap(rows, len(rows.faces), "no face found")
        rows.faces += [None] * len(pending)
    return Track(
        np.array([np.full((2, 2), np.nan) if f is None else f.eyes for f in rows.faces], np.float32).reshape(-1, 2, 2),
        np.array([np.full(2, np.nan) if f is None else f.mouth for f in rows.faces], np.float32).reshape(-1, 2),
        np.array([np.nan if f is None or f.opening is None else f.opening for f in rows.faces], np.float32),
        [(start, stop) for start, stop in rows.runs],
        _with_lengths(rows),
        width,
        height,
        error,
    )


def _note_gap(rows: _Rows, first: int, reason: str) -> None:
    if not rows.gaps or rows.faces[rows.gaps[-1][0] : first] != [None] * (first - rows.gaps[-1][0]):
        rows.gaps.append((first, reason))


def _with_lengths(rows: _Rows) -> list[tuple[int, str]]:
    named = []
    for first, reason in rows.gaps:
        last = next((i for i in range(first, len(rows.faces)) if rows.faces[i] is not None), len(rows.faces))
        named.append((first, f"{reason} ({(last - first) / FRAME_RATE:.2f} s)"))
    return named


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
