"""What the engine does, held against what its ledger accounts for: each step by its own measurement.

A canary bound sees the whole mechanism and little of it: at epsilon 8 it can't tell full noise from nine tenths. The premises of
the accounting can be measured one by one, and far more sharply:

- *noise*: the opened sum less what the clients put into it, over (d + 1) numbers a round. Distributed noise counts without the
  server's part, which it could leave out, and without the shares of as many clients as may collude and drop out.
- *bound*: the longest vector that a client put into a sum, with updates and weights far beyond what is allowed.
- *freshness*: noise of one round is not that of another.
- *secrecy*: two runs of one config don't draw the same cohorts.
- *charges*: as many rounds as were played, at a rate that is no lower than the one at which clients were drawn.

A check fails only where chance would do so with a probability of `CHANCE` or less.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import binomtest, chi2, norm

from fedtalk.privacy.audit.engine_game import EngineGame, PlayedRound
from fedtalk.privacy.private_rounds import PrivateRounds

CHANCE = 1e-4
"""Probability with which a check fails an engine that keeps its promise."""
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Check:
    """One premise of the accounting."""

    name: str
    holds: bool | None
    """None where the audit was too small to say."""
    detail: str
    """What was measured and what is accounted for."""


@dataclass
class EngineRecord:
    """What was seen of the engine in one run."""

    played: int = 0
    """Rounds."""
    names: Sequence[str] = ()
    cohorts: list[list[str]] = field(default_factory=list)
    longest: float = 0.0
    """Largest norm of a client's vector."""
    squares: float = 0.0
    """Sum of the squares of the noise that counts."""
    numbers: int = 0
    """Noise was measured on."""
    repeats: float = 0.0
    """Largest correlation of one round's noise with the last one's, in standard errors."""
    last: np.ndarray | None = None
    norm_bound: float = 0.0
    """What the noise is scaled to."""
    charged: list[tuple[float, float, int]] = field(default_factory=list)
    """(z, q, rounds)."""
    refused: str | None = None

    def note(self, game: EngineGame, played: PlayedRound) -> None:
        """Take down a round."""
        sealed = game.sealed
        assert isinstance(sealed, PrivateRounds) and sealed.ledger is not None
        self.names, self.refused, self.norm_bound = sealed.task.clients, game.refused, sealed.mechanism.norm_bound
        self.played += 1
        self.cohorts.append(played.cohort)
        self.charged = list(sealed.ledger.history)
        norms = [float(np.linalg.norm(vector)) for vector in played.contributions.values()]
        self.longest = max([self.longest, *norms])
        if played.total is None or played.before_server is None:
            return
        put_in = np.sum(list(played.contributions.values()), axis=0)
        noise, share = played.total - put_in, 1.0
        if sealed.privacy.distributed:
            noise = played.before_server - put_in
            share = sealed.mechanism.fewest_honest(len(played.cohort)) / len(played.contributions)
        self.squares += share * float(noise @ noise)
        self.numbers += len(noise)
        if self.last is not None:
            correlation = float(noise @ self.last) / math.sqrt(float(noise @ noise) * float(self.last @ self.last))
            self.repeats = max(self.repeats, abs(correlation) * math.sqrt(len(noise)))
        self.last = noise


def check_engine(records: Sequence[EngineRecord], multiplier: float) -> list[Check]:
    """All checks.

    Args:
        records: of runs of one config.
        multiplier: z that the audited run's ledger accounts for.
    """
    return [
        _check_bound(records), _check_noise(records, multiplier), _check_freshness(records), _check_secrecy(records),
        _check_charges(records),
    ]  # fmt: skip


def _check_bound(records: Sequence[EngineRecord]) -> Check:
    longest, bound = max(record.longest for record in records), max(record.norm_bound for record in records)
    refused = next((record.refused for record in records if record.refused), None)
    detail = f"longest vector of a client {longest:.4f}, accounted for {bound:.4f}"
    if refused is not None:
        return Check("bound", False, f"{detail}; the engine stopped: {refused}")
    return Check("bound", longest <= bound * (1 + _ROUNDING) if longest > 0 else None, detail)


