"""The Gaussian mechanism's own trade-off curve, for audits that may assume it (Gaussian differential privacy).

A mechanism whose best test tells N(0, 1) from N(mu, 1) has (Dong, Roth and Su, "Gaussian Differential Privacy", 2022,
equation 6 and corollary 1)

    TPR = Phi(Phi^-1(FPR) + mu)        delta(epsilon) = Phi(-epsilon/mu + mu/2) - e^epsilon Phi(-epsilon/mu - mu/2).

One pair of rates then bounds mu, and with it the whole curve, which is tighter than the two inequalities that hold for
any mechanism (Nasr et al., "Tight Auditing of Differentially Private Machine Learning", 2023). Where clients are
sampled the curve is a mixture and this is an approximation: report it as such.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import norm

from fedtalk.privacy.audit.clopper_pearson import AttackRates, check_delta

_LARGEST = 1e4


def gaussian_delta(epsilon: float, mu: float) -> float:
    """The delta at which a mu-Gaussian private mechanism is (epsilon, delta)-private.

    Args:
        epsilon: 0 or more.
        mu: distance of the means over the standard deviation, above 0.
    """
    far = norm.logcdf(-epsilon / mu - mu / 2)  # in logarithms: e^epsilon alone overflows
    return float(norm.cdf(-epsilon / mu + mu / 2) - math.exp(epsilon + far))


def gaussian_epsilon(delta: float, mu: float) -> float:
    """The epsilon at which a mu-Gaussian private mechanism is (epsilon, delta)-private; 0 for mu <= 0.

    Args:
        delta: in (0, 1).

    >>> round(gaussian_epsilon(1e-5, 1.0), 2)
    4.38
    """
    check_delta(delta)
    if mu <= 0 or gaussian_delta(0.0, mu) <= delta:
        return 0.0
    return float(brentq(lambda epsilon: gaussian_delta(epsilon, mu) - delta, 0.0, min(_LARGEST, mu * mu + 50 * mu)))


def gaussian_mu_at_least(rates: AttackRates, confidence: float) -> float:
    """Lower bound on mu: ``mu >= Phi^-1(t) - Phi^-1(f)`` with TPR >= t and FPR <= f by Clopper-Pearson.

    Args:
        rates: of the attack.
        confidence: of the bound, if the trade-off curve is Gaussian.

    Returns:
        0 or more.
    """
    hit, false = rates.at_confidence(confidence)
    if hit <= 0 or false >= 1:
        return 0.0
    return max(0.0, float(norm.ppf(hit) - norm.ppf(false)))
