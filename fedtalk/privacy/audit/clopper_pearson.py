"""Lower bounds on epsilon from how often an attack is right: exact binomial confidence, no assumption on the mechanism.

An (epsilon, delta)-private mechanism binds every attack (Kairouz, Oh and Viswanath, "The Composition Theorem for
Differential Privacy", ICML 2015, theorem 2.1):

    TPR <= e^epsilon FPR + delta        TNR <= e^epsilon FNR + delta
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from scipy.stats import binomtest

from fedtalk.errors import ConfigurationError


@functools.lru_cache(maxsize=4096)
def rate_at_least(hits: int, trials: int, confidence: float) -> float:
    """Clopper-Pearson lower bound of a success probability; one-sided.

    Args:
        hits: successes, 0 to ``trials``.
        trials: independent trials.
        confidence: that the probability is at least what is returned, in (0, 1).

    >>> round(rate_at_least(10, 10, 0.95), 3)
    0.741
    """
    _check(hits, trials, confidence)
    return float(binomtest(hits, trials, alternative="greater").proportion_ci(confidence).low)


@functools.lru_cache(maxsize=4096)
def rate_at_most(hits: int, trials: int, confidence: float) -> float:
    """Clopper-Pearson upper bound of a success probability; one-sided, arguments as in `rate_at_least`.

    >>> round(rate_at_most(0, 10, 0.95), 3)
    0.259
    """
    _check(hits, trials, confidence)
    return float(binomtest(hits, trials, alternative="less").proportion_ci(confidence).high)


@dataclass(frozen=True)
class AttackRates:
    """An attack's decisions on independent trials, its threshold fixed without looking at them."""

    true_positives: int
    positives: int
    """Trials in which the target took part."""
    false_positives: int
    negatives: int
    """Trials in which it did not."""

    def at_confidence(self, confidence: float) -> tuple[float, float]:
        """``(t, f)``: TPR >= t and FPR <= f, both at once with ``confidence`` (half of the error for each)."""
        each = (1 + confidence) / 2
        return (
            rate_at_least(self.true_positives, self.positives, each),
            rate_at_most(self.false_positives, self.negatives, each),
        )

    def epsilon_at_least(self, delta: float, confidence: float) -> float:
        """Lower bound on epsilon, 0 or more.

        Both inequalities above at the bounds of `at_confidence`, which hold together, so the larger result counts.

        Args:
            delta: of the guarantee under test, in [0, 1).
            confidence: that epsilon is at least what is returned, if the mechanism is (epsilon, delta)-private.

        >>> round(AttackRates(500, 500, 0, 500).epsilon_at_least(1e-5, 0.95), 2)
        4.91
        """
        check_delta(delta)
        hit, false = self.at_confidence(confidence)
        bound = 0.0
        for likely, rare in ((hit, false), (1 - false, 1 - hit)):
            if likely > delta and rare > 0:
                bound = max(bound, math.log((likely - delta) / rare))
        return bound


def check_delta(delta: float) -> None:
    """Refuse what is no delta.

    Raises:
        ConfigurationError: delta outside [0, 1).
    """
    if not 0 <= delta < 1:
        raise ConfigurationError(f"delta: expected a probability in [0, 1), got {delta}")


def _check(hits: int, trials: int, confidence: float) -> None:
    if not 0 <= hits <= trials or trials < 1:
        raise ConfigurationError(f"rates: expected 0 <= hits <= trials and at least one trial, got {hits} of {trials}")
    if not 0 < confidence < 1:
        raise ConfigurationError(f"confidence: expected a probability in (0, 1), got {confidence}")
