"""Look-alike trees of each public set, of tiny files: who is a client, what is skipped and why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest

from fedtalk.data.layouts import LAYOUTS, Layout, Source, Sources, find_sources
from fedtalk.errors import ConfigurationError, MediaError


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def people(sources: Sources) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for source in sources.videos:
        found.setdefault(source.person, []).append(source.name)
    return found


def only(sources: Sources, label: str) -> Source:
    (source,) = [one for one in sources.videos if one.label == label]
    return source


def test_grid_takes_speakers_only_and_reads_sentences(tmp_path: Path) -> None:
    tree(tmp_path, "s1/bbaf2n.mpg", "s10/x.mpg", "s2/c.mpg", "align/d.mpg", "s1/bbaf2n.align")
    sources = find_sources(tmp_path, "grid")
    assert list(people(sources)) == ["s1", "s2", "s10"]
    assert only(sources, "s1/bbaf2n.mpg").keys == {
        "command": "b", "colour": "b", "preposition": "a", "letter": "f", "digit": "2", "adverb": "n",
    }  # fmt: skip
    assert [name for name, _ in sources.others] == ["align/d.mpg"]


def test_lrs3_has_a_client_a_talk(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "pretrain/AbC/00001.mp4",
        "pretrain/AbC/00001.txt",
        "trainval/AbC/00001.mp4",
        "test/x-1/50002.mp4",
        "a.mp4",
    )
    sources = find_sources(tmp_path, "lrs3")
    assert people(sources) == {"AbC": ["pretrain/00001.mp4", "trainval/00001.mp4"], "x-1": ["test/50002.mp4"]}
    assert only(sources, "x-1/test/50002.mp4").keys == {"split": "test", "talk": "x-1"}
    assert sources.others == [("a.mp4", "not a video of pretrain, trainval or test")]


def test_hdtfs_two_spellings_name_one_clip(tmp_path: Path) -> None:
    tree(tmp_path, "RD_Radio11_0.mp4", "Radio11_000.mp4", "RD_Radio11_12.mp4", "WDA_BarackObama1_000.mp4", "BarackObama2_003.mp4",
         "RD_Radio1_0.mp4", "notes.mp4")  # fmt: skip
    sources = find_sources(tmp_path, "hdtf")
    assert people(sources) == {
        "BarackObama": ["BarackObama1_000.mp4", "BarackObama2_003.mp4"],
        "Radio1": ["Radio1_000.mp4"],
        "Radio11": ["Radio11_000.mp4", "Radio11_012.mp4"],
    }
    assert dict(sources.others)["Radio11_000.mp4"] == "the same clip as RD_Radio11_0.mp4, under another name"
    assert "not named as HDTF's" in dict(sources.others)["notes.mp4"]


def test_voxceleb2_takes_the_sound_from_its_own_tree(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "dev/mp4/id00012/21Uxsk56VDQ/00001.mp4",
        "dev/aac/id00012/21Uxsk56VDQ/00001.m4a",
        "test/mp4/id00017/abc/00002.mp4",
    )
    sources = find_sources(tmp_path, "voxceleb2")
    one, other = only(sources, "id00012/21Uxsk56VDQ/00001.mp4"), only(sources, "id00017/abc/00002.mp4")
    assert one.sound == tmp_path / "dev/aac/id00012/21Uxsk56VDQ/00001.m4a" and other.sound is None
    assert one.keys == {"video": "21Uxsk56VDQ", "split": "dev"}
    assert not sources.others
    assert people(find_sources(tmp_path / "dev", "voxceleb2")) == {"id00012": ["21Uxsk56VDQ/00001.mp4"]}


def test_ravdess_leaves_out_what_lacks_sound_or_picture(tmp_path: Path) -> None:
    tree(tmp_path, "Actor_01/01-01-03-01-02-01-01.mp4", "Actor_01/02-01-03-01-02-01-01.mp4", "Actor_01/03-01-03-01-02-01-01.wav",
         "Song/Actor_24/01-02-06-02-01-02-24.mp4", "Actor_01/readme.txt")  # fmt: skip
    sources = find_sources(tmp_path, "ravdess")
    assert people(sources) == {"Actor_01": ["01-01-03-01-02-01-01.mp4"], "Actor_24": ["01-02-06-02-01-02-24.mp4"]}
    keys = only(sources, "Actor_24/01-02-06-02-01-02-24.mp4").keys
    assert (keys["emotion"], keys["intensity"], keys["channel"]) == ("fearful", "strong", "song")
    said = dict(sources.others)
    assert "no sound" in said["Actor_01/02-01-03-01-02-01-01.mp4"]
    assert "no picture" in said["Actor_01/03-01-03-01-02-01-01.wav"]
    assert len(said) == 3


def test_cremad_knows_the_sound_beside_it(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "VideoFlash/1001_DFA_ANG_XX.flv",
        "AudioWAV/1001_DFA_ANG_XX.wav",
        "VideoFlash/1002_IEO_SAD_HI.flv",
        "README.md",
    )
    sources = find_sources(tmp_path, "cremad")
    assert people(sources) == {"1001": ["1001_DFA_ANG_XX.flv"], "1002": ["1002_IEO_SAD_HI.flv"]}
    assert only(sources, "1001/1001_DFA_ANG_XX.flv").sound == tmp_path / "AudioWAV/1001_DFA_ANG_XX.wav"
    assert only(sources, "1002/1002_IEO_SAD_HI.flv").keys == {"sentence": "IEO", "emotion": "SAD", "level": "HI"}
    assert not sources.others


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_tree_is_refused_with_the_one_expected(tmp_path: Path, layout: Layout) -> None:
    assert layout in get_args(Layout)
    tree(tmp_path, "some/where/else.txt")
    with pytest.raises(MediaError, match="expected"):
        find_sources(tmp_path, layout)
    with pytest.raises(ConfigurationError, match="folder, cremad, grid, hdtf, lrs3, ravdess, voxceleb2"):
        find_sources(tmp_path, "lrs2")


def test_systems_and_temporary_names_are_nobodys_data(tmp_path: Path) -> None:
    tree(tmp_path, "anna/a.mp4", "anna/._a.mp4", "anna/.part-x.mp4", "anna/b.mp4.part", "anna/@eaDir/a.mp4", "anna/face.jpg",
         "#recycle/a.mp4", "@eaDir/a.mp4", "$RECYCLE.BIN/a.mp4", "__MACOSX/anna/a.mp4", "lost+found/a.mp4", ".Trash-1000/a.mp4",
         "System Volume Information/a.mp4", "stray.txt")  # fmt: skip
    sources = find_sources(tmp_path, "folder")
    assert people(sources) == {"anna": ["a.mp4"]}
    assert len(sources.others) == 12 and all(reason for _, reason in sources.others)


def test_links_are_followed_once_or_told(tmp_path: Path) -> None:
    raw = tree(tmp_path / "raw", "anna/a.mp4")
    tree(tmp_path / "store", "b.mp4", "deep/c.mp4")
    os.symlink(tmp_path / "store", raw / "anna" / "session1")
    os.symlink(tmp_path / "gone.mp4", raw / "anna" / "gone.mp4")
    os.symlink(raw / "anna", raw / "anna" / "loop")
    os.symlink(raw / "anna" / "a.mp4", raw / "anna" / "z.mp4")
    os.symlink(tmp_path / "nowhere", raw / "bert")
    os.symlink(tmp_path / "store", raw / "carl")
    sources = find_sources(raw, "folder")
    assert people(sources) == {
        "anna": ["a.mp4", "session1/b.mp4", "session1/deep/c.mp4"],
        "carl": ["b.mp4", "deep/c.mp4"],
    }
    said = dict(sources.others)
    assert "link to nothing" in said["anna/gone.mp4"] and "link to nothing" in said["bert"]
    assert "the same as the folder above it" in said["anna/loop"]
    assert "the same as a.mp4" in said["anna/z.mp4"]


def test_names_that_are_no_utf8_are_written_readably(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/jos\xe9"
    os.mkdir(folder)
    with open(folder + b"/caf\xe9.mp4", "wb"):
        pass
    assert people(find_sources(tmp_path, "folder")) == {"jos%E9": ["caf%E9.mp4"]}


def test_one_name_in_two_spellings_is_told_of(tmp_path: Path) -> None:
    """As copies of one person's folder from two systems have it: they would be two clients."""
    names = ["jos\u00e9", "jose\u0301", "anna", "anna ", "bert"]
    sources = find_sources(tree(tmp_path, *(f"{name}/a.mp4" for name in names)), "folder")
    assert sorted(sources.people) == sorted(names)
    assert [name for name, reason in sources.others if "taken for two people" in reason] == ["anna ", "jos\u00e9"]