def _check_noise(records: Sequence[EngineRecord], multiplier: float) -> Check:
    numbers = sum(record.numbers for record in records)
    if not numbers:
        return Check("noise", None, "no round was opened")
    bound = max(max(record.longest, record.norm_bound) for record in records)
    charged = max([multiplier, *(z for record in records for z, _, _ in record.charged)])
    measured = math.sqrt(sum(record.squares for record in records) / numbers) / bound
    most = measured * math.sqrt(numbers / float(chi2.ppf(CHANCE, numbers)))
    return Check(
        "noise", most >= charged * (1 - _ROUNDING),
        f"measured {measured:.4f} of a client's vector (at most {most:.4f}, from {numbers} numbers), accounted for {charged:.4f}",
    )  # fmt: skip


def _check_freshness(records: Sequence[EngineRecord]) -> Check:
    pairs = sum(max(0, record.numbers > 0 and record.played - 1) for record in records)
    between = [record.last for record in records if record.last is not None]
    largest = max(record.repeats for record in records)
    for one, other in itertools.pairwise(between):
        if len(one) == len(other):
            pairs += 1
            correlation = abs(float(one @ other)) / math.sqrt(float(one @ one) * float(other @ other))
            largest = max(largest, correlation * math.sqrt(len(one)))
    if not pairs:
        return Check("freshness", None, "a single round was opened")
    limit = float(norm.isf(CHANCE / 2 / pairs))
    return Check(
        "freshness", largest <= limit,
        f"noise of {pairs} pairs of rounds correlates by at most {largest:.1f} standard errors, {limit:.1f} allowed",
    )  # fmt: skip


def _check_secrecy(records: Sequence[EngineRecord]) -> Check:
    rates = {q for record in records for _, q, _ in record.charged}
    if rates <= {1.0}:
        return Check("secrecy", True, "no secret is counted on: every client's rounds are charged in full")
    rate = max(q for q in rates if q < 1)
    first, *others = records
    clients = len(first.names)
    alike = rate**2 + (1 - rate) ** 2
    for other in others:
        rounds = min(len(first.cohorts), len(other.cohorts))
        if alike ** (clients * rounds) <= CHANCE and first.cohorts[:rounds] == other.cohorts[:rounds]:
            return Check(
                "secrecy", False, f"two runs of one config drew the same {rounds} cohorts of {clients} clients: whoever knows "
                "the config knows who takes part, and sampling amplifies nothing",
            )  # fmt: skip
    told = bool(others) and alike ** (clients * len(first.cohorts)) <= CHANCE
    return Check("secrecy", True if told else None, f"{len(records)} runs of one config drew different cohorts")


def _check_charges(records: Sequence[EngineRecord]) -> Check:
    drawn, expected, chances, played, charged = 0, 0.0, 0, 0, 0
    for record in records:
        played += record.played
        charged += sum(rounds for _, _, rounds in record.charged)
        sampled = [(q, rounds) for _, q, rounds in record.charged if q < 1]
        if sampled:
            drawn += sum(map(len, record.cohorts))
            chances += len(record.names) * record.played
            expected += len(record.names) * sum(q * rounds for q, rounds in sampled)
        else:
            # Without amplification: nobody may have taken part more often than is charged.
            most = sum(rounds for _, _, rounds in record.charged)
            often = max((sum(name in cohort for cohort in record.cohorts) for name in record.names), default=0)
            if often > most:
                return Check("charges", False, f"a client took part {often} times, {most} are charged")
    if not chances:
        return Check("charges", True, f"nobody took part more often than is charged, in {played} rounds")
    rate = min(1.0, expected / chances)
    chance = float(binomtest(drawn, chances, rate, alternative="greater").pvalue)
    return Check(
        "charges", charged >= played and chance > CHANCE,
        f"{played} rounds played, {charged} charged; clients drawn at {drawn / chances:.3f}, charged at {rate:.3f}",
    )  # fmt: skip
