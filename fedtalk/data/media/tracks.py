"""Which tracks of a file are used, and where their packets lie on one clock.

A file may hold covers, tracks of codecs that nothing here decodes, commentary, and timestamps that begin anew where
recordings were joined. `examine` looks at all of it once; reading picture and sound then agree on one axis.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

from fedtalk.data.media.files import opened, require_file
from fedtalk.errors import MediaError

logger = logging.getLogger(__name__)

MOST_DAMAGED = 0.1
"""Share of packets that may be undecodable before a file is refused."""
BEGINS_ANEW = 1.0
"""Seconds by which a track's timestamps must fall back to count as a new recording rather than as disorder."""
STILL_CODECS = frozenset({"mjpeg", "png", "apng", "bmp", "gif", "tiff", "webp", "jpeg2000", "ljpeg", "jpegls"})
"""Codecs of covers and thumbnails; a track of one of them with a single picture is no video."""
ONE_CLOCK = {"mp4", "mov", "matroska", "webm", "avi", "wav"}
"""Formats with one index or clock, in which timestamps can't begin anew."""


@dataclass(frozen=True)
class Tracks:
    """What a file holds that can be used."""

    picture: int | None
    """Index of the video track; None without one."""
    sound: int | None
    """Index of the sound track; None without one."""
    no_picture: str
    """Why there is no picture, for a message; empty where there is one."""
    no_sound: str
    origin: float
    """Second on the file's clock of the first picture that can be decoded; of the sound where there is no picture."""
    late: float
    """Seconds between the start of the video track and that picture (a video that begins between keyframes)."""
    shifts: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    """Seconds to add to the timestamps of each part of a track, by index; parts begin where timestamps fall back."""


