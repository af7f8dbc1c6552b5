"""Video, sound and pictures in and out, brought to one clock: 25 frames and 16 000 mono samples a second.

Reading streams, so that memory does not grow with the length of a video. Both tracks of a file are placed by their
presentation timestamps on one axis that starts with the first video frame: frame ``i`` shows the instant ``i / 25`` s
and goes with samples ``640 i`` to ``640 (i + 1)``.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image, ImageOps

from fedtalk.data.clip import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from fedtalk.errors import MediaError, OutputError
from fedtalk.storage import atomic_path

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 60.0
"""Seconds that timestamps may jump ahead; a longer jump is taken for damage, not for a still picture or silence."""
TIMESTAMP_TOLERANCE = 0.03
"""Seconds by which sound may stray from its timestamps before it is put back in place."""
MOST_DAMAGED = 0.1
"""Share of packets that may be undecodable before a file is refused."""

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Video:
    """A readable video file. Iterating decodes it anew, one frame at a time, at 25 frames a second.

    Yields:
        (height, width, 3) uint8 RGB, contiguous, upright and with square pixels: for each instant ``i / 25`` s the
        source frame with the nearest timestamp. The same array may be yielded twice: copy before changing it.

    Raises:
        MediaError: while iterating, where the file is damaged or ends before the time that it declares.
    """

    path: Path
    frame_rate: float
    """Frames a second in the file (average), 0 where it does not say."""
    duration: float | None
    """Seconds that the file declares."""
    has_audio: bool

    def __iter__(self) -> Iterator[np.ndarray]:
        with _opened(self.path) as container:
            stream = _video_stream(container, self.path)
            yield from _at_frame_rate(container, stream, self.path)


def read_video(path: PathLike) -> Video:
    """Open a video in any container and codec that ffmpeg reads; see `Video` for what its frames are.

    Raises:
        MediaError: the file is missing, empty, damaged or without a video track.
    """
    path = Path(path)
    with _opened(path) as container:
        stream = _video_stream(container, path)
        return Video(
            path,
            float(stream.average_rate or 0),
            _declared_seconds(container, stream),
            has_audio=bool(container.streams.audio),
        )


def read_audio(path: PathLike) -> np.ndarray:
    """The sound of a video or sound file.

    Returns:
        (N,) float32 in [-1, 1], 16 kHz, channels mixed to one. Beside a video track, sample 0 is the instant of the
        first video frame: a sound track that starts later is preceded by silence, one that starts earlier is cut.

    Raises:
        MediaError: the file is missing, empty, damaged, has no audio track, or holds less than one video frame
            (40 ms) of sound or nothing but silence.
    """
    pieces = list(audio_blocks(path, SAMPLE_RATE))
    audio = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    audio = checked_audio(audio, SAMPLE_RATE, what=f"sound of {path}")
    if not audio.any():
        raise MediaError(f"sound of {path}: expected speech, got {len(audio) / SAMPLE_RATE:.2f} s of digital silence")
    return audio


def audio_blocks(path: PathLike, samples: int) -> Iterator[np.ndarray]:
    """Stream what `read_audio` returns in blocks of ``samples``; only the last block may be shorter.

    Raises:
        MediaError: as `read_audio`, except that short and silent tracks pass.
    """
    left = np.zeros(0, np.float32)
    for piece in _audio_pieces(Path(path)):
        left = np.concatenate([left, piece])
        whole = len(left) - len(left) % samples
        yield from left[:whole].reshape(-1, samples)
        left = left[whole:]
    if len(left):
        yield left


def checked_audio(audio: np.ndarray, sample_rate: int, *, what: str = "audio") -> np.ndarray:
    """``audio`` as contiguous (N,) float32 if it is 16 kHz mono floating-point sound of at least one video frame.

    Raises:
        MediaError: wrong rate, channels, type or range, values that are not finite, or fewer than 640 samples.
    """
    audio = np.asarray(audio)
    if sample_rate != SAMPLE_RATE:
        raise MediaError(
            f"{what}: expected {SAMPLE_RATE} samples a second, got {sample_rate}. "
            "Write it to a file and read it with read_audio, which resamples."
        )
    if audio.ndim != 1:
        raise MediaError(
            f"{what}: expected one channel, shape (N,), got shape {audio.shape}. Average the channels first."
        )
    if not np.issubdtype(audio.dtype, np.floating):
        raise MediaError(
            f"{what}: expected floating point in [-1, 1], got {audio.dtype}. Divide 16-bit samples by 32768."
        )
    if len(audio) < SAMPLES_PER_FRAME:
        raise MediaError(
            f"{what}: expected at least {SAMPLES_PER_FRAME} samples (one video frame, 40 ms), got {len(audio)}"
        )
    if not np.isfinite(audio).all():
        raise MediaError(f"{what}: expected finite samples, got NaN or infinity")
    peak = float(np.abs(audio).max())
    if peak > 1.01:
        raise MediaError(f"{what}: expected samples in [-1, 1], got a peak of {peak:.3g}. Divide by the full scale.")
    return np.ascontiguousarray(np.clip(audio, -1, 1), np.float32)


def write_audio(path: PathLike, audio: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
    """Write (N,) float32 as a 16-bit mono WAV file, atomically.

    Raises:
        MediaError: see `checked_audio`.
        OutputError: the file can't be written.
    """
    samples = np.round(checked_audio(audio, sample_rate) * 32767).astype("<i2")
    with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(SAMPLE_RATE)
        stream.writeframes(samples.tobytes())


def read_image(path: PathLike) -> np.ndarray:
    """A picture as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation; transparency is put on white.

    Raises:
        MediaError: the file is missing, empty, cut short or not a picture.
    """
    path = Path(path)
    _require_file(path)
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            elif upright.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip instead of scale
                upright = Image.fromarray((np.asarray(upright) / 257).clip(0, 255).astype(np.uint8))
            return np.array(upright.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MediaError(
            f"picture {path} can't be read ({error}); expected a whole JPEG, PNG, WebP or BMP file. "
            "Export it again or choose another picture."
        ) from error


def write_image(path: PathLike, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the suffix (``.png``, ``.jpg``, ...), atomically.

    Raises:
        MediaError: ``image`` has another shape or type.
        OutputError: the suffix names no picture format, or the file can't be written.
    """
    check_frame(image)
    encoded = io.BytesIO()
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    try:
        Image.fromarray(image).save(encoded, kind)
    except (KeyError, ValueError, OSError) as error:
        raise OutputError(f"picture {path}: no format for suffix {Path(path).suffix!r}; use .png or .jpg") from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


