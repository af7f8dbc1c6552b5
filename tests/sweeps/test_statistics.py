"""Intervals and paired tests against scipy's own and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fedtalk.errors import ArtifactError
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


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(ArtifactError, match="finite"):
        estimate(values)
