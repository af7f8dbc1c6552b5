"""Each public set's tree, of one drawn second of speech: discovered, prepared, and whose clip of what it is said to be."""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from fedtalk.data.clip import Clip
from fedtalk.data.faces import Face
from fedtalk.data.media import write_audio
from fedtalk.data.prepare import prepare
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.data.video_writer import VideoWriter

SIDE = 96


@dataclass(frozen=True)
class Tree:
    """A tree of files, and what must come of it."""

    files: dict[str, str]
    """Name: whole, mute (a video without sound), sound (a sound file), text or pointer."""
    clips: dict[str, dict[str, str]]
    """By "client/source": some columns of its line of the manifest."""
    rejects: dict[str, str] = field(default_factory=dict)
    """By file: words of the reason."""


TREES = {
    "folder": Tree(
        {"anna/holiday/1.mp4": "whole", "bert/b.mov": "whole", "anna/notes.txt": "text", "anna/consent.yaml": "text"},
        {"anna/holiday/1.mp4": {}, "bert/b.mov": {}},
        {"anna/notes.txt": "not a video by its name"},
    ),
    "grid": Tree(
        {"s1/bbaf2n.mpg": "whole", "s1/align/bbaf2n.align": "text", "s20/lwiy8p.mpg": "whole", "readme.pdf": "text"},
        {"s1/bbaf2n.mpg": {"letter": "f", "digit": "2"}, "s20/lwiy8p.mpg": {"colour": "w", "adverb": "p"}},
        {"readme.pdf": "not a video of a speaker's folder"},
    ),
    "lrs3": Tree(
        {"pretrain/0akiEFwtkyA/00001.mp4": "whole", "pretrain/0akiEFwtkyA/00001.txt": "text",
         "trainval/0akiEFwtkyA/00001.mp4": "whole", "test/x-1/50002.mp4": "whole", "clip.mp4": "whole"},
        {"0akiEFwtkyA/pretrain/00001.mp4": {"split": "pretrain"}, "0akiEFwtkyA/trainval/00001.mp4": {"split": "trainval"},
         "x-1/test/50002.mp4": {"split": "test", "talk": "x-1"}},
        {"clip.mp4": "not a video of pretrain, trainval or test"},
    ),
    "hdtf": Tree(
        {"RD_Radio11_0.mp4": "whole", "Radio11_000.mp4": "whole", "WDA_BarackObama1_000.mp4": "whole",
         "BarackObama2_003.mp4": "whole", "RD_video_url.txt": "text"},
        {"Radio11/Radio11_000.mp4": {"group": "RD"}, "BarackObama/BarackObama1_000.mp4": {"video": "1"},
         "BarackObama/BarackObama2_003.mp4": {"video": "2", "cut": "3", "group": ""}},
        {"Radio11_000.mp4": "the same clip as RD_Radio11_0.mp4"},
    ),
    "voxceleb2": Tree(
        {"dev/mp4/id00012/21Uxsk56VDQ/00001.mp4": "mute", "dev/aac/id00012/21Uxsk56VDQ/00001.m4a": "sound",
         "test/mp4/id00017/abc/00002.mp4": "mute"},
        {"id00012/21Uxsk56VDQ/00001.mp4": {"split": "dev", "video": "21Uxsk56VDQ"}},
        {"id00017/abc/00002.mp4": "no audio track"},
    ),
    "ravdess": Tree(
        {"Actor_01/01-01-03-01-02-01-01.mp4": "whole", "Actor_01/02-01-03-01-02-01-01.mp4": "mute",
         "Actor_01/03-01-03-01-02-01-01.wav": "sound", "Actor_24/01-02-06-02-01-02-24.mp4": "whole"},
        {"Actor_01/01-01-03-01-02-01-01.mp4": {"emotion": "happy", "channel": "speech"},
         "Actor_24/01-02-06-02-01-02-24.mp4": {"emotion": "fearful", "channel": "song", "intensity": "strong"}},
        {"Actor_01/02-01-03-01-02-01-01.mp4": "no sound", "Actor_01/03-01-03-01-02-01-01.wav": "no picture"},
    ),
    "cremad": Tree(
        {"VideoFlash/1001_DFA_ANG_XX.flv": "whole", "VideoFlash/1002_IEO_SAD_HI.flv": "mute",
         "AudioWAV/1002_IEO_SAD_HI.wav": "sound", "VideoFlash/1003_TAI_HAP_XX.flv": "pointer", "README.md": "text"},
        {"1001/1001_DFA_ANG_XX.flv": {"emotion": "ANG", "level": "XX"},
         "1002/1002_IEO_SAD_HI.flv": {"sentence": "IEO", "emotion": "SAD", "level": "HI"}},
        {"1003/1003_TAI_HAP_XX.flv": "git-LFS pointer"},
    ),
}  # fmt: skip


