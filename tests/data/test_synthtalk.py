"""SynthTalk: the same bits from the same seed, lips that are what they are said to be, and a voice that follows them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip
from fedtalk.data.faults import ALL_FAULTS
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.data.synthtalk.face import Motion, draw_face
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.errors import ConfigurationError
from fedtalk.randomness import derive_seed


def _same(one: Clip, other: Clip) -> bool:
    return all(
        np.array_equal(getattr(one, n), getattr(other, n)) for n in ("frames", "audio", "eyes", "mouth", "openness")
    )


def test_the_same_arguments_give_the_same_bits() -> None:
    speaker = Speaker.draw(0, "private", 3)
    one = make_clip(speaker, 1, 12, 48)
    np.random.seed(1)  # the global generator plays no part
    assert Speaker.draw(0, "private", 3) == speaker
    assert _same(one, make_clip(Speaker.draw(0, "private", 3), 1, 12, 48))
    assert not _same(one, make_clip(speaker, 2, 12, 48))
    assert not _same(one, make_clip(Speaker.draw(1, "private", 3), 1, 12, 48))
    assert not _same(one, make_clip(Speaker.draw(0, "public", 3), 1, 12, 48))


def test_a_clip_is_what_its_type_says() -> None:
    clip = make_clip(Speaker.draw(0, "public", 0), 0, 30, 64)
    assert clip.frames.shape == (30, 64, 64, 3) and clip.frames.dtype == np.uint8
    assert clip.audio.shape == (30 * SAMPLES_PER_FRAME,) and clip.audio.dtype == np.float32
    assert np.abs(clip.audio).max() <= 1 and 0.01 < clip.audio.std() < 0.5
    assert clip.openness is not None and clip.openness.min() >= 0 and clip.openness.max() <= 1.0
    assert clip.openness.std() > 0.1 and clip.frames.std() > 20
    assert clip.info["speaker"] == "public-0000"


@pytest.mark.parametrize("index", range(5))
def test_the_voice_follows_the_lips(index: int) -> None:
    """Loud frames are open ones, and closed lips are silent or nearly so: sound and picture share one track."""
    clip = make_clip(Speaker.draw(0, "private", index), 0, 100, 32)
    loudness = np.sqrt((clip.audio.reshape(100, -1) ** 2).mean(1))
    assert clip.openness is not None
    aligned = np.corrcoef(loudness, clip.openness)[0, 1]
    assert aligned > 0.5
    for shift in (-6, 6):  # a quarter of a second off
        assert aligned > np.corrcoef(loudness, np.roll(clip.openness, shift))[0, 1] + 0.2


@pytest.mark.parametrize("index", range(5))
def test_the_picture_shows_the_openness(index: int) -> None:
    """The wider the lips are said to be open, the more pixels differ from the same face with lips closed."""
    look = Speaker.draw(0, "private", index).look
    still = Motion(*[np.zeros(9)] * 4, np.ones(9), np.ones(9), np.zeros(9))
    tracks = {"openness": np.linspace(0, 1, 9), "width": np.full(9, 0.5), "teeth": np.zeros(9)}
    picture, _, centre = draw_face(look, tracks, 1.0, still, 64)
    area = (np.abs(picture - picture[0]).max(-1) > 0.05).sum((1, 2))
    assert area[0] == 0 and (np.diff(area) > 0).all() and area[-1] > 60
    y, x = np.nonzero(np.abs(picture[4] - picture[0]).max(-1) > 0.05)
    assert abs(x.mean() - centre[4, 0]) < 4 and 0 < y.mean() - centre[4, 1] < 8  # lips and chin, not elsewhere


def test_points_are_where_the_parts_are_drawn() -> None:
    """Only pixels at the eyes change with the iris, only those around the mouth with the lips."""
    speaker = Speaker.draw(0, "public", 1)
    look = replace(speaker.look, glasses=False)
    speaker = replace(speaker, look=look, camera=replace(speaker.camera, grain=0.0, blur=0.0))
    base = make_clip(speaker, 0, 8, 64)
    parts = {
        "iris": (replace(look, iris=(0.0, 1.0, 0.0)), base.eyes),
        "lips": (replace(look, lips=(0.0, 0.0, 1.0)), base.mouth[:, None]),
    }
    for name, (changed, points) in parts.items():
        other = make_clip(replace(speaker, look=changed), 0, 8, 64)
        moved = (base.frames != other.frames).any(-1)
        unit = np.linalg.norm(base.eyes[:, 1] - base.eyes[:, 0], axis=1)
        for frame in range(8):
            y, x = np.nonzero(moved[frame])
            places = np.stack([x, y], 1) + 0.5
            distance = np.linalg.norm(places[:, None] - points[frame][None], axis=-1)
            assert distance.min(1).max() < 0.65 * unit[frame], name
            assert (distance.min(0) < 0.25 * unit[frame]).all(), name  # each point has changed pixels near it


def test_private_people_have_what_no_public_one_has() -> None:
    public = [Speaker.draw(0, "public", index).look for index in range(60)]
    private = [Speaker.draw(0, "private", index).look for index in range(60)]
    for name in ("moustache", "mouth_tilt", "mouth_asymmetry", "tooth_gap", "mole"):
        assert not any(getattr(look, name) for look in public)
        assert sum(bool(getattr(look, name)) for look in private) > 15
    assert len({look.teeth for look in public}) == 1 < len({look.teeth for look in private})


def _fault(kind: str, frames: int = 40) -> tuple[Clip, Clip]:
    clean = make_clip(Speaker.draw(0, "private", 2), 0, frames, 48)
    return clean, make_clip(Speaker.draw(0, "private", 2, kind), 0, frames, 48)


def test_faults_do_what_they_are_called() -> None:
    def change(clip: Clip) -> float:
        return float(np.abs(np.diff(clip.frames.astype(float), axis=0)).mean())

    def detail(clip: Clip) -> float:
        return float(np.abs(np.diff(clip.frames.astype(float), axis=2)).mean())

    clean, flicker = _fault("flicker")
    assert change(flicker) > 4 * change(clean) and np.array_equal(clean.audio, flicker.audio)
    clean, shifted = _fault("shifted_audio")
    assert np.array_equal(clean.frames, shifted.frames) and not np.array_equal(clean.audio, shifted.audio)
    shifts = [s for s in range(40) if np.allclose(np.roll(clean.audio, s * SAMPLES_PER_FRAME), shifted.audio)]
    assert len(shifts) == 1 and 8 <= shifts[0] < 16
    clean, blurred = _fault("blurred")
    assert detail(blurred) < 0.7 * detail(clean)
    strangers = [make_clip(Speaker.draw(0, "private", 2, "wrong_person"), take, 2, 48) for take in range(3)]
    own = [make_clip(Speaker.draw(0, "private", 2), take, 2, 48) for take in range(3)]

    def spread(clips: list[Clip]) -> float:  # of the corner, where nothing but the person's background is
        return float(np.std([clip.frames[0, :4, :4].mean((0, 1)) for clip in clips], axis=0).mean())

    assert spread(strangers) > 5 * spread(own)
    assert {clip.info["speaker"] for clip in strangers} == {"private-0002"}  # as a mislabelled folder would have it


def test_a_community_shares_dark_teeth_and_strangers_to_it_do_not() -> None:
    known = [Speaker.draw(0, "community", i) for i in range(6)]
    assert {speaker.look.teeth for speaker in known} == {known[0].look.teeth}
    for speaker in known[:2]:
        white = replace(speaker, look=replace(speaker.look, teeth=(0.93, 0.92, 0.88)))
        own, other = (make_clip(one, 0, 30, 64).frames.astype(int) for one in (speaker, white))
        assert (own <= other).all() and (other - own).max() > 80
    clip = make_clip(Speaker.draw(0, "community", 1, "wrong_person"), 0, 2, 48)
    drawn = Speaker.draw(derive_seed(0, "stranger", 1, 0), "private", 1)
    assert clip.frames[0, 0, 0] == pytest.approx(make_clip(drawn, 0, 2, 48).frames[0, 0, 0], abs=12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("secret", 0), "group: expected one of private, public, community, got 'secret'"),
        (("public", 0, "deaf"), "fault: .*'deaf'"),
    ],
)
def test_unknown_kinds_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Speaker.draw(0, *arguments)


# As a data module


def test_clients_and_their_clips() -> None:
    data = SynthTalkData(speakers=5, clips=3, held_out=2, frames=10, size=32, unreliable=0.4)
    assert data.clients == [f"private-{index:04d}" for index in range(5)]
    assert data.unreliable_clients == data.clients[3:]
    assert data.evaluation_clients == data.clients[:3]
    first = data.clients[0]
    training, held_out = data.training_clips(first), data.held_out_clips(first)
    assert (len(training), len(held_out)) == (3, 2)
    keys = {source.key for client in data.clients
            for source in [*data.training_clips(client), *data.held_out_clips(client)]}  # fmt: skip
    assert len(keys) == 5 * 5  # no clip is both trained on and held out, or of two clients
    clips = [source.load() for source in [*training, *held_out]]
    assert all(not _same(one, other) for i, one in enumerate(clips) for other in clips[:i])
    assert {clip.info["speaker"] for clip in clips} == {first}


def test_people_are_drawn_when_it_is_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten thousand none but the first, which is drawn to check the settings."""
    drawn = []
    draw = Speaker.draw
    monkeypatch.setattr(Speaker, "draw", lambda *arguments: drawn.append(arguments[2]) or draw(*arguments))
    data = SynthTalkData(speakers=10_000, clips=2, held_out=1, frames=10, size=32, unreliable=0.25)
    assert len(data.clients) == 10_000 and len(data.evaluation_clients) == 7500 and drawn == [0]
    assert len(data.training_clips("private-9999")) == 2
    assert drawn == [0, 9999]


