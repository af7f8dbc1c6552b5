"""Clips' own signals: each falls with the fault that it is for, and what a client makes of them is bounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from fedtalk.data.clip import Clip
from fedtalk.data.faults import FAULTS, WRONG_PERSON, faulty
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.talker.quality import LIMITED, SIGNALS, Limits, evidence, quality, shipped_limits, signals


@pytest.fixture(scope="module")
def spoken() -> list[Clip]:
    """Three people, one after the other, two clips each."""
    return [make_clip(Speaker.draw(1, "private", index), take, 40, 64) for index in range(3) for take in range(2)]


@pytest.fixture(scope="module")
def reliable(spoken: list[Clip]) -> list[dict]:
    return [evidence(clip) for clip in spoken]


def test_reliable_people_score_high(reliable: list[dict]) -> None:
    scores = [quality(reliable[start : start + 2]) for start in (0, 2, 4)]
    assert min(scores) > 0.5 and np.mean(scores) > 0.75


@pytest.mark.parametrize(
    ("fault", "signal"), [("flicker", "steadiness"), ("shifted_audio", "lips"), ("blurred", "sharpness")]
)
def test_a_fault_lowers_its_signal_and_the_score(
    spoken: list[Clip], reliable: list[dict], fault: str, signal: str
) -> None:
    generator = np.random.default_rng(0)
    for start in (0, 2, 4):
        broken = [evidence(faulty(clip, fault, generator)) for clip in spoken[start : start + 2]]
        limit = shipped_limits()[signal]
        mended = reliable[start : start + 2]
        assert limit.score(signals(broken)[signal]) < 0.35 < 0.75 < limit.score(signals(mended)[signal])
        assert quality(broken) < 0.35
    assert fault in FAULTS


def test_strangers_lower_identity_and_one_is_enough(reliable: list[dict]) -> None:
    mixed = [reliable[0], reliable[1], reliable[2]]
    assert signals(mixed)["identity"] < shipped_limits()["identity"].low < signals(reliable[:2])["identity"]
    assert quality(mixed) == 0.0 and WRONG_PERSON not in FAULTS
    assert signals(reliable[:1])["identity"] == 1.0  # of one clip nobody can tell


def test_faces_that_are_not_synthtalks_are_told_apart_by_dlib(spoken: list[Clip], reliable: list[dict]) -> None:
    """Whoever is prepared from a video: here the same pictures, of whom nobody says that they are drawn."""
    videos = [evidence(replace(clip, info={"source": "a.mp4"}, openness=None)) for clip in spoken[:3]]
    assert not any(clip["drawn"] for clip in videos) and all(clip["drawn"] for clip in reliable)
    limit = shipped_limits()["identity_real"]
    assert signals(videos)["identity"] < limit.high < signals(videos[:2])["identity"]
    assert quality(videos[:2]) > 0.5
    assert quality([videos[0], reliable[0]]) == 0.0  # a drawn and a real face are two people


def test_sharpness_falls_with_every_further_blur_at_any_size(spoken: list[Clip]) -> None:
    for factor in (1, 2):
        frames = spoken[0].frames[::8].repeat(factor, 1).repeat(factor, 2)
        found = []
        for sigma in (0.0, 0.5, 1.0, 2.0):
            blurred = gaussian_filter(frames, (0, sigma * factor, sigma * factor, 0))
            part = replace(
                spoken[0].window(0, len(frames)), frames=blurred, eyes=spoken[0].eyes[: len(frames)] * factor
            )
            found.append(float(evidence(part)["sharpness"]))
        assert found == sorted(found, reverse=True) and found[0] > 2 * found[-1]


def test_lips_count_where_they_move(reliable: list[dict]) -> None:
    """Correlations are pooled by covariance: a clip in which nothing moves changes nothing."""
    still = {**reliable[0], "lips": torch.zeros(3, 5)}
    assert signals([reliable[0], still])["lips"] == pytest.approx(signals([reliable[0]])["lips"], abs=1e-6)
    assert signals([still])["lips"] == 0.0


def test_lips_are_numpys_correlation(spoken: list[Clip]) -> None:
    from fedtalk.encoders.speech import heard_lips
    from fedtalk.talker.quality import mouth_probe

    clip = spoken[3]
    seen = mouth_probe().measure(clip.frames, clip.mouth, clip.eyes)
    heard = heard_lips(torch.from_numpy(clip.audio))[:, 0].numpy()
    expected = max(
        np.corrcoef(seen[max(0, -late) : len(seen) - max(0, late)], heard[max(0, late) : len(heard) - max(0, -late)])[
            0, 1
        ]
        for late in range(-2, 3)
    )
    assert signals([evidence(clip)])["lips"] == pytest.approx(expected, abs=1e-4)


@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4))
def test_the_score_lies_in_0_1_whatever_is_measured(values: list[float]) -> None:
    limits = dict(zip(SIGNALS, (Limits(low, low + 1.0) for low in values), strict=True))
    clip = {
        "sharpness": torch.tensor(0.5),
        "jumps": torch.tensor(0.1),
        "lips": torch.ones(3, 5),
        "face": torch.zeros(128),
        "drawn": torch.tensor(1.0),
    }
    assert 0.0 <= quality([clip, clip], limits) <= 1.0


def test_limits_are_those_of_the_package() -> None:
    limits = shipped_limits()
    assert set(limits) == set(LIMITED) and all(limit.low < limit.high for limit in limits.values())
    assert 0 < limits["lips"].high < 1 and 0 < limits["identity"].high < 1
