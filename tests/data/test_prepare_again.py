"""Preparing again: what is new or changed, what was withdrawn, what a killed run left."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from heads import DotFinder, record, sine, still
from media_files import remuxed
from prepared import clips_of, run, stamps

from fedtalk.data.faces import Face
from fedtalk.data.framing import move
from fedtalk.data.media import read_audio, read_video, write_image
from fedtalk.data.prepare import prepare
from fedtalk.errors import MediaError

GRID = sorted((Path(__file__).parents[3] / "shared" / "data" / "grid").glob("*.mpg"))


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


def test_the_manifest_and_the_folders_are_true_when_videos_change_or_go(tmp_path: Path) -> None:
    """A video that turned bad keeps no clips; a person without clips leaves no folder, unless they wrote a consent."""
    for name in ("anna/a.mp4", "bert/b.mp4", "carl/c.mp4", "dora/d.mp4"):
        record(tmp_path / "raw" / name, still(25), sine(25))
    run(tmp_path)
    (tmp_path / "raw" / "bert" / "b.mp4").write_bytes(b"broken")
    for name in ("carl/c.mp4", "dora/d.mp4"):
        (tmp_path / "raw" / name).unlink()
    written = tmp_path / "clients" / "dora" / "consent.yaml"
    written.write_text(written.read_text().replace("revoked: null", "revoked: 2026-11-27"))
    report = run(tmp_path)
    assert report.clips == {"anna": 1, "bert": 0, "carl": 0, "dora": 0} and report.withdrawn == [
        "carl/c.mp4",
        "dora/d.mp4",
    ]
    with (tmp_path / "clients" / "manifest.csv").open(newline="") as stream:
        assert [row["source"] for row in csv.DictReader(stream)] == ["anna/a.mp4"]
    assert {path.name for path in (tmp_path / "clients").iterdir() if path.is_dir()} == {".prepare", "anna", "dora"}
    assert [path.name for path in (tmp_path / "clients" / "dora").iterdir()] == ["consent.yaml"]
    said = {reject.source: reject.reason for reject in report.rejects}
    assert "not a readable" in said["bert/b.mp4"] and "no longer there" in said["carl/c.mp4"]


def test_a_raw_folder_that_is_empty_now_removes_nothing_and_says_what_is_left(tmp_path: Path) -> None:
    """It may not be mounted; or all of it was withdrawn, and then the clips must not be forgotten."""
    video = record(tmp_path / "raw" / "anna" / "a.mp4", still(50), sine(50))
    run(tmp_path)
    video.unlink()
    with pytest.raises(
        MediaError, match=r"2 clips made from it earlier are still in .*clients; if all of it was withdrawn"
    ):
        run(tmp_path)
    assert len(stamps(tmp_path)) == 2


def test_a_video_that_is_taken_away_or_changed_while_it_is_prepared_costs_itself(tmp_path: Path) -> None:
    for name in ("anna/a.mp4", "bert/b.mp4", "carl/c.mp4"):
        record(tmp_path / "raw" / name, still(50), sine(50))

    def disturb() -> None:
        (tmp_path / "raw" / "carl" / "c.mp4").unlink()
        record(tmp_path / "raw" / "anna" / "a.mp4", still(30), sine(30))

    report = run(tmp_path, finder=Disturbed(disturb))
    assert report.clips == {"anna": 2, "bert": 2, "carl": 0}
    assert any(reject.source == "carl/c.mp4" and "no such file" in reject.reason for reject in report.rejects)
    again = run(tmp_path)  # in which the first video is another one, and the last withdrawn
    assert (again.clips, again.unchanged, again.withdrawn) == ({"anna": 1, "bert": 2, "carl": 0}, 1, ["carl/c.mp4"])


class Copying(DotFinder):
    """Writes more of a file, or less, at each look."""

    def __init__(self, path: Path, content: bytes, share: float, more: float) -> None:
        super().__init__()
        self._path, self._content, self._share, self._more = path, content, share, more
        self._copy()

    def _copy(self) -> None:
        with self._path.open("r+b" if self._path.exists() else "wb") as stream:
            stream.write(self._content[: round(min(self._share, 1) * len(self._content))])
            stream.truncate()

    def find(self, frame: np.ndarray) -> list[Face]:
        self._share += self._more
        self._copy()
        return super().find(frame)


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
@pytest.mark.parametrize(("share", "more"), [(0.4, 0.03), (0.9, 0.05), (1.0, -0.03)])
def test_a_video_that_is_copied_while_it_is_read_is_told_of_and_done_again(
    tmp_path: Path, suffix: str, share: float, more: float
) -> None:
    """Some kinds of file, as a transport stream, don't say how long they are to be. Another video is none the worse."""
    whole = record(tmp_path / "whole.mp4", still(100), sine(100))
    if suffix == "ts":
        whole = remuxed(whole, tmp_path / "whole.ts", "mpegts")
    record(tmp_path / "raw" / "bert" / "b.mp4", still(25), sine(25))
    video = tmp_path / "raw" / "anna" / f"a.{suffix}"
    video.parent.mkdir()
    report = run(tmp_path, finder=Copying(video, whole.read_bytes(), share, more), clip_seconds=0.4)
    assert report.clips["bert"] == 2
    assert any(
        one.source == f"anna/{video.name}" and "changed while it was read" in one.reason for one in report.rejects
    )
    video.write_bytes(whole.read_bytes())
    again = run(tmp_path, clip_seconds=0.4)
    assert again.clips == {"anna": 10, "bert": 2} and again.unchanged == 1 and not again.rejects[1:]
    assert run(tmp_path, clip_seconds=0.4).unchanged == 2


