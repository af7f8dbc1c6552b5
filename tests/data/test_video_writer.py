"""What the writer adds to frames: times of their own, sound of any rate that streams, tags."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fedtalk.data.video_writer import AudioStream, VideoWriter
from fedtalk.errors import MediaError


def _frame(level: int = 100) -> np.ndarray:
    return np.full((32, 48, 3), level, np.uint8)


def test_frames_keep_the_times_they_are_given(tmp_path: Path) -> None:
    """29.97 frames a second exactly, and a telephone's uneven ones."""
    steady, uneven = tmp_path / "steady.mp4", tmp_path / "uneven.mp4"
    with VideoWriter(steady, time_base=Fraction(1, 30000), frame_rate=Fraction(30000, 1001)) as writer:
        for _ in range(30):
            writer.write(_frame(), 1001)
    with av.open(str(steady)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(30000, 1001)
        assert stream.duration * stream.time_base == Fraction(30 * 1001, 30000)
    durations = [41, 42, 33, 80, 25]
    with VideoWriter(uneven, time_base=Fraction(1, 1000)) as writer:
        for ticks in durations:
            writer.write(_frame(), ticks)
    with av.open(str(uneven)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
        assert times == [Fraction(sum(durations[:i]), 1000) for i in range(5)]
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == Fraction(sum(durations), 1000)


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (44_100, 1), (16_000, 1)])
def test_sound_of_any_rate_is_as_long_as_the_picture(tmp_path: Path, rate: int, channels: int) -> None:
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(3 * rate) / rate).astype(np.float32)
    blocks = (np.stack([tone[i : i + 777]] * channels) for i in range(0, len(tone), 777))
    path = tmp_path / "talk.mp4"
    with VideoWriter(path, audio=AudioStream(rate, channels, blocks)) as writer:
        for _ in range(25):
            writer.write(_frame())
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.channels) == (rate, channels)
        assert abs(float(stream.duration * stream.time_base) - 1.0) < 1024 / rate
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)[0]
    spectrum = np.abs(np.fft.rfft(heard[:rate]))
    assert abs(int(spectrum.argmax()) - 440) <= 1


def test_sound_is_read_no_further_than_the_picture_has_come(tmp_path: Path) -> None:
    read = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal read
        while True:
            read += 640
            yield np.zeros((1, 640), np.float32)

    with VideoWriter(tmp_path / "talk.mp4", audio=AudioStream(16_000, 1, blocks())) as writer:
        for count in range(1, 11):
            writer.write(_frame())
            assert read == count * 640


@pytest.mark.parametrize(("rate", "channels"), [(96_000, 1), (48_000, 6)])
def test_sound_that_players_of_aac_dont_take_is_refused(rate: int, channels: int) -> None:
    with pytest.raises(MediaError, match="expected 1 or 2 channels at"):
        AudioStream(rate, channels, [])
