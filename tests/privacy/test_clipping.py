"""Clipping, and the bound that follows the quantile."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.clipping import AdaptiveClipping, clip, update_multiplier

VECTORS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20).map(np.array)


@given(VECTORS, st.floats(1e-3, 1e3))
def test_clipping_bounds_the_norm_and_keeps_the_direction(vector: np.ndarray, bound: float) -> None:
    clipped = clip(vector, bound)
    norm = np.linalg.norm(vector)
    assert np.linalg.norm(clipped) <= bound * (1 + 1e-12)
    np.testing.assert_allclose(clipped * norm, vector * np.linalg.norm(clipped), rtol=1e-9, atol=1e-9 * (1 + norm))
    if norm <= bound:
        assert np.array_equal(clipped, vector)


def test_the_bound_finds_the_quantile_of_the_norms() -> None:
    """Andrew et al. 2021: under noise on the count, C ends where the stated share of the norms lies below it."""
    generator = np.random.default_rng(0)
    norms = np.exp(generator.normal(0.7, 0.5, 400))
    for quantile in (0.3, 0.7):
        adaptive = AdaptiveClipping(quantile=quantile, rate=0.2)
        bound, late = 50.0, []
        for step in range(150):
            cohort = norms[generator.random(400) < 0.25]
            noisy = float(np.sum((cohort <= bound) - 0.5)) + generator.normal(0, adaptive.deviation(100))
            bound = adaptive.moved(bound, noisy, 100)
            late += [bound] if step > 100 else []
        assert np.mean(norms <= np.mean(late)) == pytest.approx(quantile, abs=0.06)


def test_the_move_is_the_papers() -> None:
    """C exp(-rate (share - quantile)), share = 1/2 + sum / (q N)."""
    moved = AdaptiveClipping(quantile=0.4, rate=0.3).moved(2.0, 5.0, 20.0)
    assert moved == pytest.approx(2 * math.exp(-0.3 * (0.75 - 0.4)))
    wild = AdaptiveClipping().moved(1.0, 1e9, 20.0)  # noise can't move it by more than a whole share
    assert wild == pytest.approx(math.exp(-0.2 * 0.5))


@given(st.floats(0.2, 20), st.floats(1.05, 50))
def test_the_split_adds_up(multiplier: float, factor: float) -> None:
    """z^-2 = z_delta^-2 + (2 sigma_b)^-2."""
    deviation = factor * multiplier / 2
    left = update_multiplier(multiplier, deviation)
    assert left >= multiplier
    assert left**-2 + (2 * deviation) ** -2 == pytest.approx(multiplier**-2)


def test_a_count_that_would_take_the_whole_budget_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"count_deviation: expected more than half .*got 1"):
        update_multiplier(2.0, 1.0)


def test_the_counts_noise_follows_the_cohort() -> None:
    assert [AdaptiveClipping().deviation(size) for size in (4, 20, 400)] == [1.0, 1.0, 20.0]
    assert AdaptiveClipping(count_deviation=3.0).deviation(400) == 3.0


@pytest.mark.parametrize(
    ("key", "value"), [("quantile", 0.0), ("quantile", 1.0), ("rate", 0.0), ("count_deviation", -1.0)]
)
def test_wrong_settings_name_their_key(key: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"adaptive_clipping\.{key}: expected .*got"):
        AdaptiveClipping(**{key: value})
