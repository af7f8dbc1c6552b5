"""Epsilon against an independent library: dp-accounting's privacy loss distributions."""

from __future__ import annotations

import math

import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from opacus.accountants import RDPAccountant

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.accounting import (
    _ORDERS,
    bound,
    gaussian_epsilon,
    gaussian_multiplier,
    prv_epsilon,
    rdp_epsilon,
    solve_noise_multiplier,
)

GRID = [
    (0.1, 1.0, 100, 1e-3),
    (0.01, 0.6, 200, 1e-5),
    (0.18, 0.93, 40, 1e-3),
    (0.5, 5.0, 10, 1e-4),
    (0.9, 3.0, 5, 1e-3),
    (1.0, 4.0, 20, 1e-3),
    (0.05, 0.5, 1, 1e-5),
    (0.002, 0.8, 1000, 1e-6),
    (0.2, 20.0, 50, 1e-5),
]
"""(q, sigma, rounds, delta)."""


def _independent(rate: float, multiplier: float, rounds: int, delta: float) -> float:
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=2e-3)
    accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(multiplier)), rounds)
    return accountant.get_epsilon(delta)


@pytest.mark.parametrize(("rate", "multiplier", "rounds", "delta"), GRID)
def test_never_below_an_independent_library_by_more_than_1_percent(
    rate: float, multiplier: float, rounds: int, delta: float
) -> None:
    expected = _independent(rate, multiplier, rounds, delta)
    history = [(multiplier, rate, rounds)]
    prv, rdp = prv_epsilon(history, delta), rdp_epsilon(history, delta)
    assert 0.99 * expected <= prv <= 1.02 * expected + 0.02  # and not so far above that it would be useless
    assert 0.99 * expected <= rdp <= 2 * expected + 0.05


def test_the_reference_point() -> None:
    """K = 100, q = 0.1, sigma = 1, 100 rounds, delta = 1e-3, Poisson."""
    history = [(1.0, 0.1, 100)]
    assert prv_epsilon(history, 1e-3) == pytest.approx(4.8, abs=0.05)
    assert rdp_epsilon(history, 1e-3) == pytest.approx(5.65, abs=0.1)


@pytest.mark.parametrize(
    "history", [[(0.8, 0.5, 3)], [(0.6, 0.15, 8), (1.0, 0.5, 2)], [(2.0, 1.0, 3), (0.9, 0.1, 100)]]
)
def test_rounds_computed_once_give_opacus_accountant_to_the_bit(history: list[tuple[float, float, int]]) -> None:
    accountant = RDPAccountant()
    accountant.history = history
    assert rdp_epsilon(history, 1e-4) == accountant.get_epsilon(1e-4, alphas=list(_ORDERS))


def test_a_history_of_two_kinds_of_rounds_composes() -> None:
    history = [(1.0, 0.1, 30), (2.0, 0.3, 10)]
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=2e-3)
    for multiplier, rate, rounds in history:
        accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(multiplier)), rounds)
    expected = accountant.get_epsilon(1e-4)
    assert 0.99 * expected <= prv_epsilon(history, 1e-4) <= 1.03 * expected
    assert prv_epsilon(history[:1], 1e-4) < expected > prv_epsilon(history[1:], 1e-4)


def test_no_rounds_cost_nothing_and_no_protection_is_not_called_a_number() -> None:
    assert prv_epsilon([], 1e-3) == rdp_epsilon([], 1e-3) == 0.0
    hopeless = [(0.1, 0.9, 100)]
    assert prv_epsilon(hopeless, 1e-5) == math.inf
    assert bound(hopeless, 1e-5, "prv") == rdp_epsilon(hopeless, 1e-5) > 1000


@pytest.mark.parametrize(
    ("target", "rate", "rounds", "delta", "accountant"),
    [(8.0, 0.18, 40, 1e-3, "prv"), (0.5, 0.05, 20, 1e-5, "prv"), (2.0, 1.0, 30, 1e-5, "rdp")],
)
def test_the_solved_multiplier_spends_the_target_and_not_more(
    target: float, rate: float, rounds: int, delta: float, accountant: str
) -> None:
    multiplier = solve_noise_multiplier(target, rate, rounds, delta, accountant)
    assert 0.997 * target <= bound([(multiplier, rate, rounds)], delta, accountant) <= target
    if accountant == "prv":
        assert _independent(rate, multiplier, rounds, delta) <= 1.01 * target


def test_a_target_beyond_reach_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"privacy\.target_epsilon: expected .*got 1e-06"):
        solve_noise_multiplier(1e-6, 1.0, 1000, 1e-9, "rdp")


@pytest.mark.parametrize(
    "history", [[(1.0, 1.0, 1)], [(0.6, 1.0, 8)], [(3.0, 1.0, 4), (0.7, 1.0, 2)], [(40.0, 1.0, 3)]]
)
@pytest.mark.parametrize("delta", [1e-2, 1e-6])
def test_without_sampling_epsilon_is_the_gaussians_own(history: list, delta: float) -> None:
    """dp-accounting's privacy loss distributions are the oracle, and the definition of delta, by numerical integration."""
    from dp_accounting import GaussianDpEvent, NeighboringRelation
    from dp_accounting.pld.pld_privacy_accountant import PLDAccountant

    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-3)
    for multiplier, _, rounds in history:
        accountant.compose(GaussianDpEvent(multiplier), rounds)
    epsilon = gaussian_epsilon(history, delta)
    assert epsilon == pytest.approx(accountant.get_epsilon(delta), rel=1e-3, abs=2e-3)
    assert prv_epsilon(history, delta) == epsilon <= rdp_epsilon(history, delta) + 1e-9


@pytest.mark.parametrize(("target", "times", "delta"), [(8.0, 3, 1e-4), (0.5, 1, 1e-6), (2.0, 40, 1e-3)])
def test_the_multiplier_without_sampling_spends_the_target(target: float, times: int, delta: float) -> None:
    multiplier = gaussian_multiplier(target, times, delta)
    assert 0.999999 * target < gaussian_epsilon([(multiplier, 1.0, times)], delta) <= target
