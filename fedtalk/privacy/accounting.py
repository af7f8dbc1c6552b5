"""Epsilon of a history of Poisson-sampled Gaussian rounds, by opacus' accountants; adjacency: add or remove one client.

Two upper bounds on the same quantity: Rényi differential privacy (Mironov, Talwar and Zhang 2019) and the numerical
composition of privacy loss random variables (PRV; Gopi, Lee and Wutschitz 2021), which is the tighter. Without sampling the
composition is Gaussian itself and epsilon has a closed form (`gaussian_epsilon`), which then takes PRV's place.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from opacus.accountants import PRVAccountant
from opacus.accountants.analysis import rdp as renyi
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from fedtalk.errors import ConfigurationError

History = Sequence[tuple[float, float, int]]
"""(noise multiplier, sample rate, rounds) of each stretch of rounds."""

ADJACENCY = "add or remove one client"
HIDDEN = "what a client contributes, or nothing in its place"


def adjacency(history: History) -> str:
    """What a history's epsilon compares: with sampling a client's presence, without it, where all know that, what it gives."""
    return HIDDEN if history and all(rate == 1 for _, rate, _ in history) else ADJACENCY


_ORDERS = (
    *(1 + x / 10 for x in range(1, 20)), *(3 + x / 4 for x in range(32)), *range(11, 32), *range(32, 64, 2),
    64, 96, 128, 256, 512, 1000,
)  # fmt: skip
_FEW_ORDERS = (1.25, 1.5, 2, 4, 8, 16, 32, 64)
_LARGEST_MULTIPLIER = 10_000.0
_LARGEST_PRV_EPSILON = 200.0
_RATE_BELOW_ONE = 1e-12
"""opacus' PRVs divide by 1 - q: a client that always takes part is taken as one that misses a round with this
probability, which is added to delta for each round."""


def gaussian_epsilon(history: History, delta: float) -> float:
    """Epsilon of Gaussian releases without sampling, exact; every rate is taken as 1.

    Releases with noise multipliers z_i are together one with mu^2 = sum_i z_i^-2, and (Balle and Wang, ICML 2018, theorem 8)

        delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu).

    Args:
        history: noise multipliers above 0; for each the number of releases.
        delta: (0, 1).

    >>> round(gaussian_epsilon([(1.0, 1.0, 1)], 1e-5), 3)
    4.377
    """
    mu = math.sqrt(sum(rounds / multiplier**2 for multiplier, _, rounds in history))
    if mu == 0 or _gaussian_delta(0.0, mu) <= delta:
        return 0.0
    high = mu * (mu / 2 + math.sqrt(2 * math.log(1 / delta)))  # there the first term alone is below delta
    return float(brentq(lambda epsilon: _gaussian_delta(epsilon, mu) / delta - 1, 0.0, high, xtol=1e-9))


def gaussian_multiplier(target_epsilon: float, times: int, delta: float) -> float:
    """The smallest noise multiplier with which ``times`` releases without sampling spend at most ``target_epsilon``.

    >>> round(gaussian_epsilon([(gaussian_multiplier(8.0, 3, 1e-4), 1.0, 3)], 1e-4), 6)
    8.0
    """
    low, high = 1e-9, 1e9  # of mu
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _gaussian_delta(target_epsilon, middle) <= delta else (low, middle)
    multiplier = math.sqrt(times) / low
    while gaussian_epsilon([(multiplier, 1.0, times)], delta) > target_epsilon:  # the last digits of either search
        multiplier *= 1 + 1e-9
    return multiplier


def _gaussian_delta(epsilon: float, mu: float) -> float:
    lost = ndtr(mu / 2 - epsilon / mu)
    return float(lost - math.exp(min(700.0, epsilon + log_ndtr(-mu / 2 - epsilon / mu))))


def rdp_epsilon(history: History, delta: float) -> float:
    """Epsilon by Rényi differential privacy; infinite where no order gives a bound."""
    if not history:
        return 0.0
    return _rdp(history, delta, _ORDERS)


def prv_epsilon(history: History, delta: float) -> float:
    """Upper bound on epsilon by privacy loss random variables, within 0.01 of the exact value.

    Infinite where epsilon is above some 200 anyway (the grid would take gigabytes) or opacus' numerics give up: then only
    the bound by RDP is left.
    """
    if not history:
        return 0.0
    if all(rate == 1 for _, rate, _ in history):
        return gaussian_epsilon(history, delta)
    if _rdp(history, delta, _FEW_ORDERS) > _LARGEST_PRV_EPSILON:
        return math.inf
    accountant = PRVAccountant()
    accountant.history = [(z, min(q, 1 - _RATE_BELOW_ONE), rounds) for z, q, rounds in history]
    left = delta - _RATE_BELOW_ONE * sum(rounds for _, q, rounds in history if q == 1)
    try:
        with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise"):
            warnings.filterwarnings("ignore", message="Optimal order is the")  # of the grid's width only
            epsilon = float(accountant.get_epsilon(left)) if left > 0 else math.inf
    except (ValueError, RuntimeError, OverflowError, FloatingPointError):
        return math.inf
    return max(0.0, epsilon) if math.isfinite(epsilon) else math.inf


def _rdp(history: History, delta: float, orders: tuple[float, ...]) -> float:
    spent = sum(rounds * _rdp_of_a_round(multiplier, rate, orders) for multiplier, rate, rounds in history)
    with warnings.catch_warnings():
        # At the last order the bound is looser than it could be, and as valid.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        epsilon, _ = renyi.get_privacy_spent(orders=list(orders), rdp=spent, delta=delta)
    return max(0.0, float(epsilon))


@functools.lru_cache(maxsize=1024)
def _rdp_of_a_round(multiplier: float, rate: float, orders: tuple[float, ...]) -> np.ndarray:
    """(orders,): Rényi differential privacy adds up over rounds, so each kind of round is computed once in a process."""
    return np.asarray(renyi.compute_rdp(q=rate, noise_multiplier=multiplier, steps=1, orders=list(orders)))


def _remembered(epsilon: Callable[[History, float], float]) -> Callable[[History, float], float]:
    """The same, each answer computed once in a process: runs of one config have the same histories."""
    known = functools.lru_cache(maxsize=4096)(epsilon)
    return lambda history, delta: known(tuple(history), delta)


ACCOUNTANTS: dict[str, Callable[[History, float], float]] = {
    "prv": _remembered(prv_epsilon),
    "rdp": _remembered(rdp_epsilon),
}


def bound(history: History, delta: float, accountant: str) -> float:
    """Epsilon by ``accountant``, ``prv`` or ``rdp``; by RDP too where PRV has no answer."""
    epsilon = ACCOUNTANTS[accountant](history, delta)
    return epsilon if math.isfinite(epsilon) else rdp_epsilon(history, delta)


def solve_noise_multiplier(
    target_epsilon: float, rate: float, rounds: int, delta: float, accountant: str = "prv"
) -> float:
    """A noise multiplier whose ``rounds`` rounds spend ``target_epsilon``, or up to 0.3 % less, never more.

    Args:
        target_epsilon: above 0.
        rate: probability that a client takes part in a round.
        rounds: 1 or more.
        delta: (0, 1).
        accountant: ``prv`` or ``rdp``.

    Raises:
        ConfigurationError: no multiplier below 10 000 is enough.
    """
    low, multiplier, high, epsilon = 0.0, 1.0, math.inf, math.inf
    # Between the brackets by a power law through the last point: epsilon falls about like 1 / z, then like a secant.
    slope, last = -1.2, None
    while not 0.997 * target_epsilon <= epsilon <= target_epsilon:
        epsilon = bound([(multiplier, rate, rounds)], delta, accountant)
        if epsilon <= target_epsilon:
            high = multiplier
        else:
            low = multiplier
        if high - low < 1e-5 * low:  # the grid's own noise
            return high
        if last is not None and epsilon > 0 and last[1] > 0 and not math.isclose(epsilon, last[1]):
            slope = min(-0.5, math.log(epsilon / last[1]) / math.log(multiplier / last[0]))
        last = multiplier, epsilon
        aimed = multiplier * (0.9985 * target_epsilon / epsilon) ** (1 / slope) if epsilon > 0 else multiplier / 8
        if not low < aimed < high:
            aimed = math.sqrt(low * high) if low and high < math.inf else (2 * low or high / 2)
        if aimed > _LARGEST_MULTIPLIER:
            raise ConfigurationError(
                f"privacy.target_epsilon: expected a budget that noise can reach in {rounds} rounds at rate {rate:g} and "
                f"delta {delta:g}, got {target_epsilon:g}. Raise it or delta."
            )
        multiplier = aimed
    return high