class DrawnFace:
    """Knows where the eyes of each drawn frame are."""

    name = "drawn"

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._small = clip.frames[:, ::8, ::8].astype(int)

    def find(self, frame: np.ndarray) -> list[Face]:
        cut = frame[12 : 12 + SIDE, 32 : 32 + SIDE][::8, ::8].astype(int)
        index = int(np.abs(self._small - cut).mean((1, 2, 3)).argmin())
        shift = np.array([32, 12])
        box = np.array([32, 12, 32 + SIDE, 12 + SIDE], np.float32)
        return [Face(box, self._clip.eyes[index] + shift, self._clip.mouth[index] + shift, 1.0)]


@pytest.fixture(scope="module")
def spoken() -> Clip:
    return make_clip(Speaker.draw(0, "public", 0), 0, 25, SIDE)


@pytest.fixture(scope="module")
def kinds(spoken: Clip, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, audio in (("whole.mp4", spoken.audio), ("mute.mp4", None)):
        with VideoWriter(folder / name, audio=audio) as writer:
            for frame in spoken.frames:
                writer.write(np.pad(frame, ((12, 12), (32, 32), (0, 0)), mode="edge"))
    write_audio(folder / "sound.wav", spoken.audio)
    (folder / "text").write_text("words")
    (folder / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("layout", TREES)
def test_a_tree_becomes_clients_with_their_own_clips(
    layout: str, kinds: dict[str, Path], spoken: Clip, tmp_path: Path
) -> None:
    tree = TREES[layout]
    for name, kind in tree.files.items():
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(kinds[kind], tmp_path / "raw" / name)
    report = prepare(
        tmp_path / "raw",
        tmp_path / "clients",
        layout=layout,
        size=64,
        clip_seconds=1.0,
        finder=DrawnFace(spoken),
        progress=False,
    )
    with (tmp_path / "clients" / "manifest.csv").open(newline="") as stream:
        rows = {row["source"]: row for row in csv.DictReader(stream)}
    assert rows.keys() == tree.clips.keys()
    for source, columns in tree.clips.items():
        row = rows[source]
        assert row["client"] == source.partition("/")[0] and (row["start"], row["seconds"]) == ("0.0", "1.0")
        assert {name: row[name] for name in columns} == columns
        clip = Clip.load(tmp_path / "clients" / row["client"] / row["clip"])
        assert clip.info["source"] == source.partition("/")[2]
        # each second of speech, from the video or from the file beside it, starts where the picture does
        lags = [float(np.dot(np.roll(clip.audio, lag), spoken.audio)) for lag in range(-640, 641, 16)]
        assert abs(int(np.argmax(lags)) - 40) <= 20
    assert {person: count for person, count in report.clips.items() if count} == {
        person: sum(source.startswith(f"{person}/") for source in rows)
        for person in {name.split("/")[0] for name in rows}
    }
    said = {reject.source: reject.reason for reject in report.rejects}
    assert said.keys() == tree.rejects.keys()
    assert all(words in said[name] for name, words in tree.rejects.items())
