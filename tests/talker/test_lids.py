"""Blinks: as often and as long as people's, and in a picture the upper lid comes down over the eye and nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest

from fedtalk.data.clip import FRAME_RATE, Reference
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.talker.lids import COURSE, PER_MINUTE, blinks
from fedtalk.talker.puppet import Puppet


def test_blinks_come_as_often_as_stated_and_last_as_long() -> None:
    minutes = 40
    closed = np.concatenate([blinks(60 * FRAME_RATE, seed) for seed in range(minutes)])
    assert closed.min() == 0 and closed.max() == 1
    assert abs((closed == 1).sum() / minutes / PER_MINUTE - 1) < 0.2
    starts = np.flatnonzero(closed == 1)
    assert np.diff(starts).min() > len(COURSE)  # never two in one


def test_the_seed_decides_and_a_short_film_begins_with_open_eyes() -> None:
    assert np.array_equal(blinks(200, 1), blinks(200, 1))
    assert not np.array_equal(blinks(200, 1), blinks(200, 2))
    assert all(not blinks(12, seed).any() for seed in range(20))


@pytest.fixture(scope="module")
def picture() -> Reference:
    return make_clip(Speaker.draw(0, "public", 0), 0, 8, 128).reference(0)


def test_lids_cover_the_eyes_and_only_them(picture: Reference) -> None:
    held = np.repeat(picture.eyes[None], 3, 0)
    opened, half, shut = Puppet(picture).moved(held, None, np.array([0.0, 0.5, 1.0])).astype(int)
    assert np.array_equal(opened, Puppet(picture).moved(held[:1], None)[0])
    unit = float(np.linalg.norm(picture.eyes[1] - picture.eyes[0]))
    changed = np.abs(shut - opened).max(-1) > 8
    rows, columns = np.nonzero(changed)
    distance = np.hypot(columns[:, None] - picture.eyes[:, 0], rows[:, None] - picture.eyes[:, 1]).min(1)
    assert changed.sum() > 20 and distance.max() < 0.4 * unit
    assert 0 < (np.abs(half - opened).max(-1) > 8).sum() < changed.sum()


def test_the_white_of_the_eyes_is_gone_when_they_are_shut(picture: Reference) -> None:
    opened, shut = Puppet(picture).moved(np.repeat(picture.eyes[None], 2, 0), None, np.array([0.0, 1.0])).astype(float)
    x, y = picture.eyes[0].round().astype(int)
    reach = int(0.12 * np.linalg.norm(picture.eyes[1] - picture.eyes[0]))
    part = slice(y - reach // 2, y + reach // 2 + 1), slice(x - reach, x + reach + 1)
    assert shut[part].std() < 0.7 * opened[part].std()
