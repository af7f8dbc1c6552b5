"""Clipping of a client's update, and a bound that follows the cohort's updates without looking at any of them.

Adaptive clipping after Andrew, Thakkar, McMahan and Ramaswamy, "Differentially Private Learning with Adaptive Clipping"
(NeurIPS 2021): each client says whether its update was within the bound, b_k in {0, 1}; from the noisy share of those
who were, the bound moves geometrically towards the ``quantile`` of the updates' norms,

    C <- C exp(-rate * (share - quantile)),      share = 1/2 + (sum_k (b_k - 1/2) + noise) / (q N)

b_k - 1/2 has sensitivity 1/2 under add/remove of one client. The denominator is the expected cohort q N, which says
nothing about who took part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedtalk.errors import ConfigurationError

CLIP_NORMS = (1e-6, 1e6)
"""Range of the bound: beyond it an update of float32 parameters is nothing, or is not clipped at all."""


def clip(update: np.ndarray, bound: float) -> np.ndarray:
    """``update`` scaled down to an L2 norm of at most ``bound``: update * min(1, bound / ||update||).

    Args:
        update: (d,) float64, finite.
        bound: C, above 0.

    >>> clip(np.array([3.0, 4.0]), 1.0)
    array([0.6, 0.8])
    """
    norm = float(np.linalg.norm(update))
    return update * min(1.0, bound / norm) if norm > 0 else update


@dataclass
class AdaptiveClipping:
    """How the clipping bound follows the updates' norms."""

    quantile: float = 0.5
    """Share of the clients whose updates the bound should leave whole, (0, 1)."""
    rate: float = 0.2
    """Learning rate of the bound's logarithm (the paper's 0.2), above 0, at most 10."""
    count_deviation: float = 0.0
    """Standard deviation of the noise on the count, in clients; 0 takes a twentieth of the expected cohort, as the paper
    does, but never less than 1."""

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ConfigurationError(f"adaptive_clipping.quantile: expected a share in (0, 1), got {self.quantile}")
        if not 0 < self.rate <= 10:
            raise ConfigurationError(f"adaptive_clipping.rate: expected a number above 0, at most 10, got {self.rate}")
        if not 0 <= self.count_deviation <= 1e6:
            raise ConfigurationError(
                f"adaptive_clipping.count_deviation: expected 0 (chosen by the cohort) to 1e6 clients, got {self.count_deviation}"
            )

    def deviation(self, expected_cohort: float) -> float:
        """sigma_b, in clients."""
        return self.count_deviation or max(1.0, expected_cohort / 20)

    def moved(self, bound: float, noisy_sum: float, expected_cohort: float) -> float:
        """The next round's bound, from this round's noisy sum of b_k - 1/2; never outside `CLIP_NORMS`.

        >>> AdaptiveClipping(quantile=0.5).moved(1.0, 0.0, 20.0)  # half of them were within the bound
        1.0
        """
        share = min(1.0, max(0.0, 0.5 + noisy_sum / expected_cohort))
        return min(CLIP_NORMS[1], max(CLIP_NORMS[0], bound * math.exp(-self.rate * (share - self.quantile))))


def update_multiplier(multiplier: float, count_deviation: float) -> float:
    """z_delta: noise multiplier left for the updates where the count's noise comes out of the same budget.

    z_delta = (z^-2 - (2 sigma_b)^-2)^(-1/2)   (Andrew et al. 2021, theorem 1)

    Args:
        multiplier: z, what the ledger accounts for update and count together.
        count_deviation: sigma_b, in clients; its sensitivity is 1/2.

    Raises:
        ConfigurationError: the count alone would take up the budget.

    >>> round(update_multiplier(1.0, 5.0), 4)
    1.005
    """
    left = multiplier**-2 - (2 * count_deviation) ** -2
    if left <= 0:
        raise ConfigurationError(
            f"adaptive_clipping.count_deviation: expected more than half the noise multiplier, {multiplier / 2:g}, got "
            f"{count_deviation:g}: the count alone would spend the budget. Raise it, or switch adaptive clipping off."
        )
    return left**-0.5
