"""The rules to compare with: against scipy and brute force, and refused where privacy keeps updates from them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from fedtalk.callbacks import Krum, Median, Oracle, Standing, TrimmedMean, Uniform
from fedtalk.callbacks.baselines import Robust
from fedtalk.errors import ConfigurationError

UPDATES = st.tuples(st.integers(1, 9), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(-5, 5))
)
RULES = [Median(), TrimmedMean(0.25), Krum(0.3), Krum(0.3, kept=3)]


def test_weights() -> None:
    assert Uniform().weight(Standing(clips=1)) == Uniform().weight(Standing(clips=9)) == 1.0
    assert Oracle(most_clips=4).weight(Standing(clips=2)) == 0.5
    assert Oracle(most_clips=4).weight(Standing(clips=2, faulty=True)) == 0.0


@given(UPDATES, st.sampled_from([0.0, 0.1, 0.25, 0.4]))
def test_the_trimmed_mean_is_scipys(updates: np.ndarray, share: float) -> None:
    np.testing.assert_allclose(
        TrimmedMean(share).combined(updates), stats.trim_mean(updates, share, axis=0), atol=1e-12
    )


@given(UPDATES)
def test_half_of_the_values_lie_on_each_side_of_the_median(updates: np.ndarray) -> None:
    median = Median().combined(updates)
    assert (2 * (updates <= median + 1e-12).sum(0) >= len(updates)).all()
    assert (2 * (updates >= median - 1e-12).sum(0) >= len(updates)).all()


def test_krum_takes_the_update_nearest_to_its_neighbours() -> None:
    """By brute force over all sets of K - f - 2 others (Blanchard et al. 2017, section 4)."""
    updates = np.random.default_rng(0).standard_normal((8, 3))
    near = 8 - 2 - 2

    def score(one: int) -> float:
        others = [number for number in range(8) if number != one]
        return min(
            sum(float(np.square(updates[one] - updates[other]).sum()) for other in group)
            for group in itertools.combinations(others, near)
        )

    order = sorted(range(8), key=score)
    np.testing.assert_allclose(Krum(0.3).combined(updates), updates[order[0]])
    np.testing.assert_allclose(Krum(0.3, kept=3).combined(updates), updates[order[:3]].mean(0))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_two_of_eight_that_send_anything_at_all_move_little(rule: Robust) -> None:
    honest = 1 + 0.1 * np.random.default_rng(1).standard_normal((6, 5))
    for wild in (1e6, -1e6):
        made = rule.combined(np.concatenate([honest, np.full((2, 5), wild)]))
        assert np.abs(made - 1).max() < 0.5
    assert (
        np.abs(np.concatenate([honest, np.full((2, 5), 1e6)]).mean(0) - 1).max() > 1e5
    )  # which the mean doesn't survive


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@given(updates=UPDATES)
def test_equal_updates_stay_and_their_order_is_nothing(rule: Robust, updates: np.ndarray) -> None:
    np.testing.assert_allclose(rule.combined(np.repeat(updates[:1], 5, 0)), updates[0], atol=1e-12)
    if isinstance(
        rule, Krum
    ):  # of updates with the same score the first is taken: the nearest two of a few always have one
        if len(updates) < 6:
            return
        updates = updates + np.random.default_rng(2).standard_normal(updates.shape)
    order = np.random.default_rng(0).permutation(len(updates))
    np.testing.assert_allclose(rule.combined(updates[order]), rule.combined(updates), atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [(TrimmedMean, "share", 0.5), (Krum, "faulty", -0.1), (Krum, "kept", 0), (Oracle, "most_clips", 0)],
)
def test_wrong_settings_name_their_key(kind: type, key: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"aggregation\.{key}: expected .*got"):
        kind(**{key: value})
