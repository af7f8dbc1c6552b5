"""Media in, on one clock, against files that PyAV and the standard library write here."""

from __future__ import annotations

import itertools
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import coded, make_video, make_wav, number_of, sine

from fedtalk.data.media import (
    audio_blocks,
    native_frames,
    read_audio,
    read_video,
)
from fedtalk.data.video_writer import VideoWriter


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(24), Fraction(50), 10])
def test_each_frame_is_the_source_frame_nearest_in_time(tmp_path: Path, rate: Fraction) -> None:
    rate = Fraction(rate)
    path = make_video(tmp_path / "clip.mp4", rate=rate, count=round(2 * rate))
    numbers = [number_of(picture) for picture in read_video(path)]
    assert len(numbers) == 50
    for index, number in enumerate(numbers):
        distances = [abs(Fraction(index, 25) - k / rate) for k in range(round(2 * rate))]
        assert distances[number] <= min(distances) + Fraction(1, 1000), index


def test_uneven_timestamps_are_followed(tmp_path: Path) -> None:
    times = [0.0, 0.02, 0.3, 0.34, 0.9, 1.0]
    path = make_video(tmp_path / "clip.mkv", times=times)
    for index, number in enumerate(number_of(picture) for picture in read_video(path)):
        assert abs(times[number] - index / 25) <= min(abs(time - index / 25) for time in times) + 2e-3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mpg"])
def test_sound_and_picture_stay_together_through_rate_conversion(tmp_path: Path, suffix: str) -> None:
    rate = Fraction(30) if suffix != ".mpg" else Fraction(30000, 1001)
    audio = np.zeros(3 * 44_100, np.float32)
    audio[2 * 44_100 :] = sine(1.0, 44_100)  # starts with the frame of second 2
    path = make_video(tmp_path / f"clip{suffix}", rate=rate, count=90, audio=audio)
    numbers = [number_of(picture) for picture in read_video(path)]
    picture_onset = next(index for index, number in enumerate(numbers) if number >= round(2 * rate)) / 25
    sound_onset = int(np.argmax(np.abs(read_audio(path)) > 0.1)) / 16_000
    assert picture_onset == pytest.approx(2.0, abs=0.041)
    assert sound_onset == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize(("video_start", "audio_start"), [(0.0, 0.5), (0.4, 0.0)])
def test_stream_offsets_are_honoured(tmp_path: Path, suffix: str, video_start: float, audio_start: float) -> None:
    audio = sine(2.0, 44_100)
    audio[: round((1.2 - audio_start) * 44_100)] = 0  # the tone starts at second 1.2 of the file's clock
    times = [video_start + number / 25 for number in range(40)]
    path = make_video(tmp_path / f"clip{suffix}", times=times, audio=audio, audio_start=audio_start)
    got = read_audio(path)
    assert int(np.argmax(np.abs(got) > 0.1)) / 16_000 == pytest.approx(1.2 - video_start, abs=0.02)
    assert number_of(next(iter(read_video(path)))) == 0


def test_a_gap_in_the_sound_track_becomes_silence(tmp_path: Path) -> None:
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for start in (0, 24_000):
            samples = (sine(0.5) * 32767).astype(np.int16)[None]
            for part in range(0, 8_000, 1_000):
                block = av.AudioFrame.from_ndarray(samples[:, part : part + 1_000].copy(), format="s16", layout="mono")
                block.sample_rate, block.pts, block.time_base = 16_000, start + part, Fraction(1, 16_000)
                container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    got = read_audio(path)
    assert len(got) == pytest.approx(32_000, abs=32)
    assert not got[8_100:23_900].any()
    np.testing.assert_allclose(got[24_100:31_900], sine(0.5)[100:7_900], atol=0.05)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("levels", [(0.4,), (0.5, 0.3)])