def check_frame(frame: np.ndarray) -> None:
    """
    Raises:
        MediaError: not (H, W, 3) uint8.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise MediaError(f"picture: expected (H, W, 3) uint8 RGB, got {frame.shape} {frame.dtype}")


def _require_file(path: Path) -> None:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise MediaError(f"{path}: expected a file, got a folder")
        if size == 0:
            raise MediaError(f"{path}: the file is empty; copy or download it again")
        with path.open("rb") as stream:
            if stream.read(40).startswith(b"version https://git-lfs"):
                raise MediaError(f"{path}: only a git-LFS pointer, not the media; fetch it with `git lfs pull`")
    except FileNotFoundError as error:
        raise MediaError(f"{path}: no such file") from error
    except OSError as error:
        raise MediaError(f"{path}: can't be read ({error.strerror or error})") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    _require_file(path)
    unreadable = f"{path}: not a readable video or sound file; it is damaged, cut short or of another kind"
    try:  # "file:", else ffmpeg takes what precedes a colon in the name for a protocol
        container = av.open(f"file:{path}", metadata_errors="replace")
    except av.FFmpegError as error:
        raise MediaError(f"{unreadable} ({error.strerror})") from error
    with container:
        if not (
            container.streams.video or container.streams.audio
        ):  # what ffmpeg makes of an mp4 that is cut within its index
            raise MediaError(unreadable)
        yield container


def _video_stream(container: Any, path: Path) -> Any:
    streams = _pictures_in(container)
    if not streams:
        raise MediaError(f"{path}: no video track; expected a video with a picture and sound")
    return streams[0]


def _pictures_in(container: Any) -> list[Any]:
    """Video streams, without the cover pictures of sound files."""
    return [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None
    ]


def _start_seconds(stream: Any) -> float:
    return float((stream.start_time or 0) * stream.time_base)


def _declared_seconds(container: Any, stream: Any) -> float | None:
    """Length by the header, for formats that state it; for others ffmpeg guesses, which proves nothing."""
    if not {"mp4", "matroska"} & set(container.format.name.split(",")):
        return None
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """All frames of a stream; single damaged packets are passed over, since timestamps keep what follows in place."""
    good = damaged = 0
    time = 0.0
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
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


def _at_frame_rate(container: Any, stream: Any, path: Path) -> Iterator[np.ndarray]:
    """Frames by nearest timestamp: a source frame is shown until midway to its successor."""
    origin = _start_seconds(stream)
    step = 1 / float(stream.average_rate or FRAME_RATE)
    aspect = float(stream.sample_aspect_ratio or 1)
    declared = _declared_seconds(container, stream)
    shown = 0
    held: Any = None
    held_time = 0.0

    def until(instant: float) -> Iterator[np.ndarray]:
        nonlocal shown
        picture = None
        while shown / FRAME_RATE <= instant + 1e-6:
            picture = _upright(held, aspect) if picture is None else picture
            yield picture
            shown += 1

    for frame in _decoded(container, stream, path):
        time = held_time + step if frame.time is None else frame.time - origin
        if held is not None:
            if time <= held_time:
                continue
            if time - held_time > LONGEST_PAUSE:
                raise MediaError(f"{path}: the picture's timestamps jump from {held_time:.2f} s to {time:.2f} s")
            yield from until((held_time + time) / 2)
        held, held_time = frame, time
    length = float(held.duration * held.time_base) if held.duration else step
    count = max(1, round((held_time + length) * FRAME_RATE))
    yield from until((count - 1) / FRAME_RATE)
    if declared is not None and held_time + length < 0.95 * declared - 0.5:
        raise MediaError(
            f"{path}: cut short; its header declares {declared:.2f} s, its picture ends at {held_time:.2f} s"
        )


def _upright(frame: Any, aspect: float) -> np.ndarray:
    """RGB with square pixels, turned by the display matrix that telephones write."""
    picture = frame.to_ndarray(format="rgb24")
    if aspect != 1 and 0.2 < aspect < 5:
        picture = cv2.resize(
            picture, (round(picture.shape[1] * aspect), picture.shape[0]), interpolation=cv2.INTER_AREA
        )
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))


def _audio_pieces(path: Path) -> Iterator[np.ndarray]:
    """Runs of 16 kHz mono sound that follow one another without a gap from the first video frame on."""
    with _opened(path) as container:
        if not container.streams.audio:
            raise MediaError(f"{path}: no audio track; expected speech. Add a sound track or choose another file.")
        stream = container.streams.audio[0]
        origin = _start_seconds((_pictures_in(container) or [stream])[0])
        resampler: Any = None
        written = 0
        skip = 0
        expected = 0.0

        def drained(frame: Any) -> Iterator[np.ndarray]:
            nonlocal written, skip
            for part in resampler.resample(frame):
                samples = part.to_ndarray().reshape(-1).astype(np.float32) / 2**31
                samples, skip = samples[skip:], max(0, skip - len(samples))
                written += len(samples)
                yield samples

        for frame in _decoded(container, stream, path):
            time = expected if frame.time is None else frame.time - origin
            if resampler is None or abs(time - expected) > TIMESTAMP_TOLERANCE:
                if resampler is not None:
                    yield from drained(None)
                gap = round(time * SAMPLE_RATE) - written
                if gap > LONGEST_PAUSE * SAMPLE_RATE:
                    raise MediaError(f"{path}: the sound's timestamps jump from {expected:.2f} s to {time:.2f} s")
                if gap > 0:
                    written += gap
                    yield np.zeros(gap, np.float32)
                skip = max(0, -gap)
                # 32-bit integers: for them ffmpeg mixes channels without raising the level
                resampler = av.AudioResampler(format="s32", layout="mono", rate=SAMPLE_RATE)
                expected = time
            yield from drained(frame)
            expected += frame.samples / frame.sample_rate
        yield from drained(None)
