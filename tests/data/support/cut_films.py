"""Films that say at each instant how far they have come, in picture and in sound, cut by edit lists as telephones trim."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from media_files import coded, number_of

from fedtalk.data.media import audio_blocks, read_video

RATE = 16_000
FULL = 8.0
"""Seconds at which the sound's ramp reaches full scale."""


def film(
    path: Path,
    times: Sequence[float],
    picture_cut: float = 0.0,
    sound_cut: float = 0.0,
    *,
    picture: Callable[[int], np.ndarray] = coded,
    options: dict[str, str] | None = None,
) -> Path:
    """Numbered pictures at ``times``, and sound whose samples say their own second; so much cut off the front of either.

    QuickTime, with sound as it is. Tracks that begin before zero get an edit list: nothing is left out of the file itself.
    """
    clock = Fraction(1, 90_000)
    with av.open(str(path), "w", options=options or {}) as container:
        rate = Fraction((len(times) - 1) / (times[-1] - times[0])).limit_denominator(1001)
        video = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "bf": "2", "crf": "6"})
        video.height, video.width = picture(0).shape[:2]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base, video.codec_context.thread_count = clock, 1
        sound = container.add_stream("pcm_f32le", rate=RATE, layout="mono")
        packets = []
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.time_base, frame.pts = clock, round((time - picture_cut) / clock)
            packets += video.encode(frame)
        packets += video.encode(None)
        ramp = (np.arange(round((times[-1] + 0.04) * RATE)) / (RATE * FULL)).astype(np.float32)
        block = av.AudioFrame.from_ndarray(ramp[None], format="flt", layout="mono")
        block.sample_rate, block.pts, block.time_base = RATE, -round(sound_cut * RATE), Fraction(1, RATE)
        container.mux(packets + sound.encode(block) + sound.encode(None))
    return path


def with_edits(path: Path, edits: Mapping[int, Sequence[tuple[float, float | None]]]) -> Path:
    """Give tracks other edits: (seconds shown, second of the track's own clock, or None for nothing) for each."""
    boxes = _boxes(path.read_bytes())
    assert boxes[-1][4:8] == b"moov", "so that nothing before it moves"
    inner = _boxes(boxes[-1][8:])  # a header, then the tracks by their numbers
    inner = [_edited(box, edits[number]) if number in edits else box for number, box in enumerate(inner)]
    content = b"".join(inner)
    path.write_bytes(b"".join(boxes[:-1]) + struct.pack(">I4s", 8 + len(content), b"moov") + content)
    return path


def _boxes(content: bytes) -> list[bytes]:
    at, found = 0, []
    while at < len(content):
        (size,) = struct.unpack_from(">I", content, at)
        found.append(content[at : at + size])
        at += size
    return found


def _edited(track: bytes, edits: Sequence[tuple[float, float | None]]) -> bytes:
    scale = struct.unpack_from(">I", track, track.index(b"mdhd") + 16)[0]
    rows = b"".join(
        struct.pack(">IiI", round(seconds * 1000), -1 if media is None else round(media * scale), 1 << 16)
        for seconds, media in edits
    )
    listed = struct.pack(">I4sII", 16 + len(rows), b"elst", 0, len(edits)) + rows
    listed = struct.pack(">I4s", 8 + len(listed), b"edts") + listed
    kept = b"".join(box for box in _boxes(track[8:]) if box[4:8] != b"edts")
    return struct.pack(">I4s", 8 + len(kept) + len(listed), b"trak") + kept + listed


def apart(path: Path, times: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Of each frame that is read: seconds by which the picture's instant lies after that of its first sample; the latter."""
    sound = np.concatenate(list(audio_blocks(path, 640)))
    shown = np.array([times[number_of(picture)] for picture in read_video(path)])
    heard = sound[::640][: len(shown)].astype(np.float64) * FULL
    return shown[: len(heard)] - heard, heard
