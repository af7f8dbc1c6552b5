"""The canary audit of a run: its aggregation as configured, and the same without privacy as the control of the attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedtalk.callbacks.aggregation import Aggregation
from fedtalk.federation.cohort import CohortSampler
from fedtalk.privacy.audit.canaries import play_canaries
from fedtalk.privacy.audit.guessing import one_run_bound
from fedtalk.privacy.audit.mechanism import AggregationMechanism
from fedtalk.privacy.audit.repeated import repeated_bound
from fedtalk.privacy.audit.settings import AuditSettings

PER_RUN = 16
"""Canaries of one run in the one-run audit. Runs are independent, so that more of them only make more canaries; few a run
keep cohorts, and with them the cost of sealing, small."""


@dataclass(frozen=True)
class CanaryBound:
    """What one canary audit proves."""

    epsilon: float
    """Lower bound, at the audit's delta and confidence."""
    most: float
    """The largest bound that so many canaries could have shown."""
    canaries: int
    runs: int
    rounds: int
    noise: float
    """Standard deviation of the noise along a canary's update, in units of the update's norm."""
    detail: dict[str, Any]
    """Guesses and hits by the method."""


def audit_canaries(
    begin: Callable[[], AggregationMechanism],
    sampler: CohortSampler,
    settings: AuditSettings,
    *,
    rounds: int,
    norm: float,
    fillers: int,
    delta: float,
    on_round: Callable[[], None] | None = None,
) -> CanaryBound:
    """Play the canaries and bound epsilon.

    Args:
        begin: begins a fresh run of the mechanism.
        sampler: of cohorts, as the run has it.
        settings: number of canaries, method, confidence, seed.
        rounds: of a run.
        norm: of a canary's update: the run's clipping bound, anything above 0 without one.
        fillers: other clients, who send zeros.
        delta: of the guarantee under test.
        on_round: called after each round.
    """
    outcome = play_canaries(
        begin, sampler, canaries=settings.canaries, per_run=per_run(settings), rounds=rounds, norm=norm,
        fillers=fillers, seed=settings.seed, on_round=on_round,
    )  # fmt: skip
    common = {
        "canaries": len(outcome.scores), "runs": outcome.runs, "rounds": rounds, "noise": outcome.deviation,
    }  # fmt: skip
    if settings.method == "one_run":
        bound = one_run_bound(outcome.included, outcome.scores, delta, settings.confidence)
        detail = {"guesses": bound.guesses, "correct": bound.correct}
        return CanaryBound(bound.epsilon, bound.most, detail=detail, **common)
    repeated = repeated_bound(outcome.included, outcome.scores, delta, settings.confidence)
    rates = repeated.rates
    detail = {
        "true_positives": rates.true_positives, "positives": rates.positives,
        "false_positives": rates.false_positives, "negatives": rates.negatives,
        "epsilon_if_gaussian": repeated.epsilon_gaussian,
    }  # fmt: skip
    return CanaryBound(repeated.epsilon, repeated.most, detail=detail, **common)


def per_run(settings: AuditSettings) -> int:
    """Canaries of one run."""
    return 1 if settings.method == "repeated" else min(PER_RUN, settings.canaries)


def total_rounds(settings: AuditSettings, rounds: int) -> int:
    """Rounds of aggregation that the audit plays in all."""
    return rounds * -(-settings.canaries // per_run(settings)) if settings.canaries else 0


def without_privacy() -> Aggregation:
    """Plain averaging, sealed but neither clipped nor noised: against it the canaries must be found."""
    return Aggregation(gamma=0.0)
