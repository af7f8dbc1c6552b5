"""Noise in the ring: a client's share on the way in, what is missing from the constant variance on the way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fedtalk.privacy.aggregators.aggregator import Aggregator
from fedtalk.privacy.discrete_gaussian import Entropy
from fedtalk.privacy.mechanism import Mechanism


class Noised(Aggregator):
    """Discrete Gaussian noise around the sum of ring elements.

    Guarantees: a sum of survivors within the mechanism's assumptions carries noise of the accounted variance that nobody
    outside the honest survivors knows (``distributed``), or that is added to it when it is opened (``central``), and its
    variance is the same whoever took part. With vectors of the mechanism's norm bound this is what the ledger accounts for.
    *Not safe* with vectors that aren't bounded (`Clipped`, `Discretised`), with sums of fewer survivors than the mechanism
    expects, with a source of randomness that anybody else knows, and before masking: a single share hides little. ``central``
    isn't safe with the server. Without noise in the mechanism it does nothing.
    """

    def __init__(self, inner: Aggregator, mechanism: Mechanism, entropy: Callable[[str], Entropy]) -> None:
        """
        Args:
            inner: of ring elements.
            mechanism: says how much noise.
            entropy: the source of noise of a client by its name, of the server by the empty name.
        """
        self._inner, self._mechanism, self._entropy = inner, mechanism, entropy

    def to_sum(self, client: str, vector: np.ndarray, cohort_size: int) -> np.ndarray:
        noised = self._with_noise(vector, self._mechanism.client_deviations(cohort_size), client)
        return self._inner.to_sum(client, noised, cohort_size)

    def from_sum(self, total: np.ndarray, cohort_size: int, survivors: int) -> np.ndarray:
        elements = self._inner.from_sum(total, cohort_size, survivors)
        return self._with_noise(elements, self._mechanism.server_deviations(cohort_size, survivors), "")

    def _with_noise(self, elements: np.ndarray, deviations: Sequence[int], whose: str) -> np.ndarray:
        if not deviations:
            return elements
        ring = self._mechanism.fixed_point.ring
        noise = self._mechanism.draw(deviations, self._entropy(whose))
        return ring.reduce(elements + ring.from_signed(noise))
