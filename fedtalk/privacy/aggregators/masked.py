"""A round in one process: masks around all the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedtalk.privacy.aggregators.aggregator import Aggregator
from fedtalk.privacy.sealing import RingSum, SealedUpdate, SealingRound


class Masked(SealingRound):
    """One round's aggregator over a `RingSum` that shows nothing but the sum.

    Guarantees what its `RingSum` does: a single message is uniform to whoever lacks the masks, and only the sum of the survivors'
    can be opened. *Not safe* with what the sum itself says (`Noised`), nor, with `PairwiseSealing`, with whoever reads this
    process's memory.
    """

    def __init__(self, aggregator: Aggregator, ring_sum: RingSum, cohort_size: int) -> None:
        """
        Args:
            aggregator: of the clients' vectors.
            ring_sum: hides single ones.
            cohort_size: clients that were drawn, whether or not they survive.
        """
        self._aggregator, self._ring_sum, self._cohort_size = aggregator, ring_sum, cohort_size

    def seal(self, client: str, vector: np.ndarray) -> SealedUpdate:
        return self._ring_sum.seal_ring(client, self._aggregator.to_sum(client, vector, self._cohort_size))

    def open_sum(self, updates: Sequence[SealedUpdate]) -> np.ndarray:
        return self._aggregator.from_sum(self._ring_sum.open_ring(updates), self._cohort_size, len(updates))
