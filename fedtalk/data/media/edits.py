"""Edit lists of mp4 and QuickTime files: which stretch of a track's own clock is shown when (ISO/IEC 14496-12, 8.6.6).

Telephones trim by them, and encoders take their own delay away. They are read here because ffmpeg, where an edit begins in
the middle of a picture, leaves that picture out and moves all others to the front by what was left of it. Tracks are therefore
decoded by their own clock (`opened` with ``edited=False``), and brought to the file's by `Edit`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

NOT_SHOWN = -1
"""Media time of an edit in which nothing is shown."""
LARGEST_BOX = 1 << 20
"""Bytes of the largest box that is read whole; edit lists have a few dozen."""


@dataclass(frozen=True)
class Edit:
    """A stretch of a track."""

    start: Fraction
    """Second on the file's clock at which it begins."""
    stop: float
    """At which it ends; infinite where the track's end is meant."""
    media: Fraction
    """Second on the track's own clock at which it begins."""

    def seconds(self, frame: Any) -> float:
        """Where a decoded frame lies on the file's clock; exactly, so that files with and without edits give the same bits."""
        return float(self.start - self.media + frame.pts * frame.time_base)


def edits_of(path: Path) -> Mapping[int, tuple[Edit, ...]]:
    """The edits of each track that has some, by the track's number in the file, in the order of play.

    Tracks whose edits can't be read, or show nothing at all, are left out: they are played as ffmpeg does.
    """
    found = {}
    try:
        with path.open("rb") as stream:
            for kind, start, stop in _boxes(stream, 0, path.stat().st_size):
                if kind == b"moov":
                    whole = [*_boxes(stream, start, stop)]
                    scale = _time_scale(stream, *next((a, b) for name, a, b in whole if name == b"mvhd"))
                    for name, first, last in whole:
                        if name == b"trak":
                            number, edits = _track(stream, first, last, scale)
                            if edits:
                                found[number] = edits
                    break
    except (OSError, struct.error, StopIteration, ZeroDivisionError):
        return {}
    return found


def _boxes(stream: IO[bytes], start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and end of what each box between two places of the file holds."""
    while start + 8 <= stop:
        stream.seek(start)
        size, kind = struct.unpack(">I4s", stream.read(8))
        head = 8
        if size == 1:
            (size,), head = struct.unpack(">Q", stream.read(8)), 16
        end = stop if size == 0 else start + size
        if end < start + head or end > stop:
            return
        yield kind, start + head, end
        start = end


def _read(stream: IO[bytes], start: int, stop: int) -> bytes:
    stream.seek(start)
    return stream.read(min(stop - start, LARGEST_BOX))


def _time_scale(stream: IO[bytes], start: int, stop: int) -> int:
    """Ticks a second, of a movie's or a track's header."""
    content = _read(stream, start, stop)
    return int(struct.unpack_from(">I", content, 20 if content[0] == 1 else 12)[0])


def _track(stream: IO[bytes], start: int, stop: int, movie_scale: int) -> tuple[int, tuple[Edit, ...]]:
    """Number and edits of a track."""
    number, scale, listed = 0, 0, b""
    for kind, first, last in _boxes(stream, start, stop):
        if kind == b"tkhd":
            content = _read(stream, first, last)
            (number,) = struct.unpack_from(">I", content, 20 if content[0] == 1 else 12)
        elif kind == b"mdia":
            scale = next(_time_scale(stream, a, b) for name, a, b in _boxes(stream, first, last) if name == b"mdhd")
        elif kind == b"edts":
            listed = next((_read(stream, a, b) for name, a, b in _boxes(stream, first, last) if name == b"elst"), b"")
    return number, _edits(listed, Fraction(1, movie_scale), Fraction(1, scale)) if listed else ()


def _edits(content: bytes, tick: Fraction, media_tick: Fraction) -> tuple[Edit, ...]:
    """The stretches of an ``elst`` box in which something is shown.

    Args:
        content: the box without its head.
        tick: seconds a tick of durations.
        media_tick: seconds a tick of media times.
    """
    layout = ">QqI" if content[0] == 1 else ">IiI"
    (count,) = struct.unpack_from(">I", content, 4)
    at, edits = Fraction(0), []
    for index in range(count):
        duration, media, _ = struct.unpack_from(layout, content, 8 + index * struct.calcsize(layout))
        open_end = duration == 0 and index == count - 1  # as files have it that are written while they are recorded
        if media != NOT_SHOWN and (duration or open_end):
            stop = float("inf") if open_end else float(at + duration * tick)
            edits.append(Edit(at, stop, media * media_tick))
        at += duration * tick
    return tuple(edits)
