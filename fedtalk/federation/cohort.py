"""Cohort sampling: who takes part in a round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from fedtalk.checks import check_above, check_least
from fedtalk.randomness import numpy_generator


class CohortSampler(ABC):
    """Draws the clients of a round from a stream of its own, keyed by (seed, round)."""

    @abstractmethod
    def draw(self, seed: int, round_number: int, clients: Sequence[str]) -> list[str]:
        """The cohort of one round, in the order of ``clients``."""


class PoissonCohort(CohortSampler):
    """Each client takes part with the same probability, independently: what differential privacy accounting assumes.

    The size of a cohort varies; it may be empty, and then the round changes nothing.

    >>> PoissonCohort(1.0).draw(0, 0, ["anna", "bert"])
    ['anna', 'bert']
    """

    def __init__(self, rate: float = 0.5) -> None:
        """
        Args:
            rate: probability of each client, in (0, 1].
        """
        check_above("cohort", 1, rate=rate)
        self.rate = rate

    def draw(self, seed: int, round_number: int, clients: Sequence[str]) -> list[str]:
        drawn = numpy_generator(seed, "cohort", round_number).random(len(clients)) < self.rate
        return [clients[index] for index in np.flatnonzero(drawn).tolist()]

    def draw_secretly(self, random_bytes: Callable[[int], bytes], clients: Sequence[str]) -> list[str]:
        """A cohort that nobody can foretell who lacks the stream: each client with the rate, or up to 2^-64 below it.

        Args:
            random_bytes: gives that many bytes of a cryptographic stream.
            clients: all who are registered.
        """
        threshold = int(self.rate * 2.0**64)  # of a float: exact, or rounded down
        words = np.frombuffer(random_bytes(8 * len(clients)), "<u8")
        drawn = words <= np.uint64(threshold - 1) if threshold else np.zeros(len(clients), bool)
        return [clients[index] for index in np.flatnonzero(drawn).tolist()]


class RotatingCohort(CohortSampler):
    """Each client takes part exactly once in ``every`` rounds; who does when is no secret.

    The order is drawn once, by the seed, and cut into ``every`` groups of the same size (up to one client), which take
    turns. Under differential privacy it is accounted for without amplification by sampling: ``rounds / every`` releases of
    a client, rounded up, whoever knows the rosters. A client keeps count itself and gives nothing beyond its share.

    >>> rotating = RotatingCohort(2)
    >>> sorted(rotating.draw(0, 0, ["anna", "bert"]) + rotating.draw(0, 1, ["anna", "bert"]))
    ['anna', 'bert']
    """

    def __init__(self, every: int = 8, most: int | None = None) -> None:
        """
        Args:
            every: b, rounds between a client's turns, itself included.
            most: k, times that a client takes part in a run at most, however long it is; no such limit by default.
        """
        check_least("cohort", 1, every=every, most=most)
        self.every, self.most = every, most

    def draw(self, seed: int, round_number: int, clients: Sequence[str]) -> list[str]:
        if self.most is not None and round_number >= self.every * self.most:
            return []
        order = numpy_generator(seed, "cohort").permutation(len(clients))
        return [clients[index] for index in sorted(order[round_number % self.every :: self.every].tolist())]

    def participations(self, rounds: int) -> int:
        """Times that a client takes part in the first ``rounds`` rounds, at most.

        >>> RotatingCohort(8).participations(20), RotatingCohort(8, most=2).participations(20)
        (3, 2)
        """
        times = -(-rounds // self.every)
        return times if self.most is None else min(times, self.most)


class FixedCohort(CohortSampler):
    """The same number of clients every round, drawn without replacement.

    Poisson accounting of differential privacy does not hold for it.

    >>> len(FixedCohort(2).draw(0, 0, ["anna", "bert", "cora"]))
    2
    """

    def __init__(self, size: int = 4) -> None:
        """
        Args:
            size: clients a round; all of them where there are fewer.
        """
        check_least("cohort", 1, size=size)
        self.size = size

    def draw(self, seed: int, round_number: int, clients: Sequence[str]) -> list[str]:
        generator = numpy_generator(seed, "cohort", round_number)
        chosen = generator.choice(len(clients), min(self.size, len(clients)), replace=False)
        return [clients[index] for index in sorted(chosen)]
