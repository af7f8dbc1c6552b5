"""A private round's halves where they run on different sides: the client's is given a vector, the server's nothing but sums.

Both are views of the same aggregator (`fedtalk.privacy.aggregators`), made from what both sides know. In one process
`fedtalk.privacy.aggregators.Masked` is both of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fedtalk.privacy.aggregators import Aggregator, Discretised, Noised, PlainSum
from fedtalk.privacy.discrete_gaussian import Entropy
from fedtalk.privacy.mechanism import Mechanism
from fedtalk.privacy.participation import ParticipationRefused
from fedtalk.randomness import derive_seed, numpy_generator


def bounded_sum(
    round_number: int, mechanism: Mechanism, seed: int, entropy: Callable[[str], Entropy]
) -> Aggregator:  # fmt: skip
    """A round's aggregator of vectors within the mechanism's norm bound: discretise, add noise, sum.

    Args:
        round_number: of the run.
        mechanism: of the run.
        seed: of the run: of the public rotation and of the clients' rounding, neither of which protects anything.
        entropy: the source of noise of a client by its name, of the server by the empty name.
    """
    fixed_point = mechanism.fixed_point
    rotation = fixed_point.rotation(derive_seed(seed, "rotation", round_number))
    noised = Noised(PlainSum(fixed_point.ring), mechanism, entropy)
    return Discretised(
        noised, fixed_point, rotation, lambda client: numpy_generator(seed, "rounding", round_number, client)
    )


class ClientEncoding:
    """The client half."""

    def __init__(self, aggregator: Aggregator, consenting: Callable[[Iterable[str]], Sequence[str]]) -> None:
        """
        Args:
            aggregator: of the round.
            consenting: those clients of some that still give something, each by its own count.
        """
        self._aggregator, self._consenting = aggregator, consenting

    def elements(self, client: str, vector: np.ndarray, cohort_size: int) -> np.ndarray:
        """Ring elements, (d,) unsigned, the client's noise share added; to be masked before they leave.

        Args:
            client: whose.
            vector: (d,) float64, L2 norm at most the mechanism's bound.
            cohort_size: clients among which the masks are agreed, whether or not they survive; it sizes the noise share.

        Raises:
            ParticipationRefused: the client has given as often as it agreed to.
        """
        if not self._consenting([client]):
            raise ParticipationRefused(
                f"client {client} has taken part as often as it agreed to; it gives nothing more"
            )
        return self._aggregator.to_sum(client, vector, cohort_size)


class SumDecoding:
    """The server half."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator

    def decoded(self, total: np.ndarray, cohort_size: int, survivors: int) -> np.ndarray:
        """The noised sum, (d,) float64.

        Args:
            total: (d,) unsigned, the opened sum of ring elements, modulo the ring's power of two or a wider one.
            cohort_size: as the clients had it.
            survivors: clients in the sum.
        """
        return self._aggregator.from_sum(total, cohort_size, survivors)
