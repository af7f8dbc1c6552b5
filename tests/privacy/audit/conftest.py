"""A mechanism with a known epsilon: Poisson sampling, clipping and Gaussian noise on the sum, in few dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from opacus.accountants import RDPAccountant


@dataclass
class GaussianSum:
    """Draws with ``rate``, clips to ``clip`` and adds noise of ``multiplier``, in units of the clip that is accounted for, 1;
    replays nothing, one object a run."""

    clients: Sequence[str]
    generator: np.random.Generator
    multiplier: float
    rate: float = 1.0
    dimension: int = 64
    clip: float = 1.0
    rounds: int = 0

    def play_round(self, update_of: Callable[[str], np.ndarray]) -> np.ndarray:
        self.rounds += 1
        total = np.zeros(self.dimension)
        for client in self.clients:
            if self.generator.random() < self.rate:
                update = update_of(client)
                total += update * min(1.0, self.clip / max(np.linalg.norm(update), 1e-12))
        return total + self.multiplier * self.generator.standard_normal(self.dimension)


@pytest.fixture
def gaussian_sum() -> type[GaussianSum]:
    return GaussianSum


def epsilon_of(multiplier: float, rate: float, rounds: int, delta: float) -> float:
    """Opacus' upper bound on epsilon (RDP)."""
    accountant = RDPAccountant()
    accountant.history = [(multiplier, rate, rounds)]
    return float(accountant.get_epsilon(delta))


@pytest.fixture
def true_epsilon() -> Callable[..., float]:
    return epsilon_of