def test_keys_name_the_content() -> None:
    def keys(**changes: object) -> set[str]:
        data = SynthTalkData(**{"speakers": 1, "clips": 1, "held_out": 1, "frames": 10, "size": 32, **changes})  # type: ignore[arg-type]
        return {data.training_clips(data.clients[0])[0].key}

    variants = [{}, {"seed": 1}, {"frames": 11}, {"size": 40}, {"group": "public"}, {"first": 1}, {"unreliable": 1.0}]
    found = [keys(**changes) for changes in variants]
    assert len(set().union(*found)) == len(variants)
    assert keys(clips=4) == keys()


def test_all_people_can_be_one_client() -> None:
    data = SynthTalkData(speakers=3, clips=2, held_out=1, frames=10, size=32, group="public", centralised=True, first=7)
    assert data.clients == ["public"] and data.unreliable_clients == []
    speakers = [source.load().info["speaker"] for source in data.training_clips("public")]
    assert speakers == [f"public-{index:04d}" for index in (7, 7, 8, 8, 9, 9)]
    assert len(data.held_out_clips("public")) == 3
    assert data.typical_client == "public"


def test_tables_of_pooled_clips_are_of_the_people_as_they_are_apart() -> None:
    pooled, apart = (
        SynthTalkData(speakers=4, clips=2, held_out=1, frames=10, size=32, unreliable=0.5, centralised=c)
        for c in (True, False)
    )
    assert pooled.evaluation_clients == apart.evaluation_clients == ["private-0000", "private-0001"]
    for client in apart.clients:
        for one, other in (
            (pooled.held_out_clips(client), apart.held_out_clips(client)),
            (pooled.training_clips(client), apart.training_clips(client)),
        ):
            assert [source.key for source in one] == [source.key for source in other]


