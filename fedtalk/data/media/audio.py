"""Sound in and out: 16 kHz, one channel, on the clock of the picture beside it."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from fedtalk.data.clip import SAMPLE_RATE, SAMPLES_PER_FRAME
from fedtalk.data.media.decoding import sound_frame
from fedtalk.data.media.files import PathLike, opened
from fedtalk.data.media.levels import Levels, channels_of, layout_of, measured
from fedtalk.data.media.tracks import examine
from fedtalk.data.media.video import LONGEST_PAUSE
from fedtalk.errors import MediaError
from fedtalk.storage import atomic_path

TIMESTAMP_TOLERANCE = 0.02
"""Seconds by which sound may stray from its timestamps, half a video frame, before it is put back in place."""


def read_audio(path: PathLike) -> np.ndarray:
    """The sound of a video or sound file.

    Returns:
        (N,) float32 in [-1, 1], 16 kHz, channels mixed to one; where they cancel each other, the loudest alone. Beside
        a video track, sample 0 is the instant of the first video frame: a sound track that starts later is preceded by
        silence, one that starts earlier is cut.

    Raises:
        MediaError: the file is missing, empty, damaged, has no audio track, or holds less than one video frame
            (40 ms) of sound, nothing but silence, or samples that are no numbers.
    """
    pieces = list(audio_blocks(path, SAMPLE_RATE))
    audio = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    audio = checked_audio(audio, SAMPLE_RATE, what=f"sound of {path}")
    if not audio.any():
        raise MediaError(f"sound of {path}: expected speech, got {len(audio) / SAMPLE_RATE:.2f} s of digital silence")
    return audio


def audio_blocks(path: PathLike, samples: int, rate: int = SAMPLE_RATE) -> Iterator[np.ndarray]:
    """Stream what `read_audio` returns in blocks of ``samples``; only the last block may be shorter.

    Args:
        path: file with sound.
        samples: length of a block.
        rate: samples a second.

    Raises:
        MediaError: as `read_audio`, except that short and silent tracks pass.
    """
    left = np.zeros(0, np.float32)
    for piece in _pieces(Path(path), rate):
        left = np.concatenate([left, piece])
        whole = len(left) - len(left) % samples
        yield from left[:whole].reshape(-1, samples)
        left = left[whole:]
    if len(left):
        yield left


def sound_rate(path: PathLike) -> int:
    """Samples a second of a file's sound as it lies there; of its first part, where they change.

    Raises:
        MediaError: the file can't be read, or has no sound.
    """
    path = Path(path)
    tracks = examine(path)
    if tracks.sound is None:
        raise MediaError(f"{path}: {tracks.no_sound}. Add a sound track or choose another file.")
    with opened(path) as container:
        return int(container.streams[tracks.sound].codec_context.sample_rate)


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


def _pieces(path: Path, rate: int) -> Iterator[np.ndarray]:
    """Runs of mono sound at ``rate`` that follow one another without a gap from the first video frame on."""
    tracks = examine(path)
    if tracks.sound is None:
        raise MediaError(f"{path}: {tracks.no_sound}. Add a sound track or choose another file.")
    levels = measured(path)
    resampler: Any = None
    layout: tuple[str, str, int] | None = None
    part = -1
    written = 0
    skip = 0
    expected = 0.0

    def drained(frame: Any) -> Iterator[np.ndarray]:
        nonlocal written, skip
        for piece in resampler.resample(frame):
            samples = piece.to_ndarray().reshape(-1).astype(np.float32) / 2**31
            samples, skip = samples[skip:], max(0, skip - len(samples))
            written += len(samples)
            yield samples

    for one in tracks.decoded(path, tracks.sound):
        frame = one.frame
        time = expected if one.time is None else one.time - tracks.origin
        changed = layout_of(frame) != layout
        if resampler is None or changed or abs(time - expected) > TIMESTAMP_TOLERANCE:
            if resampler is not None:
                yield from drained(None)
            if changed:  # recordings joined: from one to two channels, to another rate
                layout, part = layout_of(frame), part + 1
            gap = round(time * rate) - written
            if gap > LONGEST_PAUSE * rate:
                raise MediaError(f"{path}: the sound's timestamps jump from {expected:.2f} s to {time:.2f} s")
            if gap > 0:
                written += gap
                yield np.zeros(gap, np.float32)
            skip = max(0, -gap)
            # 32-bit integers: for them ffmpeg mixes channels without raising the level
            resampler = av.AudioResampler(format="s32", layout="mono", rate=rate)
            expected = time
        yield from drained(_usable(frame, levels, part))
        expected += frame.samples / frame.sample_rate
    if resampler is not None:
        yield from drained(None)


def _usable(frame: Any, levels: Levels, part: int) -> Any:
    """The frame as the resampler gets it: finite, on the usual scale, and the loudest channel where the mix cancels."""
    channel = levels.channels[part] if part < len(levels.channels) else None
    if channel is None and levels.scale == 1 and not levels.cleaned:
        return frame
    sound = np.nan_to_num(channels_of(frame), nan=0.0, posinf=0.0, neginf=0.0) / levels.scale
    layout = frame.layout.name if channel is None else "mono"
    chosen = sound if channel is None else sound[channel : channel + 1]
    return sound_frame(np.clip(chosen, -1, 1), frame, layout, "fltp")
