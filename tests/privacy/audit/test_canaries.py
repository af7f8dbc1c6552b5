"""Canaries against a mechanism whose epsilon is known: the bound stays below it, and finds much where much is to find."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from fedtalk.errors import ConfigurationError
from fedtalk.federation.cohort import FixedCohort, PoissonCohort, RotatingCohort
from fedtalk.privacy.audit.canaries import CanaryDirections, inclusion_rate, likelihood_ratio, play_canaries
from fedtalk.privacy.audit.guessing import one_run_bound
from fedtalk.privacy.audit.repeated import repeated_bound

DELTA = 1e-5


def test_directions_are_orthonormal_and_dot_products_are_theirs() -> None:
    directions = CanaryDirections(5, 23, seed=3)
    matrix = np.stack([directions.vector(i) for i in range(5)])
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(5), atol=1e-12)
    vector = np.random.default_rng(0).standard_normal(23)
    np.testing.assert_allclose(directions.dot(vector), matrix @ vector)
    with pytest.raises(ConfigurationError, match="orthogonal directions"):
        CanaryDirections(24, 23, seed=0)


def test_scores_are_likelihood_ratios() -> None:
    products = np.array([[0.2, 1.1], [-0.4, np.nan]])
    density = [
        math.log(0.7 * norm.pdf(x, 0, 0.5) + 0.3 * norm.pdf(x, 1, 0.5)) - math.log(norm.pdf(x, 0, 0.5))
        for x in (0.2, -0.4, 1.1)
    ]
    np.testing.assert_allclose(likelihood_ratio(products, 0.3, 0.5), [density[0] + density[1], density[2]])
    assert np.all(np.isfinite(likelihood_ratio(np.array([[0.0, 1.0, 50.0]]), 1.0, 0.0)))


def test_inclusion_rates() -> None:
    assert inclusion_rate(PoissonCohort(0.3), 20) == 0.3
    assert inclusion_rate(FixedCohort(5), 20) == 0.25
    assert inclusion_rate(RotatingCohort(8), 20) == 0.125


def _play(
    mechanism: type,
    multiplier: float,
    rate: float,
    rounds: int,
    seed: int,
    canaries: int = 200,
    per_run: int = 50,
) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(1000 + seed)
    outcome = play_canaries(
        lambda _, names: mechanism(names, noise, multiplier, rate), PoissonCohort(rate), canaries=canaries, per_run=per_run,
        rounds=rounds, sent=1.0, clients=per_run, seed=seed,
    )  # fmt: skip
    return outcome.included, outcome.scores


@pytest.mark.parametrize(("multiplier", "rate", "rounds"), [(2.0, 1.0, 1), (1.0, 0.5, 4), (0.7, 0.2, 6)])
def test_the_one_run_bound_stays_below_the_accountants_epsilon(
    multiplier: float, rate: float, rounds: int, gaussian_sum: type, true_epsilon: Callable[..., float]
) -> None:
    truth = true_epsilon(multiplier, rate, rounds, DELTA)
    bounds = [
        one_run_bound(*_play(gaussian_sum, multiplier, rate, rounds, seed), DELTA, 0.95).epsilon for seed in range(60)
    ]
    assert sum(bound > truth for bound in bounds) <= 8, "binomial(60, 0.05) exceeds 8 once in 500"
    assert np.mean(bounds) < truth


def test_the_one_run_bound_finds_much_where_there_is_much(
    gaussian_sum: type, true_epsilon: Callable[..., float]
) -> None:
    """Without noise to speak of the bound comes near what 200 canaries can show; with noise that hides, near nothing."""
    bare = one_run_bound(*_play(gaussian_sum, 0.01, 1.0, 1, seed=0), DELTA, 0.95)
    assert bare.epsilon > 0.8 * bare.most > 2
    middle = one_run_bound(*_play(gaussian_sum, 0.35, 1.0, 1, seed=0), DELTA, 0.95)
    assert 1 < middle.epsilon < true_epsilon(0.35, 1.0, 1, DELTA)
    hidden = one_run_bound(*_play(gaussian_sum, 10.0, 1.0, 1, seed=0), DELTA, 0.95)
    assert hidden.epsilon < 0.5


def test_a_mechanism_that_forgets_to_clip_is_found_out(gaussian_sum: type, true_epsilon: Callable[..., float]) -> None:
    """Noise for clip 1, but the clip is 90: many runs of one canary prove more than the accountant claims."""
    noise = np.random.default_rng(5)
    outcome = play_canaries(
        lambda _, names: gaussian_sum(names, noise, multiplier=3.0, clip=90.0), PoissonCohort(1.0), canaries=400, per_run=50,
        rounds=1, sent=90.0, clients=53, seed=5,
    )  # fmt: skip
    claimed = true_epsilon(3.0, 1.0, 1, DELTA)
    assert one_run_bound(outcome.included, outcome.scores, DELTA, 0.95).epsilon > claimed


def test_repeated_runs_stay_below_the_accountant_and_come_near_it(
    gaussian_sum: type, true_epsilon: Callable[..., float]
) -> None:
    truth = true_epsilon(1.0, 1.0, 1, DELTA)
    bounds = []
    for seed in range(20):
        included, scores = _play(gaussian_sum, 1.0, 1.0, 1, seed, canaries=1000, per_run=1)
        bounds.append(repeated_bound(included, scores, DELTA, 0.95))
    assert sum(bound.epsilon > truth for bound in bounds) <= 4
    assert sum(bound.epsilon_gaussian > truth for bound in bounds) <= 4
    assert np.mean([bound.epsilon_gaussian for bound in bounds]) > 0.4 * truth
    assert np.mean([bound.epsilon for bound in bounds]) > 0.15


def test_repeated_runs_find_much_where_there_is_much(gaussian_sum: type) -> None:
    included, scores = _play(gaussian_sum, 0.02, 1.0, 1, seed=0, canaries=400, per_run=1)
    bound = repeated_bound(included, scores, DELTA, 0.95)
    assert 3 < bound.epsilon <= bound.most  # fifty thresholds are tried, not all of them
    assert bound.rates.true_positives > 0.9 * bound.rates.positives and bound.rates.false_positives == 0


def test_the_threshold_is_not_chosen_on_the_runs_it_is_tested_on() -> None:
    """Swapping the first half's coins changes the threshold; the second half's can't."""
    generator = np.random.default_rng(0)
    included, scores = generator.random(100) < 0.5, generator.standard_normal(100)
    one = repeated_bound(included, scores, DELTA, 0.95).rates
    changed = included.copy()
    changed[50:] = np.roll(changed[50:], 1)
    other = repeated_bound(changed, scores, DELTA, 0.95).rates
    assert one.true_positives + one.false_positives == other.true_positives + other.false_positives
    with pytest.raises(ConfigurationError, match="more --canaries"):
        repeated_bound(np.ones(4, bool), np.arange(4.0), DELTA, 0.95)


def test_same_seed_same_coins_and_every_round_is_played(gaussian_sum: type) -> None:
    games, ticks = [], itertools.count()

    def begin(run: int, names: list[str]) -> object:
        games.append(gaussian_sum(names, np.random.default_rng(run), 0.25, 0.5))
        return games[-1]

    arguments = {"canaries": 30, "per_run": 20, "rounds": 3, "sent": 2.0, "clients": 21}
    first = play_canaries(begin, PoissonCohort(0.5), seed=4, on_round=lambda: next(ticks), **arguments)
    second = play_canaries(begin, PoissonCohort(0.5), seed=4, **arguments)
    other = play_canaries(begin, PoissonCohort(0.5), seed=5, **arguments)
    np.testing.assert_array_equal(first.included, second.included)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert (first.included != other.included).any()
    assert first.runs == 2 and len(first.scores) == 40, "whole runs"
    assert next(ticks) == 6 and all(game.rounds == 3 and len(game.clients) == 21 for game in games)
    assert first.deviation == pytest.approx(0.25, rel=0.4)
    with pytest.raises(ConfigurationError, match="clients: expected at least 20, the canaries of a run, got 19"):
        play_canaries(begin, PoissonCohort(0.5), seed=4, **{**arguments, "clients": 19})
