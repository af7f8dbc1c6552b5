"""Which face of a video is the client: the one that speaks, the n-th from the left, or the one on a picture."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter1d

from fedtalk.data.clip import FRAME_RATE
from fedtalk.data.tracking import COVERED, JUMPED, NO_FACE, SHOWN, Faces, Trail

STILL_LEVELS = 0.02
"""Mean change of a face from frame to frame, in grey levels, below which the picture stands still."""
LONGEST_STILL = 10
"""Frames that may stand still; a recorder that stalls and a held picture show nothing of speech."""
CLEARLY = 1.5
"""How much more than everybody else's the speaker's mouth must move with the sound."""
SAME_PERSON = 0.6
"""Largest distance of two embeddings of one person (dlib's own threshold)."""
WORTH_A_LINE = FRAME_RATE
"""Frames that another face must be seen for to be mentioned."""
STANDS_STILL = 4
"""Joins the codes of `fedtalk.data.tracking` for what a frame is."""
OTHERS = 5

REASONS = {
    NO_FACE: "no face found",
    JUMPED: "the face jumps (a cut or somebody else)",
    COVERED: "the face is not in the picture (blank, damaged or covered)",
    STANDS_STILL: "the picture stands still",
    OTHERS: "only other faces than the chosen one",
}


@dataclass
class Track:
    """One face through a video. Rows belong to frames; a frame without the face has NaN."""

    eyes: np.ndarray
    """(F, 2, 2) float32."""
    mouth: np.ndarray
    """(F, 2) float32."""
    opening: np.ndarray
    """(F,) float32; NaN also where the finder gives none."""
    motion: np.ndarray
    """(F,) float32: how much the mouth moves more than the rest of the face, in grey levels."""
    runs: list[tuple[int, int]]
    """First frame and frame after the last of each stretch with one face throughout."""
    gaps: list[tuple[int, str]]
    """First frame and reason of each stretch between the runs, and of each other face that was seen."""
    sizes: np.ndarray
    """(F, 2) int32: width and height of each picture."""
    error: str | None
    """Why the video could not be read further than the last row; None where it ended."""
    notes: list[str] = field(default_factory=list)
    """What the user should know of the choice."""

    def __len__(self) -> int:
        return len(self.eyes)


def choose_face(
    faces: Faces, energy: np.ndarray | None, *, number: int | None = None, likeness: np.ndarray | None = None,
    still: bool = False,
) -> Track:  # fmt: skip
    """The face of a video that becomes a client's.

    Of faces that are seen at the same time, the one whose mouth moves with the sound is taken; where that is not clear,
    the largest, with a note.

    Args:
        faces: see `fedtalk.data.tracking.follow_faces`.
        energy: (F,) loudness of the sound by frame; None without sound.
        number: take the face with this place from the left, from 1, wherever several are seen.
        likeness: (D,) embedding of the person on a picture; frames without that person are left out.
        still: keep stretches in which the picture stands still; nothing is to be learned from them, but they can be dubbed.
    """
    count = len(faces.sizes)
    what = np.full(count, NO_FACE)
    rows = np.full((count, 10), np.nan, np.float32)
    runs: list[tuple[int, int]] = []
    gaps: list[tuple[int, str]] = []
    notes: list[str] = []
    chosen, others = _chosen(faces.trails, energy, number, likeness, notes)
    for trail in others:
        free = what[trail.start : trail.stop]
        free[free == NO_FACE] = OTHERS
        if len(free) >= WORTH_A_LINE:
            across = np.median(np.linalg.norm(np.diff(trail.rows[:, :4].reshape(-1, 2, 2), axis=1), axis=-1))
            gaps.append(
                (
                    trail.start,
                    f"another face, {across:.0f} pixels between the eyes, is not used for {len(free) / FRAME_RATE:.2f} s",
                )
            )
    for trail in sorted(chosen, key=lambda one: one.start):
        own = trail.rows
        code = own[:, 10].astype(int)
        if not still:
            code[_still(own[:, 9])] = STANDS_STILL
        if trail.jumped and trail.start and what[trail.start - 1] == NO_FACE:
            first = trail.start
            while first and what[first - 1] == NO_FACE:
                first -= 1
            what[first : trail.start] = JUMPED
        part = slice(trail.start, trail.stop)
        what[part] = code
        rows[part] = np.where((code == SHOWN)[:, None], own[:, :10], np.nan)
        runs += [(trail.start + a, trail.start + b) for a, b in _stretches(code == SHOWN)]
    edges = [0, *(np.flatnonzero(np.diff(what)) + 1), count]
    for start, stop in itertools.pairwise(edges):
        if stop > start and what[start] != SHOWN:
            gaps.append((int(start), f"{REASONS[int(what[start])]} for {(stop - start) / FRAME_RATE:.2f} s"))
    return Track(
        rows[:, :4].reshape(-1, 2, 2),
        rows[:, 4:6],
        rows[:, 6],
        np.maximum(rows[:, 7] - rows[:, 8], 0),
        sorted(runs),
        sorted(gaps),
        faces.sizes,
        faces.error,
        notes,
    )


def speaking_score(rows: np.ndarray, energy: np.ndarray) -> float:
    """How much a mouth moves with the sound: its motion beyond the face's while it is loud, in grey levels.

    Args:
        rows: (F, 11) of a `fedtalk.data.tracking.Trail`.
        energy: (F,) loudness in the same frames.
    """
    motion = np.maximum(rows[:, 7] - rows[:, 8], 0)
    loud = energy > 0.25 * np.quantile(energy, 0.95)
    if not loud.any():
        return 0.0
    together = 0.0
    if len(motion) >= FRAME_RATE:
        pair = np.corrcoef(gaussian_filter1d(motion, 2.0), gaussian_filter1d(np.sqrt(energy), 2.0))
        together = float(np.nan_to_num(pair[0, 1]))
    return float(motion[loud].mean()) * (1 + max(0.0, together))


def _chosen(
    trails: Sequence[Trail],
    energy: np.ndarray | None,
    number: int | None,
    likeness: np.ndarray | None,
    notes: list[str],
) -> tuple[list[Trail], list[Trail]]:
    """The trails taken and those left out."""
    if likeness is not None:
        near = {id(trail): _unlikeness(trail, likeness) for trail in trails}
        ranked = [trail for trail in sorted(trails, key=lambda one: near[id(one)]) if near[id(trail)] < SAME_PERSON]
    elif number is not None:
        ranked = [trail for trail in trails if _place(trail, trails) == number]
    else:
        ranked = _by_speech(trails, energy, notes)
    chosen: list[Trail] = []
    for trail in ranked:
        if not any(_overlap(trail, other) for other in chosen):
            chosen.append(trail)
    return chosen, [trail for trail in trails if trail not in chosen]


def _by_speech(trails: Sequence[Trail], energy: np.ndarray | None, notes: list[str]) -> list[Trail]:
    """Best first: the speaker where one is clear, else by size, then by length."""
    size = {
        id(trail): float(np.linalg.norm(np.median(trail.rows[:, 2:4] - trail.rows[:, :2], axis=0))) for trail in trails
    }
    score = dict.fromkeys(size, 0.0)
    for trail in trails:
        rivals = [other for other in trails if other is not trail and _overlap(trail, other)]
        if rivals and energy is not None:
            sound = np.pad(energy, (0, max(0, trail.stop - len(energy))))[trail.start : trail.stop]
            score[id(trail)] = speaking_score(trail.rows, sound)
    for trail in trails:
        rivals = [other for other in trails if other is not trail and _overlap(trail, other) >= WORTH_A_LINE]
        if not rivals or size[id(trail)] < max(size[id(other)] for other in rivals):
            continue  # told once, by the largest
        first, second = sorted((score[id(one)] for one in (trail, *rivals)), reverse=True)[:2]
        if first < CLEARLY * max(second, 0.05):
            for one in (trail, *rivals):
                score[id(one)] = 0.0
            notes.append(
                f"{len(rivals) + 1} faces from {trail.start / FRAME_RATE:.2f} s on, and it is not clear who speaks: the largest "
                "is taken; choose by --face NUMBER (from the left) or a picture of the person"
            )
    return sorted(trails, key=lambda one: (-score[id(one)], -size[id(one)], -(one.stop - one.start)))


def _overlap(one: Trail, other: Trail) -> int:
    return max(0, min(one.stop, other.stop) - max(one.start, other.start))


def _place(trail: Trail, trails: Sequence[Trail]) -> int:
    """From the left, from 1, among the faces seen at the same time."""
    middle = float(np.median(trail.rows[:, 0]))
    others = [other for other in trails if other is not trail and _overlap(trail, other)]
    return 1 + sum(float(np.median(other.rows[:, 0])) < middle for other in others)


def _unlikeness(trail: Trail, likeness: np.ndarray) -> float:
    if not trail.embeddings:
        return float("inf")
    return float(np.median(np.linalg.norm(np.stack(trail.embeddings) - likeness, axis=1)))


def _still(change: np.ndarray) -> np.ndarray:
    """(F,) bool: frames of stretches in which nothing moves for `LONGEST_STILL` frames or more."""
    still = np.zeros(len(change), bool)
    quiet = change < STILL_LEVELS
    quiet[:1] = False  # its change is unknown
    for start, stop in _stretches(quiet):
        if stop - start >= LONGEST_STILL:
            still[start:stop] = True
    return still


def _stretches(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and last + 1 of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
