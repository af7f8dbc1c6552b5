"""Following the faces of a video: landmarks of each for each frame, and what is wrong with the frames between."""

from __future__ import annotations

import array
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from fedtalk.data.faces import Face, FaceFinder, FacePlacer
from fedtalk.data.framing import similarity_transform
from fedtalk.errors import MediaError

LONGEST_MOVE = 1.2
"""Distance, in distances between the eyes, that a face may move between two looks; more is a cut or somebody else."""
MOST_FACES = 4
"""Faces that are followed at a time, the largest; passers-by in a crowd are nobody's client."""
ALIKE = 0.4
"""Correlation with the face seen before or after, below which a frame in between does not show it."""
CUT = 0.5
"""Correlation of two successive pictures below which a new shot begins, if they also differ nearly everywhere."""
CUT_LEVELS, CUT_SHARE = 12.0, 0.5
"""A pixel differs by so many grey levels, and so large a share of them does at a cut."""
PATCH = 32
"""Side in pixels of the patch by which a face is compared from frame to frame."""
_PATCH_POINTS = np.array([[0.3, 0.32], [0.7, 0.32], [0.5, 0.76]]) * PATCH
"""Where eyes and mouth lie in a patch."""

NO_FACE, JUMPED, COVERED, SHOWN = range(4)
"""What a frame is to a trail: no face seen, no face since it jumped, the face not in the picture, the face."""
COLUMNS = 11
"""Per frame: two eyes (4), mouth (2), opening, motion of the mouth, of the upper face, of all, and what it is."""


