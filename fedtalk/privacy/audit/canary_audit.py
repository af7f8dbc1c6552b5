"""The canary audit of a run: its aggregation as configured, and the same without privacy as the control of the attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedtalk.privacy.audit.canaries import play_canaries, registered
from fedtalk.privacy.audit.guessing import one_run_bound
from fedtalk.privacy.audit.mechanism import AggregationMechanism, Setup
from fedtalk.privacy.audit.repeated import repeated_bound
from fedtalk.privacy.audit.settings import AuditSettings

PER_RUN = 16
"""Canaries of one run where nothing depends on the number of clients. Runs are independent, so that more of them only make
more canaries; few a run keep cohorts, and with them the cost of sealing, small."""
FILLERS = 3
"""Other clients in such a run, so that no cohort is a canary alone."""
_LOUD = 100.0


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


@dataclass(frozen=True)
class CanaryPlan:
    """Who takes part in a canary run."""

    per_run: int
    """Canaries, in or out."""
    fillers: int
    """Other clients, who send zeros."""
    norm: float
    """What a canary's update weighs: the run's (first) clipping bound, 1 without one."""
    sent: float
    """Norm of its update as it is sent: far above the bound where there is one, for the bound may move."""
    rounds: int

    @classmethod
    def of(cls, settings: AuditSettings, setup: Setup, clients: int, rounds: int) -> CanaryPlan:
        """For a mechanism without privacy few clients are enough; with it, as many as the run has are registered.

        Args:
            settings: of the audit.
            setup: of the mechanism.
            clients: of the run.
            rounds: that the run had.
        """
        rounds, privacy = min(settings.rounds, rounds), setup.privacy
        most = max(1, clients // 2) if privacy else PER_RUN
        per_run = 1 if settings.method == "repeated" else min(most, settings.canaries)
        if privacy is None:
            # Rounds with too few clients are void: where the run asks for many, many are there.
            return cls(per_run, FILLERS if setup.minimum_clients == 1 else clients, 1.0, 1.0, rounds)
        return cls(per_run, max(0, clients - per_run), privacy.clip_norm, _LOUD * privacy.clip_norm, rounds)

    def total_rounds(self, canaries: int) -> int:
        """Rounds of aggregation in all."""
        return self.rounds * -(-canaries // self.per_run)


def audit_canaries(
    setup: Setup,
    plan: CanaryPlan,
    settings: AuditSettings,
    delta: float,
    on_round: Callable[[], None] | None = None,
) -> CanaryBound:
    """Play the canaries and bound epsilon.

    Args:
        setup: of the mechanism.
        plan: of its canary runs.
        settings: number of canaries, method, confidence, seed.
        delta: of the guarantee under test.
        on_round: called after each round.
    """
    names = registered(plan.per_run, plan.fillers)
    setup = replace(setup, rounds=plan.rounds)
    outcome = play_canaries(
        lambda seed: AggregationMechanism(setup, names, seed), setup.sampler, canaries=settings.canaries,
        per_run=plan.per_run, rounds=plan.rounds, norm=plan.norm, sent=plan.sent, fillers=plan.fillers, seed=settings.seed,
        on_round=on_round,
    )  # fmt: skip
    detail: dict[str, Any]
    if settings.method == "one_run":
        bound = one_run_bound(outcome.included, outcome.scores, delta, settings.confidence)
        epsilon, most = bound.epsilon, bound.most
        detail = {"guesses": bound.guesses, "correct": bound.correct}
    else:
        repeated = repeated_bound(outcome.included, outcome.scores, delta, settings.confidence)
        epsilon, most = repeated.epsilon, repeated.most
        detail = {**asdict(repeated.rates), "epsilon_if_gaussian": repeated.epsilon_gaussian}
    return CanaryBound(epsilon, most, len(outcome.scores), outcome.runs, plan.rounds, outcome.deviation, detail)


def without_privacy(setup: Setup) -> Setup:
    """Plain averaging, sealed but neither clipped nor noised: against it the canaries must be found."""
    return replace(setup, privacy=None, noise_multiplier=None, minimum_clients=1)
