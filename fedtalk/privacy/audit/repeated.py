"""A lower bound on epsilon from independent runs with one canary each: the classical form, a trial a run.

Jagielski, Ullman and Oprea, "Auditing Differentially Private Machine Learning", NeurIPS 2020, by Clopper-Pearson; and
for a Gaussian trade-off curve Nasr et al. 2023. The threshold is chosen on one half of the runs and tested on the other,
since a threshold chosen on the runs that it is tested on would make the confidence untrue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedtalk.errors import ConfigurationError
from fedtalk.privacy.audit.clopper_pearson import AttackRates
from fedtalk.privacy.audit.gaussian_tradeoff import gaussian_epsilon, gaussian_mu_at_least

_THRESHOLDS = 50
"""At most so many are tried; each costs a few exact binomial bounds, a millisecond each."""


@dataclass(frozen=True)
class RepeatedBound:
    """Bounds from the half of the runs that the threshold was not chosen on."""

    epsilon: float
    """Of any mechanism, by Clopper-Pearson."""
    epsilon_gaussian: float
    """Of a mechanism with a Gaussian trade-off curve; an approximation where clients are sampled."""
    rates: AttackRates
    most: float
    """What the same runs would have shown had every decision been right."""


def repeated_bound(included: np.ndarray, scores: np.ndarray, delta: float, confidence: float) -> RepeatedBound:
    """Lower bounds on epsilon.

    Args:
        included: (n,) bool, one run each.
        scores: (n,) larger means "included".
        delta: of the guarantee under test.
        confidence: of each bound by itself.

    Raises:
        ConfigurationError: a half holds only runs of one kind.
    """
    half = len(scores) // 2
    if half < 1 or any(part.all() or not part.any() for part in (included[:half], included[half:])):
        raise ConfigurationError(
            f"repeated runs: expected runs with and without the canary in either half, got {len(scores)} runs in all; "
            "use more --canaries"
        )
    general = _tested(included, scores, lambda rates: rates.epsilon_at_least(delta, confidence))
    gaussian = _tested(included, scores, lambda rates: gaussian_mu_at_least(rates, confidence))
    perfect = AttackRates(general.positives, general.positives, 0, general.negatives)
    return RepeatedBound(
        general.epsilon_at_least(delta, confidence),
        gaussian_epsilon(delta, gaussian_mu_at_least(gaussian, confidence)),
        general,
        perfect.epsilon_at_least(delta, confidence),
    )


def _tested(included: np.ndarray, scores: np.ndarray, worth: Callable[[AttackRates], float]) -> AttackRates:
    """Rates on the second half at the threshold that is worth most on the first; ties go to the most hits less errors."""
    half = len(scores) // 2
    levels = np.unique(scores[:half])
    between = (levels[1:] + levels[:-1]) / 2 if len(levels) > 1 else levels
    if len(between) > _THRESHOLDS:
        between = np.quantile(between, np.linspace(0, 1, _THRESHOLDS))

    def value(threshold: float) -> tuple[float, float]:
        rates = _rates(included[:half], scores[:half], threshold)
        return worth(rates), rates.true_positives / rates.positives - rates.false_positives / rates.negatives

    return _rates(included[half:], scores[half:], float(max(between, key=value)))


def _rates(included: np.ndarray, scores: np.ndarray, threshold: float) -> AttackRates:
    called = scores > threshold
    return AttackRates(
        int(np.sum(called & included)), int(included.sum()), int(np.sum(called & ~included)), int(np.sum(~included))
    )