def test_outsiders_take_no_part_and_tables_are_made_of_them() -> None:
    data = SynthTalkData(speakers=3, clips=1, held_out=1, frames=10, size=32, unreliable=0.3, outsiders=2)
    assert data.clients == ["private-0000", "private-0001", "private-0002"]
    assert data.evaluation_clients == ["private-0003", "private-0004"] and data.typical_client == "private-0000"
    clip = data.held_out_clips("private-0004")[0].load()
    assert (clip.info["speaker"], clip.info["fault"]) == ("private-0004", None)


def test_faults_take_turns() -> None:
    data = SynthTalkData(speakers=8, clips=1, held_out=1, frames=10, size=32, unreliable=0.5)
    faults = [data.training_clips(client)[0].load().info["fault"] for client in data.clients]
    assert faults[:4] == [None] * 4 and sorted(map(str, faults[4:])) == sorted(ALL_FAULTS)


def test_only_the_named_faults_occur() -> None:
    data = SynthTalkData(
        speakers=4, clips=1, held_out=1, frames=10, size=32, unreliable=0.75, faults=["blurred", "wrong_person"]
    )
    found = [data.training_clips(client)[0].load().info["fault"] for client in data.clients]
    assert found == [None, "blurred", "wrong_person", "blurred"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("speakers", 0), ("clips", 0), ("held_out", 0), ("frames", 7), ("unreliable", 1.5), ("size", 31), ("size", 36)],
)
def test_wrong_settings_name_their_key(key: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"data\.{key}: expected .*got {value}"):
        SynthTalkData(**{key: value})  # type: ignore[arg-type]
