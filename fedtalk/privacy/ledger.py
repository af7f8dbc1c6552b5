"""The ledger: the cohort's sampler and the accountants of what its rounds spend, in one object that can't disagree.

The ledger draws the cohorts itself, by the sampler whose rate it accounts for. Whoever sees the released adapters must
not know who took part, or sampling would amplify nothing: so cohorts come from a secret of the operating system, kept in
the checkpoint, and not from the run's seed, which its config tells.

A round is charged before its sum is opened, and the charge is on disk (`record`) before that too. So a run that was
killed anywhere has charged what it may have released; a round that is taken again is charged again.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binom

from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.federation.cohort import CohortSampler, PoissonCohort
from fedtalk.privacy.accounting import ACCOUNTANTS, ADJACENCY
from fedtalk.storage import write_json

_RECORD = "ledger.json"
_VOID_SHARE = 0.01
"""Largest share of delta that may go to cohorts just too small, whose round is void."""


@dataclass(frozen=True)
class Spent:
    """What a run has spent."""

    rounds: int
    prv: float
    """Epsilon by privacy loss random variables; infinite where opacus could not compute it."""
    rdp: float
    """Epsilon by Rényi differential privacy."""
    delta: float
    accountant: str
    """Which of the two stops the run."""
    budget: float | None

    def __str__(self) -> str:
        """One line that says all that the number needs."""
        within = f", budget {self.budget:g}" if self.budget is not None else ""
        return (
            f"epsilon {self.prv:.3f} (PRV), {self.rdp:.3f} (RDP) at delta {self.delta:g} after {self.rounds} rounds; "
            f"adjacency: {ADJACENCY}; stops by {self.accountant.upper()}{within}"
        )


def poisson_rate(sampler: CohortSampler) -> float:
    """q of a sampler that Poisson accounting holds for.

    Raises:
        ConfigurationError: it holds for `PoissonCohort` alone.
    """
    if type(sampler) is not PoissonCohort:
        raise ConfigurationError(
            "trainer.cohort: differential privacy is accounted for Poisson sampling, each client independently: expected "
            f"PoissonCohort, got {type(sampler).__name__}. The bounds don't hold for fixed-size cohorts; use "
            "fedtalk.federation.cohort.PoissonCohort with rate = size / clients."
        )
    return sampler.rate


def void_probability(rate: float, clients: int, fewest: int) -> float:
    """P that a given client's presence decides whether a round takes place: it is drawn, with ``fewest - 1`` others.

    A client that is added or removed can be noticed by that, whatever the noise: the probability counts towards delta.
    """
    return float(rate * binom.pmf(fewest - 1, clients - 1, rate))


class Ledger:
    """Draws the cohorts and accounts for their rounds."""

    def __init__(
        self,
        sampler: CohortSampler,
        noise_multiplier: float,
        delta: float,
        *,
        budget: float | None = None,
        accountant: str = "prv",
        void_probability: float = 0.0,
        rounds: int = 1,
        cohort_seed: int | None = None,
    ) -> None:
        """
        Args:
            sampler: of the cohorts; its rate is read when a round is charged.
            noise_multiplier: z of the rounds to come, relative to the sum's sensitivity.
            delta: of the guarantee, (0, 1).
            budget: epsilon that is not exceeded; none by default.
            accountant: ``prv`` or ``rdp``: which stops the run.
            void_probability: that a client can be noticed by a void round (`void_probability`), a round.
            rounds: planned, for which delta is set aside.
            cohort_seed: of the cohorts; from the operating system by default.

        Raises:
            ConfigurationError: the sampler is not `PoissonCohort`, or void rounds would take more than 1 % of delta.
        """
        poisson_rate(sampler)
        self.sampler, self.noise_multiplier, self.delta = sampler, noise_multiplier, delta
        self.budget, self.accountant = budget, accountant
        self._void_probability, self._planned = void_probability, rounds
        set_aside = void_probability * rounds
        if set_aside > _VOID_SHARE * delta:
            raise ConfigurationError(
                f"trainer.minimum_clients: a round that is void for want of clients tells that they were few. Expected "
                f"this to have a probability of at most {_VOID_SHARE * delta:g} in {rounds} rounds for one client to "
                f"decide, got {set_aside:.2g}. Lower minimum_clients, or raise trainer.cohort's rate or the clients."
            )
        self.cohort_seed = secrets.randbits(62) if cohort_seed is None else cohort_seed
        self.history: list[tuple[float, float, int]] = []
        self._known: dict[tuple, float] = {}

    def draw(self, round_number: int, clients: Sequence[str]) -> list[str]:
        """The cohort of a round, by the sampler that is accounted for."""
        return self.sampler.draw(self.cohort_seed, round_number, clients)

    @property
    def rounds(self) -> int:
        """Rounds charged."""
        return sum(rounds for _, _, rounds in self.history)

    def charge(self) -> None:
        """Account for one more round."""
        self.history = self._with_another()

    def allows_another(self) -> bool:
        """Whether one more round stays within the budget."""
        return self.budget is None or self._bound(self._with_another()) <= self.budget

    def epsilon_after_another(self) -> float:
        """Epsilon, by the accountant that stops the run, if one more round were charged."""
        return self._bound(self._with_another())

    def spent(self) -> Spent:
        """Epsilon so far."""
        values = {name: self._epsilon(self.history, name) for name in ACCOUNTANTS}
        return Spent(self.rounds, values["prv"], values["rdp"], self.delta, self.accountant, self.budget)

    def planned(self) -> Spent:
        """Epsilon once all planned rounds are charged, from an empty history."""
        history = [(self.noise_multiplier, poisson_rate(self.sampler), self._planned)] if self._planned else []
        values = {name: self._epsilon(history, name) for name in ACCOUNTANTS}
        return Spent(self._planned, values["prv"], values["rdp"], self.delta, self.accountant, self.budget)

    def record(self, folder: Path) -> None:
        """Write the charges beside the checkpoint, atomically."""
        write_json(folder / _RECORD, self.state_dict())

    def recall(self, folder: Path) -> None:
        """Take over what the record beside the checkpoint has more than this ledger.

        Raises:
            ArtifactError: the record can't be read.
        """
        path = folder / _RECORD
        if not path.exists():
            return
        try:
            self.load_state_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"privacy ledger {path} can't be read ({type(error).__name__}); what the run spent is not known. Restore "
                "it, or start a new run in another folder."
            ) from error

    def check_unspent(self, folder: Path) -> None:
        """Refuse to forget the record of an earlier run.

        Raises:
            ConfigurationError: there is one.
        """
        if (folder / _RECORD).exists():
            raise ConfigurationError(
                f"{folder / _RECORD}: a run in this folder has spent epsilon on its clients already, and starting afresh would "
                "forget it. Go on with --ckpt_path last, or choose another trainer.default_root_dir; on the same clients both "
                "runs' epsilons add up."
            )

    def state_dict(self) -> dict[str, Any]:
        return {"history": [list(stretch) for stretch in self.history], "cohort_seed": self.cohort_seed}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over a saved ledger, unless this one has more rounds already; nothing charged is ever dropped."""
        history = [(float(z), float(q), int(rounds)) for z, q, rounds in saved["history"]]
        self.cohort_seed = int(saved["cohort_seed"])
        if sum(rounds for _, _, rounds in history) > self.rounds:
            self.history = history

    def _with_another(self) -> list[tuple[float, float, int]]:
        now = (self.noise_multiplier, poisson_rate(self.sampler))
        if self.history and self.history[-1][:2] == now:
            return [*self.history[:-1], (*now, self.history[-1][2] + 1)]
        return [*self.history, (*now, 1)]

    def _bound(self, history: Sequence[tuple[float, float, int]]) -> float:
        """Epsilon by the accountant that stops the run, by RDP where it has no answer."""
        epsilon = self._epsilon(history, self.accountant)
        return epsilon if math.isfinite(epsilon) else self._epsilon(history, "rdp")

    def _epsilon(self, history: Sequence[tuple[float, float, int]], accountant: str) -> float:
        key = (accountant, *history)
        if key not in self._known:  # asked before the round and after it, and a second or so of work
            rounds = max(self._planned, sum(stretch[2] for stretch in history))
            left = self.delta - self._void_probability * rounds
            self._known[key] = ACCOUNTANTS[accountant](history, left) if left > 0 else math.inf
        return self._known[key]
