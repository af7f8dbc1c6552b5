"""A client's weighted update within a norm, and its weight beside it."""

from __future__ import annotations

import numpy as np

from fedtalk.privacy.aggregators.aggregator import Aggregator
from fedtalk.privacy.clipping import clip


def contribution(update: np.ndarray, weight: float, bound: float, count_scale: float = 0.0) -> np.ndarray:
    """(a clip(delta, C) / C, a) and, with ``count_scale`` c, c (b - 1/2): b says whether delta was within C.

    Its norm is at most sqrt(2 + (c / 2)^2), whatever the update and the weight.

    Args:
        update: delta, (d,) float64, finite.
        weight: a, in [0, 1]; cut off there, or the norm bound would not hold.
        bound: C, above 0.
        count_scale: c of adaptive clipping; 0 without.

    >>> contribution(np.array([3.0, 4.0]), 0.5, bound=1.0)
    array([0.3, 0.4, 0.5])
    """
    weight = min(1.0, max(0.0, weight))
    vector = np.append(weight * clip(update, bound) / bound, weight)
    if count_scale:
        vector = np.append(vector, count_scale * ((float(np.linalg.norm(update)) <= bound) - 0.5))
    return vector


class Clipped(Aggregator):
    """Weighted updates of any length around an aggregator of bounded vectors.

    Guarantees: adding or removing a client changes the sum by a vector of at most the norm bound of `contribution`, whatever the
    client's update or weight. *Not safe* with clients that deviate: each clips its own update, and nothing proves it. Hides
    nothing by itself.
    """

    def __init__(self, inner: Aggregator, bound: float, count_scale: float = 0.0) -> None:
        """
        Args:
            inner: of vectors within the norm bound.
            bound: C.
            count_scale: c of adaptive clipping; 0 without.
        """
        self._inner, self._bound, self._count_scale = inner, bound, count_scale

    def to_sum(self, client: str, vector: np.ndarray, cohort_size: int) -> np.ndarray:
        """``vector``: (d + 1,), the clear update and the weight behind it."""
        bounded = contribution(vector[:-1], float(vector[-1]), self._bound, self._count_scale)
        return self._inner.to_sum(client, bounded, cohort_size)

    def from_sum(self, total: np.ndarray, cohort_size: int, survivors: int) -> np.ndarray:
        """(sum a delta, sum a) in the updates' own units and, with a count, its c sum (b - 1/2)."""
        found = self._inner.from_sum(total, cohort_size, survivors)
        coordinates = len(found) - 1 - bool(self._count_scale)
        return np.append(found[:coordinates] * self._bound, found[coordinates:])
