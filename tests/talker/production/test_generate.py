"""Generation into files: what stays as it was, how long it is, in whose name, and what is refused when."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from cut_films import film

import fedtalk
from fedtalk.data.framing import crop
from fedtalk.data.media import native_frames
from fedtalk.data.provenance import read_provenance
from fedtalk.errors import ConfigurationError, FaceNotFoundError, MediaError
from fedtalk.talker.masks import lower_face
from fedtalk.talker.production.generate import Ready

FAST = {"steps": 1, "stride": 4, "guidance": 1.0}


def _pixels(path: Path) -> list[np.ndarray]:
    return [frame.rgb() for frame in native_frames(path)]


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(15)])
def test_a_dub_keeps_everything_but_the_mouth_at_the_recordings_own_size_and_rate(
    rate: Fraction, record: Callable, finder: object, ready: Ready, speech: Callable, drawn_clip, tmp_path: Path
) -> None:
    path = record(list(range(20)), rate, title="At home", **{"com.apple.quicktime.location.ISO6709": "+52"})
    film = fedtalk.generate(speech(0.48), video=path, talker=ready, **FAST)
    count = round(0.48 * rate)
    originals = _pixels(path)[:count]
    frames = list(film)
    assert abs(len(frames) - count) <= 1 and film.frame_rate == rate
    for number, (made, original) in enumerate(zip(frames, originals, strict=False)):
        eyes = drawn_clip.eyes[number] + np.array([30, 12])
        hidden = lower_face(np.stack([eyes]), 160)[0][0, 0].numpy()[:120].astype(bool)
        grown = np.roll(hidden, 3, 0) | np.roll(hidden, -3, 0) | np.roll(hidden, 3, 1) | np.roll(hidden, -3, 1) | hidden
        assert np.array_equal(made[~grown], original[~grown])
        assert (made[hidden] != original[hidden]).mean() > 0.3
    made = film.save(tmp_path / "dub.mp4")
    assert made.frames == len(frames)
    with av.open(str(made.path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == rate
        assert abs(float(stream.duration * stream.time_base) - 0.48) <= 0.5 / float(rate) + 1e-6
        assert container.metadata["title"] == "At home"
        assert container.metadata["com.apple.quicktime.location.ISO6709"] == "+52"
        sound = container.streams.audio[0]
        assert abs(float(sound.duration * sound.time_base) - made.seconds) < 0.07
    said = read_provenance(made.path)
    assert (said.kind, said.parents, said.state) == ("compositeWithTrainedAlgorithmicMedia", 1, "Valid")
    assert said.facts["backbone"] == ready.talker.fingerprint()


RATES = (Fraction(24_000, 1001), Fraction(30), Fraction(60_000, 1001), None)
CUTS = (0.0, 0.11, 0.137)
EACH_ONCE = set(zip(RATES, itertools.cycle(CUTS), strict=False))
"""Every rate and every cut; the rest of the pairs is slow."""


@pytest.mark.parametrize(
    ("rate", "cut"),
    [
        pytest.param(*pair, marks=() if pair in EACH_ONCE else pytest.mark.slow, id=f"{pair[0]}-{pair[1]}")
        for pair in itertools.product(RATES, CUTS)
    ],
)
def test_a_dub_of_a_trimmed_recording_shows_each_picture_when_players_do(
    rate: Fraction | None, cut: float, picture: Callable, finder: object, ready: Ready, speech: Callable, read_number: Callable,
    tmp_path: Path,
) -> None:  # fmt: skip
    """To the tick, wherever an edit list cuts; without a rate, at uneven times."""
    steps = np.random.default_rng(0).uniform(1 / 60, 1 / 15, 40) if rate is None else np.full(40, 1 / float(rate))
    times = np.concatenate([[0.0], steps.cumsum()])[:40]
    path = film(tmp_path / "recording.mov", times.tolist(), cut, cut, picture=picture)
    made = fedtalk.generate(speech(0.4), video=path, talker=ready, **FAST).save(tmp_path / "dub.mp4")
    with av.open(str(made.path)) as container:
        frames = [(frame.time, read_number(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video=0)]
    first = int(np.flatnonzero(times <= cut + 1e-9)[-1])
    assert [number for _, number in frames] == list(range(first, first + len(frames)))
    wanted = [max(0.0, float(times[number]) - cut) for _, number in frames]
    off = np.array([time for time, _ in frames]) - wanted
    print(f"{rate or 'uneven'}: cut at {cut} s: {1000 * off.min():+.2f} to {1000 * off.max():+.2f} ms")
    assert np.abs(off).max() < 1e-4
    assert made.seconds == pytest.approx(0.4, abs=float(steps.max()) / 2 + 1e-3)


def test_speech_longer_than_the_recording_plays_it_forth_and_back_or_holds_or_is_refused(
    record: Callable, finder: object, ready: Ready, speech: Callable, read_number: Callable
) -> None:
    path = record(list(range(8)))

    def numbers(when_short: str) -> list[int]:
        film = fedtalk.generate(speech(1.0), video=path, talker=ready, when_short=when_short, **FAST)
        return [read_number(frame) for frame in film]

    forth_and_back = [*range(8), *range(6, 0, -1)]
    assert numbers("loop") == list(itertools.islice(itertools.cycle(forth_and_back), 25))
    assert numbers("hold") == [*range(8), *[7] * 17]
    with pytest.raises(MediaError, match=r"0\.32 s of video, the speech has 1\.00 s"):
        numbers("refuse")
    with pytest.raises(ConfigurationError, match="when_short: expected one of loop, hold, refuse, got 'stretch'"):
        numbers("stretch")


def test_only_as_much_of_the_recording_is_read_as_the_speech_needs(
    record: Callable, finder: object, ready: Ready, speech: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = 0.0

    def watched(path: Path, start: float = 0.0):
        nonlocal latest
        for frame in native_frames(path, start):
            latest = max(latest, frame.seconds)
            yield frame

    monkeypatch.setattr("fedtalk.talker.production.recording.native_frames", watched)
    path = record(list(range(40)))
    assert len(list(fedtalk.generate(speech(0.4), video=path, talker=ready, **FAST))) == 10
    assert latest <= 0.4 + 2 / 25


def test_a_stretch_without_a_face_passes_untouched_and_is_told_as_a_part(
    record: Callable, finder: object, ready: Ready, speech: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = [*range(10), *[-1] * 30, *range(10, 20)]
    path = record(numbers)
    with caplog.at_level(logging.WARNING):
        frames = list(fedtalk.generate(speech(2.0), video=path, talker=ready, **FAST))
    assert "recording.mp4: from 0." in caplog.text and "this part stays as it is" in caplog.text
    originals = _pixels(path)
    changed = [not np.array_equal(one, other) for one, other in zip(frames, originals, strict=True)]
    assert not any(changed[15:35]) and all(changed[:5]) and all(changed[-5:])


def test_nothing_goes_on_behind_a_film_that_fails_or_is_left(
    record: Callable, finder: object, ready: Ready, speech: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Reading and drawing have threads of their own; what happens there happens to whoever asked."""

    def workers() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("fedtalk-ahead")]

    film = fedtalk.generate(speech(1.6), video=record(list(range(40))), talker=ready, **FAST)
    frames = iter(film)
    next(frames)
    assert len(workers()) == 2
    frames.close()
    assert not workers()
    later = itertools.count()

    def failing(*arguments: object) -> np.ndarray:
        if next(later) == 20:
            raise MediaError("the disk is gone")
        return crop(*arguments)

    monkeypatch.setattr("fedtalk.talker.production.recording.crop", failing)
    with pytest.raises(MediaError, match="the disk is gone"):
        film.save(tmp_path / "dub.mp4")
    assert not workers() and not list(tmp_path.glob("dub*"))