def examine(path: Path) -> Tracks:
    """Look at a file's tracks; the latest files' are remembered until they change.

    Raises:
        MediaError: the file can't be opened.
    """
    require_file(path)
    facts = os.stat(path)
    return _examined(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _examined(path: Path, size: int, modified: int) -> Tracks:
    with opened(path) as container:
        pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        decodable = [s for s in pictures if s.codec_context is not None]
        stills = {s.index for s in decodable if s.codec_context.name in STILL_CODECS and s.frames < 2}
        sounds = list(container.streams.audio)
        readable = [s for s in sounds if s.codec_context is not None]
        order = [s.index for s in _preferred(decodable)]
        heard = [s.index for s in _preferred(readable)]
        starts = {s.index: _start_seconds(s) for s in decodable + readable}
        may_begin_anew = not ONE_CLOCK & set(container.format.name.split(","))
    order = [index for index in order if index not in stills or _has_two_packets(path, index)]
    picture, first = _first_that_decodes(path, order)
    sound = _first_that_decodes(path, heard)[0] if len(heard) > 1 else next(iter(heard), None)
    used = [index for index in (picture, sound) if index is not None]
    shifts = _shifts(path, used) if may_begin_anew and used else {}
    origin = starts[used[0]] if used else 0.0
    if picture is not None and first is not None:
        origin = first
    return Tracks(
        picture,
        sound,
        "" if picture is not None else _missing("video", "picture", pictures),
        "" if sound is not None else _missing("audio", "sound", sounds),
        origin,
        max(0.0, origin - starts[picture]) if picture is not None else 0.0,
        shifts,
    )


def decoded(container: Any, tracks: Tracks, index: int, path: Path) -> Iterator[Any]:
    """All frames of a track; single damaged packets are passed over, since timestamps keep what follows in place.

    Raises:
        MediaError: reading fails, or more than a tenth of the packets is damaged.
    """
    stream = container.streams[index]
    shifts = tracks.shifts.get(index, ())
    part, latest = 0, None
    good = damaged = 0
    time = 0.0
    try:
        for packet in container.demux(stream):
            if shifts and packet.dts is not None:
                seconds = float(packet.dts * packet.time_base)
                part += latest is not None and seconds < latest - BEGINS_ANEW
                latest = seconds
                offset = round(shifts[min(part, len(shifts) - 1)] / packet.time_base)
                packet.dts += offset
                packet.pts = None if packet.pts is None else packet.pts + offset
            try:
                frames = packet.decode()
            except (av.error.InvalidDataError, ValueError):
                damaged += 1
                continue
            for frame in frames:
                good += 1
                time = frame.time or time
                yield frame
    except av.FFmpegError as error:
        raise MediaError(f"{path}: damaged or cut short after {time:.2f} s ({error.strerror})") from error
    if not good or damaged > MOST_DAMAGED * (good + damaged):
        raise MediaError(
            f"{path}: {damaged} packets of the {stream.type} track are damaged and {good} could be decoded"
        )
    if damaged:
        logger.warning("%s: passed over %d damaged packets of the %s track", path, damaged, stream.type)


def _preferred(streams: list[Any]) -> list[Any]:
    """Tracks that players show by default first, else in the file's order."""
    return sorted(streams, key=lambda s: not s.disposition & av.stream.Disposition.default)


def _start_seconds(stream: Any) -> float:
    return float((stream.start_time or 0) * stream.time_base)


def _has_two_packets(path: Path, index: int) -> bool:
    with opened(path) as container:
        count = 0
        for packet in container.demux(container.streams[index]):
            count += packet.size > 0
            if count == 2:
                return True
    return False


def _first_that_decodes(path: Path, indices: list[int]) -> tuple[int | None, float | None]:
    """The first track that gives a frame, and that frame's time; the first track where none does."""
    for index in indices:
        try:
            with opened(path) as container:
                for frame in decoded(container, Tracks(None, None, "", "", 0.0, 0.0), index, path):
                    return index, frame.time
        except MediaError:
            continue
    return (indices[0] if indices else None), None


def _missing(kind: str, thing: str, streams: list[Any]) -> str:
    if streams and all(stream.codec_context is None for stream in streams):
        return f"no decoder for its {thing}; convert the file to H.264 and AAC"
    if kind == "video":
        return "no video track; expected a video with a picture and sound" + (", got a cover" if streams else "")
    return "no audio track; expected speech"


def _shifts(path: Path, indices: list[int]) -> dict[int, tuple[float, ...]]:
    """Where timestamps begin anew, each later part goes behind the one before it, all tracks by the same amount."""
    parts: dict[int, list[list[float]]] = {index: [] for index in indices}
    latest: dict[int, float] = {}
    try:
        with opened(path) as container:
            for packet in container.demux([container.streams[index] for index in indices]):
                if packet.dts is None:
                    continue
                index, seconds = packet.stream.index, float(packet.dts * packet.time_base)
                if index not in latest or seconds < latest[index] - BEGINS_ANEW:
                    parts[index].append([float("inf"), -float("inf")])
                latest[index] = seconds
                start = seconds if packet.pts is None else float(packet.pts * packet.time_base)
                extent = parts[index][-1]
                extent[0] = min(extent[0], start)
                extent[1] = max(extent[1], start + float((packet.duration or 0) * packet.time_base))
    except av.FFmpegError:
        pass  # reading says where the file breaks off; what comes before is in place
    count = max(len(found) for found in parts.values())
    if count < 2:
        return {}
    together = len({len(found) for found in parts.values()}) == 1
    if together:
        shifts = [0.0]
        for number in range(1, count):
            end = max(found[number - 1][1] for found in parts.values()) + shifts[-1]
            shifts.append(end - min(found[number][0] for found in parts.values()))
        return {index: tuple(shifts) for index in indices}
    alone = {}
    for index, found in parts.items():  # one track's clock failed: each of its parts follows the one before
        own = [0.0]
        for before, after in itertools.pairwise(found):
            own.append(before[1] + own[-1] - after[0])
        alone[index] = tuple(own)
    return alone
