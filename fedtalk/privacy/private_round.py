"""A private round in its two halves: a client encodes and adds its noise share; the server tops up the noise and decodes.

`ClientEncoding` stays with the client, `SumDecoding` is given nothing but sums. `PrivateRound` is both of them over a
`RingSum` in one process; across organisations each runs on its own side, with the protocol's messages between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fedtalk.privacy.discrete_gaussian import Entropy
from fedtalk.privacy.mechanism import Mechanism
from fedtalk.privacy.sealing import RingSum, SealedUpdate, SealingRound
from fedtalk.randomness import derive_seed, numpy_generator


class _Half:
    """What both halves know: the mechanism, and the round's public rotation."""

    def __init__(self, round_number: int, mechanism: Mechanism, seed: int, entropy: Callable[[str], Entropy]) -> None:
        """
        Args:
            round_number: of the run.
            mechanism: of the run.
            seed: of the run: of the public rotation and of the clients' rounding, neither of which protects anything.
            entropy: the source of noise of a client by its name, of the server by the empty name.
        """
        self._number, self._mechanism, self._seed, self._entropy = round_number, mechanism, seed, entropy
        self._rotation = mechanism.fixed_point.rotation(derive_seed(seed, "rotation", round_number))

    def _noised(self, elements: np.ndarray, deviations: Sequence[int], whose: str) -> np.ndarray:
        if not deviations:
            return elements
        ring = self._mechanism.fixed_point.ring
        noise = self._mechanism.draw(deviations, self._entropy(whose))
        return ring.reduce(elements + ring.from_signed(noise))


class ClientEncoding(_Half):
    """The client half."""

    def elements(self, client: str, vector: np.ndarray, cohort_size: int) -> np.ndarray:
        """Ring elements, (d,) unsigned, the client's noise share added; to be masked before they leave.

        Args:
            client: whose.
            vector: (d,) float64, L2 norm at most the mechanism's bound.
            cohort_size: clients among which the masks are agreed, whether or not they survive; it sizes the noise share.
        """
        rounding = numpy_generator(self._seed, "rounding", self._number, client)
        encoded = self._mechanism.fixed_point.encode(vector, self._rotation, rounding)
        return self._noised(encoded, self._mechanism.client_deviations(cohort_size), client)


class SumDecoding(_Half):
    """The server half."""

    def decoded(self, total: np.ndarray, cohort_size: int, survivors: int) -> np.ndarray:
        """The noised sum, (d,) float64.

        Args:
            total: (d,) unsigned, the opened sum of ring elements, modulo the ring's power of two or a wider one.
            cohort_size: as the clients had it.
            survivors: clients in the sum.
        """
        ring = self._mechanism.fixed_point.ring
        deviations = self._mechanism.server_deviations(cohort_size, survivors)
        elements = self._noised(ring.reduce(total.astype(ring.dtype)), deviations, "")
        return self._mechanism.fixed_point.decode(elements, self._rotation)


class PrivateRound(SealingRound):
    """One round over a `RingSum`, both halves in this process."""

    def __init__(self, cohort_size: int, ring_sum: RingSum, encoding: ClientEncoding, decoding: SumDecoding) -> None:
        """
        Args:
            cohort_size: clients that were drawn, whether or not they survive.
            ring_sum: hides the single vectors.
            encoding: the client half.
            decoding: the server half.
        """
        self._cohort_size, self._ring_sum = cohort_size, ring_sum
        self._encoding, self._decoding = encoding, decoding

    def seal(self, client: str, vector: np.ndarray) -> SealedUpdate:
        """Client half: (d,) float64, L2 norm at most the mechanism's bound."""
        return self._ring_sum.seal_ring(client, self._encoding.elements(client, vector, self._cohort_size))

    def open_sum(self, updates: Sequence[SealedUpdate]) -> np.ndarray:
        """Server half: the noised sum, (d,) float64."""
        return self._decoding.decoded(self._ring_sum.open_ring(updates), self._cohort_size, len(updates))
