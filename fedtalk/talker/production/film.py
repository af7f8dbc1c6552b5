"""A video that is made while it is read, and the file that it becomes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from fedtalk.data.provenance import Provenance
from fedtalk.data.video_writer import VideoWriter
from fedtalk.talker.production.speech import Speech

Timed = Generator[tuple[np.ndarray, int], None, None]
"""Frames (H, W, 3) uint8 with how many ticks each is shown; closed when no more are wanted."""


@dataclass(frozen=True)
class Film:
    """A video that is made while it is iterated over, each time anew.

    Yields:
        (H, W, 3) uint8 RGB frames. Of a portrait 25 a second; of a recording, those of the recording at its own rate.
    """

    speech: Speech
    frame_rate: Fraction
    """Frames a second, on average."""
    time_base: Fraction
    """Seconds a tick of `timed`."""
    provenance: Provenance
    metadata: Mapping[str, str]
    timed: Callable[[], Timed]
    """Frames with how many ticks each is shown."""

    def __iter__(self) -> Iterator[np.ndarray]:
        with contextlib.closing(self.timed()) as frames:
            for frame, _ in frames:
                yield frame

    @property
    def frames(self) -> int:
        """How many frames it will have; to one frame, for a recording of uneven rate."""
        return max(1, round(self.speech.seconds * self.frame_rate))

    def save(
        self, path: str | Path, *, scale: int = 1, mark: bool = False, told: Callable[[int], None] | None = None
    ) -> Made:
        """Write it as mp4 with the speech as its sound, its metadata and its signed provenance.

        Args:
            path: file to write.
            scale: whole factor by which frames are enlarged.
            mark: draw the visible mark.
            told: called with the number of frames after each.

        Raises:
            OutputError: the file can't be written.
        """
        started = time.perf_counter()
        shape: tuple[int, int] | None = None
        with contextlib.closing(self.timed()) as frames, VideoWriter(
            Path(path).expanduser(), audio=self.speech.sound(), scale=scale, frame_rate=self.frame_rate, time_base=self.time_base,
            metadata=self.metadata, provenance=self.provenance, mark=mark,
        ) as writer:  # fmt: skip
            for frame, ticks in frames:
                shape = shape or (frame.shape[0], frame.shape[1])
                writer.write(_shaped(frame, shape, scale), ticks)
                if told is not None:
                    told(writer.frames)
        return Made(Path(path), writer.frames, float(writer.seconds), time.perf_counter() - started)


@dataclass(frozen=True)
class Made:
    """A file that was written."""

    path: Path
    frames: int
    seconds: float
    """Of video."""
    took: float
    """Seconds of work."""

    def __str__(self) -> str:
        return (
            f"wrote {self.path}: {self.frames} frames, {self.seconds:.2f} s; {self.frames / max(self.took, 1e-9):.1f} frames/s. "
            "It says that it is synthetic (metadata, signed C2PA manifest)"
        )


def _shaped(frame: np.ndarray, shape: tuple[int, int], scale: int) -> np.ndarray:
    """The frame as large as the first one, where a recording changes its size half-way; with even sides, for H.264."""
    if frame.shape[:2] != shape:
        frame = cv2.resize(frame, shape[::-1], interpolation=cv2.INTER_AREA)
    rows, columns = ((side * scale) % 2 for side in shape)
    return np.pad(frame, ((0, rows), (0, columns), (0, 0)), mode="edge") if rows or columns else frame
