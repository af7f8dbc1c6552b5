"""From real vectors to ring elements and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedtalk.privacy.aggregators.aggregator import Aggregator
from fedtalk.privacy.fixed_point import FixedPoint
from fedtalk.privacy.secagg.rotation import Rotation


class Discretised(Aggregator):
    """Rotation and rounding (`FixedPoint`) around an aggregator of ring elements.

    Guarantees: a vector within the norm bound stays within it in integers, without exception, so that sensitivities need no
    correction; no sum of ``fixed_point.clients`` vectors and their noise wraps around. *Not safe* with vectors beyond the bound
    (refused: `Clipped` comes before), and hides nothing: rotation and rounding are public.
    """

    def __init__(
        self, inner: Aggregator, fixed_point: FixedPoint, rotation: Rotation,
        rounding: Callable[[str], np.random.Generator],
    ) -> None:  # fmt: skip
        """
        Args:
            inner: of ring elements.
            fixed_point: the encoding.
            rotation: the round's, public.
            rounding: a client's stream by its name; no secret depends on it.
        """
        self._inner, self._fixed_point, self._rotation, self._rounding = inner, fixed_point, rotation, rounding

    def to_sum(self, client: str, vector: np.ndarray, cohort_size: int) -> np.ndarray:
        """
        Raises:
            ValueError: the vector has another shape, isn't finite, or is beyond the norm bound.
        """
        encoded = self._fixed_point.encode(vector, self._rotation, self._rounding(client))
        return self._inner.to_sum(client, encoded, cohort_size)

    def from_sum(self, total: np.ndarray, cohort_size: int, survivors: int) -> np.ndarray:
        return self._fixed_point.decode(self._inner.from_sum(total, cohort_size, survivors), self._rotation)
