"""Void rounds: the probability that one client decides, against counting all cases; and dropouts beyond the assumption."""

from __future__ import annotations

import itertools
import logging
import math

import pytest
from scipy.stats import binom

from fedtalk.privacy.void_rounds import DropoutWatch, void_probability


def _by_counting(rate: float, clients: int, fewest: int, fraction: float, dropout: float) -> float:
    """Every number of others drawn and lost, and client k surviving or not: is the round void with it, without it?"""
    total = 0.0
    for drawn, lost in itertools.product(range(clients), range(clients)):
        if lost > drawn:
            continue
        chance = math.comb(clients - 1, drawn) * rate**drawn * (1 - rate) ** (clients - 1 - drawn)
        chance *= math.comb(drawn, lost) * dropout**lost * (1 - dropout) ** (drawn - lost)
        without = drawn - lost < _needed(drawn, fewest, fraction)
        for survives, probability in ((1, 1 - dropout), (0, dropout)):
            with_k = drawn - lost + survives < _needed(drawn + 1, fewest, fraction)
            total += chance * probability * (with_k != without)
    return total


def _needed(cohort: int, fewest: int, fraction: float) -> int:
    return max(fewest, cohort - math.floor(fraction * cohort + 1e-9))


@pytest.mark.parametrize("rate", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("dropout", [0.02, 0.2])
@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_it_is_the_largest_over_dropouts_up_to_the_assumed(rate: float, dropout: float, fraction: float) -> None:
    clients, fewest = 14, 4
    largest = max(_by_counting(rate, clients, fewest, fraction, dropout * step / 8) for step in range(9))
    got = void_probability(rate, clients, lambda cohort: _needed(cohort, fewest, fraction), dropout)
    assert got == pytest.approx(largest, rel=1e-6, abs=1e-15)


def test_dropouts_count_where_the_least_cohort_never_decides() -> None:
    """By the least number alone nothing would be set aside; one client's dropping out decides all the same."""
    without = void_probability(0.5, 200, lambda cohort: _needed(cohort, 10, 0.1), 0.0)
    assert without < 1e-15 < 1e-4 < void_probability(0.5, 200, lambda cohort: _needed(cohort, 10, 0.1), 0.05)


def test_without_dropouts_only_the_least_cohort_decides() -> None:
    got = void_probability(0.2, 50, lambda cohort: max(4, cohort), 0.0)
    assert got == pytest.approx(binom.pmf(3, 49, 0.2), rel=1e-9)


def test_more_dropouts_than_assumed_are_told(caplog: pytest.LogCaptureFixture) -> None:
    watch = DropoutWatch(0.01)
    for _ in range(20):
        watch.note(100, 99)
    assert not caplog.messages
    caplog.set_level(logging.WARNING)
    watch.note(100, 60)
    assert "60 of 2100 drawn clients dropped out" in caplog.text and "privacy.dropout_probability = 0.01" in caplog.text
