"""A head that sways: slowly, by little, from where the picture holds it."""

from __future__ import annotations

import numpy as np

from fedtalk.talker.pose import ROLL, SHIFT, swaying_eyes

EYES = np.array([[23.0, 27.0], [41.0, 25.0]], np.float32)


def test_it_starts_as_the_picture_and_keeps_the_distance_of_the_eyes() -> None:
    held = swaying_eyes(EYES, 200, seed=3)
    assert held.shape == (200, 2, 2) and held.dtype == np.float32
    np.testing.assert_allclose(held[0], EYES, atol=1e-4)
    distance = np.linalg.norm(held[:, 1] - held[:, 0], axis=1)
    np.testing.assert_allclose(distance, np.linalg.norm(EYES[1] - EYES[0]), rtol=1e-5)


def test_the_sway_has_its_stated_size_and_is_smooth() -> None:
    across = np.linalg.norm(EYES[1] - EYES[0])
    shifts, rolls, steps = [], [], []
    for seed in range(40):
        held = swaying_eyes(EYES, 500, seed)
        middle = held.mean(1)
        shifts.append((middle - middle.mean(0)).std(0) / across)
        line = held[:, 1] - held[:, 0]
        rolls.append(np.arctan2(line[:, 1], line[:, 0]).std())
        steps.append(np.abs(np.diff(middle, axis=0)).max() / across)
    assert abs(np.mean(shifts) / SHIFT - 1) < 0.15
    assert abs(np.mean(rolls) / ROLL - 1) < 0.15
    assert max(steps) < SHIFT  # no jump between frames


def test_the_seed_decides() -> None:
    one = swaying_eyes(EYES, 30, 1)
    assert np.array_equal(one, swaying_eyes(EYES, 30, 1))
    assert not np.array_equal(one, swaying_eyes(EYES, 30, 2))
