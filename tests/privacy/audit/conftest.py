"""A mechanism with a known epsilon: Poisson sampling, clipping and Gaussian noise on the sum, in few dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from opacus.accountants import RDPAccountant

from fedtalk.privacy import ledger, mechanism, private_rounds
from fedtalk.privacy.aggregators import clipped
from fedtalk.privacy.mechanism import Mechanism
from fedtalk.privacy.private_rounds import PrivateRounds

Mutate = Callable[[pytest.MonkeyPatch], None]


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


# Engines that break their promise


def noise_times(factor: float) -> Mutate:
    def mutate(monkeypatch: pytest.MonkeyPatch) -> None:
        honest = mechanism.discrete_gaussian
        monkeypatch.setattr(
            mechanism, "discrete_gaussian", lambda deviation, *rest: honest(max(2, round(factor * deviation)), *rest)
        )

    return mutate


def clipping_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipped, "clip", lambda update, bound: update)


def weight_above_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        private_rounds, "contribution",
        lambda update, weight, bound, count_scale=0.0: np.append(weight * clipped.clip(update, bound) / bound, weight),
    )  # fmt: skip


def public_cohort_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger.Ledger, "draw", lambda self: self.sampler.draw(self.seed, self.rounds, self.clients))


def charge_at_half_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "secret_rate", lambda sampler: sampler.rate / 2)


def charge_every_other_round(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ledger.Ledger.charge

    def charge(self: ledger.Ledger, *arguments: object) -> None:
        self.asked = getattr(self, "asked", 0) + 1  # type: ignore[attr-defined]
        if self.asked % 2:  # type: ignore[attr-defined]
            honest(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger.Ledger, "charge", charge)


def noise_from_a_public_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedtalk.privacy.discrete_gaussian import insecure_entropy

    monkeypatch.setattr(PrivateRounds, "_entropy", lambda self, number, whose: insecure_entropy(7, 0, whose))


def shares_for_all_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Mechanism.client_deviations
    monkeypatch.setattr(Mechanism, "client_deviations", lambda self, cohort: honest(self, self.clients))


@pytest.fixture
def mutants() -> dict[str, Mutate]:
    """What breaks the engine, by name."""
    return {
        "noise / 10": noise_times(0.1),
        "noise x 0.9": noise_times(0.9),
        "clipping off": clipping_off,
        "weight above 1": weight_above_one,
        "public cohort seed": public_cohort_seed,
        "charge at half rate": charge_at_half_rate,
        "charge every other round": charge_every_other_round,
        "noise repeated": noise_from_a_public_seed,
        "shares for all registered": shares_for_all_registered,
    }
