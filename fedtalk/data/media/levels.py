"""What must be known of a whole sound track before its first sample is used: scale, gaps in it, channels that cancel."""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedtalk.data.media.decoding import samples_of
from fedtalk.data.media.files import opened
from fedtalk.data.media.tracks import examine
from fedtalk.errors import MediaError

logger = logging.getLogger(__name__)

MOST_NOT_FINITE = 1e-3
"""Share of samples that may be NaN or infinite, and are then silence; more refuses the track."""
CANCELS = 0.05
"""Power of the mix over that of the loudest channel, below which the channels are taken to cancel (-13 dB)."""
LOUDEST_FLOAT = 8.0
"""Peak of a floating-point track beyond which it is taken to be on the scale of integers."""
INTEGER_SCALES = (2.0**15, 2.0**23, 2.0**31)


@dataclass(frozen=True)
class Levels:
    """How a sound track is to be read."""

    channels: tuple[int | None, ...]
    """For each stretch of one layout: the channel to take alone, None to mix all."""
    scale: float
    """Full scale of the samples; 1 but for floating-point files written on an integer's scale."""
    cleaned: bool
    """Whether some samples are not finite, and become silence."""


def layout_of(frame: Any) -> tuple[str, str, int]:
    """What a resampler needs to stay the same: sample format, channel layout, rate."""
    return frame.format.name, frame.layout.name, frame.sample_rate


def channels_of(frame: Any) -> np.ndarray:
    """(C, N) float32 of a decoded ``av.AudioFrame``; full scale is 1 for integer formats."""
    samples = samples_of(frame)
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    return samples.astype(np.float32)


def measured(path: Path) -> Levels:
    """One pass over a file's sound; the latest files' levels are remembered until they change.

    Raises:
        MediaError: more than a thousandth of the samples is not finite, or they are on no known scale.
    """
    facts = os.stat(path)
    return _measured(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _measured(path: Path, size: int, modified: int) -> Levels:
    tracks = examine(path)
    assert tracks.sound is not None
    powers: list[list[np.ndarray]] = []
    layout = None
    peak, count, missing = 0.0, 0, 0
    floating = False
    try:
        with opened(path) as container:
            floating = container.streams[tracks.sound].codec_context.name.startswith("pcm_f")
        for one in tracks.decoded(path, tracks.sound):
            if layout_of(one.frame) != layout:
                layout = layout_of(one.frame)
                powers.append([np.zeros(one.frame.layout.nb_channels), np.zeros(1)])
            sound = channels_of(one.frame)
            finite = np.isfinite(sound)
            count, missing = count + sound.size, missing + int(sound.size - finite.sum())
            sound = np.where(finite, sound, 0).astype(np.float64)
            peak = max(peak, float(np.abs(sound).max(initial=0.0)))
            powers[-1][0] += (sound**2).sum(axis=1)
            powers[-1][1] += (sound.mean(axis=0) ** 2).sum()
    except MediaError:
        pass  # reading says where the track breaks off; what comes before is measured
    if missing > MOST_NOT_FINITE * count:
        raise MediaError(
            f"{path}: {missing / count:.1%} of its sound's samples are NaN or infinite; expected numbers. Export it again."
        )
    scale = 1.0
    if floating and peak > LOUDEST_FLOAT:
        fitting = [full for full in INTEGER_SCALES if peak <= 1.01 * full]
        if not fitting:
            raise MediaError(f"{path}: expected sound in [-1, 1], got a peak of {peak:.3g}. Export it again.")
        scale = fitting[0]
        logger.warning("%s: its sound has a peak of %.4g; divided by %.0f, an integer's full scale", path, peak, scale)
    if missing:
        logger.warning("%s: %d samples of its sound are NaN or infinite; taken for silence", path, missing)
    chosen = []
    for single, mixed in powers:
        cancels = len(single) > 1 and float(mixed[0]) < CANCELS * float(single.max())
        chosen.append(int(np.argmax(single)) if cancels else None)
    if any(channel is not None for channel in chosen):
        logger.info("%s: its channels cancel each other when mixed; the loudest one is used", path)
    return Levels(tuple(chosen), scale, missing > 0)
