"""A person's looks in closed form: found again, doubted where little is known, kept with the adapter and never sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedtalk.data.clip import Clip
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ArtifactError
from fedtalk.talker.adapters import LOOKS
from fedtalk.talker.module import Talker
from fedtalk.talker.mouth_looks import DOUBT, HIGH, ROWS, UNIT, WIDE, MouthLooks, sums_of
from fedtalk.talker.production.named_adapters import use_adapters

EYES = np.array([[46.0, 54.0], [82.0, 54.0]])


def _some(seed: int = 0) -> MouthLooks:
    return MouthLooks(np.random.default_rng(seed).uniform(-30, 30, (ROWS, HIGH, WIDE, 3)).astype(np.float32))


def test_what_is_missing_is_found_and_added() -> None:
    """Frames darken and redden at the mouth as it opens: linear in what is heard, by known amounts."""
    draw = np.random.default_rng(1)
    frames, lips = 400, np.stack([draw.uniform(0, 0.3, 400), draw.normal(0, 0.05, 400)], 1)
    puppets = np.full((frames, 128, 128, 3), 120, np.uint8)
    truth = puppets + np.round(10 - 200 * lips[:, :1] + 100 * lips[:, 1:])[:, :, None, None] * np.array([1.0, 0.5, 0.5])
    truth, eyes = truth.astype(np.uint8), np.repeat(EYES[None], frames, 0)
    looks = MouthLooks.fitted(10 * [sums_of(puppets, truth, eyes, lips)])
    assert looks is not None
    own = looks.coefficients[:, HIGH // 2, WIDE // 2, 0]
    assert own == pytest.approx([10, -20, 5], rel=0.1)  # by units of 0.1 and 0.05
    x, y = (EYES.mean(0) + np.array([0, 36 * 1.05])).astype(int)
    before, after = (
        np.abs(pictures[:, y - 5 : y + 5, x - 8 : x + 8].astype(float) - truth[:, y - 5 : y + 5, x - 8 : x + 8]).mean()
        for pictures in (puppets, looks.added(puppets, eyes, lips))
    )
    assert before > 10 and after < 1.5


def test_little_is_believed_of_few_frames() -> None:
    """One row alone: n / (n + doubt) of the mean, of two clips; of one nothing that might be the recording's own."""
    for frames in (1, 20, 60):
        puppets = np.full((frames, 128, 128, 3), 100, np.uint8)
        sums = sums_of(puppets, puppets + 30, np.repeat(EYES[None], frames, 0), np.zeros((frames, 2)))
        single, looks = MouthLooks.fitted([sums]), MouthLooks.fitted([sums, sums])
        assert looks is not None and single is not None
        mean = 30 * 2 * frames / (2 * frames + DOUBT[0])
        assert looks.coefficients[0, HIGH // 2, WIDE // 2] == pytest.approx(mean, rel=1e-3)
        assert np.abs(looks.coefficients[1:]).max() == 0 and np.abs(single.coefficients).max() == 0
    assert MouthLooks.fitted([]) is None and MouthLooks.fitted([np.zeros(0, np.float32)]) is None


@pytest.mark.parametrize(("lacks", "share"), [((30, 30, 30), 1.0), ((30, -30, 30, -30), 0.0), ((40, 0, 40, 0), 2 / 3)])
def test_what_clips_do_not_say_of_each_other_is_not_believed(lacks: tuple[int, ...], share: float) -> None:
    """Recordings that lack the same, that lack opposites, and that half resemble each other."""
    puppets, frames = np.full((60, 128, 128, 3), 100, np.uint8), 60
    where = np.repeat(EYES[None], frames, 0), np.zeros((frames, 2))
    looks = MouthLooks.fitted(
        [sums_of(puppets, (puppets.astype(int) + lack).astype(np.uint8), *where) for lack in lacks]
    )
    assert looks is not None
    count, mean = frames * len(lacks), float(np.mean(lacks))
    given = looks.coefficients[0, HIGH // 2, WIDE // 2, 0]
    assert given == pytest.approx(share * mean * count / (count + DOUBT[0]), abs=0.02 * 30)


def test_what_follows_speech_is_believed_where_what_is_always_missing_is_not() -> None:
    """Recordings under other light, of lips that redden alike as they open."""
    draw = np.random.default_rng(2)
    sums, frames = [], 100
    for light in (30, -30, 30, -30):
        lips = np.stack([draw.uniform(0, 0.3, frames), np.zeros(frames)], 1).astype(np.float32)
        puppets = np.full((frames, 128, 128, 3), 120, np.uint8)
        truth = (puppets.astype(int) + light + np.round(200 * lips[:, 0])[:, None, None, None]).astype(np.uint8)
        sums.append(sums_of(puppets, truth, np.repeat(EYES[None], frames, 0), lips))
    looks, single = MouthLooks.fitted(sums), MouthLooks.fitted(sums[:1])
    assert looks is not None and single is not None
    assert abs(looks.coefficients[0, HIGH // 2, WIDE // 2, 0]) < 4
    assert looks.coefficients[1, HIGH // 2, WIDE // 2, 0] == pytest.approx(20, rel=0.3)  # by units of 0.1
    assert np.abs(single.coefficients[0]).max() == 0 < np.abs(single.coefficients[1]).max()


def test_nothing_is_added_away_from_the_mouth() -> None:
    picture = np.full((1, 128, 128, 3), 120, np.uint8)
    made = _some().added(picture, EYES[None], np.array([[0.2, 0.05]]))
    assert np.array_equal(made[0, : int(EYES[0, 1])], picture[0, : int(EYES[0, 1])])
    assert (made != picture).mean() > 0.05


def test_they_follow_the_eyes() -> None:
    """Turned and moved by whole pixels with the head."""
    picture = np.full((1, 128, 128, 3), 120, np.uint8)
    eyes = EYES * UNIT / 36 + [20, 10]
    one, other = (_some().added(picture, (eyes + shift)[None], np.zeros((1, 2)))[0] for shift in ([0, 0], [7, 5]))
    assert np.array_equal(one[:-5, :-7], other[5:, 7:]) and (one != 120).any()


def test_they_lie_with_the_adapter_and_adapters_without_them_are_read(
    make_talker: Callable[..., Talker], tmp_path: Path
) -> None:
    talker, looks = make_talker(), _some()
    talker.save_adapter(tmp_path / "plain")
    talker.looks = looks
    talker.save_adapter(tmp_path / "anna")
    assert not (tmp_path / "plain" / LOOKS).exists()
    other = make_talker()
    other.load_adapter(tmp_path / "anna")
    assert other.looks.coefficients == pytest.approx(looks.coefficients, abs=0.02)
    other.load_adapter(tmp_path / "plain")
    assert other.looks is None
    talker.looks = None
    talker.save_adapter(tmp_path / "anna")  # of nobody any more
    assert not (tmp_path / "anna" / LOOKS).exists()


@pytest.mark.parametrize("damage", ["cut", "nan", "shape"])
def test_damaged_ones_are_refused_by_name(make_talker: Callable[..., Talker], tmp_path: Path, damage: str) -> None:
    talker, looks = make_talker(), _some()
    talker.looks = looks
    talker.save_adapter(tmp_path / "anna")
    wrong = {
        "cut": looks.to_bytes()[:200],
        "nan": MouthLooks(looks.coefficients * np.nan).to_bytes(),
        "shape": MouthLooks(looks.coefficients[:2]).to_bytes(),
    }
    (tmp_path / "anna" / LOOKS).write_bytes(wrong[damage])
    with pytest.raises(ArtifactError, match="anna"):
        make_talker().load_adapter(tmp_path / "anna")


def test_blended_adapters_blend_them(make_talker: Callable[..., Talker], tmp_path: Path) -> None:
    for number, name in enumerate(("anna", "bert")):
        talker = make_talker()
        talker.looks = _some(number)
        talker.save_adapter(tmp_path / name)
    both = make_talker(adapter=None)
    use_adapters(both, {str(tmp_path / "anna"): 0.5, str(tmp_path / "bert"): 0.25})
    assert both.looks is not None
    expected = 0.5 * _some(0).coefficients + 0.25 * _some(1).coefficients
    assert both.looks.coefficients == pytest.approx(expected, abs=0.05)


def test_nothing_that_is_sent_or_kept_has_them(make_talker: Callable[..., Talker]) -> None:
    talker = make_talker()
    before = {name: value.shape for name, value in talker.state_dict().items()}
    sent, kept = set(talker.exchanged_parameters()), set(talker.kept_parameters())
    talker.looks = _some()
    assert {name: value.shape for name, value in talker.state_dict().items()} == before
    assert set(talker.exchanged_parameters()) == sent and set(talker.kept_parameters()) == kept


def test_what_is_generated_has_them(make_talker: Callable[..., Talker]) -> None:
    clip: Clip = make_clip(Speaker.draw(0, "private", 0), 0, 12, 32)
    talker = make_talker()

    def made() -> np.ndarray:
        return np.stack([frame.numpy() for frame in talker.dub(clip, clip.reference(0))]).astype(int)

    plain, key = made(), talker.cache_key()
    talker.looks = talker.looks_of([talker.prepare_clip(clip)])
    assert talker.looks is not None and talker.cache_key() != key
    own = made()
    assert np.abs(own - clip.frames).mean() < np.abs(plain - clip.frames).mean()
    assert talker.looks_of([talker.prepare_clip(clip)]) is None  # prepared with looks, which say it all
    talker.looks = None
    assert np.array_equal(made(), plain)
