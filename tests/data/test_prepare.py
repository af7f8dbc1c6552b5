"""What clips are, with drawn heads whose eyes and mouth are coloured dots that a small finder of our own sees."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from heads import Blinking, DotFinder, dots, draw, record, sine, still
from prepared import clips_of, run, stamps

from fedtalk.data.faces import Face

GRID = sorted((Path(__file__).parents[3] / "shared" / "data" / "grid").glob("*.mpg"))


def test_eyes_lie_where_the_framing_says_and_landmarks_where_the_picture_shows_them(tmp_path: Path) -> None:
    heads = [(120 + 5 * np.sin(i / 4), 80 + 2 * np.cos(i / 5), 36, 12) for i in range(50)]
    record(tmp_path / "raw" / "anna" / "my video.mp4", [draw(head) for head in heads], sine(50))
    run(tmp_path, detect_every=1)
    clips = clips_of(tmp_path)
    assert len(clips) == 2
    for clip in clips:
        middle = clip.eyes.mean(axis=1)
        np.testing.assert_allclose(np.median(middle, axis=0), [0.5 * 64 - 0.5, 0.42 * 64 - 0.5], atol=0.5)
        across = np.median(clip.eyes[:, 1] - clip.eyes[:, 0], axis=0)
        np.testing.assert_allclose(across, [0.28 * 64, 0], atol=0.4)
        for index in range(2, 23):
            seen = np.concatenate([dots(clip.frames[index], channel) for channel in range(3)])
            np.testing.assert_allclose(seen, [*clip.eyes[index], clip.mouth[index]], atol=0.6)


def test_the_crop_stands_still_while_the_head_moves(tmp_path: Path) -> None:
    heads = [(120 + 6 * np.sin(i / 3), 90, 36, 0) for i in range(25)]
    record(tmp_path / "raw" / "anna" / "a.mp4", [draw(head) for head in heads], sine(25))
    run(tmp_path)
    (clip,) = clips_of(tmp_path)
    assert np.ptp(clip.eyes[:, 0, 0]) > 3, "the head moves in the crop"
    white = (clip.frames.min(axis=-1) > 200).astype(float)  # the background's mark
    assert white[0].any()
    columns = (white * np.arange(64)).sum((1, 2)) / white.sum((1, 2))
    assert np.ptp(columns) < 0.3


def test_clips_carry_their_own_sound_and_origin(tmp_path: Path) -> None:
    audio = sine(80) * np.linspace(0.2, 1, 80 * 640, dtype=np.float32)
    record(tmp_path / "raw" / "anna" / "trip 1" / "my video.mp4", still(80), audio)
    report = run(tmp_path)
    clips = clips_of(tmp_path)
    assert report.clips == {"anna": 3}
    for number, clip in enumerate(clips):
        part = audio[number * 16_000 : (number + 1) * 16_000]
        np.testing.assert_allclose(clip.audio[200:-200], part[200:-200], atol=0.05)
        assert clip.info["source"] == "trip 1/my video.mp4"
        assert clip.info["start"] == number
        assert clip.openness is None
    (rest,) = report.rejects
    assert (rest.source, rest.start) == ("anna/trip 1/my video.mp4", 3.0)
    assert "shorter than a clip" in rest.reason
    kept = "".join(path.read_text() for path in (tmp_path / "clients").rglob("*") if path.suffix in (".csv", ".json"))
    assert str(tmp_path) not in kept + json.dumps([dict(clip.info) for clip in clips])


def test_openness_is_the_stated_formula(tmp_path: Path) -> None:
    record(tmp_path / "raw" / "anna" / "a.mp4", still(25), sine(25))
    run(tmp_path, finder=DotFinder(opening=lambda call: 0.02 * call), detect_every=1)
    (clip,) = clips_of(tmp_path)
    assert clip.openness is not None
    np.testing.assert_allclose(clip.openness, np.minimum(0.02 * np.arange(25) / 0.35, 1), atol=1e-6)


def test_whole_stretches_become_one_clip_each(tmp_path: Path) -> None:
    record(tmp_path / "raw" / "anna" / "a.mp4", [*still(40), *[draw()] * 30, *still(35)], sine(105))
    run(tmp_path, clip_seconds=None, detect_every=1)
    assert [len(clip) for clip in clips_of(tmp_path)] == [40, 35]


def test_short_gaps_are_bridged_and_long_ones_split(tmp_path: Path) -> None:
    audio = sine(105) * np.linspace(0.2, 1, 105 * 640, dtype=np.float32)
    record(tmp_path / "raw" / "anna" / "a.mp4", [*still(50), *[draw()] * 30, *still(25)], audio)
    report = run(tmp_path, detect_every=1, longest_gap=0.4, finder=Blinking(range(25, 30)))
    clips = clips_of(tmp_path)
    assert [clip.info["start"] for clip in clips] == [0.0, 1.0, 3.2]
    np.testing.assert_allclose(clips[2].audio[200:-200], audio[80 * 640 + 200 : 105 * 640 - 200], atol=0.05)
    assert all(dots(frame, 2).shape == (1, 2) for frame in clips[2].frames), "pictures from behind the gap, too"
    (gap,) = report.rejects
    assert (gap.start, gap.reason) == (2.0, "no face found for 1.20 s")


def test_pictures_that_show_no_face_are_never_bridged(tmp_path: Path) -> None:
    """Blank, black and foreign pictures among those of a face, fewer than a gap that is bridged: no clip has one."""
    noise = np.random.default_rng(0).integers(0, 255, (180, 240, 3), np.uint8)
    for name, odd in {"grey": draw() * 0 + 90, "black": draw() * 0, "noise": noise, "nobody": draw()}.items():
        pictures = [*still(27), *[odd] * 4, *still(29)]
        record(tmp_path / "raw" / "anna" / f"{name}.mp4", pictures, sine(60))
    run(tmp_path, longest_gap=0.5)
    clips = clips_of(tmp_path)
    assert len(clips) == 8
    assert all(dots(frame, 2).shape == (1, 2) for clip in clips for frame in clip.frames)


def test_pictures_that_stand_still_are_no_speech(tmp_path: Path) -> None:
    frozen = still(26)[-1]
    record(tmp_path / "raw" / "anna" / "a.mp4", [*still(26), *[frozen] * 40, *still(28)], sine(94))
    report = run(tmp_path)
    (reject,) = [one for one in report.rejects if "stands still" in one.reason]
    assert reject.start == pytest.approx(1.04, abs=0.05)
    assert [clip.info["start"] for clip in clips_of(tmp_path)] == [0.0, pytest.approx(2.64, abs=0.05)]


def test_the_finders_tremble_is_smoothed(tmp_path: Path) -> None:
    class Trembling(DotFinder):
        def find(self, frame: np.ndarray) -> list[Face]:
            shift = 2.0 * (-1) ** self.calls
            return [Face(face.box, face.eyes + shift, face.mouth + shift, 1.0) for face in super().find(frame)]

    record(tmp_path / "raw" / "anna" / "a.mp4", still(25), sine(25))
    run(tmp_path, finder=Trembling(), detect_every=1)
    (clip,) = clips_of(tmp_path)
    assert np.abs(np.diff(clip.mouth, axis=0)).max() < 0.5, "4 pixels in the source are 2 in the clip"


def test_same_names_of_different_files_do_not_collide(tmp_path: Path) -> None:
    for name in ("one/a.mp4", "two/a.mp4", "one a.mp4", "one-a.mp4"):
        record(tmp_path / "raw" / "anna" / name, still(25), sine(25))
    assert run(tmp_path).clips == {"anna": 4}
    assert len(stamps(tmp_path)) == 4


def test_the_crop_follows_a_head_that_would_leave_it_unless_it_is_too_quick(tmp_path: Path) -> None:
    steady = [draw((60 + 4.5 * index, 80, 36, 0)) for index in range(25)]
    record(tmp_path / "raw" / "anna" / "steady.mp4", steady, sine(25))
    pictures = [draw((120 + 75 * np.sin(index * 0.5), 80, 36, 0)) for index in range(25)]
    record(tmp_path / "raw" / "anna" / "a.mp4", pictures, sine(25))
    record(tmp_path / "raw" / "anna" / "b.mp4", still(25), sine(25))
    report = run(tmp_path, detect_every=1)
    (reject,) = [one for one in report.rejects if "moves out" in one.reason]
    assert reject.source == "anna/a.mp4"
    clip = next(clip for clip in clips_of(tmp_path) if clip.info["source"] == "steady.mp4")
    assert clip.transforms is not None and np.ptp(clip.transforms[:, 0, 2]) > 20
    for index in range(2, 23):
        seen = np.concatenate([dots(clip.frames[index], channel) for channel in range(3)])
        np.testing.assert_allclose(seen, [*clip.eyes[index], clip.mouth[index]], atol=0.9)


@pytest.mark.skipif(not GRID, reason="no real recordings here")
def test_real_recordings_with_dlib(tmp_path: Path) -> None:
    for path in GRID[:2]:
        folder = tmp_path / "raw" / path.stem
        folder.mkdir(parents=True)
        (folder / path.name).symlink_to(path)
    report = run(tmp_path, finder="dlib")
    assert report.clips == {path.stem: 3 for path in GRID[:2]}
    assert not report.rejects
    for path in GRID[:2]:
        for clip in clips_of(tmp_path, path.stem):
            assert clip.transforms is not None
            across = clip.eyes[:, 1] - clip.eyes[:, 0]
            np.testing.assert_allclose(np.median(across, axis=0), [0.28 * 64, 0], atol=0.6)
            np.testing.assert_allclose(np.median(clip.eyes.mean(1), axis=0), [31.5, 26.38], atol=0.5)
            assert (clip.mouth[:, 1] > clip.eyes[:, :, 1].max(1) + 12).all()
        assert np.ptp(np.concatenate([clip.openness for clip in clips_of(tmp_path, path.stem)])) > 0.3


def test_the_manifest_says_whose_clip_is_of_what(tmp_path: Path) -> None:
    for emotion in ("04", "03"):
        record(tmp_path / "raw" / "Actor_01" / f"01-01-{emotion}-01-02-01-01.mp4", still(50), sine(50))
    run(tmp_path, layout="ravdess")
    with (tmp_path / "clients" / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["client"], row["emotion"], row["start"], row["seconds"]) for row in rows] == [
        ("Actor_01", "happy", "0.0", "1.0"), ("Actor_01", "happy", "1.0", "1.0"),
        ("Actor_01", "sad", "0.0", "1.0"), ("Actor_01", "sad", "1.0", "1.0"),
    ]  # fmt: skip
    assert all((tmp_path / "clients" / row["client"] / row["clip"]).is_file() for row in rows)


def test_sound_in_a_file_of_its_own_is_used_where_the_video_has_none(tmp_path: Path) -> None:
    video = tmp_path / "raw" / "dev" / "mp4" / "id00012" / "x" / "00001.mp4"
    record(video, still(25), None)
    sound = tmp_path / "raw" / "dev" / "aac" / "id00012" / "x" / "00001.m4a"
    record(sound.with_suffix(".mp4"), still(25), 0.5 * sine(25)).rename(sound)
    run(tmp_path, layout="voxceleb2")
    (clip,) = clips_of(tmp_path, "id00012")
    np.testing.assert_allclose(clip.audio[400:-400], 0.5 * sine(25)[400:-400], atol=0.05)
