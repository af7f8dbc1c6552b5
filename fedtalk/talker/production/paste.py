"""Putting a generated face back where it was cut out: at the picture's own resolution, with a soft border."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from fedtalk.talker.masks import CENTRE_DROP, HALF_HEIGHT, HALF_WIDTH, region

FEATHER = 0.12
"""Width of the blending border of a whole frame, over its side."""
SMALLEST_STEP = 0.75
"""Scale below which a face is made smaller before it is put back, so that no pixel is skipped."""

Weight = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(1, W) x and (H, 1) y of the picture's pixels -> (H, W) weight in [0, 1] of the face over the picture."""


def inverse(transform: np.ndarray) -> np.ndarray:
    """The (2, 3) transform that takes back what ``transform`` (2, 3) did.

    >>> inverse(np.array([[2.0, 0.0, 3.0], [0.0, 2.0, 5.0]])).tolist()
    [[0.5, 0.0, -1.5], [0.0, 0.5, -2.5]]
    """
    turn = np.linalg.inv(transform[:, :2])
    return np.concatenate([turn, -(turn @ transform[:, 2:])], axis=1) + 0.0


def after(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The (2, 3) transform that is ``first``, then ``second``."""
    return np.concatenate([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2:] + second[:, 2:]], axis=1)


def paste_mouth(picture: np.ndarray, face: np.ndarray, place: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """Put the lower face (`fedtalk.talker.masks`) into a picture; every pixel outside of it stays as it is, to the bit.

    Args:
        picture: (H, W, 3) uint8.
        face: (S, S, 3) float32, 0 to 255.
        place: (2, 3), from the face's pixels to the picture's.
        eyes: (2, 2), the eyes in the picture.

    Returns:
        (H, W, 3) uint8, a new array.
    """
    middle, across = eyes.mean(0), eyes[1] - eyes[0]
    down = np.array([-across[1], across[0]])
    corners = [
        middle + (CENTRE_DROP + v * HALF_HEIGHT) * down + u * HALF_WIDTH * across for u in (-1, 1) for v in (-1, 1)
    ]

    def weight(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # The region counts pixel centres from one half, pictures from zero.
        return region(eyes[None] + 0.5, x + 0.5, y + 0.5)[1][0]

    return _blend(picture, face, place, np.array(corners), weight)


def paste_frame(picture: np.ndarray, face: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Put a whole frame into a picture, faded out towards its border; arguments as of `paste_mouth`."""
    size = len(face)
    back = inverse(place)

    def weight(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        inside = [back[i, 0] * x + back[i, 1] * y + back[i, 2] for i in (0, 1)]
        depth = np.minimum(*(np.minimum(one + 0.5, size - 0.5 - one) for one in inside)) / (FEATHER * size)
        ramp = np.clip(depth, 0, 1)
        return ramp * ramp * (3 - 2 * ramp)

    edge = np.array([[-0.5, -0.5], [size - 0.5, -0.5], [-0.5, size - 0.5], [size - 0.5, size - 0.5]])
    return _blend(picture, face, place, edge @ place[:, :2].T + place[:, 2], weight)


def _blend(picture: np.ndarray, face: np.ndarray, place: np.ndarray, corners: np.ndarray, weight: Weight) -> np.ndarray:
    height, width = picture.shape[:2]
    left, top = (int(v) for v in np.clip(np.floor(corners.min(0)), 0, (width, height)))
    right, bottom = (int(v) for v in np.clip(np.ceil(corners.max(0)) + 1, 0, (width, height)))
    made = picture.copy()
    if right <= left or bottom <= top:
        return made
    x, y = np.arange(left, right, dtype=np.float64)[None], np.arange(top, bottom, dtype=np.float64)[:, None]
    share = weight(x, y)[..., None].astype(np.float32)
    scale = math.sqrt(abs(float(np.linalg.det(place[:, :2]))))
    if scale < SMALLEST_STEP:
        side = max(2, round(len(face) * scale))
        ratio = len(face) / side
        face = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
        place = after(place, np.array([[ratio, 0, (ratio - 1) / 2], [0, ratio, (ratio - 1) / 2]]))
    window = place - np.array([[0, 0, left], [0, 0, top]])
    moved = cv2.warpAffine(
        face, window, (right - left, bottom - top), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    area = made[top:bottom, left:right]
    mixed = share * moved + (1 - share) * area
    area[:] = np.where(share > 0, np.clip(np.rint(mixed), 0, 255), area).astype(np.uint8)
    return made
