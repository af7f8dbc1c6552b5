"""Wherever an edit list cuts, each picture stays within half a picture of its sound, from the first to the last."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from cut_films import apart, film, with_edits
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import number_of

from fedtalk.data.media import native_frames
from fedtalk.errors import MediaError

RATES = [
    Fraction(24_000, 1001),
    Fraction(25),
    Fraction(30_000, 1001),
    Fraction(30),
    Fraction(50),
    Fraction(60_000, 1001),
]
TICK = 0.0011
"""Seconds to which edit lists say how long an edit is, and a little."""


def every(rate: Fraction, seconds: float = 1.6) -> list[float]:
    return [float(number / rate) for number in range(round(seconds * rate))]


def uneven(seconds: float = 1.6) -> list[float]:
    """As telephones in the dark: 15 to 60 pictures a second."""
    steps = np.random.default_rng(0).uniform(1 / 60, 1 / 15, 200).cumsum()
    return [0.0, *(float(step) for step in steps if step < seconds)]


def furthest(times: list[float]) -> float:
    """Half the longest time between two pictures: what the nearest of them may be away."""
    return float(np.diff(times).max()) / 2


@pytest.mark.parametrize("rate", [*RATES, None], ids=str)
def test_wherever_the_beginning_is_cut_pictures_keep_to_their_sound(tmp_path: Path, rate: Fraction | None) -> None:
    times = uneven() if rate is None else every(rate)
    for number, cut in enumerate(np.random.default_rng(1).uniform(0, 1, 4)):
        off, heard = apart(film(tmp_path / f"{number}.mov", times, float(cut), float(cut)), times)
        print(f"{rate or 'uneven'}: cut at {cut:.4f} s: {1000 * off.min():+.1f} to {1000 * off.max():+.1f} ms")
        assert np.abs(off).max() <= furthest(times) + TICK
        assert heard[0] == pytest.approx(cut, abs=TICK)
        assert len(off) / 25 == pytest.approx(times[-1] + 0.03 - cut, abs=0.04)


@settings(max_examples=12, deadline=None)
@given(picture=st.floats(0, 0.9), sound=st.floats(-0.4, 0.9), rate=st.sampled_from(RATES))
def test_tracks_that_are_cut_at_different_places_are_as_far_apart_as_these(
    tmp_path_factory: pytest.TempPathFactory, picture: float, sound: float, rate: Fraction
) -> None:
    times = every(rate)
    off, heard = apart(film(tmp_path_factory.mktemp("film") / "a.mov", times, picture, sound), times)
    known = heard > 0  # before it begins, sound that is late says nothing
    assert np.abs(off[known] - (picture - sound)).max() <= furthest(times) + TICK


@pytest.mark.parametrize(
    "edits",
    [
        [(0.5, 0.21), (0.5, 1.043)],
        [(0.3, 1.013), (0.4, 0.111), (0.3, 0.777)],  # not in the order of the recording
        [(0.25, None), (0.5, 0.21), (0.15, None), (0.3, 0.9)],
        [(0.03, 0.502), (0.04, 1.0), (0.5, 0.3)],
    ],
)
@pytest.mark.parametrize("rate", RATES, ids=str)
def test_several_edits(tmp_path: Path, edits: list[tuple[float, float | None]], rate: Fraction) -> None:
    times = every(rate)
    path = film(tmp_path / "a.mov", times)
    with av.open(str(path), options={"ignore_editlist": "1"}) as container:
        delay = next(container.decode(video=0)).time  # by which an encoder that reorders comes late
    with_edits(path, {1: [(seconds, at and at + delay) for seconds, at in edits], 2: edits})
    off, heard = apart(path, times)
    silence = sum(seconds for seconds, at in itertools.islice(edits, 1, None) if at is None)
    known = heard > 0
    assert np.abs(off[known]).max() <= furthest(times) + TICK
    assert (~known).sum() == pytest.approx(25 * silence, abs=1)
    begins = 0.25 if edits[0][1] is None else 0.0
    assert len(off) / 25 == pytest.approx(sum(seconds for seconds, _ in edits) - begins, abs=0.021)


def test_the_first_picture_is_shown_for_what_is_left_of_it(tmp_path: Path) -> None:
    times = every(Fraction(25))
    frames = list(native_frames(film(tmp_path / "a.mov", times, 0.21)))
    assert [number_of(frame.rgb()) for frame in frames] == list(range(5, 40))
    np.testing.assert_allclose([frame.seconds for frame in frames], [0, *np.arange(0.03, 1.385, 0.04)], atol=1e-4)
    late = list(native_frames(tmp_path / "a.mov", start=0.8))
    assert [number_of(frame.rgb()) for frame in late] == list(range(25, 40))


def test_files_in_fragments(tmp_path: Path) -> None:
    times = every(Fraction(30))
    path = film(tmp_path / "a.mov", times, 0.21, 0.21, options={"movflags": "frag_keyframe+delay_moov"})
    off, heard = apart(path, times)
    assert np.abs(off).max() <= furthest(times) + TICK and heard[0] == pytest.approx(0.21, abs=TICK)


@pytest.mark.parametrize(
    ("track", "said"), [(1, "cut short; its header declares 1.00 s"), (2, "edit list shows nothing of the audio track")]
)
def test_an_edit_list_that_shows_nothing_is_named(tmp_path: Path, track: int, said: str) -> None:
    path = with_edits(film(tmp_path / "a.mov", every(Fraction(25))), {track: [(1.0, 500.0)]})
    with pytest.raises(MediaError, match=said):
        apart(path, every(Fraction(25)))
