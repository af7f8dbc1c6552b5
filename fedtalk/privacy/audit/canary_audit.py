"""The canary audit of a run: its own rounds as configured, and the same without privacy as the control of the attack."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fedtalk.federation.federation import Federation
from fedtalk.privacy.audit.canaries import play_canaries
from fedtalk.privacy.audit.engine_checks import Check, EngineRecord, check_engine
from fedtalk.privacy.audit.engine_game import EngineGame
from fedtalk.privacy.audit.guessing import one_run_bound
from fedtalk.privacy.audit.repeated import repeated_bound
from fedtalk.privacy.audit.settings import AuditSettings
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.settings import Privacy
from fedtalk.training.module import copy_state, load_state

PER_RUN = 16
"""Canaries of one run where nothing depends on the number of clients. Runs are independent, so that more of them only make
more canaries; few a run keep cohorts, and with them the cost of sealing, small."""
OTHERS = 3
"""Other clients in such a run, so that no cohort is a canary alone."""
LOUD = 100.0
"""Norm of a canary's update as it is sent, in units of the clipping bound, which may move."""


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
    checks: list[Check] = field(default_factory=list)
    """Premises of the accounting, where there is noise."""


@dataclass(frozen=True)
class CanaryPlan:
    """Who takes part in a canary run."""

    per_run: int
    """Canaries, in or out."""
    clients: int
    """In all: those that are no canaries send zeros."""
    rounds: int

    @classmethod
    def of(cls, settings: AuditSettings, federation: Federation, privacy: Privacy | None, rounds: int) -> CanaryPlan:
        """For a mechanism without privacy few clients are enough; with it there are as many as in the run.

        Args:
            settings: of the audit.
            federation: of the run.
            privacy: of the mechanism that is played.
            rounds: that the run had.
        """
        rounds, clients = min(settings.rounds, rounds), len(federation.data.clients)
        most = max(1, clients // 2) if privacy else PER_RUN
        per_run = 1 if settings.method == "repeated" else min(most, settings.canaries)
        if privacy is None:
            # Rounds with too few clients are void: where the run asks for many, many are there.
            clients = per_run + (OTHERS if federation.minimum_clients == 1 else clients)
        return cls(per_run, clients, rounds)

    def total_rounds(self, canaries: int) -> int:
        """Rounds of aggregation in all."""
        return self.rounds * -(-canaries // self.per_run)


class _Watched:
    """An `EngineGame` as a game for canaries; what the checks need is written down."""

    def __init__(self, game: EngineGame, record: EngineRecord) -> None:
        self._game, self._record, self.dimension = game, record, game.dimension

    def play_round(self, update_of: Callable[[str], np.ndarray]) -> np.ndarray | None:
        played = self._game.play(update_of)
        sealed = self._game.sealed
        if isinstance(sealed, PrivateRounds) and sealed.ledger is not None:
            self._record.note(self._game, played)
        return None if played.total is None else played.total[: self.dimension]


def audit_canaries(
    federation: Federation,
    privacy: Privacy | None,
    plan: CanaryPlan,
    settings: AuditSettings,
    delta: float,
    on_round: Callable[[], None] | None = None,
) -> CanaryBound:
    """Play the canaries through the engine's own rounds, bound epsilon, and check what the accounting rests on.

    Args:
        federation: of the run.
        privacy: as `as_made` gives it; None for the control.
        plan: of its canary runs.
        settings: number of canaries, method, confidence, seed.
        delta: of the guarantee under test.
        on_round: called after each round.
    """
    records: list[EngineRecord] = []
    module = federation.module
    before = copy_state(module.exchanged_parameters())
    with TemporaryDirectory(prefix="fedtalk-audit-") as temporary, _quietly():

        def begin(run: int, names: Sequence[str]) -> _Watched:
            load_state(module.exchanged_parameters(), before)
            game = EngineGame(federation, privacy, names, plan.rounds, Path(temporary) / str(run))
            records.append(EngineRecord())
            return _Watched(game, records[-1])

        try:
            outcome = play_canaries(
                begin, federation.cohort, canaries=settings.canaries, per_run=plan.per_run, rounds=plan.rounds,
                sent=1.0 if privacy is None else LOUD * privacy.clip_norm, clients=plan.clients, seed=settings.seed,
                on_round=on_round,
            )  # fmt: skip
        finally:
            load_state(module.exchanged_parameters(), before)
    detail: dict[str, Any]
    if settings.method == "one_run":
        bound = one_run_bound(outcome.included, outcome.scores, delta, settings.confidence)
        epsilon, most = bound.epsilon, bound.most
        detail = {"guesses": bound.guesses, "correct": bound.correct}
    else:
        repeated = repeated_bound(outcome.included, outcome.scores, delta, settings.confidence)
        epsilon, most = repeated.epsilon, repeated.most
        detail = {**asdict(repeated.rates), "epsilon_if_gaussian": repeated.epsilon_gaussian}
    checks = []
    if privacy is not None and privacy.noised:
        assert privacy.noise_multiplier is not None
        checks = check_engine(records, privacy.noise_multiplier)
    return CanaryBound(epsilon, most, len(outcome.scores), outcome.runs, plan.rounds, outcome.deviation, detail, checks)


def as_made(privacy: Privacy | None, noise_multiplier: float | None) -> Privacy | None:
    """A run's privacy with the noise that it was made with, not solved for anew, and no budget to stop at."""
    if privacy is None or not privacy.noised:
        return privacy
    return replace(privacy, target_epsilon=None, epsilon_budget=None, noise_multiplier=noise_multiplier)


def without_privacy(federation: Federation) -> Federation:
    """Plain averaging, sealed but neither clipped nor noised: against it the canaries must be found."""
    return replace(federation, minimum_clients=1)


@contextmanager
def _quietly() -> Iterator[None]:
    """Hundreds of rounds don't tell what each has spent, nor of void ones."""
    log = logging.getLogger("fedtalk")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
