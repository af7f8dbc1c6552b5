"""Exact binomial bounds and what they say about epsilon."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.audit.clopper_pearson import AttackRates, rate_at_least, rate_at_most
from fedtalk.privacy.audit.gaussian_tradeoff import gaussian_delta, gaussian_epsilon, gaussian_mu_at_least


@pytest.mark.parametrize(("hits", "trials"), [(0, 7), (1, 7), (7, 7), (40, 100), (99, 100)])
@pytest.mark.parametrize("confidence", [0.9, 0.975])
def test_the_bounds_are_where_the_binomial_tail_meets_the_error(hits: int, trials: int, confidence: float) -> None:
    low, high = rate_at_least(hits, trials, confidence), rate_at_most(hits, trials, confidence)
    if hits:
        assert binom.sf(hits - 1, trials, low) == pytest.approx(1 - confidence)
    else:
        assert low == 0
    if hits < trials:
        assert binom.cdf(hits, trials, high) == pytest.approx(1 - confidence)
    else:
        assert high == 1


def test_coverage_over_every_outcome() -> None:
    """The probability that both bounds hold, summed over all outcomes, is at least what is stated."""
    for p in (0.02, 0.3, 0.5, 0.9):
        weights = binom.pmf(np.arange(31), 30, p)
        held = [rate_at_least(k, 30, 0.95) <= p for k in range(31)]
        assert weights @ np.array(held) >= 0.95
        held = [rate_at_most(k, 30, 0.95) >= p for k in range(31)]
        assert weights @ np.array(held) >= 0.95


def test_epsilon_is_the_larger_of_both_inequalities() -> None:
    rates = AttackRates(90, 100, 10, 100)
    hit, false = rates.at_confidence(0.95)
    expected = max(math.log((hit - 1e-3) / false), math.log((1 - false - 1e-3) / (1 - hit)))
    assert rates.epsilon_at_least(1e-3, 0.95) == pytest.approx(expected)
    mirrored = AttackRates(100, 100, 60, 100)  # only "left out" is certain
    hit, false = mirrored.at_confidence(0.95)
    assert mirrored.epsilon_at_least(0.0, 0.95) == pytest.approx(math.log((1 - false) / (1 - hit)))


def test_a_coin_proves_nothing_and_counts_must_fit() -> None:
    assert AttackRates(50, 100, 50, 100).epsilon_at_least(0.0, 0.95) == 0
    with pytest.raises(ConfigurationError, match="hits <= trials"):
        rate_at_least(3, 2, 0.95)
    with pytest.raises(ConfigurationError, match=r"delta: expected a probability in \[0, 1\), got 1"):
        AttackRates(1, 2, 1, 2).epsilon_at_least(1.0, 0.95)


@pytest.mark.parametrize("mu", [0.3, 1.0, 4.0])
def test_the_gaussian_curve_is_the_best_test_between_two_gaussians(mu: float) -> None:
    """delta(epsilon) = max over thresholds of TPR - e^epsilon FPR, computed on a fine grid."""
    threshold = np.linspace(-10, 15, 200_001)
    for epsilon in (0.0, 0.5, 2.0):
        best = np.max(norm.sf(threshold - mu) - math.exp(epsilon) * norm.sf(threshold))
        assert gaussian_delta(epsilon, mu) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("mu", [0.2, 1.0, 8.0])
@pytest.mark.parametrize("delta", [1e-6, 1e-3])
def test_epsilon_inverts_delta(mu: float, delta: float) -> None:
    assert gaussian_delta(gaussian_epsilon(delta, mu), mu) == pytest.approx(delta, rel=1e-6)
    assert gaussian_epsilon(delta, -1.0) == 0


def test_the_gaussian_bound_is_valid_and_tighter_than_the_general_one() -> None:
    """N(0, 1) against N(1.5, 1), threshold fixed: at most 5 % of bounds above the truth, more power than without."""
    truth = gaussian_epsilon(1e-5, 1.5)
    generator = np.random.default_rng(0)
    hits, false = generator.binomial(500, norm.sf(-0.5), 1000), generator.binomial(500, norm.sf(1.0), 1000)
    rates = [AttackRates(int(t), 500, int(f), 500) for t, f in zip(hits, false, strict=True)]
    gaussian = np.array([gaussian_epsilon(1e-5, gaussian_mu_at_least(r, 0.95)) for r in rates])
    general = np.array([r.epsilon_at_least(1e-5, 0.95) for r in rates])
    assert np.mean(gaussian > truth) <= 0.05 and np.mean(general > truth) <= 0.05
    assert gaussian.mean() > 0.6 * truth > general.mean()
