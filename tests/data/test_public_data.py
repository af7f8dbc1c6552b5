"""What shipped networks learn from: real people and SynthTalk together, whole people left out, pieces changed as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedtalk.data.pieces import FAR, Piece
from fedtalk.data.public_data import PublicData
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ArtifactError, ConfigurationError

SIZE = 32


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folders: a with six clips, b and c with one each."""
    root = tmp_path_factory.mktemp("people")
    for index, (name, count) in enumerate((("a", 6), ("b", 1), ("c", 1))):
        for take in range(count):
            make_clip(Speaker.draw(0, "private", index), take, 80, SIZE).save(root / name / f"{take}.npz")
    return root


def test_people_left_out_are_held_out_and_nobody_else(people: Path) -> None:
    data = PublicData(str(people), ["b"], most_clips=4, speakers=0, size=SIZE)
    training, held_out = (
        {source.key for source in part} for part in (data.training_clips(""), data.held_out_clips(""))
    )
    assert len(training) == 5 and len(held_out) == 1  # four of a's six, spread over them, and c's
    assert all("/b/" in key for key in held_out) and not any("/b/" in key for key in training)


def test_a_person_with_more_clips_gives_more_pieces_but_not_in_proportion(people: Path) -> None:
    data = PublicData(str(people), ["b"], pieces=20, speakers=3, frames=9, size=SIZE)
    keys = [source.key for source in data.training_clips("")]
    counts = {name: sum(f"/{name}/" in key for key in keys) for name in "abc"}
    assert counts["b"] == 0 and counts["c"] < counts["a"] < 6 * counts["c"] and len(keys) == 23


def test_pieces_are_changed_as_a_whole_and_always_alike(people: Path) -> None:
    data = PublicData(str(people), ["b"], pieces=20, speakers=2, frames=9, size=SIZE)
    sources = [*data.training_clips("")[:3], data.training_clips("")[-1]]
    for source in sources:
        piece, again = source.load(), source.load()
        assert isinstance(piece, Piece) and len(piece) == 9 and piece.size == SIZE
        assert np.array_equal(piece.frames, again.frames) and np.array_equal(piece.eyes, again.eyes)
        sound, first = piece.surroundings()
        assert np.array_equal(sound[first * 640 : (first + 9) * 640], piece.audio) and len(sound) > len(piece.audio)
        ((reference, at),) = piece.references()
        assert at == FAR and not any(np.array_equal(reference.frame, frame) for frame in piece.frames)
        for points in (*piece.eyes, reference.eyes):  # a mirrored picture's left eye is on its left
            assert points[1, 0] > points[0, 0]
    looks = np.array([source.load().frames.mean((0, 1, 2)) for source in sources[:3]])
    assert looks.std(0).max() > 3


def test_what_can_not_be_used_is_refused(people: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none of them \['zoe'\]"):
        PublicData(str(people), ["zoe"], size=SIZE)
    with pytest.raises(ConfigurationError, match=r"data\.left_out"):
        PublicData(None, ["a"], size=SIZE)
    with pytest.raises(ConfigurationError, match="clips held out"):
        PublicData(str(people), speakers=0, size=SIZE)
    with pytest.raises(ArtifactError, match="prepare again with --size 64"):
        PublicData(str(people), ["b"], size=64).training_clips("")[0].load()
