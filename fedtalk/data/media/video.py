"""Video in: every source's pictures at 25 frames a second, upright, with square pixels."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fedtalk.data.clip import FRAME_RATE
from fedtalk.data.media.colour import is_hdr, to_rgb
from fedtalk.data.media.decoding import EXACT
from fedtalk.data.media.files import PathLike
from fedtalk.data.media.tracks import Tracks, examine
from fedtalk.errors import MediaError

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 60.0
"""Seconds that timestamps may jump ahead; a longer jump is taken for damage, not for a still picture or silence."""


@dataclass(frozen=True)
class Video:
    """A readable video file. Iterating decodes it anew, one frame at a time, at 25 frames a second.

    Yields:
        (height, width, 3) uint8 RGB, contiguous, upright and with square pixels: for each instant ``i / 25`` s the
        source frame with the nearest timestamp. The same array may be yielded twice: copy before changing it. The
        size may change where the file's does.

    Raises:
        MediaError: while iterating, where the file is damaged or ends before the time that it declares.
    """

    path: Path
    frame_rate: float
    """Frames a second in the file (average), 0 where it does not say."""
    duration: float | None
    """Seconds that the file declares."""
    no_sound: str
    """Why its sound can't be read; empty where it has a sound track."""
    late: float
    """Seconds at the start without a picture that can be decoded; they are left out, of the sound too."""

    @property
    def has_audio(self) -> bool:
        """Whether there is a sound track that can be decoded."""
        return not self.no_sound

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from _at_frame_rate(examine(self.path), self.path)


def read_video(path: PathLike) -> Video:
    """Open a video in any container and codec that ffmpeg reads; see `Video` for what its frames are.

    Raises:
        MediaError: the file is missing, empty, damaged or without a video track.
    """
    path = Path(path)
    tracks = examine(path)
    if tracks.picture is None:
        raise MediaError(f"{path}: {tracks.no_picture}")
    return Video(path, tracks.rate, tracks.seconds, tracks.no_sound, tracks.late)


@dataclass(frozen=True)
class NativeFrame:
    """One picture of a video as it lies in the file, at the file's own rate."""

    time_base: Fraction
    """Seconds a tick of the file's clock."""
    seconds: float
    """Since the first picture: sample ``16 000 seconds`` of `fedtalk.data.media.read_audio` belongs to it."""
    taken: float
    """By its own timestamp; before `seconds` where an edit begins in the middle of the picture."""
    stop: float
    """Where the edit that it belongs to ends; infinite without one."""
    source: Any
    """The decoded ``av.VideoFrame``."""
    aspect: float
    """Width over height of its pixels."""

    def rgb(self) -> np.ndarray:
        """(height, width, 3) uint8, contiguous, upright, square pixels."""
        return _upright(self.source, self.aspect)


SEEK_MARGINS = (0.0, 2.0, 10.0)
"""Seconds before the wanted time at which reading begins."""


def native_frames(path: PathLike, start: float = 0.0) -> Iterator[NativeFrame]:
    """All pictures of a video from ``start`` seconds on (and the one that is shown at that time), in order.

    Timestamps never go back: a picture that claims to be shown before its predecessor is passed over.

    Raises:
        MediaError: while iterating, where the file has no picture, is damaged, or its timestamps jump.
    """
    path = Path(path)
    tracks = examine(path)
    if tracks.picture is None:
        raise MediaError(f"{path}: {tracks.no_picture}")
    # Files without an index are entered near the wanted place, at times behind it: then from farther back.
    margins = [*SEEK_MARGINS, None] if start > 0 and not tracks.shifts else [None]
    for margin in margins:
        frames = _native(tracks, path, None if margin is None else max(0.0, start - margin) + tracks.origin)
        held = next(frames, None)
        if margin is not None and (held is None or held.seconds > start):
            continue
        for frame in frames:
            if held is not None and frame.seconds > start:
                yield held
            held = frame
        if held is not None:
            yield held
        return


def _native(tracks: Tracks, path: Path, start: float | None = None) -> Iterator[NativeFrame]:
    assert tracks.picture is not None  # read_video has refused it
    step = 1 / (tracks.rate or FRAME_RATE)
    before: float | None = None
    for one in tracks.decoded(path, tracks.picture, start):
        expected = 0.0 if before is None else before + step
        taken = expected if one.time is None else one.time - tracks.origin
        time = max(taken, one.start - tracks.origin)
        if before is not None:
            if time <= before:
                continue
            if time - before > LONGEST_PAUSE:
                raise MediaError(f"{path}: the picture's timestamps jump from {before:.2f} s to {time:.2f} s")
        stop = one.stop - tracks.origin
        yield NativeFrame(one.frame.time_base, time, taken, stop, one.frame, tracks.aspect)
        before = time


def _at_frame_rate(tracks: Tracks, path: Path) -> Iterator[np.ndarray]:
    """Frames by nearest timestamp: a source frame is shown until midway to its successor, or to the end of its edit."""
    shown = 0
    held: Any = None

    def until(instant: float) -> Iterator[np.ndarray]:
        nonlocal shown
        picture = None
        while shown / FRAME_RATE <= instant + 1e-6:
            picture = held.rgb() if picture is None else picture
            yield picture
            shown += 1

    for frame in _native(tracks, path):
        if held is None:
            if is_hdr(frame.source):
                logger.info("%s: high dynamic range, brought to that of an ordinary screen", path.name)
        else:
            yield from until((held.taken + frame.taken) / 2 if frame.stop == held.stop else frame.seconds - 2 * EXACT)
        held = frame
    source = held.source
    length = float(source.duration * source.time_base) if source.duration else 1 / (tracks.rate or FRAME_RATE)
    end = min(held.taken + length, held.stop)
    yield from until((max(1, round(end * FRAME_RATE)) - 1) / FRAME_RATE)
    if tracks.seconds is not None and end < 0.95 * tracks.seconds - tracks.late - 0.5:
        raise MediaError(
            f"{path}: cut short; its header declares {tracks.seconds:.2f} s, its picture ends at {held.seconds:.2f} s"
        )


def _upright(frame: Any, aspect: float) -> np.ndarray:
    """RGB with square pixels, turned and mirrored by the display matrix that telephones write."""
    picture = to_rgb(frame)
    if aspect != 1 and 0.2 < aspect < 5:
        picture = cv2.resize(
            picture, (round(picture.shape[1] * aspect), picture.shape[0]), interpolation=cv2.INTER_AREA
        )
    return np.ascontiguousarray(_displayed(picture, _display_matrix(frame)))


def _display_matrix(frame: Any) -> np.ndarray | None:
    """(2, 2) of a frame's display matrix: row vectors (x, y) of the stored picture times it lie in the shown one."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2] / 65536
            return matrix if np.abs(matrix).max() > 0 else None
    return None


def _displayed(picture: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """The picture under the quarter turn or mirroring that is nearest to ``matrix``."""
    if matrix is None:
        return picture
    (a, b), (c, d) = matrix
    if abs(a) + abs(d) >= abs(b) + abs(c):
        across, down = a < 0, d < 0
    else:
        picture, across, down = picture.swapaxes(0, 1), c < 0, b < 0
    return picture[:: -1 if down else 1, :: -1 if across else 1]
