"""The one-run bound: the theorem by brute force, its validity over many repeats, its power."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.audit.guessing import LEVELS, guess_coins, one_run_bound
from fedtalk.privacy.audit.one_run import one_run_epsilon, one_run_p_value


def _theorem(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Theorem 5.2 as it is written, with exact integers and no library."""
    q = math.exp(epsilon) / (1 + math.exp(epsilon))
    mass = [math.comb(r, w) * q**w * (1 - q) ** (r - w) for w in range(r + 1)]
    tail = sum(mass[v:])
    alpha = max(sum(mass[w] for w in range(max(0, v - i), v)) / i for i in range(1, m + 1))
    return min(1.0, tail + 2 * m * delta * alpha)


@pytest.mark.parametrize(("m", "r", "v"), [(1, 1, 1), (8, 5, 5), (12, 12, 7), (30, 20, 0), (40, 25, 24)])
@pytest.mark.parametrize("epsilon", [0.0, 0.7, 3.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
def test_the_p_value_is_the_theorem(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    assert one_run_p_value(m, r, v, epsilon, delta) == pytest.approx(_theorem(m, r, v, epsilon, delta), rel=1e-9)


@pytest.mark.parametrize(("m", "r", "v", "delta"), [(100, 100, 90, 0.0), (100, 40, 40, 1e-5), (500, 200, 190, 1e-4)])
def test_the_bound_is_where_the_p_value_meets_the_level(m: int, r: int, v: int, delta: float) -> None:
    bound = one_run_epsilon(m, r, v, delta, 0.95)
    assert bound > 0
    assert _theorem(m, r, v, bound - 1e-4, delta) < 0.05 < _theorem(m, r, v, bound + 1e-4, delta)


def test_all_right_has_a_closed_form() -> None:
    """q^r = 0.05: epsilon = logit(0.05^(1/r))."""
    for count in (20, 300):
        q = 0.05 ** (1 / count)
        assert one_run_epsilon(count, count, count, 0.0, 0.95) == pytest.approx(math.log(q / (1 - q)), abs=1e-4)


def test_guessing_blindly_proves_nothing() -> None:
    assert one_run_epsilon(200, 200, 100, 0.0, 0.95) == 0
    assert one_run_epsilon(200, 200, 200, 0.5, 0.95) == 0, "a delta that allows anything is met by anything"


def test_more_delta_or_more_confidence_means_a_smaller_bound() -> None:
    bounds = [one_run_epsilon(300, 100, 97, delta, 0.95) for delta in (0.0, 1e-5, 1e-4, 1e-3)]
    assert bounds == sorted(bounds, reverse=True) and bounds[0] > bounds[-1]
    assert one_run_epsilon(300, 100, 97, 0.0, 0.99) < bounds[0]


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_validity_and_tightness_on_randomised_response(epsilon: float) -> None:
    """The extreme mechanism of the theorem: every guess right with e^epsilon / (1 + e^epsilon), independently.

    The bound exceeds the truth in at most 5 % of runs, and (discreteness aside) not in far fewer.
    """
    q = math.exp(epsilon) / (1 + math.exp(epsilon))
    right = np.random.default_rng(0).binomial(400, q, 4000)
    bounds = np.array([one_run_epsilon(400, 400, int(v), 0.0, 0.95) for v in right])
    above = np.mean(bounds > epsilon)
    assert 0.02 < above < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)
    assert bounds.mean() > 0.6 * epsilon


def test_the_best_of_several_levels_keeps_the_confidence() -> None:
    """Scores that carry epsilon 1 by randomised response, at every level at once: still at most 5 % are wrong."""
    generator = np.random.default_rng(1)
    q = math.exp(1) / (1 + math.exp(1))
    above = 0
    for _ in range(600):
        included = generator.random(100) < 0.5
        told = np.where(generator.random(100) < q, included, ~included)
        scores = np.where(told, 1.0, -1.0) + 0.01 * generator.standard_normal(100)
        above += one_run_bound(included, scores, 0.0, 0.95).epsilon > 1
    assert above / 600 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)


def test_guesses_take_both_ends_or_the_top() -> None:
    scores = np.arange(20.0)
    for share, both in LEVELS:
        guesses = guess_coins(scores, share, both)
        assert np.sum(guesses != 0) == max(1, round(share * 20))
        assert (guesses == -1).any() == both
        assert np.all(np.diff(guesses) >= 0), "higher scores are never guessed lower"


def test_perfect_scores_reach_what_is_in_reach_and_shuffled_ones_nothing() -> None:
    generator = np.random.default_rng(2)
    included = generator.random(400) < 0.5
    bound = one_run_bound(included, included + 0.01 * generator.standard_normal(400), 1e-5, 0.95)
    assert 2.5 < bound.epsilon <= bound.most
    assert bound.correct == bound.guesses
    assert one_run_bound(included, generator.standard_normal(400), 1e-5, 0.95).epsilon < 0.2


@pytest.mark.parametrize(("m", "r", "v"), [(5, 6, 1), (5, 3, 4), (0, 0, 0)])
def test_impossible_counts_are_refused(m: int, r: int, v: int) -> None:
    with pytest.raises(ConfigurationError, match="correct <= guesses <= canaries"):
        one_run_p_value(m, r, v, 1.0, 0.0)
