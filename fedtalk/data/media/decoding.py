"""The frames of one track, each with its instant on the file's clock."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from fedtalk.data.media.edits import Edit
from fedtalk.data.media.files import opened
from fedtalk.errors import MediaError

logger = logging.getLogger(__name__)

MOST_DAMAGED = 0.1
"""Share of packets that may be undecodable before a file is refused."""
BEGINS_ANEW = 1.0
"""Seconds by which a track's timestamps must fall back to count as a new recording rather than as disorder."""
AHEAD_OF_EDIT = 1.0
"""Seconds that are decoded before an edit, so that decoders of sound have settled."""
PLANAR = {"u8p": np.uint8, "s16p": np.int16, "s32p": np.int32, "s64p": np.int64, "fltp": np.float32, "dblp": np.float64}
"""Types of samples whose channels lie apart."""
EXACT = 1e-6
"""Seconds to which instants that are sums of others are known."""


@dataclass(frozen=True)
class Decoded:
    """A frame of a track, and where it belongs."""

    frame: Any
    """The ``av.VideoFrame`` or ``av.AudioFrame``."""
    time: float | None
    """Its own second on the file's clock; None where the file has none. Of the first picture of an edit it may lie before
    `start`: the edit begins in the middle of that picture."""
    start: float = -math.inf
    """Second at which the edit that it belongs to begins."""
    stop: float = math.inf
    """At which it ends."""


def decoded(
    path: Path, index: int, *, shifts: Sequence[float] = (), edits: Sequence[Edit] = (), start: float | None = None
) -> Iterator[Decoded]:
    """All frames of a track; single damaged packets are passed over, since timestamps keep what follows in place.

    Args:
        path: the file.
        index: of the track.
        shifts: seconds to add to the timestamps of each part; parts begin where timestamps fall back.
        edits: of the track, see `fedtalk.data.media.edits`.
        start: second on the file's clock near which reading may begin, at a keyframe before it; by default it begins at the
            first frame.

    Raises:
        MediaError: reading fails, or more than a tenth of the packets is damaged.
    """
    with opened(path, edited=not edits) as container:
        track = _Track(container, index, shifts, path)
        if not edits:
            if start is not None:
                track.seek(start)
            yield from (Decoded(frame, frame.time) for frame in track.frames())
        shown = not edits
        within = _pictures if track.kind == "video" else _sounds
        for number, edit in enumerate(edits):
            if start is not None and edit.stop <= start and edit is not edits[-1]:
                continue
            begin = float(edit.media) + (0.0 if start is None else max(0.0, start - edit.start)) - AHEAD_OF_EDIT
            if number or begin > AHEAD_OF_EDIT:
                track.seek(begin)
            for one in within(track.frames(), edit):
                shown = True
                yield one
        track.check()
        if not shown:
            raise MediaError(f"{path}: its edit list shows nothing of the {track.kind} track; export it again")


class _Track:
    """Packets of a track on their way to frames."""

    def __init__(self, container: Any, index: int, shifts: Sequence[float], path: Path) -> None:
        self._container, self._stream, self._shifts, self._path = container, container.streams[index], shifts, path
        self.kind: str = self._stream.type
        self._good = self._damaged = 0
        self._time = 0.0

    def seek(self, seconds: float) -> None:
        if self._stream.time_base:
            ticks = int(max(0.0, seconds) / self._stream.time_base)
            try:
                self._container.seek(ticks, stream=self._stream, backward=True)
            except av.FFmpegError as error:
                raise self._broken(error) from error

    def frames(self) -> Iterator[Any]:
        part, latest = 0, None
        try:
            for packet in self._container.demux(self._stream):
                if self._shifts and packet.dts is not None:
                    seconds = float(packet.dts * packet.time_base)
                    part += latest is not None and seconds < latest - BEGINS_ANEW
                    latest = seconds
                    offset = round(self._shifts[min(part, len(self._shifts) - 1)] / packet.time_base)
                    packet.dts += offset
                    packet.pts = None if packet.pts is None else packet.pts + offset
                try:
                    frames = packet.decode()
                except (av.error.InvalidDataError, ValueError):
                    self._damaged += 1
                    continue
                for frame in frames:
                    self._good += 1
                    self._time = frame.time or self._time
                    yield frame
        except av.FFmpegError as error:
            raise self._broken(error) from error

    def check(self) -> None:
        """Once all was read: whether enough of it could be decoded."""
        good, damaged = self._good, self._damaged
        if not good and not damaged:
            raise MediaError(f"{self._path}: its {self.kind} track is empty; record or export it again")
        if not good or damaged > MOST_DAMAGED * (good + damaged):
            raise MediaError(
                f"{self._path}: {damaged} packets of the {self.kind} track are damaged and {good} could be decoded"
            )
        if damaged:
            logger.warning("%s: passed over %d damaged packets of the %s track", self._path, damaged, self.kind)

    def _broken(self, error: av.FFmpegError) -> MediaError:
        return MediaError(f"{self._path}: damaged or cut short after {self._time:.2f} s ({error.strerror})")