def test_any_rate_and_channels_become_16_khz_mono_at_the_mean_level(
    tmp_path: Path, rate: int, levels: tuple[float, ...]
) -> None:
    path = make_wav(tmp_path / "tone.wav", np.stack([sine(1.0, rate, level=level) for level in levels]), rate)
    got = read_audio(path)
    assert got.dtype == np.float32
    assert len(got) == pytest.approx(16_000, abs=2)
    inner = slice(400, 15_600)
    np.testing.assert_allclose(got[inner], sine(1.0, level=float(np.mean(levels)))[inner], atol=0.01)


def test_blocks_are_the_whole_in_order(tmp_path: Path) -> None:
    path = make_wav(tmp_path / "tone.wav", sine(1.03, 44_100)[None], 44_100)
    blocks = list(audio_blocks(path, 640))
    assert {len(block) for block in blocks[:-1]} == {640}
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(path))


def test_names_with_spaces_and_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "clip.mp4", audio=sine(2.0, 44_100)).rename(tmp_path / "10:30 at home.mp4")
    monkeypatch.chdir(tmp_path)  # relative, else the colon is not where ffmpeg looks for a protocol
    assert sum(1 for _ in read_video("10:30 at home.mp4")) == 50
    assert len(read_audio("10:30 at home.mp4")) >= 32_000


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "long.mp4", scale=4) as writer:
        for number in range(200):
            writer.write(coded(number))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_video(tmp_path / "long.mp4")) == 200
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * 256 * 512 * 3


def test_reading_starts_before_the_end_is_known(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", count=50)
    assert [number_of(picture) for picture in itertools.islice(read_video(path), 3)] == [0, 1, 2]


def joined(tmp_path: Path, second_layout: str, rate: int = 44_100) -> Path:
    """Two MPEG-TS recordings one after the other: timestamps begin anew, and the sound changes its layout."""
    parts = []
    for number, layout in enumerate(("mono", second_layout)):
        path = tmp_path / f"part{number}.ts"
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 128, 64, "yuv420p"
            sound = container.add_stream("mp2", rate=rate, layout=layout)
            channels = 1 if layout == "mono" else 2
            tone = sine(2.0, rate)
            tone[: rate // 2] = 0
            for index in range(50):
                frame = av.VideoFrame.from_ndarray(coded(index + 100 * number), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            block = av.AudioFrame.from_ndarray(
                (np.stack([tone] * channels, axis=1).reshape(1, -1) * 32767).astype(np.int16), "s16", layout
            )
            block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
            container.mux(sound.encode(block))
            container.mux(sound.encode(None))
        parts.append(path.read_bytes())
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_recordings_joined_in_one_file_are_read_to_the_end_and_in_step(tmp_path: Path, layout: str) -> None:
    path = joined(tmp_path, layout)
    numbers = [number_of(picture) for picture in read_video(path)]
    assert 98 <= len(numbers) <= 104
    second = numbers.index(100)
    assert set(range(50)) | set(range(100, 148)) <= set(numbers)
    loud = np.abs(read_audio(path)) > 0.1
    assert int(np.argmax(loud)) / 16_000 == pytest.approx(0.5, abs=0.02)
    onset = second * 640 + int(np.argmax(loud[second * 640 + 1600 :])) + 1600
    assert onset / 16_000 - second / 25 == pytest.approx(0.5, abs=0.02), "the second part's sound keeps to its picture"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_native_frames_keep_the_files_own_clock(tmp_path: Path, suffix: str) -> None:
    times = [0.2 + number / 30 for number in range(90)]
    path = make_video(tmp_path / f"a{suffix}", times=times, rate=Fraction(30))
    frames = list(native_frames(path))
    assert [number_of(frame.rgb()) for frame in frames] == list(range(90))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.array(times) - 0.2, atol=2e-3)
    late = list(native_frames(path, start=2.0))
    assert late[0].seconds == pytest.approx(2.0, abs=1 / 30)
    assert [number_of(frame.rgb()) for frame in late] == list(range(90 - len(late), 90))
