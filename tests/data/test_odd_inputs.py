"""A hundred broken and odd videos in one run: each gives clips or a line that says why, and none harms another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from heads import DotFinder, dots
from oddities import CLIPS, EITHER, ODDITIES, REJECT

from fedtalk.data.clip import Clip
from fedtalk.data.names import readable
from fedtalk.data.prepare import PrepareReport, prepare


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrepareReport]:
    folder = tmp_path_factory.mktemp("odd")
    for person, (name, build, _) in ODDITIES.items():
        (folder / "raw" / person).mkdir(parents=True)
        build(folder / "raw" / person / name)
    settings: dict = {"size": 32, "clip_seconds": 0.4, "detect_every": 3, "progress": False}
    return folder, prepare(folder / "raw", folder / "clients", finder=DotFinder(), **settings)


def test_there_are_enough() -> None:
    assert len(ODDITIES) >= 80


@pytest.mark.parametrize("person", ODDITIES)
def test_each_gives_clips_or_a_reason(prepared: tuple[Path, PrepareReport], person: str) -> None:
    folder, report = prepared
    name, _, wanted = ODDITIES[person]
    clips = [Clip.load(path) for path in sorted((folder / "clients" / person).glob("*.npz"))]
    said = [reject.reason for reject in report.rejects if reject.source.startswith(f"{person}/")]
    assert len(clips) == report.clips[person]
    assert clips or said, "dropped without a word"
    assert wanted == EITHER or wanted == (CLIPS if clips else REJECT), (len(clips), said)
    assert all("\n" not in reason and str(folder) not in reason for reason in said)
    for clip in clips:  # upright, the right colours, the landmarks on the face, its own sound
        assert clip.info["source"] == readable(name)
        assert 0.02 < np.abs(clip.audio).max() <= 1
        for index in (2, len(clip) - 3):
            seen = np.concatenate([dots(clip.frames[index], channel, least=40) for channel in range(3)])
            np.testing.assert_allclose(seen, [*clip.eyes[index], clip.mouth[index]], atol=1.2)


def test_nothing_half_made_is_left(prepared: tuple[Path, PrepareReport]) -> None:
    folder, report = prepared
    assert not [path for path in (folder / "clients").rglob("*") if path.name.startswith(".part-")]
    assert {path.parent.name for path in (folder / "clients").glob("[!.]*/*.npz")} == {
        p for p, n in report.clips.items() if n
    }
    assert not [path for path in (folder / "clients" / ".prepare").iterdir() if path.is_dir()]
