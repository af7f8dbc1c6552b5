"""The frame around a face: where eyes lie in every picture that fedtalk learns from or makes."""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from fedtalk.data.clip import FRAME_RATE
from fedtalk.errors import ArtifactError

EYE_DISTANCE = 0.28
"""Distance between the centres of the eyes over the side of the frame."""
EYE_CENTRE = (0.5, 0.42)
"""Midpoint between the eyes, (x, y) over the side of the frame."""
MOST_ENLARGED = 2.0
"""Largest factor by which a face may be enlarged to fill the frame."""


def smallest_eye_distance(size: int) -> float:
    """Pixels between the eyes that a source picture must have for a frame of ``size`` pixels."""
    return EYE_DISTANCE * size / MOST_ENLARGED


def framing(eyes: np.ndarray, size: int) -> np.ndarray:
    """One similarity transform for all pictures of a clip, from the medians of eye distance, midpoint and roll.

    Medians over the clip keep the crop still, so that heads move as they did and nothing jitters.

    Args:
        eyes: (F, 2, 2), centres of the eye on the left and on the right of the picture, (x, y) in pixels.
        size: side of the frame in pixels.

    Returns:
        (2, 3) float64: takes (x, y, 1) in the source picture to (x, y) in the frame.

    >>> import numpy as np
    >>> eyes = np.array([[[100.0, 50.0], [156.0, 50.0]]])
    >>> np.round(move(framing(eyes, 100), eyes), 6).tolist()
    [[[35.5, 41.5], [63.5, 41.5]]]
    """
    across = eyes[:, 1] - eyes[:, 0]
    distances, rolls = np.hypot(across[:, 0], across[:, 1]), np.arctan2(across[:, 1], across[:, 0])
    if len(eyes) == 1:  # for paths, frame by frame: the median of one number takes longer than all the rest
        distance, roll, centre = float(distances[0]), float(rolls[0]), (eyes[0, 0] + eyes[0, 1]) / 2
    else:
        distance, roll = float(np.median(distances)), float(np.median(rolls))
        centre = np.median(eyes.mean(axis=1), axis=0)
    factor = EYE_DISTANCE * size / max(distance, 1e-6)
    cosine, sine = factor * math.cos(roll), factor * math.sin(roll)
    turn = np.array([[cosine, sine], [-sine, cosine]])
    target = np.array(EYE_CENTRE) * size - 0.5  # pixel centres are whole numbers
    return np.concatenate([turn, (target - turn @ centre)[:, None]], axis=1)


def move(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a (2, 3) transform to (..., 2) points."""
    return points @ transform[:, :2].T + transform[:, 2]


def crop(picture: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """Cut the frame out of a picture.

    Faces larger than the frame are cut out several times as large and then averaged: a plain warp would skip pixels,
    and fine texture would flicker. What lies outside the picture repeats its border.

    Args:
        picture: (H, W, 3) uint8.
        transform: see `framing`.
        size: side of the frame in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    enlargement = math.sqrt(abs(float(np.linalg.det(transform[:, :2]))))
    oversampling = min(16, max(1, math.ceil(1 / enlargement - 0.2)))
    finer = transform * oversampling
    finer[:, 2] += (oversampling - 1) / 2
    side = size * oversampling
    interpolation = cv2.INTER_LINEAR if enlargement < 1 else cv2.INTER_CUBIC
    cut = cv2.warpAffine(picture, finer, (side, side), flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
    return cut if oversampling == 1 else cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA)


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The turn, scale and shift that takes ``source`` nearest to ``target`` in least squares.

    Points as complex numbers: ``target - mean = a (source - mean)`` has the solution ``a = <s, t> / <s, s>``.

    Args:
        source: (N, 2) points, not all equal.
        target: (N, 2) points.

    Returns:
        (2, 3) float64.

    >>> similarity_transform(np.array([[0, 0], [1, 0]]), np.array([[5, 5], [5, 7]])).round(6).tolist()
    [[0.0, -2.0, 5.0], [2.0, 0.0, 5.0]]
    """
    one = np.asarray(source, np.float64) @ np.array([1, 1j])
    other = np.asarray(target, np.float64) @ np.array([1, 1j])
    factor = np.vdot(one - one.mean(), other - other.mean()) / np.vdot(one - one.mean(), one - one.mean())
    shift = other.mean() - factor * one.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def align(picture: np.ndarray, eyes: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Move a picture so that its eyes come to lie where they are in other frames.

    Args:
        picture: (H, W, 3) uint8.
        eyes: (2, 2), its eye centres in pixels, (x, y).
        target: (F, 2, 2), where they shall be.

    Returns:
        (F, H, W, 3) uint8; what lies outside the picture repeats its border.

    Raises:
        ArtifactError: the two eyes of the picture are one point.
    """
    height, width = picture.shape[:2]
    if np.linalg.norm(eyes[1] - eyes[0]) < 1e-3:
        raise ArtifactError(f"reference picture: its eyes lie on one point, {eyes[0].tolist()}; expected two points")
    moved = [
        cv2.warpAffine(
            picture,
            similarity_transform(eyes, points),
            (width, height),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for points in target
    ]
    return np.stack(moved)


def share_outside(transform: np.ndarray, size: int, width: int, height: int) -> float:
    """Share in [0, 1] of the frame's area that lies outside a source picture of ``width`` x ``height`` pixels."""
    grid = np.stack(np.meshgrid(np.linspace(0, size - 1, 32), np.linspace(0, size - 1, 32)), axis=-1).reshape(-1, 2)
    source = (grid - transform[:, 2]) @ np.linalg.inv(transform[:, :2]).T
    inside = (source >= -0.5).all(axis=1) & (source <= np.array([width, height]) - 0.5).all(axis=1)
    return float(1 - inside.mean())


def framing_path(eyes: np.ndarray, size: int, seconds: float = 0.4) -> np.ndarray:
    """Like `framing`, but following the head: position, scale and roll smoothed over time by a Gaussian.

    For heads that leave a crop that stands still.

    Args:
        eyes: see `framing`.
        size: side of the frame in pixels.
        seconds: standard deviation of the Gaussian.

    Returns:
        (F, 2, 3) float64, one transform a frame.
    """
    smooth = gaussian_filter1d(eyes.astype(np.float64), seconds * FRAME_RATE, axis=0, mode="nearest")
    return np.stack([framing(pair[None], size) for pair in smooth])
