"""A lower bound on epsilon from a single run with many canaries.

Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023. Each of m canaries is included
by its own fair coin. The auditor sees the output and guesses r coins, abstaining on the others. If the mechanism is
(epsilon, delta)-private under adding or removing one canary, then (theorem 5.2) for every v

    P[correct >= v] <= P[W >= v] + 2 m delta max_{1 <= i <= m} P[v > W >= v - i] / i,
    W ~ Binomial(r, e^epsilon / (1 + e^epsilon)).

Independent runs with canaries of their own are one run over all of them: a canary touches the output of one run only.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy.special import expit
from scipy.stats import binom

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.audit.clopper_pearson import check_delta

_STEP = 0.05
_LARGEST = 50.0


def one_run_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Bound on the probability of so many correct guesses under (epsilon, delta); the right side of theorem 5.2.

    Args:
        canaries: m, each with its own fair coin.
        guesses: r of them that were guessed; which ones may depend on the output.
        correct: v of the guesses that were right.
        epsilon: 0 or more.
        delta: in [0, 1).

    Returns:
        a probability in [0, 1].

    >>> one_run_p_value(canaries=10, guesses=10, correct=10, epsilon=0.0, delta=0.0)
    0.0009765625
    """
    if not 0 <= correct <= guesses <= canaries or canaries < 1:
        raise ConfigurationError(
            f"canaries: expected correct <= guesses <= canaries, got {correct}, {guesses} and {canaries}"
        )
    check_delta(delta)
    rate = expit(epsilon)
    tail = float(binom.sf(correct - 1, guesses, rate))
    if delta == 0 or correct == 0:
        return min(1.0, tail)
    # i beyond v adds nothing to the sum and divides it by more.
    reach = np.arange(1, correct + 1)
    below = np.cumsum(binom.pmf(correct - reach, guesses, rate))
    return min(1.0, tail + 2 * canaries * delta * float(np.max(below / reach)))


@functools.lru_cache(maxsize=4096)
def one_run_epsilon(canaries: int, guesses: int, correct: int, delta: float, confidence: float) -> float:
    """Lower bound on epsilon: all smaller ones are rejected at level ``1 - confidence``.

    The p-value need not rise with epsilon everywhere (its delta term does not), so the bound stops at the first epsilon
    that is not rejected: then a bound above the true epsilon means that the true one was rejected.

    Args:
        canaries: m.
        guesses: r; chosen before the coins are known.
        correct: v.
        delta: of the guarantee under test.
        confidence: in (0, 1).

    Returns:
        epsilon, 0 or more; 0 where not even that can be rejected.

    >>> round(one_run_epsilon(1000, 1000, 1000, 0.0, 0.95), 2)
    5.81
    """
    level = 1 - confidence
    if not 0 < level < 1:
        raise ConfigurationError(f"confidence: expected a probability in (0, 1), got {confidence}")

    def rejected(epsilon: float) -> bool:
        return one_run_p_value(canaries, guesses, correct, epsilon, delta) <= level

    if not rejected(0.0):
        return 0.0
    low = 0.0
    while low < _LARGEST and rejected(low + _STEP):
        low += _STEP
    high = low + _STEP
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low
