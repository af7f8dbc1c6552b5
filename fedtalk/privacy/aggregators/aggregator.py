"""What all aggregators have in common, and the innermost one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from fedtalk.privacy.secagg.ring import Ring


class Aggregator(ABC):
    """One step of a round's aggregation, around an inner one; the two halves run on different sides."""

    @abstractmethod
    def to_sum(self, client: str, vector: np.ndarray, cohort_size: int) -> np.ndarray:
        """Client half: what is to be summed for a client's vector.

        Args:
            client: whose.
            vector: (d,) of this aggregator's kind.
            cohort_size: clients among which the masks are agreed, whether or not they survive.

        Returns:
            (d,) unsigned ring elements; to be masked before they leave the client.
        """

    @abstractmethod
    def from_sum(self, total: np.ndarray, cohort_size: int, survivors: int) -> np.ndarray:
        """Server half: what the sum of all clients' elements says.

        Args:
            total: (d,) unsigned, the opened sum, modulo the ring's power of two or a wider one.
            cohort_size: as the clients had it.
            survivors: clients in the sum.

        Returns:
            (d,) of this aggregator's kind.
        """


class PlainSum(Aggregator):
    """Ring elements, summed as they are.

    Guarantees: the sum modulo 2^bits is exact. *Not safe* with anything that must not be seen: a client's elements are in the
    clear until they are masked, and the sum is exact.
    """

    def __init__(self, ring: Ring) -> None:
        """
        Args:
            ring: Z / 2^bits.
        """
        self._ring = ring

    def to_sum(self, client: str, vector: np.ndarray, cohort_size: int) -> np.ndarray:
        return vector

    def from_sum(self, total: np.ndarray, cohort_size: int, survivors: int) -> np.ndarray:
        return self._ring.reduce(total.astype(self._ring.dtype))
