"""Which stretches of a followed face are good enough for a clip or a portrait: one rule and one sentence each."""

from __future__ import annotations

import numpy as np

from fedtalk.data.choosing import Track
from fedtalk.data.framing import framing, framing_path, move, share_outside, smallest_eye_distance

MOST_OUTSIDE = 0.25
"""Share of a frame that may lie outside the source picture."""


def transforms_or_problem(track: Track, rows: slice, size: int) -> tuple[np.ndarray | None, str]:
    """How the frames of a clip are cut out, or why they can't be.

    The crop stands still where the head stays in it, and follows smoothly where it does not.

    Returns:
        (F, 2, 3) float64 from the source picture to the frame, and "", or None and the reason.
    """
    eyes, mouth = track.eyes[rows].astype(np.float64), track.mouth[rows].astype(np.float64)
    problem = too_small(eyes, size)
    if problem:
        return None, problem
    still = np.broadcast_to(framing(eyes, size), (len(eyes), 2, 3))
    for transforms in (still, framing_path(eyes, size)):
        moved = _moved(transforms, np.concatenate([eyes, mouth[:, None]], axis=1))
        if moved.min() >= 0 and moved.max() <= size - 1:
            break
    else:
        return None, "the head moves out of the frame; shorter clips follow it better"
    for index in {0, len(eyes) // 2, len(eyes) - 1}:
        problem = at_border(transforms[index], size, *map(int, track.sizes[rows][index]))
        if problem:
            return None, problem
    return transforms, ""


def at_border(transform: np.ndarray, size: int, width: int, height: int) -> str:
    """Why a picture leaves too little around the face, or ""."""
    outside = share_outside(transform, size, width, height)
    if outside <= MOST_OUTSIDE:
        return ""
    return f"the face is at the border: {outside:.0%} of the frame lies outside the picture, at most {MOST_OUTSIDE:.0%} may"


def too_small(eyes: np.ndarray, size: int) -> str:
    """Why faces are too small for a frame, or ""; ``eyes`` as in `Track`."""
    distance = float(np.median(np.linalg.norm(eyes[:, 1] - eyes[:, 0], axis=-1)))
    least = smallest_eye_distance(size)
    if distance >= least:
        return ""
    return f"the face is too small: {distance:.1f} pixels between the eyes, expected {least:.1f} for a frame of {size}"


def _moved(transforms: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.stack([move(transform, own) for transform, own in zip(transforms, points, strict=True)])
