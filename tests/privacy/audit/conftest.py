"""A mechanism with a known epsilon: Poisson sampling, clipping and Gaussian noise on the sum, in few dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from opacus.accountants import RDPAccountant


@dataclass
class GaussianSum:
    """Clips to ``clip`` and adds noise of ``multiplier * clip``; replays nothing, one object a run."""

    generator: np.random.Generator
    multiplier: float
    dimension: int = 64
    clip: float = 1.0
    seen: list[int] = field(default_factory=list)

    def release(self, round_number: int, updates: Iterator[tuple[str, np.ndarray]]) -> np.ndarray:
        self.seen.append(round_number)
        total = np.zeros(self.dimension)
        for _, update in updates:
            total += update * min(1.0, self.clip / max(np.linalg.norm(update), 1e-12))
        return total + self.multiplier * self.clip * self.generator.standard_normal(self.dimension)


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
