"""What can't be prepared: each with its reason, and at no cost to anything else."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from heads import DotFinder, draw, lively, record, sine, still
from prepared import run

from fedtalk.data.faces import Face
from fedtalk.data.prepare import prepare
from fedtalk.errors import ConfigurationError, MediaError, OutputError


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
