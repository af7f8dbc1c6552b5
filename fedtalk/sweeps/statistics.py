"""Means over seeds with intervals, and paired tests between variations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fedtalk.errors import ArtifactError


@dataclass(frozen=True)
class IntervalEstimate:
    """Mean of a measure over seeds."""

    mean: float
    low: float
    """Lower end of Student's interval; nan with a single seed."""
    high: float
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """A variation less the first one, seed by seed."""

    difference: IntervalEstimate
    p_value: float
    """Of the paired t test, two-sided; nan with fewer than two common seeds. Not corrected for the number of comparisons."""

    @property
    def excludes_zero(self) -> bool:
        return self.difference.low > 0 or self.difference.high < 0


def estimate(values: Sequence[float], confidence: float = 0.95) -> IntervalEstimate:
    """Mean with Student's interval, ``mean +- t * s / sqrt(n)``.

    Args:
        values: (n,) one a seed, n at least 1.
        confidence: share of the interval, in (0, 1).

    Raises:
        ArtifactError: no values, or values that are not finite.

    >>> found = estimate([1.0, 2.0, 3.0])
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3)
    (2.0, -0.484, 4.484)
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ArtifactError(f"statistics: expected finite values, at least one, got {list(values)}")
    mean = float(array.mean())
    if len(array) == 1:
        return IntervalEstimate(mean, math.nan, math.nan, 1)
    half = float(stats.t.ppf((1 + confidence) / 2, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5)
    return IntervalEstimate(mean, mean - half, mean + half, len(array))


def compare(values: Mapping[int, float], first: Mapping[int, float], confidence: float = 0.95) -> Comparison:
    """Paired comparison over the seeds that both have: the same seed draws the same people, cohorts and batches.

    Args:
        values: measure by seed.
        first: the first variation's.
        confidence: share of the interval.

    Raises:
        ArtifactError: no common seed.

    >>> compare({0: 1.5, 1: 2.6, 2: 3.4}, {0: 1.0, 1: 2.0, 2: 3.0}).excludes_zero
    True
    """
    common = sorted(values.keys() & first.keys())
    if not common:
        raise ArtifactError(f"statistics: no common seed of {sorted(values)} and {sorted(first)}")
    one, other = (np.array([track[seed] for seed in common]) for track in (values, first))
    difference = estimate(list(one - other), confidence)
    if len(common) < 2:
        return Comparison(difference, math.nan)
    if (
        np.ptp(one - other) <= 1e-12 * np.abs([one, other]).max()
    ):  # all the same but for rounding: scipy divides by zero
        return Comparison(difference, 1.0 if np.allclose(one, other, rtol=1e-12, atol=0) else 0.0)
    return Comparison(difference, float(stats.ttest_rel(one, other).pvalue))
