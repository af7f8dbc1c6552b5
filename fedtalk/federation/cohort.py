"""Cohort sampling: who takes part in a round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from fedtalk.errors import ConfigurationError
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
        if not 0 < rate <= 1:
            raise ConfigurationError(f"cohort.rate: expected a probability in (0, 1], got {rate}")
        self.rate = rate

    def draw(self, seed: int, round_number: int, clients: Sequence[str]) -> list[str]:
        drawn = numpy_generator(seed, "cohort", round_number).random(len(clients)) < self.rate
        return [clients[index] for index in np.flatnonzero(drawn).tolist()]


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
        if size < 1:
            raise ConfigurationError(f"cohort.size: expected at least 1, got {size}")
        self.size = size

    def draw(self, seed: int, round_number: int, clients: Sequence[str]) -> list[str]:
        generator = numpy_generator(seed, "cohort", round_number)
        chosen = generator.choice(len(clients), min(self.size, len(clients)), replace=False)
        return [clients[index] for index in sorted(chosen)]


def measured_clients(seed: int, clients: Sequence[str], most: int) -> Sequence[str]:
    """The clients whose held-out clips a run measures: all of them, or the same ``most`` throughout, drawn by the seed.

    >>> measured_clients(0, ["anna", "bert"], 2)
    ['anna', 'bert']
    """
    if len(clients) <= most:
        return clients
    chosen = numpy_generator(seed, "measured").choice(len(clients), most, replace=False)
    return [clients[index] for index in sorted(chosen)]