def test_a_picture_of_the_person_that_comes_or_changes_is_looked_at(tmp_path: Path) -> None:
    video = record(tmp_path / "raw" / "anna" / "a.mp4", still(25), sine(25))
    run(tmp_path)
    picture = tmp_path / "face.png"
    for place in (video.parent / "face.jpg", picture):
        write_image(place, np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(MediaError, match=r"no face found in face\.jpg"):
        run(tmp_path)
    (video.parent / "face.jpg").unlink()
    assert run(tmp_path).made == 1
    with pytest.raises(MediaError, match=r"no face found in face\.png"):
        run(tmp_path, face=str(picture))
    kept = "".join(path.read_text() for path in (tmp_path / "clients").rglob("*.json"))
    assert str(tmp_path) not in kept and "picture" in kept


@pytest.mark.skipif(len(GRID) < 2, reason="no real recordings here")
@pytest.mark.parametrize("finder", ["dlib", "yunet"])
def test_of_two_people_the_one_on_the_picture_is_taken(
    tmp_path: Path, finder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Side by side in one video, which has the other one's voice."""
    model = GRID[0].parents[2] / "assets" / "face_detection_yunet_2023mar.onnx"
    if finder == "yunet" and not model.exists():
        pytest.skip(f"no {model.name} here")
    monkeypatch.setenv("FEDTALK_YUNET", str(model))
    left, right = (list(itertools.islice(read_video(path), 70)) for path in GRID[:2])
    both = [np.concatenate(pair, axis=1) for pair in zip(left, right, strict=True)]
    record(tmp_path / "raw" / "anna" / "a.mp4", both[20:45], read_audio(GRID[0])[20 * 640 : 45 * 640])
    write_image(tmp_path / "raw" / "anna" / "face.png", right[69])
    run(tmp_path, finder=finder)
    (clip,) = clips_of(tmp_path)
    assert clip.transforms is not None
    eyes = move(cv2.invertAffineTransform(clip.transforms[0]), clip.eyes[0].astype(np.float64))
    assert eyes[:, 0].min() > left[0].shape[1]
