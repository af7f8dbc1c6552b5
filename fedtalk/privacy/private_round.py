"""The sealing of a private round: encode, add a noise share, mask; then open the sum, add the server's noise, decode."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fedtalk.privacy.discrete_gaussian import Entropy
from fedtalk.privacy.mechanism import Mechanism
from fedtalk.privacy.sealing import RingSum, SealedUpdate, SealingRound
from fedtalk.randomness import derive_seed, numpy_generator


class PrivateRound(SealingRound):
    """One round of `Mechanism` over a `RingSum`."""

    def __init__(
        self,
        round_number: int,
        cohort_size: int,
        ring_sum: RingSum,
        mechanism: Mechanism,
        seed: int,
        entropy: Callable[[str], Entropy],
    ) -> None:
        """
        Args:
            round_number: of the run.
            cohort_size: clients that were drawn, whether or not they survive.
            ring_sum: hides the single vectors.
            mechanism: of the run.
            seed: of the run: of the public rotation and of the clients' rounding, neither of which protects anything.
            entropy: the source of noise of a client by its name, of the server by the empty name.
        """
        self._number, self._cohort_size, self._ring_sum = round_number, cohort_size, ring_sum
        self._mechanism, self._seed, self._entropy = mechanism, seed, entropy
        self._rotation = mechanism.fixed_point.rotation(derive_seed(seed, "rotation", round_number))

    def seal(self, client: str, vector: np.ndarray) -> SealedUpdate:
        """Client half: (d,) float64, L2 norm at most the mechanism's bound."""
        rounding = numpy_generator(self._seed, "rounding", self._number, client)
        encoded = self._mechanism.fixed_point.encode(vector, self._rotation, rounding)
        deviations = self._mechanism.client_deviations(self._cohort_size)
        return self._ring_sum.seal_ring(client, self._noised(encoded, deviations, client))

    def open_sum(self, updates: Sequence[SealedUpdate]) -> np.ndarray:
        """Server half: the noised sum, (d,) float64."""
        ring = self._mechanism.fixed_point.ring
        total = ring.reduce(self._ring_sum.open_ring(updates).astype(ring.dtype))
        deviations = self._mechanism.server_deviations(self._cohort_size, len(updates))
        return self._mechanism.fixed_point.decode(self._noised(total, deviations, ""), self._rotation)

    def _noised(self, elements: np.ndarray, deviations: Sequence[int], whose: str) -> np.ndarray:
        if not deviations:
            return elements
        ring = self._mechanism.fixed_point.ring
        noise = self._mechanism.draw(deviations, self._entropy(whose))
        return ring.reduce(elements + ring.from_signed(noise))