def _pictures(frames: Iterable[Any], edit: Edit) -> Iterator[Decoded]:
    """Those that are shown in an edit; the first is the one in which it begins."""
    first: Decoded | None = None
    for frame in frames:
        if frame.pts is None:
            continue
        time = edit.seconds(frame)
        one = Decoded(frame, time, float(edit.start), edit.stop)
        if time >= edit.stop - EXACT:
            break
        if time <= edit.start + EXACT:
            first = one  # the next may be the one
            continue
        if first is not None:
            yield first
            first = None
        yield one
    if first is not None:
        yield first


def _sounds(frames: Iterable[Any], edit: Edit) -> Iterator[Decoded]:
    """Those that are heard in an edit, cut to the sample."""
    for frame in frames:
        if frame.pts is None:
            continue
        time, rate = edit.seconds(frame), frame.sample_rate
        if time >= edit.stop:
            break
        first = max(0, round((edit.start - time) * rate))
        last = frame.samples if math.isinf(edit.stop) else min(frame.samples, round((edit.stop - time) * rate))
        if first < last:
            yield Decoded(_cut(frame, first, last), time + first / rate, float(edit.start), edit.stop)


def _cut(frame: Any, first: int, last: int) -> Any:
    """Samples ``first`` to ``last`` of a frame of sound."""
    if (first, last) == (0, frame.samples):
        return frame
    step = 1 if frame.format.is_planar else frame.layout.nb_channels
    made = sound_frame(samples_of(frame)[:, first * step : last * step], frame, frame.layout.name)
    made.pts = frame.pts + round(first / frame.sample_rate / frame.time_base)
    return made


def samples_of(frame: Any) -> np.ndarray:
    """(C, n) samples of a decoded ``av.AudioFrame``; (1, C n) where its format is not planar."""
    if not frame.format.is_planar:
        return frame.to_ndarray()
    # not to_ndarray: of eight channels PyAV 18 sees nine planes, and reads past the last
    kind = PLANAR[frame.format.name]
    planes = frame.planes[: frame.layout.nb_channels]
    return np.stack([np.frombuffer(plane, kind)[: frame.samples] for plane in planes])


def sound_frame(samples: np.ndarray, like: Any, layout: str, kind: str | None = None) -> Any:
    """An ``av.AudioFrame`` at the rate and time of another.

    Args:
        samples: (C, n), or (1, C n) for formats that are not planar.
        like: the other frame.
        layout: of the channels.
        kind: sample format; the other frame's by default.
    """
    kind = kind or like.format.name
    channels = 1 if kind.endswith("p") else like.layout.nb_channels
    made = av.AudioFrame(format=kind, layout=layout, samples=samples.shape[1] // channels)
    for plane, row in zip(made.planes, samples, strict=False):
        plane.update(np.ascontiguousarray(row).tobytes())
    made.sample_rate, made.pts, made.time_base = like.sample_rate, like.pts, like.time_base
    return made
