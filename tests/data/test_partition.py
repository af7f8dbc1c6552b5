"""Clients from keys, uneven splits, budgets, informative clips, and clients made unreliable."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtalk.data.clip import Clip
from fedtalk.data.division import Division
from fedtalk.data.faults import FAULTS, faulty
from fedtalk.data.folder_data import FolderData
from fedtalk.data.informative import describe, most_informative
from fedtalk.data.partition import clients_by, dirichlet_clients, read_manifest, within_budget
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ArtifactError, ConfigurationError

ROWS = [
    {"client": f"p{person}", "clip": f"{number}.npz", "source": f"s{number}", "start": "0.0", "seconds": "2.0",
     "emotion": ("sad", "happy", "calm")[number % 3]}
    for person in range(4) for number in range(30)
]  # fmt: skip


@pytest.mark.parametrize("concentration", [0.05, 1.0, 1e6])
def test_a_dirichlet_split_gives_each_clip_to_one_client(concentration: float) -> None:
    parts = dirichlet_clients(ROWS, "emotion", 5, concentration, seed=3)
    assert sorted((row["client"], row["clip"]) for part in parts.values() for row in part) == sorted(
        (row["client"], row["clip"]) for row in ROWS
    )
    assert (
        parts
        == dirichlet_clients(ROWS, "emotion", 5, concentration, seed=3)
        != dirichlet_clients(ROWS, "emotion", 5, 1.0, 4)
    )


def test_a_smaller_concentration_is_more_uneven() -> None:
    """Entropy of the values within a client, weighted by its clips, against its oracle at both ends."""

    def evenness(concentration: float) -> float:
        total = 0.0
        for seed in range(10):
            for part in dirichlet_clients(ROWS, "emotion", 5, concentration, seed).values():
                counts = np.array([sum(row["emotion"] == value for row in part) for value in ("sad", "happy", "calm")])
                shares = counts[counts > 0] / max(counts.sum(), 1)
                total += float(-(shares * np.log(shares)).sum()) * counts.sum()
        return total / 10 / len(ROWS) / np.log(3)

    low, middle, high = evenness(0.05), evenness(1.0), evenness(1e6)
    assert low < middle - 0.1 < high and high == pytest.approx(1.0, abs=0.01) and low < 0.6


def test_clients_come_from_any_columns() -> None:
    parts = clients_by(ROWS, ["client", "emotion"])
    assert len(parts) == 12 and all(len(part) == 10 for part in parts.values())
    with pytest.raises(
        ConfigurationError, match=r"'camera': expected a column of the manifest \(client, clip, emotion"
    ):
        clients_by(ROWS, ["camera"])
    assert len(within_budget(ROWS[:30], 7.0)) == 3
    for wrong in ({"clients": 0}, {"concentration": 0.0}):
        with pytest.raises(ConfigurationError, match="Dirichlet"):
            dirichlet_clients(ROWS, "emotion", **{"clients": 2, "concentration": 1.0, "seed": 0, **wrong})


def test_informative_clips_cover_what_there_is() -> None:
    """Twenty near copies of one clip and three that differ in speech, in view and in lips: these three come first."""
    generator = np.random.default_rng(0)
    descriptions = np.concatenate([generator.normal(0, 0.05, (20, 15)), np.zeros((3, 15))])
    descriptions[20, :12], descriptions[21, 13:], descriptions[22, 12] = 3, 3, 3
    assert set(np.argsort(-most_informative(descriptions))[:3]) == {20, 21, 22}
    still, lively = (make_clip(Speaker.draw(0, "public", 0), take=0, frames=25, size=32) for _ in range(2))
    still.openness = still.openness * 0.1 + 0.3  # type: ignore[operator]
    assert describe(still)[12] < describe(lively)[12]
    assert np.isfinite(describe(lively)).all()


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_change_what_they_say_and_nothing_else(fault: str) -> None:
    clip = make_clip(Speaker.draw(0, "public", 0), take=0, frames=25, size=32)
    bad = faulty(clip, fault, np.random.default_rng(0))
    again = faulty(clip, fault, np.random.default_rng(0))
    assert np.array_equal(bad.frames, again.frames) and bad.info["fault"] == fault
    levels = clip.frames.mean((1, 2, 3)), bad.frames.mean((1, 2, 3))
    if fault == "shifted_audio":
        assert np.array_equal(bad.frames, clip.frames)
        lag = int(np.argmax(np.fft.irfft(np.fft.rfft(bad.audio) * np.conj(np.fft.rfft(clip.audio)))))
        assert lag % 640 == 0 and 8 <= lag // 640 <= 15
    else:
        assert np.array_equal(bad.audio, clip.audio)
    if fault == "flicker":
        assert np.std(levels[1] / levels[0]) > 0.1
    if fault == "blurred":
        sharpness = [np.abs(np.diff(one.frames.astype(int), axis=2)).mean() for one in (clip, bad)]
        assert sharpness[1] < 0.7 * sharpness[0] and np.abs(levels[1] - levels[0]).max() < 3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = []
    for index in range(4):
        for take in range(3):
            clip = make_clip(Speaker.draw(0, "public", index), take=take, frames=24, size=32)
            name, info = f"clip-{take}.npz", {"source": f"{take}.mp4", "start": 0.0}
            Clip(clip.frames, clip.audio, clip.eyes, clip.mouth, clip.openness, info).save(
                tmp_path / f"p{index}" / name
            )
            rows.append([f"p{index}", f"{take}.mp4", name, 0.0, 0.96, ("sad", "happy", "sad")[take]])
    with (tmp_path / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["client", "source", "clip", "start", "seconds", "emotion"], *rows])
    return tmp_path


def test_a_config_divides_a_folder(root: Path) -> None:
    def data(**settings: object) -> FolderData:
        return FolderData(str(root), held_out_seconds=0.36, size=32, division=Division(**settings))  # type: ignore[arg-type]

    assert data().clients == ["p0", "p1", "p2", "p3"]
    assert data(by=["client", "emotion"]).clients == [
        f"p{i}-{emotion}" for i in range(4) for emotion in ("happy", "sad")
    ]
    assert len(data(by=["emotion"]).training_clips("sad")) == 8
    assert len(data(seconds=2.0).training_clips("p0")) == 2
    assert len(data(seconds=1.0, choose="informative").training_clips("p0")) == 1
    split = data(by=["emotion"], dirichlet=0.5, clients=3)
    assert sum(len(split.training_clips(client)) for client in split.clients) == 12
    for wrong in (
        {"choose": "best"},
        {"choose": "informative"},
        {"seconds": 0.0},
        {"by": ["a", "b"], "dirichlet": 1.0},
    ):
        with pytest.raises(ConfigurationError, match=r"division\."):
            Division(**wrong)  # type: ignore[arg-type]
    (root / "manifest.csv").unlink()
    with pytest.raises(ArtifactError, match="run `fedtalk prepare` again"):
        read_manifest(root)


def test_unreliable_clients_are_the_last_and_are_left_out_of_tables(root: Path) -> None:
    plain = FolderData(str(root), held_out_seconds=0.36, size=32)
    data = FolderData(str(root), held_out_seconds=0.36, size=32, unreliable=0.5)
    assert data.unreliable_clients == ["p2", "p3"] and data.evaluation_clients == ["p0", "p1"]
    assert [clip.load().info.get("fault") for clip in data.training_clips("p3")] == ["flicker"] * 3
    assert data.training_clips("p3")[0].key != plain.training_clips("p3")[0].key, "no cache may mix them up"
    assert [clip.key for clip in data.training_clips("p0")] != []
    assert np.array_equal(data.training_clips("p0")[0].load().frames, plain.training_clips("p0")[0].load().frames)
    everybody = FolderData(str(root), held_out_seconds=0.36, size=32, unreliable=1.0)
    stranger = everybody.training_clips("p0")[0].load().frames
    assert everybody.unreliable_clients == ["p0", "p1", "p2", "p3"]
    assert not np.array_equal(stranger, plain.training_clips("p0")[0].load().frames)
    with pytest.raises(ConfigurationError, match=r"data\.unreliable"):
        FolderData(str(root), held_out_seconds=0.36, size=32, unreliable=1.5)


def test_only_the_named_faults_occur(root: Path) -> None:
    data = FolderData(str(root), held_out_seconds=0.36, size=32, unreliable=0.5, faults=["blurred"])
    assert {data.training_clips(client)[0].load().info["fault"] for client in data.unreliable_clients} == {"blurred"}


@pytest.mark.parametrize(("faults", "got"), [([], "none"), (["blur"], "'blur'")])
def test_faults_that_are_none_are_named(root: Path, faults: list[Any], got: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"data\.faults: expected one .*wrong_person, got {got}"):
        FolderData(str(root), held_out_seconds=0.36, size=32, faults=faults)