def test_a_recording_without_any_face_is_refused_before_anything_is_made(
    record: Callable, finder: object, ready: Ready, speech: Callable
) -> None:
    with pytest.raises(FaceNotFoundError, match=r"no usable face in 0\.40 s"):
        fedtalk.generate(speech(0.4), video=record([-1] * 10), talker=ready, **FAST)


@pytest.mark.parametrize("samples", [16_000, 16_639, 640])
def test_a_portrait_is_as_long_as_the_speech(
    samples: int, picture: Callable, finder: object, ready: Ready, speech: Callable, tmp_path: Path
) -> None:
    film = fedtalk.generate(speech(2.0)[:samples], portrait=picture(0), talker=ready, **FAST)
    frames = list(film)
    assert len(frames) == film.frames == samples // 640
    assert all(frame.shape == (32, 32, 3) and frame.dtype == np.uint8 for frame in frames)
    assert all(np.array_equal(one, other) for one, other in zip(frames, film, strict=True))  # made anew, the same
    said = read_provenance(film.save(tmp_path / "talk.mp4", scale=2).path)
    assert (said.kind, said.parents) == ("trainedAlgorithmicMedia", 0)


def test_a_kept_picture_stands_still_around_the_face(
    picture: Callable, finder: object, ready: Ready, speech: Callable
) -> None:
    whole = picture(0)
    frames = list(fedtalk.generate(speech(0.4), portrait=whole, talker=ready, keep_picture=True, **FAST))
    assert frames[0].shape == whole.shape
    for frame in frames:
        assert np.array_equal(frame[:, :20], whole[:, :20]) and np.array_equal(frame[:, -20:], whole[:, -20:])
    assert not np.array_equal(frames[0][40:90, 50:110], whole[40:90, 50:110])


