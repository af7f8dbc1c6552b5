"""A flash with a click, through `prepare` from file to clips: wherever a file's tracks begin, they stay together."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cut_films import FULL, film
from oddities import face, write
from prepared import clips_of, run

EVENT = 0.6
"""Second on the file's clock of the flash and of the click."""


@pytest.mark.parametrize(
    ("suffix", "picture_start", "sound_start", "rate"),
    [
        ("mp4", 0.0, 0.0, 25),
        ("mp4", 0.0, 0.3, 25),  # an empty edit before the sound
        ("mp4", 0.3, 0.0, 25),
        ("mp4", 0.0, -0.3, 25),  # edits that cut the beginning away, as telephones trim
        ("mp4", -0.28, -0.28, 25),
        ("mov", -0.3, 0.2, 30),
        ("mkv", 0.48, 0.2, 25),
        ("mkv", 0.0, 0.35, 30),
        ("ts", 0.0, 0.3, 25),
        ("ts", 0.24, 0.0, 30),
    ],
)
def test_a_flash_and_its_click_stay_together(
    tmp_path: Path, suffix: str, picture_start: float, sound_start: float, rate: int
) -> None:
    times = [picture_start + number / rate for number in range(round(1.8 * rate))]
    flash = min(range(len(times)), key=lambda number: abs(times[number] - EVENT))
    event = times[flash]
    sound = 0.01 * np.random.default_rng(0).standard_normal(round((2.0 - sound_start) * 48_000)).astype(np.float32)
    click = round((event - sound_start) * 48_000)
    sound[click : click + 96] = 0.8
    (tmp_path / "raw" / "anna").mkdir(parents=True)
    write(
        tmp_path / "raw" / "anna" / f"film.{suffix}", times=times, rate=Fraction(rate), sound=sound[None], sound_rate=48_000,
        sound_start=sound_start, picture=lambda number: face(number, level=190 if number == flash else 90),
    )  # fmt: skip
    report = run(tmp_path, size=32)
    clip = clips_of(tmp_path)[0]
    assert report.clips["anna"] == 1
    light = clip.frames.reshape(len(clip), -1).mean(1)
    shown, heard = int(light.argmax()), int(np.abs(clip.audio).argmax())
    assert light[shown] > np.median(light) + 30 and np.abs(clip.audio[heard]) > 0.2
    first = next(time for time in times if time > -1e-6)  # what comes before is cut away
    assert shown / 25 == pytest.approx(event - first, abs=0.0201)
    assert abs(heard / 640 - shown) <= 0.5


@pytest.mark.parametrize("rate", [Fraction(24_000, 1001), Fraction(25), Fraction(30), Fraction(60_000, 1001)], ids=str)
@pytest.mark.parametrize("cut", [0.0, 0.11, 0.337])
def test_clips_of_trimmed_films_keep_each_picture_to_its_sound(tmp_path: Path, rate: Fraction, cut: float) -> None:
    """The grey behind the face says which picture it is, the sound which instant."""
    times = [float(number / rate) for number in range(round(rate))]
    (tmp_path / "raw" / "anna").mkdir(parents=True)
    film(
        tmp_path / "raw" / "anna" / "film.mov",
        times,
        cut,
        cut,
        picture=lambda number: face(number, level=40 + 3 * number),
    )
    assert run(tmp_path, size=32, clip_seconds=0.6).clips["anna"] == 1
    clip = clips_of(tmp_path)[0]
    grey = np.median(clip.frames.reshape(len(clip), -1), axis=1)
    shown = np.array([times[round((level - 40) / 3)] for level in grey])
    off = shown - clip.audio[::640].astype(np.float64) * FULL
    print(f"{rate}: cut at {cut} s: {1000 * off.min():+.1f} to {1000 * off.max():+.1f} ms")
    assert np.abs(off).max() <= 0.5 / float(rate) + 0.0011
