"""Which tracks of a file are used, and where their packets lie on one clock.

A file may hold covers, tracks of codecs that nothing here decodes, commentary, and timestamps that begin anew where
recordings were joined. `examine` looks at all of it once; reading picture and sound then agree on one axis.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

from fedtalk.data.media.decoding import BEGINS_ANEW, Decoded, decoded
from fedtalk.data.media.edits import Edit, edits_of
from fedtalk.data.media.files import opened, require_file
from fedtalk.errors import MediaError

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
    edits: Mapping[int, tuple[Edit, ...]] = field(default_factory=dict)
    """What is shown of a track and when, by index; tracks without an edit list are shown as they are."""
    rate: float = 0.0
    """Pictures a second on average, 0 where the file doesn't say."""
    aspect: float = 1.0
    """Width over height of a picture's pixels."""
    seconds: float | None = None
    """Length of the picture that the file declares; None where it only could be guessed."""

    def decoded(self, path: Path, index: int, start: float | None = None) -> Iterator[Decoded]:
        """The frames of a track, see `fedtalk.data.media.decoding.decoded`."""
        return decoded(path, index, shifts=self.shifts.get(index, ()), edits=self.edits.get(index, ()), start=start)


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
        covers = [s for s in container.streams.video if s not in pictures]
        decodable = [s for s in pictures if s.codec_context is not None]
        stills = {s.index for s in decodable if s.codec_context.name in STILL_CODECS and s.frames < 2}
        sounds = list(container.streams.audio)
        readable = [s for s in sounds if s.codec_context is not None]
        order = [s.index for s in _preferred(decodable)]
        heard = [s.index for s in _preferred(readable)]
        kinds = set(container.format.name.split(","))
        listed = edits_of(path) if "mp4" in kinds else {}
        edits = {s.index: listed[s.id] for s in decodable + readable if s.id in listed}
        starts = {
            s.index: float(edits[s.index][0].start) if s.index in edits else _start_seconds(s)
            for s in decodable + readable
        }
        seconds = {s.index: _declared_seconds(container, s, edits.get(s.index)) for s in decodable}
        rates = {s.index: float(s.average_rate or 0) for s in decodable}
        aspects = {s.index: float(s.sample_aspect_ratio or 1) for s in decodable}
    order = [index for index in order if index not in stills or _has_two_packets(path, index)]
    picture, first = _first_that_decodes(path, order, edits)
    sound = _first_that_decodes(path, heard, edits)[0] if len(heard) > 1 else next(iter(heard), None)
    used = [index for index in (picture, sound) if index is not None]
    shifts = _shifts(path, used) if used and not ONE_CLOCK & kinds else {}
    origin = starts[used[0]] if used else 0.0
    if picture is not None and first is not None:
        origin = first
    return Tracks(
        picture,
        sound,
        "" if picture is not None else _missing("video", "picture", pictures or covers),
        "" if sound is not None else _missing("audio", "sound", sounds),
        origin,
        max(0.0, origin - starts[picture]) if picture is not None else 0.0,
        shifts,
        edits,
        *((rates[picture], aspects[picture], seconds[picture]) if picture is not None else ()),
    )


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


def _declared_seconds(container: Any, stream: Any, edits: Sequence[Edit] | None) -> float | None:
    """Length by the header, for formats that state it; for others ffmpeg guesses, which proves nothing."""
    if not {"mp4", "matroska"} & set(container.format.name.split(",")):
        return None
    if edits is not None and math.isfinite(edits[-1].stop):
        return edits[-1].stop - float(edits[0].start)
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    # the container counts from zero to its end, wherever its tracks begin
    return (container.duration - max(0, container.start_time or 0)) / av.time_base if container.duration else None


def _first_that_decodes(
    path: Path, indices: list[int], edits: Mapping[int, tuple[Edit, ...]]
) -> tuple[int | None, float | None]:
    """The first track that gives a frame, and when that is shown; the first track where none does."""
    for index in indices:
        try:
            for one in decoded(path, index, edits=edits.get(index, ())):
                return index, None if one.time is None else max(one.time, one.start)
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