def test_speech_from_a_file_and_from_memory_are_the_same(
    picture: Callable, finder: object, ready: Ready, speech: Callable, tmp_path: Path
) -> None:
    from fedtalk.data.media import read_audio, write_audio

    write_audio(tmp_path / "speech.wav", speech(0.4))
    sound = read_audio(tmp_path / "speech.wav")
    one, other = (
        list(fedtalk.generate(source, portrait=picture(0), talker=ready, **FAST))
        for source in (tmp_path / "speech.wav", sound)
    )
    assert np.array_equal(one, other)


@pytest.mark.parametrize(("rate", "written"), [(48_000, 48_000), (44_100, 44_100), (16_000, 16_000), (8_000, 16_000)])
def test_the_speech_is_heard_at_its_own_rate(
    rate: int, written: int, picture: Callable, finder: object, ready: Ready, tmp_path: Path
) -> None:
    from scipy.io import wavfile

    tone = np.sin(2 * np.pi * 3000 * np.arange(rate // 2) / rate)
    wavfile.write(tmp_path / "speech.wav", rate, (tone * 9000).astype("int16"))
    film = fedtalk.generate(tmp_path / "speech.wav", portrait=picture(0), talker=ready, **FAST)
    made = film.save(tmp_path / "talk.mp4", scale=2)
    with av.open(str(made.path)) as container:
        assert container.streams.audio[0].rate == written
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)[0]
    spectrum = np.abs(np.fft.rfft(heard))
    assert abs(spectrum.argmax() * written / len(heard) - 3000) < 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"portrait": None}, "give either --portrait PICTURE or --video VIDEO"),
        ({"video": "a.mp4"}, "give either --portrait PICTURE or --video VIDEO"),
        ({"precision": "64"}, "precision must be one of 32, bf16, 16, got '64'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"stride": 9}, "sampling stride: expected 1 to the window's length"),
        ({"device": "tpu:7", "talker": None}, "device 'tpu:7' can't be used"),
    ],
)
def test_wrong_settings_are_refused_at_once(
    changes: dict, said: str, picture: Callable, finder: object, ready: Ready, speech: Callable
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        fedtalk.generate(speech(0.4), **{"portrait": picture(0), "talker": ready, **FAST, **changes})
