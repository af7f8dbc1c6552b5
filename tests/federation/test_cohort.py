"""Cohorts: the stated law, from a stream keyed by seed and round."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from fedtalk.errors import ConfigurationError
from fedtalk.evaluation.trainer import measured_clients
from fedtalk.federation.cohort import CohortSampler, FixedCohort, PoissonCohort, RotatingCohort
from fedtalk.randomness import numpy_generator

CLIENTS = [f"client-{index}" for index in range(40)]


def test_poisson_takes_each_client_independently_with_its_rate() -> None:
    rounds = 2000
    sampler = PoissonCohort(0.3)
    taken = np.array([[client in set(cohort) for client in CLIENTS] for cohort in
                      (sampler.draw(0, number, CLIENTS) for number in range(rounds))])  # fmt: skip
    error = np.sqrt(0.3 * 0.7 / rounds)
    assert np.abs(taken.mean(0) - 0.3).max() < 5 * error
    sizes = taken.sum(1)
    assert sizes.var() == pytest.approx(40 * 0.3 * 0.7, rel=0.2)  # a fixed size would have none
    correlation = np.corrcoef(taken.T)[np.triu_indices(40, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(rounds)


def test_poisson_may_draw_nobody_and_everybody() -> None:
    assert PoissonCohort(1.0).draw(0, 0, CLIENTS) == CLIENTS
    assert any(PoissonCohort(0.05).draw(0, number, CLIENTS[:3]) == [] for number in range(20))


def test_fixed_takes_exactly_its_number_and_everybody_sometimes() -> None:
    drawn = [FixedCohort(5).draw(0, number, CLIENTS) for number in range(300)]
    assert all(len(set(cohort)) == 5 for cohort in drawn)
    counts = np.array([sum(client in cohort for cohort in drawn) for client in CLIENTS])
    expected = 300 * 5 / 40
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    assert FixedCohort(100).draw(0, 0, CLIENTS) == CLIENTS


@pytest.mark.parametrize("sampler", [PoissonCohort(0.5), FixedCohort(10)])
def test_seed_and_round_both_matter_and_nothing_else(sampler: CohortSampler) -> None:
    first = sampler.draw(0, 1, CLIENTS)
    np.random.seed(5)  # the global generator plays no part
    assert sampler.draw(0, 1, CLIENTS) == first
    assert sampler.draw(1, 1, CLIENTS) != first
    assert sampler.draw(0, 2, CLIENTS) != first
    assert sampler.draw(1, 0, CLIENTS) != first  # seeds and rounds are not added up
    assert first == [client for client in CLIENTS if client in first]  # in the order of the clients


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate: float) -> None:
    with pytest.raises(ConfigurationError, match=r"cohort\.rate"):
        PoissonCohort(rate)


def test_an_empty_fixed_cohort_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"cohort\.size"):
        FixedCohort(0)


def test_what_is_measured_is_everybody_or_the_same_few() -> None:
    assert list(measured_clients(0, CLIENTS, 40)) == CLIENTS
    few = measured_clients(0, CLIENTS, 6)
    assert len(set(few)) == 6 and few == measured_clients(0, CLIENTS, 6) != measured_clients(1, CLIENTS, 6)
    assert few == [client for client in CLIENTS if client in few]


@pytest.mark.parametrize(("count", "rate"), [(7, 0.3), (10_000, 0.001)])
def test_poisson_is_one_comparison_a_client(count: int, rate: float) -> None:
    """The definition, client by client, whatever the number of clients."""
    clients = [f"c{index}" for index in range(count)]
    for number in range(5):
        uniform = numpy_generator(3, "cohort", number).random(count)
        expected = [client for client, value in zip(clients, uniform, strict=True) if value < rate]
        assert PoissonCohort(rate).draw(3, number, clients) == expected


@pytest.mark.parametrize(("clients", "every"), [(12, 3), (13, 4), (5, 1), (3, 3)])
def test_turns_come_once_in_so_many_rounds(clients: int, every: int) -> None:
    rotating, names = RotatingCohort(every), [f"c{n}" for n in range(clients)]
    cohorts = [rotating.draw(4, number, names) for number in range(3 * every)]
    for start in range(2 * every + 1):  # any window of that many rounds
        assert sorted(chain.from_iterable(cohorts[start : start + every])) == sorted(names)
    sizes = {len(cohort) for cohort in cohorts}
    assert max(sizes) - min(sizes) <= 1 and min(sizes) == clients // every
    assert RotatingCohort(every, most=2).draw(4, 2 * every, names) == []
    assert max(sum(name in cohort for cohort in cohorts) for name in names) == rotating.participations(3 * every) == 3


def test_turns_follow_the_seed() -> None:
    rotating = RotatingCohort(2)
    assert rotating.draw(0, 0, CLIENTS) == rotating.draw(0, 2, CLIENTS) != rotating.draw(1, 0, CLIENTS)


@pytest.mark.parametrize("settings", [{"every": 0}, {"most": 0}])
def test_turns_that_make_no_sense_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigurationError, match=rf"cohort\.{next(iter(settings))}: expected at least 1, got 0"):
        RotatingCohort(**settings)
