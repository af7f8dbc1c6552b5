"""A recording of a person whose mouth is to follow other speech: where the face is, and its frames in the order of play."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from scipy.ndimage import gaussian_filter1d

from fedtalk.checks import check_choice
from fedtalk.data.choosing import choose_face
from fedtalk.data.clip import FRAME_RATE, SAMPLES_PER_FRAME, Reference
from fedtalk.data.faces import FaceFinder
from fedtalk.data.framing import crop, framing, move
from fedtalk.data.media import NativeFrame, audio_blocks, native_frames, read_video
from fedtalk.data.prepare.gate import at_border, too_small
from fedtalk.data.tracking import follow_faces
from fedtalk.errors import FaceNotFoundError, MediaError

log = logging.getLogger("fedtalk")

WhenShort = Literal["loop", "hold", "refuse"]
LONGEST_GAP = FRAME_RATE
"""Frames without a sighting of the face that are bridged."""
STEADY = 12.0
"""Standard deviation in frames of the kernel that smooths the crop's path: half a second, so that within the frames the network
sees at once the crop all but stands still, as in what it was trained on."""
BACKWARD = 1.0
"""Seconds that are held in memory while a recording is played backward."""


@dataclass(frozen=True)
class Shown:
    """One frame of the recording in the order of play."""

    at: float
    """Second of the result at which it appears."""
    ticks: int
    """How long it is shown, in the recording's ticks."""
    frame: NativeFrame


@dataclass(frozen=True)
class FacePose:
    """Where the face is at one instant of the recording."""

    eyes: np.ndarray
    """(2, 2), in the picture."""
    transform: np.ndarray
    """(2, 3), from the picture to the crop."""
    run: int
    """Number of the stretch that it belongs to; between stretches lie cuts or frames without a face."""


