"""The portrait, and the video to be dubbed, for ``fedtalk generate``."""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path

import numpy as np

from fedtalk.data.choosing import choose_face
from fedtalk.data.clip import FRAME_RATE, SAMPLES_PER_FRAME, Clip
from fedtalk.data.faces import FaceFinder, face_finder
from fedtalk.data.framing import crop, framing, move
from fedtalk.data.media import read_video
from fedtalk.data.prepare.gate import at_border, too_small, transforms_or_problem
from fedtalk.data.prepare.one_video import audio_blocks_or_less, smooth
from fedtalk.data.tracking import follow_faces
from fedtalk.errors import FaceNotFoundError, MediaError

logger = logging.getLogger(__name__)


def prepare_portrait(
    image: np.ndarray, size: int, finder: str | FaceFinder = "dlib"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the largest face out of a picture, framed as in clips.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: side of the frame in pixels.
        finder: a name for `fedtalk.data.faces.face_finder`, or a finder.

    Returns:
        The frame, (size, size, 3) uint8; the eyes in it, (2, 2) float32; the mouth in it, (2,) float32.

    Raises:
        MediaError: not such an array, or the picture or the face in it is too small or too near to the border.
        FaceNotFoundError: no face was found.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise MediaError(f"portrait: expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    if min(height, width) < size // 2:
        raise MediaError(
            f"portrait: the picture is {width} x {height} pixels, too small for a frame of {size}; "
            f"expected at least {size // 2} pixels on each side"
        )
    faces = (face_finder(finder) if isinstance(finder, str) else finder).find(image)
    if not faces:
        raise FaceNotFoundError(
            f"portrait: no face found in the picture of {width} x {height} pixels. Expected one person facing the "
            "camera, evenly lit, with space around the head; try another picture, a larger one or another face finder."
        )
    face = max(faces, key=lambda one: one.area)
    if len(faces) > 1:
        logger.warning("portrait: %d faces found; taking the largest, at %s", len(faces), face.box.round().tolist())
    transform = framing(face.eyes[None], size)
    problem = too_small(face.eyes[None], size) or at_border(transform, size, width, height)
    if problem:
        raise MediaError(f"portrait: {problem}; use a larger picture with space around the head")
    eyes, mouth = (move(transform, points).astype(np.float32) for points in (face.eyes, face.mouth))
    return crop(image, transform, size), eyes, mouth


def prepare_video(path: str | os.PathLike[str], size: int, finder: str | FaceFinder = "dlib") -> Clip:
    """The longest stretch of a video in which a face is seen, as one clip; its own sound, if any, is left behind.

    Args:
        path: video file.
        size: side of the frame in pixels.
        finder: a name for `fedtalk.data.faces.face_finder`, or a finder.

    Returns:
        a clip whose ``info`` says from which second of the video it is (``start``) and how long that is
        (``video_seconds``), both in seconds.

    Raises:
        MediaError: the file can't be read, or the face is too small or leaves the frame.
        FaceNotFoundError: no face was found in any frame.
    """
    video = read_video(path)
    found = face_finder(finder) if isinstance(finder, str) else finder
    energy = None
    if video.has_audio:
        energy = np.array([float(np.sqrt((block**2).mean())) for block in audio_blocks_or_less(Path(path))])
    track = choose_face(follow_faces(video, found, every=5, longest_gap=FRAME_RATE), energy)
    for note in track.notes:
        logger.warning("%s: %s", path, note)
    if not track.runs:
        raise FaceNotFoundError(f"{path}: no face found in {len(track)} frames; expected one person facing the camera")
    start, stop = max(track.runs, key=lambda run: run[1] - run[0])
    rows = slice(start, stop)
    transforms, problem = transforms_or_problem(track, rows, size)
    if transforms is None:
        raise MediaError(f"{path}: {problem}")
    pictures = itertools.islice(video, start, stop)
    frames = np.stack([crop(picture, own, size) for picture, own in zip(pictures, transforms, strict=True)])
    eyes = [move(own, points) for own, points in zip(transforms, track.eyes[rows].astype(np.float64), strict=True)]
    mouth = [move(own, point) for own, point in zip(transforms, track.mouth[rows].astype(np.float64), strict=True)]
    return Clip(
        frames,
        np.zeros(len(frames) * SAMPLES_PER_FRAME, np.float32),
        smooth(np.stack(eyes)),
        smooth(np.stack(mouth)),
        transforms=transforms,
        info={
            "source": Path(path).name,
            "start": round(start / FRAME_RATE, 2),
            "video_seconds": round(len(track) / FRAME_RATE, 2),
        },
    )
