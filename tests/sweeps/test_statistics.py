"""Intervals and paired tests against scipy's own and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fedtalk.errors import ArtifactError
from fedtalk.sweeps.cells import difference_text, estimate_text
from fedtalk.sweeps.statistics import compare, estimate


def test_the_interval_is_students() -> None:
    values = list(np.random.default_rng(0).normal(2, 1, 7))
    low, high = stats.t.interval(0.95, 6, loc=np.mean(values), scale=stats.sem(values))
    found = estimate(values)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high))


def test_the_interval_holds_what_it_promises() -> None:
    generator = np.random.default_rng(1)
    inside = [(e := estimate(list(generator.normal(0, 1, 5)))).low < 0 < e.high for _ in range(2000)]
    assert 0.935 < np.mean(inside) < 0.965


def test_pairs_are_by_seed_whatever_the_order() -> None:
    generator = np.random.default_rng(2)
    level, change = generator.normal(0, 10, 6), generator.normal(0.5, 0.1, 6)
    one = {seed: float(level[seed] + change[seed]) for seed in reversed(range(6))}
    other = {seed: float(level[seed]) for seed in range(6)}
    found = compare(one, other)
    assert found.p_value == pytest.approx(stats.ttest_1samp(change, 0).pvalue)
    assert found.excludes_zero and found.difference.mean == pytest.approx(change.mean())
    # Unpaired, the spread of the level would drown it.
    assert stats.ttest_ind(list(one.values()), list(other.values())).pvalue > 0.5


def test_only_common_seeds_count() -> None:
    found = compare({0: 1.0, 1: 2.5, 9: 100.0}, {0: 0.0, 1: 1.0, 5: -100.0})
    assert found.difference.mean == pytest.approx(1.25) and found.difference.seeds == 2
    with pytest.raises(ArtifactError, match="no common seed"):
        compare({0: 1.0}, {1: 1.0})


def test_single_seeds_have_no_interval_and_equal_runs_no_difference() -> None:
    alone = compare({0: 2.0}, {0: 1.0})
    assert alone.difference.mean == 1.0 and math.isnan(alone.p_value) and not alone.excludes_zero
    same = compare({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0})
    assert same.p_value == 1.0 and not same.excludes_zero


def test_differences_that_are_one_but_for_rounding_need_no_warning() -> None:
    """0.3 - 0.2 is not 0.2 - 0.1 in floating point; scipy warns of such a variance, and warnings are errors here."""
    steady = compare({0: 0.3, 1: 0.2}, {0: 0.2, 1: 0.1})
    assert steady.p_value == 0.0 and steady.difference.mean == pytest.approx(0.1)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(ArtifactError, match="finite"):
        estimate(values)


def test_what_is_shown_says_which_seeds_are_missing_and_never_stars_a_zero() -> None:
    row = {"mean": 1.5, "low": None, "high": None, "seeds": 1, "p_value": None, "excludes_zero": False}
    assert estimate_text(row, 1) == "1.500" and estimate_text(row, 3) == "1.500, 1 of 3 seeds"
    assert difference_text(row, 3) == "+1.500, 1 of 3 pairs"
    small = {"mean": 0.0004, "low": 0.0001, "high": 0.0007, "seeds": 5, "p_value": 1e-5, "excludes_zero": True}
    assert difference_text(small, 5) == "+0.00040 [+0.00010, +0.00070]* p<0.001"
    none = {"mean": 0.0, "low": 0.0, "high": 0.0, "seeds": 2, "p_value": 1.0, "excludes_zero": False}
    assert difference_text(none, 5) == "the same, 2 of 5 pairs"