class Recording:
    """A video file as the ground that a mouth is drawn on. Read three times: for faces, for crops, for pictures."""

    def __init__(
        self, path: str | Path, seconds: float, size: int, finder: FaceFinder, when_short: WhenShort = "loop"
    ) -> None:
        """Follow the face as far as the speech needs it.

        Args:
            path: video file.
            seconds: of the speech.
            size: side of the crops in pixels.
            finder: of faces.
            when_short: what to do where the speech is longer: ``loop`` plays the recording forth and back, ``hold`` keeps
                its last picture, ``refuse`` raises.

        Raises:
            MediaError: the file can't be read, is shorter than the speech where that is refused, or its face is too small or
                at the border throughout.
            FaceNotFoundError: no face in what the speech needs of it.
        """
        check_choice("when_short", when_short, WhenShort)
        self.path, self.size, self.when_short = Path(path).expanduser(), size, when_short
        needed = round(seconds * FRAME_RATE)
        video = read_video(self.path)
        faces = follow_faces(itertools.islice(video, needed), finder, every=5, longest_gap=LONGEST_GAP)
        track = choose_face(faces, _loudness(self.path, needed) if video.has_audio else None, still=True)
        for note in track.notes:
            log.warning("%s: %s", self.path.name, note)
        self.frames = len(track)
        """Frames of 40 ms that were read."""
        self._damaged = track.error is not None
        if track.error:
            log.warning("%s; what comes before it is used", track.error)
        if self.frames < needed and when_short == "refuse":
            raise MediaError(
                f"{self.path}: {self.frames / FRAME_RATE:.2f} s of video, the speech has {seconds:.2f} s; give a longer "
                "video or shorter speech, or --when_short loop (forth and back) or hold (the last picture)"
            )
        self._run = np.full(self.frames, -1)
        self._eyes = np.full((self.frames, 2, 2), np.nan)
        self._paths = np.full((self.frames, 2, 2), np.nan)
        problems = [(start, reason) for start, reason in track.gaps]
        for number, (start, stop) in enumerate(track.runs):
            eyes = track.eyes[start:stop].astype(np.float64)
            transform = framing(eyes, size)
            problem = too_small(eyes, size) or at_border(transform, size, *map(int, track.sizes[start]))
            if problem:
                problems.append((start, f"{problem} for {(stop - start) / FRAME_RATE:.2f} s"))
                continue
            self._run[start:stop] = number
            self._eyes[start:stop] = gaussian_filter1d(eyes, 1.0, axis=0, mode="nearest")
            self._paths[start:stop] = gaussian_filter1d(eyes, STEADY, axis=0, mode="nearest")
        usable = np.flatnonzero(self._run >= 0)
        if not len(usable):
            reason = "; ".join(text for _, text in problems) or "no frames"
            kind = MediaError if track.runs else FaceNotFoundError
            raise kind(f"{self.path}: no usable face in {self.frames / FRAME_RATE:.2f} s ({reason})")
        for start, reason in sorted(problems):
            log.warning("%s: from %.2f s: %s; this part stays as it is", self.path.name, start / FRAME_RATE, reason)
        self._first = int(usable[0])
        self.time_base = Fraction(next(native_frames(self.path)).time_base)
        """Seconds a tick, see `Shown.ticks`."""
        self.frame_rate = Fraction(video.frame_rate or FRAME_RATE).limit_denominator(1001)
        self.metadata = _metadata(self.path)

    def look(self, seconds: float) -> FacePose | None:
        """The face at an instant of the recording; None where there is none."""
        position = min(max(seconds * FRAME_RATE, 0.0), self.frames - 1.0)
        before = int(position)
        later = min(before + 1, self.frames - 1)
        nearest = before if position - before < 0.5 else later
        if self._run[nearest] < 0:
            return None
        share = position - before
        if self._run[before] != self._run[later]:
            before = later = nearest  # never between two shots
        eyes, path = ((1 - share) * one[before] + share * one[later] for one in (self._eyes, self._paths))
        return FacePose(eyes, framing(path[None], self.size), int(self._run[nearest]))

    def reference(self) -> Reference:
        """The first usable frame, as what the network knows of the person's looks."""
        frame = next(native_frames(self.path, self._first / FRAME_RATE))
        look = self.look(self._first / FRAME_RATE)
        assert look is not None
        return Reference(*self.cut_out(frame, look))

    def play(self, seconds: float) -> Iterator[Shown]:
        """Its frames from the first on, until the speech ends: at their own times, forth and back or held where it is longer.

        Args:
            seconds: of the speech. The last frame is the one nearest to its end.
        """
        at = Fraction(0)
        for frame, ticks in self._order():
            if float(at) + float(ticks * self.time_base) / 2 > seconds and at > 0:
                return
            yield Shown(float(at), ticks, frame)
            at += ticks * self.time_base

    def each_40_ms(self, count: int) -> Iterator[Shown]:
        """For each of ``count`` instants ``i / 25`` s of play the frame that appears nearest to it."""
        shown = self.play(count / FRAME_RATE)
        held = next(shown)
        index = 0
        for following in shown:
            while index < count and index / FRAME_RATE < (held.at + following.at) / 2 - 1e-9:
                yield held
                index += 1
            held = following
        for _ in range(index, count):
            yield held

    def cut_out(self, frame: NativeFrame, look: FacePose) -> tuple[np.ndarray, np.ndarray]:
        """Crop (H, W, 3) uint8 of a frame, and its eyes (2, 2) in pixels."""
        return crop(frame.rgb(), look.transform, self.size), move(look.transform, look.eyes).astype(np.float32)

    def _order(self) -> Iterator[tuple[NativeFrame, int]]:
        last = None
        for last in self._forward():
            yield last
        assert last is not None
        while self.when_short == "hold":
            yield last
        while True:
            backward = itertools.pairwise(self._backward())
            # Neither end is shown twice; after the way back the first frame is the first of the way forth.
            yield from (one for one, _ in backward)
            ahead = self._forward()
            yield from ahead

    def _readable(self, frames: Iterator[NativeFrame]) -> Iterator[NativeFrame]:
        """Frames up to the place where the file is damaged, if it was found to be when faces were looked for."""
        try:
            yield from frames
        except MediaError:
            if not self._damaged:
                raise

    def _forward(self) -> Iterator[tuple[NativeFrame, int]]:
        """Frames with how long each is shown."""
        end = self.frames / FRAME_RATE
        held: NativeFrame | None = None
        ticks = round(1 / self.frame_rate / self.time_base)
        for frame in self._readable(native_frames(self.path)):
            if held is not None:
                ticks = max(1, round((frame.seconds - held.seconds) / self.time_base))
                yield held, ticks
            if frame.seconds > end - 1e-6:
                return
            held = frame
        if held is not None:
            yield held, ticks

    def _backward(self) -> Iterator[tuple[NativeFrame, int]]:
        """The same from the last but one to the first, a stretch of `BACKWARD` seconds in memory at a time."""
        later: float | None = None
        stop = self.frames / FRAME_RATE
        while stop > 0:
            start = max(0.0, stop - BACKWARD)
            part = []
            for frame in self._readable(native_frames(self.path, start)):
                if frame.seconds >= stop - 1e-6:
                    break
                if frame.seconds >= start - 1e-6:
                    part.append(frame)
            for frame in reversed(part):
                if later is not None:
                    yield frame, max(1, round((later - frame.seconds) / self.time_base))
                later = frame.seconds
            stop = start


def _loudness(path: Path, count: int) -> np.ndarray | None:
    """(F,) of the recording's own sound by frame, by which the one who speaks is told from others; None without sound."""
    try:
        blocks = itertools.islice(audio_blocks(path, SAMPLES_PER_FRAME), count)
        return np.array([float(np.sqrt(np.square(block).mean())) for block in blocks])
    except MediaError:
        return None


def _metadata(path: Path) -> dict[str, str]:
    """Tags of the file, without those that the new container sets itself."""
    own = ("major_brand", "minor_version", "compatible_brands", "encoder")
    with av.open(f"file:{path}", metadata_errors="replace") as container:
        return {name: text for name, text in container.metadata.items() if name.lower() not in own}