class Trail:
    """One face from its first sighting to its last, without a cut.

    Attributes:
        start: number of the first frame.
        jumped: whether another face was lost in the same look.
        embeddings: what the likeness made of it, now and then.
    """

    def __init__(self, start: int, face: Face, frame: np.ndarray, jumped: bool) -> None:
        self.start, self.jumped = start, jumped
        self.last, self.last_index = face, start
        self.embeddings: list[np.ndarray] = []
        self._rows = array.array("f")  # plain numbers, since a long video has many frames
        self._patch = self._sighting = face_patch(frame, face)
        self._append(face, self._patch, SHOWN)

    @property
    def rows(self) -> np.ndarray:
        """(F, 11) float32, see `COLUMNS`."""
        return np.array(self._rows, np.float32).reshape(-1, COLUMNS)

    @property
    def stop(self) -> int:
        """Frame after the last sighting."""
        return self.last_index + 1

    def bridge(self, frames: list[np.ndarray], face: Face, finder: FaceFinder) -> None:
        """Go on to ``face``, seen in the last of the frames that follow the last sighting."""
        sighting = face_patch(frames[-1], face)
        for step, frame in enumerate(frames[:-1], start=1):
            between = _between(self.last, face, step / len(frames), frame, finder)
            patch = face_patch(frame, between)
            shown = max(_correlation(patch, self._sighting), _correlation(patch, sighting)) > ALIKE
            self._append(between, patch, SHOWN if shown else COVERED)
        self._append(face, sighting, SHOWN)
        self.last, self.last_index, self._sighting = face, self.last_index + len(frames), sighting

    def _append(self, face: Face, patch: np.ndarray, what: int) -> None:
        change = np.abs(patch - self._patch)
        mouth, upper = change[PATCH * 5 // 8 :, PATCH // 4 : -PATCH // 4].mean(), change[: PATCH // 2].mean()
        opening = np.nan if face.opening is None else face.opening
        self._rows.extend([*face.eyes.reshape(-1), *face.mouth, opening, mouth, upper, change.mean(), what])
        self._patch = patch


@dataclass
class Faces:
    """All faces of a video."""

    trails: list[Trail]
    """By first frame."""
    sizes: np.ndarray
    """(F, 2) int32: width and height of each picture."""
    error: str | None
    """Why the video could not be read further than the last row; None where it ended."""


def follow_faces(
    frames: Iterable[np.ndarray], finder: FaceFinder, *, every: int, longest_gap: int, likeness: object = None
) -> Faces:
    """Follow each face of a video.

    Faces are looked for in the first frame of each shot and in every ``every``-th after it. In between, the box is
    interpolated and, where the finder is a `FacePlacer`, landmarks are placed in it; else the landmarks are
    interpolated. At most ``every + longest_gap`` frames are held at a time.

    Args:
        frames: (H, W, 3) uint8 RGB each.
        finder: see `fedtalk.data.faces.face_finder`.
        every: frames from one look to the next.
        longest_gap: frames between two sightings that are bridged, where they show the face; a longer gap ends a trail.
        likeness: a `fedtalk.data.likeness.Likeness`, to tell people apart later; None saves the time.
    """
    follower = _Follower(finder, every, longest_gap, likeness)
    error = None
    try:
        for frame in frames:
            follower.add(frame)
    except MediaError as failure:  # what was read so far is good
        error = str(failure)
    follower.end_shot()
    return Faces(follower.trails, np.array(follower.sizes, np.int32).reshape(-1, 2), error)


class _Follower:
    def __init__(self, finder: FaceFinder, every: int, longest_gap: int, likeness: object) -> None:
        self.trails: list[Trail] = []
        self.sizes = array.array("i")
        self._finder, self._every, self._longest_gap, self._likeness = finder, every, longest_gap, likeness
        self._active: list[Trail] = []
        self._pending: list[np.ndarray] = []
        self._count = 0
        self._looked = -1
        self._thumb: np.ndarray | None = None

    def add(self, frame: np.ndarray) -> None:
        height, width = frame.shape[:2]
        thumb = frame[:: max(1, height // 36), :: max(1, width // 48), 1].astype(np.float32)
        if self._thumb is not None and _is_cut(self._thumb, thumb):
            self.end_shot()
        first = self._thumb is None
        self._thumb = thumb
        self.sizes.extend((width, height))
        self._pending.append(frame)
        self._count += 1
        if first or self._count - 1 - self._looked >= self._every:
            self._look()

    def end_shot(self) -> None:
        """Nothing is followed across a cut."""
        if self._pending and self._looked < self._count - 1:
            self._look()
        self._active, self._pending, self._thumb = [], [], None

    def _look(self) -> None:
        """Search the newest frame and go on with each trail that leads to a face in it."""
        index, frame = self._count - 1, self._pending[-1]
        self._looked = index
        faces = sorted(self._finder.find(frame), key=lambda face: -face.area)[:MOST_FACES]
        reach = max(self._every, self._longest_gap)
        pairs = sorted(
            (_distance(trail.last, face), number, other)
            for number, trail in enumerate(self._active)
            for other, face in enumerate(faces)
            if index - trail.last_index <= reach and not _jumps(trail.last, face)
        )
        taken: dict[int, int] = {}
        for _, number, other in pairs:
            if number not in taken and other not in taken.values():
                taken[number] = other
        lost = [trail for number, trail in enumerate(self._active) if number not in taken]
        for number, other in taken.items():
            trail = self._active[number]
            trail.bridge(self._pending[trail.last_index - index :], faces[other], self._finder)
        new = [face for other, face in enumerate(faces) if other not in taken.values()]
        kept = [trail for trail in lost if index - trail.last_index <= self._longest_gap and not new]
        started = [Trail(index, face, frame, jumped=bool(lost)) for face in new]
        self.trails += started
        self._active = [self._active[number] for number in taken] + kept + started
        for trail in self._active:
            if self._likeness is not None and len(trail.embeddings) < 5 and trail.last_index == index:
                trail.embeddings.append(self._likeness.embed(frame, trail.last))  # type: ignore[attr-defined]
        oldest = min((trail.last_index for trail in self._active), default=index)
        self._pending = self._pending[oldest - index :] if oldest < index else []


def face_patch(frame: np.ndarray, face: Face) -> np.ndarray:
    """(32, 32) float32 grey picture of a face, eyes and mouth where they always lie."""
    grid = _PATCH_POINTS * 3 + 1  # three times as fine and then averaged, else fine texture would look like motion
    transform = similarity_transform(np.concatenate([face.eyes, face.mouth[None]]), grid)
    if not np.isfinite(transform).all() or np.abs(transform).max() > 1e6:  # landmarks on one point
        return np.zeros((PATCH, PATCH), np.float32)
    cut = cv2.warpAffine(frame, transform, (3 * PATCH, 3 * PATCH), borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(cv2.cvtColor(cut, cv2.COLOR_RGB2GRAY), (PATCH, PATCH), interpolation=cv2.INTER_AREA).astype(
        np.float32
    )


def _is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    if before.shape != after.shape:
        return True
    differs = float((np.abs(before - after) > CUT_LEVELS).mean()) > CUT_SHARE
    return differs and _correlation(before, after) < CUT


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of two pictures; 0 where one of them is blank."""
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / norm if norm > one.size else 0.0  # a level of contrast at least


def _distance(before: Face, after: Face) -> float:
    return float(np.linalg.norm(after.eyes.mean(0) - before.eyes.mean(0)))


def _jumps(before: Face, after: Face) -> bool:
    distances = [max(float(np.linalg.norm(face.eyes[1] - face.eyes[0])), 1e-6) for face in (before, after)]
    return _distance(before, after) > LONGEST_MOVE * max(distances) or not 0.6 < distances[1] / distances[0] < 1 / 0.6


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
