"""Preparation, with drawn heads whose eyes and mouth are coloured dots that a small finder of our own sees."""

from __future__ import annotations

import csv
import json
import os
import signal
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from heads import Blinking, DotFinder, dots, draw, lively, points_of, record, sine, still, track_face

from fedtalk.data.clip import Clip
from fedtalk.data.faces import Face
from fedtalk.data.framing import crop, framing, move, share_outside
from fedtalk.data.prepare import PrepareReport, prepare
from fedtalk.errors import ConfigurationError, MediaError, OutputError

GRID = sorted((Path(__file__).parents[3] / "shared" / "data" / "grid").glob("*.mpg"))


def run(tmp_path: Path, **options: object) -> PrepareReport:
    settings: dict = {"finder": DotFinder(), "clip_seconds": 1.0, "progress": False, "size": 64, **options}
    return prepare(tmp_path / "raw", tmp_path / "clients", **settings)


def clips_of(tmp_path: Path, person: str = "anna") -> list[Clip]:
    return [Clip.load(path) for path in sorted((tmp_path / "clients" / person).glob("*.npz"))]


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


def test_every_kind_of_bad_source_is_reported_and_costs_nothing_else(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    good = record(raw / "anna" / "good one.mp4", still(25), sine(25))
    record(raw / "anna" / "mute.mp4", still(25), None)
    record(raw / "anna" / "silent.mp4", still(25), np.zeros(16_000, np.float32))
    record(raw / "anna" / "small.mp4", still(25, (120, 80, 7, 0)), sine(25))
    record(raw / "anna" / "border.mp4", still(25, (22, 22, 40, 0)), sine(25))
    (raw / "anna" / "cut.mp4").write_bytes(good.read_bytes()[:200])
    (raw / "anna" / "notes.txt").write_text("hello")
    (raw / "anna" / ".hidden").write_text("hello")
    record(raw / "bert" / "nobody.mp4", [draw()] * 50, sine(50))
    report = run(tmp_path)
    assert report.clips == {"anna": 1, "bert": 0}
    assert report.empty == ["bert"]
    assert "no usable clip of: bert" in str(report)
    said = {
        "anna/mute.mp4": "no audio track",
        "anna/silent.mp4": "silent",
        "anna/small.mp4": "too small: 7",
        "anna/border.mp4": "outside the picture",
        "anna/cut.mp4": "not a readable",
        "anna/notes.txt": "not a video",
        "anna/.hidden": "its name is hidden",
        "bert/nobody.mp4": "no face found for 2.00 s",
    }
    with (tmp_path / "clients" / "rejects.csv").open(newline="") as stream:
        table = {row["source"]: row for row in csv.DictReader(stream)}
    assert table.keys() == said.keys()
    for source, words in said.items():
        assert words in table[source]["reason"]
        assert float(table[source]["start"]) == 0.0
    for path in (tmp_path / "clients").rglob("*.json"):
        assert str(tmp_path) not in path.read_text()


def test_the_good_part_of_a_damaged_video_is_kept(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    pictures = [draw((120, 80, 36, 0)) for _ in range(200)]
    for picture in pictures:  # incompressible, so that the file's half is about half of its time
        picture[120:] = noise.integers(0, 255, (60, 240, 1))
    whole = record(tmp_path / "whole.mp4", pictures, sine(200))
    (tmp_path / "raw" / "anna").mkdir(parents=True)
    (tmp_path / "raw" / "anna" / "a.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    report = run(tmp_path)
    assert 3 <= report.clips["anna"] <= 5
    cut = next(reject for reject in report.rejects if "cut short" in reject.reason)
    assert 3 < cut.start < 6


def test_nothing_usable_at_all_is_an_error_that_points_to_the_reasons(tmp_path: Path) -> None:
    record(tmp_path / "raw" / "anna" / "a.mp4", [draw()] * 25, sine(25))
    with pytest.raises(MediaError, match=r"rejects\.csv.*\n?.*no face found"):
        run(tmp_path)
    assert "no face found" in (tmp_path / "clients" / "rejects.csv").read_text()


def stamps(tmp_path: Path) -> dict[str, int]:
    clips = sorted((tmp_path / "clients").glob("[!.]*/*.npz"))
    return {path.name: path.stat().st_mtime_ns for path in clips}


def test_running_again_does_only_what_changed(tmp_path: Path) -> None:
    record(tmp_path / "raw" / "anna" / "a.mp4", still(60), sine(60))
    record(tmp_path / "raw" / "bert" / "b.mp4", still(25), sine(25))
    first = run(tmp_path)
    before = stamps(tmp_path)
    finder = DotFinder()
    again = run(tmp_path, finder=finder)
    assert (again.made, again.unchanged, again.clips, again.rejects) == (0, 2, first.clips, first.rejects)
    assert finder.calls == 0
    assert stamps(tmp_path) == before

    record(tmp_path / "raw" / "anna" / "a.mp4", still(30), sine(30))  # shorter now: its second clip must go
    changed = run(tmp_path)
    assert (changed.made, changed.unchanged, changed.clips) == (1, 1, {"anna": 1, "bert": 1})
    assert len(stamps(tmp_path)) == 2

    next((tmp_path / "clients" / "bert").glob("*.npz")).unlink()
    assert run(tmp_path).made == 1
    assert run(tmp_path, overwrite=True).made == 2
    assert run(tmp_path, size=96).made == 2
    assert {clip.size for person in ("anna", "bert") for clip in clips_of(tmp_path, person)} == {96}


class Disturbed(DotFinder):
    """Does something at its 16th look, after the ten or eleven that a first video of 50 frames takes."""

    def __init__(self, disturb: Callable[[], None]) -> None:
        super().__init__()
        self._disturb = disturb

    def find(self, frame: np.ndarray) -> list[Face]:
        if self.calls == 15:
            self._disturb()
        return super().find(frame)


@pytest.mark.parametrize("second", ["anna/b.mp4", "bert/b.mp4"])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, second: str) -> None:
    for name in ("anna/a.mp4", second):
        record(tmp_path / "raw" / name, still(50), sine(50))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, finder=Disturbed(interrupt))
    resumed = run(tmp_path)
    assert (resumed.made, resumed.unchanged, sum(resumed.clips.values())) == (2, 1, 4)


def test_each_finished_video_is_on_record_at_once(tmp_path: Path) -> None:
    """So that a run that is killed without warning loses one video's work at most."""
    for name in ("anna/a.mp4", "bert/b.mp4"):
        record(tmp_path / "raw" / name, still(50), sine(50))
    recorded: list[str] = []

    def look() -> None:
        paths = (tmp_path / "clients" / ".prepare").glob("*.json")
        recorded.extend(json.loads(path.read_text())["label"] for path in paths)

    run(tmp_path, finder=Disturbed(look))
    assert recorded == ["anna/a.mp4"]


def test_another_size_does_not_follow_the_face_again(tmp_path: Path) -> None:
    record(tmp_path / "raw" / "anna" / "a.mp4", still(50), sine(50))
    run(tmp_path)
    finder = DotFinder()
    assert run(tmp_path, finder=finder, size=96, clip_seconds=0.8).clips == {"anna": 2}
    assert finder.calls == 0
    assert {clip.size for clip in clips_of(tmp_path)} == {96}
    run(tmp_path, finder=finder, detect_every=2)
    assert finder.calls > 0


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


def test_the_face_is_searched_for_only_now_and_then(tmp_path: Path) -> None:
    record(tmp_path / "raw" / "anna" / "a.mp4", still(100), sine(100))
    finder = DotFinder()
    run(tmp_path, finder=finder, detect_every=5)
    assert finder.calls <= 21


def test_memory_holds_a_few_frames_of_a_long_video() -> None:
    alive = peak = 0

    def lost() -> None:
        nonlocal alive
        alive -= 1

    def frames() -> Iterator[np.ndarray]:
        nonlocal alive, peak
        for index in range(400):
            picture = still(index % 3 + 1)[-1].copy() if index % 100 < 80 else draw()
            alive, peak = alive + 1, max(peak, alive + 1)
            weakref.finalize(picture, lost)
            yield picture

    track = track_face(frames(), DotFinder(), every=5, longest_gap=12)
    assert len(track) == 400
    assert peak <= 5 + 12 + 3


def test_landmarks_in_between_are_interpolated_or_placed() -> None:
    heads = [(100 + 2.0 * index, 80 + 0.5 * index, 36.0, 0.0) for index in range(24)]
    frames = [draw(head) for head in heads]
    track = track_face(frames, DotFinder(), every=5, longest_gap=5)
    assert track.runs == [(0, 24)]
    for index, head in enumerate(heads):
        np.testing.assert_allclose(track.eyes[index], points_of(head)[0], atol=0.7)
        np.testing.assert_allclose(track.mouth[index], points_of(head)[1], atol=0.7)

    class Placing(DotFinder):
        def place(self, frame: np.ndarray, box: np.ndarray) -> Face:
            (face,) = DotFinder().find(frame)
            np.testing.assert_allclose(box, face.box, atol=1.5)
            return Face(box, face.eyes + 3, face.mouth, 0.0)

    placed = track_face(frames, Placing(), every=5, longest_gap=5)
    moved = placed.eyes[:, 0, 0] - track.eyes[:, 0, 0] > 1.5
    np.testing.assert_array_equal(moved, [index % 5 != 0 and index < 23 for index in range(24)])


def test_a_gap_longer_than_allowed_is_not_bridged_between_two_looks() -> None:
    for gap, runs in ((7, [(0, 1), (10, 16)]), (10, [(0, 16)])):
        track = track_face(still(16), Blinking(range(1, 2)), every=5, longest_gap=gap)
        assert track.runs == runs


def test_one_face_is_followed_and_a_cut_is_seen() -> None:
    near, far = (70.0, 80.0, 36.0, 0.0), (180.0, 80.0, 30.0, 0.0)
    track = track_face(lively(near, far, count=20), DotFinder(), every=5, longest_gap=5)
    np.testing.assert_allclose(track.eyes.mean(axis=1)[:, 0], 70, atol=0.7)
    assert track.runs == [(0, 20)]
    cut = track_face([*lively(near, count=10), *lively(far, count=10)], DotFinder(), every=1, longest_gap=5)
    assert cut.runs == [(0, 10), (10, 20)]
    late = track_face([*lively(near, count=8), *lively(far, count=10)], DotFinder(), every=5, longest_gap=5)
    assert late.runs == [(0, 6), (10, 18)]
    assert late.gaps[0][0] == 6
    assert "jumps" in late.gaps[0][1]


def test_a_shot_that_ends_between_two_looks_ends_the_run_there() -> None:
    """Another scene with somebody at the same place: no clip may hold both."""
    head = (120.0, 80.0, 36.0, 0.0)
    other = [np.where(picture == 90, np.uint8(200), picture) for picture in lively(head, count=20)]
    for picture in other:
        picture[:50] = 0
    track = track_face([*lively(head, count=23), *other], DotFinder(), every=5, longest_gap=5)
    assert track.runs == [(0, 23), (23, 43)]


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


def test_large_faces_are_averaged_down_not_skipped() -> None:
    """A checkerboard finer than the crop's pixels must come out grey, wherever it lies."""
    board = np.indices((1200, 1200)).sum(axis=0) % 2 * 255
    picture = np.repeat(board[..., None].astype(np.uint8), 3, axis=2)
    transform = framing(np.array([[[500.0, 500.0], [640.0, 503.0]]]), 64)
    cut = crop(picture, transform, 64).astype(int)
    assert np.abs(cut - 127).max() < 40
    assert cut.std() < 15


@pytest.mark.parametrize("between_eyes", [36.0, 140.0, 400.0])
def test_what_is_cut_out_lies_where_the_transform_says(between_eyes: float) -> None:
    """At every scale: no half pixel may be lost where a face is averaged down."""
    head = (600.0, 500.0, between_eyes, 8.0)
    eyes, mouth = points_of(head)
    transform = framing(eyes[None], 64)
    frame = crop(draw(head, height=1100, width=1200), transform, 64)
    seen = np.concatenate([dots(frame, channel) for channel in range(3)])
    np.testing.assert_allclose(seen, move(transform, np.stack([*eyes, mouth])), atol=0.12)


def test_share_outside_matches_a_count_of_pixels() -> None:
    transform = framing(np.array([[[20.0, 60.0], [60.0, 70.0]]]), 64)
    marked = cv2.warpAffine(np.ones((120, 100), np.float32), transform, (64, 64), flags=cv2.INTER_NEAREST)
    assert share_outside(transform, 64, 100, 120) == pytest.approx(1 - marked.mean(), abs=0.03)
    assert share_outside(framing(np.array([[[480.0, 500.0], [520.0, 500.0]]]), 64), 64, 1000, 1000) == 0


def test_wrong_trees_and_settings_fail_before_any_work(tmp_path: Path) -> None:
    video = record(tmp_path / "raw" / "a.mp4", still(2), None)
    with pytest.raises(MediaError, match="one folder a person"):
        run(tmp_path)
    video.unlink()
    (tmp_path / "raw" / "anna").mkdir()
    with pytest.raises(MediaError, match="no video in them"):
        run(tmp_path)
    record(tmp_path / "raw" / "anna" / "a.mp4", still(25), sine(25))
    for wrong in (
        {"layout": "tree"},
        {"size": 63},
        {"clip_seconds": 0.0},
        {"detect_every": 0},
        {"longest_gap": -1.0},
        {"finder": "mtcnn"},
        {"face": 0},
        {"face": "absent.png"},
        {"jobs": 0},
    ):
        with pytest.raises(ConfigurationError, match=str(next(iter(wrong)).split("_")[0])):
            run(tmp_path, **wrong)
    with pytest.raises(ConfigurationError, match="outside"):
        prepare(tmp_path / "raw", tmp_path / "raw" / "clients", finder=DotFinder())
    with pytest.raises(MediaError, match="expected a folder"):
        prepare(tmp_path / "absent", tmp_path / "clients", finder=DotFinder())
    (tmp_path / "clients").write_text("a file in the way")
    with pytest.raises(OutputError):
        run(tmp_path)


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


def test_moving_points_back_and_forth() -> None:
    eyes = np.array([[[30.0, 40.0], [70.0, 52.0]]])
    transform = framing(eyes, 64)
    inverse = cv2.invertAffineTransform(transform)
    np.testing.assert_allclose(move(inverse, move(transform, eyes)), eyes)


def test_withdrawn_videos_take_their_clips_with_them(tmp_path: Path) -> None:
    for name in ("anna/a.mp4", "anna/b.mp4", "bert/c.mp4"):
        record(tmp_path / "raw" / name, still(25), sine(25))
    run(tmp_path)
    (tmp_path / "raw" / "anna" / "b.mp4").unlink()
    (tmp_path / "raw" / "bert" / "c.mp4").unlink()
    report = run(tmp_path)
    assert report.withdrawn == ["anna/b.mp4", "bert/c.mp4"] and report.unchanged == 1
    assert set(stamps(tmp_path)) == {path.name for path in (tmp_path / "clients" / "anna").glob("*.npz")}
    assert len(stamps(tmp_path)) == 1
    assert [one.source for one in report.rejects if "no longer there" in one.reason] == report.withdrawn
    record(tmp_path / "raw2" / "carl" / "d.mp4", still(25), sine(25))  # another raw folder removes nothing
    report = prepare(tmp_path / "raw2", tmp_path / "clients", finder=DotFinder(), clip_seconds=1.0, progress=False)
    assert (report.elsewhere, report.withdrawn, len(stamps(tmp_path))) == (["anna/a.mp4"], [], 2)


def test_what_killed_runs_left_is_cleaned_up(tmp_path: Path) -> None:
    record(tmp_path / "raw" / "anna" / "a.mp4", still(25), sine(25))
    (tmp_path / "clients" / "anna").mkdir(parents=True)
    left = [tmp_path / "clients" / "anna" / ".part-a-x.npz", tmp_path / "clients" / ".prepare" / "0f" / "a.npz"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    run(tmp_path)
    assert not any(path.exists() for path in left) and len(stamps(tmp_path)) == 1


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


class Deadly(DotFinder):
    """Its process dies of a picture with two heads, as a decoder does of some files."""

    def find(self, frame: np.ndarray) -> list[Face]:
        faces = super().find(frame)
        if len(faces) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return faces


def test_a_worker_that_is_killed_costs_one_video(tmp_path: Path) -> None:
    for name in "acde":
        record(tmp_path / "raw" / "anna" / f"{name}.mp4", still(25), sine(25))
    record(tmp_path / "raw" / "bert" / "b.mp4", lively((60, 80, 30, 0), (180, 80, 30, 0), count=25), sine(25))
    report = run(tmp_path, finder=Deadly(), jobs=2)
    assert report.clips == {"anna": 4, "bert": 0}
    (reject,) = report.rejects
    assert reject.source == "bert/b.mp4" and "was killed, twice" in reject.reason
