"""A picture of a person that a whole speaking face is drawn from."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from fedtalk.data.clip import Reference
from fedtalk.data.faces import FaceFinder
from fedtalk.data.framing import crop, framing, move
from fedtalk.data.prepare.gate import at_border, too_small
from fedtalk.errors import FaceNotFoundError, MediaError

log = logging.getLogger("fedtalk")


@dataclass(frozen=True)
class Portrait:
    """A face in a picture."""

    picture: np.ndarray
    """(H, W, 3) uint8."""
    transform: np.ndarray
    """(2, 3), from the picture to the frame around the face."""
    reference: Reference
    """That frame."""


def find_portrait(picture: np.ndarray, size: int, finder: FaceFinder) -> Portrait:
    """Find the largest face in a picture, framed as in clips.

    Args:
        picture: (H, W, 3) uint8 RGB.
        size: side of the frame in pixels.
        finder: of faces.

    Raises:
        MediaError: not such an array, or the picture or the face in it is too small, or at the border.
        FaceNotFoundError: no face was found.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise MediaError(f"portrait: expected (H, W, 3) uint8 RGB, got {picture.shape} {picture.dtype}")
    height, width = picture.shape[:2]
    if min(height, width) < size // 2:
        raise MediaError(
            f"portrait: the picture is {width} x {height} pixels, too small for a frame of {size}; "
            f"expected at least {size // 2} pixels on each side"
        )
    faces = finder.find(picture)
    if not faces:
        raise FaceNotFoundError(
            f"portrait: no face found in the picture of {width} x {height} pixels. Expected one person facing the "
            "camera, evenly lit, with space around the head; try another picture, a larger one or another face finder."
        )
    face = max(faces, key=lambda one: one.area)
    if len(faces) > 1:
        log.warning("portrait: %d faces found; taking the largest, at %s", len(faces), face.box.round().tolist())
    eyes = face.eyes[None].astype(np.float64)
    transform = framing(eyes, size)
    problem = too_small(eyes, size) or at_border(transform, size, width, height)
    if problem:
        raise MediaError(f"portrait: {problem}; use a larger picture with space around the head")
    eyes_there, mouth = (move(transform, points).astype(np.float32) for points in (face.eyes, face.mouth))
    reference = Reference(crop(picture, transform, size), eyes_there, mouth)
    return Portrait(picture, transform, reference)
