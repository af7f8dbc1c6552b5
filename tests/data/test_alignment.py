"""Flash and click: what is seen and what is heard at one instant stays together, from every kind of source.

A source is dark but for white flashes, and silent but for clicks at the same instants; after reading, each flash must lie
within half a frame (20 ms) of its click, the last one after a minute too.
"""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fedtalk.data.media import audio_blocks, read_video

FLASH = 0.2
"""Seconds that a flash and its click last."""


def film(
    path: Path,
    times: np.ndarray,
    instants: list[float],
    *,
    rate: Fraction,
    audio_rate: int,
    layout: str,
    start: float = 0.0,
) -> Path:
    """Frames at ``times`` and sound from 0 s on, both ``start`` seconds after the container's zero."""
    clock = Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "bf": "2"})
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        video.codec_context.time_base = clock
        codec = {"mkv": "pcm_s16le", "avi": "pcm_s16le", "ts": "mp2"}.get(path.suffix[1:], "aac")
        sound = container.add_stream(codec, rate=audio_rate, layout=layout)
        channels = 1 if layout == "mono" else 2
        for time in times:
            lit = any(instant <= time < instant + FLASH for instant in instants)
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 235 if lit else 20, np.uint8), format="rgb24")
            frame.time_base, frame.pts = clock, round((time + start) / clock)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        wave = np.arange(round((times[-1] + 0.1) * audio_rate)) / audio_rate
        loud = np.zeros(len(wave), np.float32)
        for instant in instants:
            part = (wave >= instant) & (wave < instant + FLASH)
            loud[part] = 0.5 * np.sin(2 * np.pi * 1000 * wave[part])
        for first in range(0, len(loud), audio_rate):
            piece = np.tile(loud[first : first + audio_rate], (channels, 1))
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout=layout)
            block.sample_rate, block.time_base = audio_rate, Fraction(1, audio_rate)
            block.pts = first + round(start * audio_rate)
            container.mux(sound.encode(block))
        container.mux(sound.encode(None))
    return path


def offsets(path: Path, count: int) -> list[float]:
    """Seconds from each flash to its click, as read."""
    light = np.array([picture.mean() for picture in read_video(path)]) > 120
    sound = np.abs(np.concatenate(list(audio_blocks(path, 640)))) > 0.1
    flashes = np.flatnonzero(np.diff(light.astype(int)) == 1) + 1
    loud = np.flatnonzero(sound)
    clicks = [loud[0], *loud[1:][np.diff(loud) > 8000]]
    assert len(flashes) == len(clicks) == count
    return [click / 16_000 - flash / 25 for flash, click in zip(flashes, clicks, strict=True)]


RATES = ("24000/1001", "25", "30000/1001", "30", "50", "60000/1001")


def phone(seconds: float) -> np.ndarray:
    """Frames at 30 a second that come up to 15 ms early or late, some not at all."""
    generator = np.random.default_rng(0)
    times = np.arange(0, seconds, 1 / 30)
    times = times + np.concatenate([[0], generator.uniform(-0.007, 0.015, len(times) - 1)])
    return times[(generator.random(len(times)) > 0.1) | (np.arange(len(times)) == 0)]


def on_frames(times: np.ndarray, *wanted: float) -> list[float]:
    """Instants of source frames from those wanted on; not right after a lost frame, in whose gap nobody knows what was."""
    close = np.flatnonzero(np.diff(times, prepend=-1) < 0.042)
    return [float(times[close[np.searchsorted(times[close], instant)]]) for instant in wanted]


SOUND = {"mp4": (44_100, "stereo"), "mkv": (16_000, "mono"), "ts": (48_000, "stereo")}
EACH_ONCE = set(zip([*RATES, "phone"], itertools.cycle(SOUND), strict=False))
"""Every rate and every container; the rest of the pairs is slow."""


@pytest.mark.parametrize(
    ("rate", "suffix"),
    [
        pytest.param(*pair, marks=() if pair in EACH_ONCE else pytest.mark.slow)
        for pair in itertools.product([*RATES, "phone"], SOUND)
    ],
)
def test_picture_and_sound_stay_together(tmp_path: Path, rate: str, suffix: str) -> None:
    """A flash is first seen in the source frame after its instant, so the first one seen may be late by that frame."""
    per_second = Fraction(30) if rate == "phone" else Fraction(rate)
    times = phone(5) if rate == "phone" else np.arange(round(5 * per_second)) / float(per_second)
    instants = on_frames(times, *(0.8, 2.2, 4.3))  # on a source frame
    audio_rate, layout = SOUND[suffix]
    path = film(tmp_path / f"a.{suffix}", times, instants, rate=per_second, audio_rate=audio_rate, layout=layout)
    assert max(map(abs, offsets(path, 3))) <= 0.0205


@pytest.mark.parametrize(
    "rate", ["24000/1001", *(pytest.param(rate, marks=pytest.mark.slow) for rate in ("60000/1001", "phone"))]
)
def test_they_are_together_after_a_minute_too(tmp_path: Path, rate: str) -> None:
    per_second = Fraction(30) if rate == "phone" else Fraction(rate)
    times = phone(62) if rate == "phone" else np.arange(round(62 * per_second)) / float(per_second)
    instants = on_frames(times, *(1.0, 60.5))
    path = film(tmp_path / "a.mp4", times, instants, rate=per_second, audio_rate=22_050, layout="mono")
    assert max(map(abs, offsets(path, 2))) <= 0.0205


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4"])
def test_they_are_together_wherever_the_clock_starts(tmp_path: Path, suffix: str) -> None:
    """Non-zero start times; in mp4 they become edit lists."""
    times = np.arange(75) / 25
    path = film(
        tmp_path / f"a.{suffix}", times, [1.0, 2.0], rate=Fraction(25), audio_rate=32_000, layout="mono", start=7.3
    )
    assert max(map(abs, offsets(path, 2))) <= 0.0205
