"""Damaged files, missing tracks, and numbers that are no sound: named, or mended."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import make_video, make_wav, sine

from fedtalk.data.media import (
    checked_audio,
    read_audio,
    read_video,
    write_audio,
)
from fedtalk.data.video_writer import VideoWriter
from fedtalk.errors import MediaError


def damaged(tmp_path: Path, kind: str) -> Path:
    whole = make_video(tmp_path / "whole.mp4", audio=sine(2.0, 44_100))
    path = tmp_path / f"{kind}.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(5_000))
    elif kind == "truncated":
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "no such file"),
        ("empty", "is empty"),
        ("noise", "not a readable"),
        ("truncated", "not a readable"),
        ("folder", "got a folder"),
        ("pointer", "git lfs pull"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, kind: str, said: str) -> None:
    path = damaged(tmp_path, kind)
    for read in (read_video, read_audio):
        with pytest.raises(MediaError, match=said) as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_cut_short_says_so_after_its_good_part(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / "whole.mp4"
    with VideoWriter(whole, audio=sine(8.0)) as writer:  # index in front, so that a part of it opens
        for frame in np.random.default_rng(0).integers(0, 255, (200, 64, 64, 3), dtype=np.uint8):
            writer.write(frame)
    if suffix == ".mkv":
        whole = make_video(tmp_path / "whole.mkv", count=250)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames = 0
    with pytest.raises(MediaError, match="cut short"):
        for _ in read_video(path):
            frames += 1
    assert frames > 50


def test_missing_tracks_are_named(tmp_path: Path) -> None:
    silent = make_video(tmp_path / "mute.mp4")
    assert not read_video(silent).has_audio
    with pytest.raises(MediaError, match="no audio track"):
        read_audio(silent)
    with pytest.raises(MediaError, match="no video track"):
        read_video(make_wav(tmp_path / "tone.wav", sine(1.0)[None], 16_000))


def test_a_sound_file_of_a_header_alone_is_called_empty(tmp_path: Path) -> None:
    path = make_wav(tmp_path / "tone.wav", sine(0.0)[None], 16_000)
    with pytest.raises(MediaError, match="its audio track is empty"):
        read_audio(path)


@pytest.mark.parametrize(("seconds", "level", "said"), [(0.01, 0.4, "at least 640 samples"), (1.0, 0.0, "silence")])
def test_sound_without_speech_is_refused(tmp_path: Path, seconds: float, level: float, said: str) -> None:
    with pytest.raises(MediaError, match=said):
        read_audio(make_wav(tmp_path / "tone.wav", sine(seconds, level=level)[None], 16_000))


@pytest.mark.parametrize(
    ("audio", "rate", "said"),
    [
        (sine(1.0), 44_100, "expected 16000 samples a second, got 44100"),
        (np.stack([sine(1.0)] * 2), 16_000, "one channel"),
        ((sine(1.0) * 32767).astype(np.int16), 16_000, "int16"),
        (sine(1.0) * 1000, 16_000, "peak"),
        (np.full(16_000, np.nan, np.float32), 16_000, "NaN"),
        (sine(0.03), 16_000, "got 480"),
    ],
)
def test_unusable_arrays_are_refused_wherever_they_enter(
    tmp_path: Path, audio: np.ndarray, rate: int, said: str
) -> None:
    for use in (
        lambda: checked_audio(audio, rate),
        lambda: write_audio(tmp_path / "out.wav", audio, rate),
        lambda: VideoWriter(tmp_path / "out.mp4", audio=audio, sample_rate=rate),
    ):
        with pytest.raises(MediaError, match=said):
            use()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_channels_that_cancel_leave_the_louder_one(tmp_path: Path, share: float) -> None:
    tone = sine(1.0)
    got = read_audio(make_wav(tmp_path / "a.wav", np.stack([tone, -share * tone]), 16_000))
    np.testing.assert_allclose(got[200:-200], tone[200:-200], atol=0.01)
    speech_in_one = read_audio(make_wav(tmp_path / "b.wav", np.stack([0 * tone, tone]), 16_000))
    np.testing.assert_allclose(speech_in_one[200:-200], tone[200:-200] / 2, atol=0.01)


def float_wav(path: Path, samples: np.ndarray) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=16_000, layout="mono")
        block = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="flt", layout="mono")
        block.sample_rate, block.pts, block.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return path


def test_numbers_that_are_none_and_other_scales(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tone = sine(1.0)
    for scale in (32768, 2.0**31):
        got = read_audio(float_wav(tmp_path / f"{scale}.wav", tone * scale))
        np.testing.assert_allclose(got, tone, atol=1e-3)
    assert "divided by 32768" in caplog.text
    few = tone.copy()
    few[[100, 8000]] = np.nan, np.inf
    got = read_audio(float_wav(tmp_path / "few.wav", few))
    assert abs(got[100]) < 0.01 and np.abs(got - tone).max() < 0.45 and "2 samples" in caplog.text
    for bad, said in ((np.full(16_000, np.nan), "100.0% of its sound's samples"), (tone * 1e20, "a peak of 4e")):
        with pytest.raises(MediaError, match=said):
            read_audio(float_wav(tmp_path / "bad.wav", bad))
