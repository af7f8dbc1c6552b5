"""The mechanism's arithmetic: sensitivity, sizes of shares, constant variance, overflow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.discrete_gaussian import insecure_entropy
from fedtalk.privacy.mechanism import SMOOTHING, UNITS_BOUND, Mechanism, Noise, squares
from fedtalk.privacy.secagg import AggregationSettings, Assumptions


def _mechanism(dimension: int = 500, fewest: int = 5, clients: int = 40, **changes: object) -> Mechanism:
    protocol = AggregationSettings(bytes(16), dimension, 32, Assumptions(0.1, 0.2))
    values: dict = {"norm_bound": UNITS_BOUND, "noise": Noise(1.3, True), "coordinate_bits": 16}
    return Mechanism(dimension=dimension, fewest=fewest, clients=clients, protocol=protocol, **{**values, **changes})


@given(st.integers(24, 10**14))
def test_any_variance_is_a_short_sum_of_squares(value: int) -> None:
    roots = squares(value)
    assert sum(root**2 for root in roots) == value and min(roots) >= SMOOTHING and len(roots) <= 12


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 60), st.floats(0.0, 0.3), st.floats(0.0, 0.3))
def test_the_fewest_honest_survivors_reach_the_accounted_noise(cohort: int, colluding: float, dropout: float) -> None:
    protocol = AggregationSettings(bytes(16), 10, 32, Assumptions(colluding, dropout))
    mechanism = Mechanism(10, UNITS_BOUND, 3, 60, protocol, Noise(0.8, True))
    assumptions = protocol.assumptions
    honest = max(3, assumptions.colluding(cohort) + 2, cohort - assumptions.dropouts(cohort)) - assumptions.colluding(
        cohort
    )
    accounted = (0.8 * UNITS_BOUND / mechanism.step) ** 2
    assert honest * mechanism.share_deviation(cohort) ** 2 >= accounted
    assert (
        honest * (mechanism.share_deviation(cohort) - 1) ** 2 < accounted + SMOOTHING**2 + honest
    )  # and not far above


@pytest.mark.parametrize("distributed", [True, False])
def test_every_opened_sum_has_the_same_variance_whoever_took_part(distributed: bool) -> None:
    """Else the noise would tell how many they were, which Poisson accounting keeps secret."""
    mechanism = _mechanism(noise=Noise(1.3, distributed))
    totals = set()
    for cohort in range(5, 41):
        for survivors in range(mechanism.protocol.survivors_needed(cohort), cohort + 1):
            clients = survivors * sum(s**2 for s in mechanism.client_deviations(cohort))
            totals.add(clients + sum(s**2 for s in mechanism.server_deviations(cohort, survivors)))
    assert totals == {mechanism.released_variance} and mechanism.released_variance >= mechanism.accounted_variance
    assert mechanism.accounted_variance >= (1.3 * UNITS_BOUND / mechanism.step) ** 2


@pytest.mark.parametrize("dropped", [0, 1, 2, 3, 4])
def test_the_clients_own_noise_is_what_the_ledger_assumes_for_every_number_of_dropouts(dropped: int) -> None:
    """Measured, 20 clients of whom up to 4 drop out, 2 colluders left out: variance at least V, as predicted.

    Power: over 40 000 numbers the variance's standard error is 0.7 %, the window 4.9 errors (false alarm 1e-6). Shares
    sized for 17 honest survivors in place of 14 would be 18 % too small: missed with probability below 1e-9.
    """
    mechanism = _mechanism(dimension=40_000, clients=20)
    survivors = 20 - dropped
    deviations = mechanism.client_deviations(20)
    # a sum of shares of equal deviation: 14 of them are drawn, the rest is the arithmetic of independent variances
    fewest = mechanism.fewest_honest(20)
    assert fewest == 14 and survivors - 2 >= fewest
    noise = sum(
        mechanism.draw(deviations, insecure_entropy(dropped, number)).astype(float) for number in range(survivors - 2)
    )
    measured = float(np.mean(np.square(noise)))
    expected = (survivors - 2) / fewest * mechanism.accounted_variance
    assert measured == pytest.approx(expected, rel=4.9 * math.sqrt(2 / 40_000))
    assert measured >= mechanism.accounted_variance * (1 - 4.9 * math.sqrt(2 / 40_000))


def test_no_sum_can_wrap_around() -> None:
    """The overflow proof against Python's integers: every client at its largest, and the noise at its tail."""
    mechanism = _mechanism(clients=100)
    fixed_point = mechanism.fixed_point
    tail = math.ceil(math.sqrt(mechanism.released_variance * 2 * math.log(2 * 500 * 2**40)))
    worst = 100 * fixed_point.largest + tail
    assert worst < 2 ** (fixed_point.bits - 1) <= 2 * worst
    with pytest.raises(ConfigurationError, match=rf"ring bits: .*Use at least {fixed_point.bits} bits"):
        _mechanism(clients=100, ring_bits=fixed_point.bits - 1)
    assert _mechanism(clients=100, ring_bits=40).fixed_point.bits == 40


def test_noise_that_is_coarse_beside_the_ring_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"privacy\.coordinate_bits: .*fine beside the noise"):
        _mechanism(dimension=4, coordinate_bits=4, noise=Noise(0.3, True))
    assert _mechanism().slack < 1e-25


def test_the_slack_bounds_how_far_a_sum_of_discrete_gaussians_is_from_one() -> None:
    """The exact convolution of three with deviation 2 is the oracle: within exp(tau) at every integer of note."""
    values = np.arange(-60, 61)
    one = np.exp(-(values**2) / 8.0)
    one /= one.sum()
    three = np.convolve(np.convolve(one, one, "same"), one, "same")
    whole = np.exp(-(values**2) / 24.0)
    whole /= whole.sum()
    near = np.abs(values) < 20
    tau = 10 * sum(math.exp(-2 * math.pi**2 * 4 * k / (k + 1)) for k in (1, 2))
    assert np.abs(np.log(three[near] / whole[near])).max() <= tau + 1e-12
    coarse = np.exp(-(values**2) / 0.5)  # deviation 1/2: there the correction matters
    coarse /= coarse.sum()
    pair, single = np.convolve(coarse, coarse, "same"), np.exp(-(values**2) / 1.0)
    assert (
        np.abs(np.log(pair[near & (abs(values) < 3)] / (single / single.sum())[near & (abs(values) < 3)])).max() > 0.01
    )
