"""A broken engine is found out: what the accounting can't bear makes the audit say BROKEN, by the premise that it breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedtalk.data.clip import Clip
from fedtalk.data.source import ClipData, ClipSource
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.federation import Federation
from fedtalk.federation.module import FederatedModule, Prepared
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.privacy import ledger, mechanism, private_rounds
from fedtalk.privacy.aggregators import clipped
from fedtalk.privacy.audit.canary_audit import CanaryBound, CanaryPlan, as_made, audit_canaries
from fedtalk.privacy.audit.engine_checks import Check
from fedtalk.privacy.audit.settings import AuditSettings
from fedtalk.privacy.audit.verdict import OFF, RUN, Verdict, judge
from fedtalk.privacy.mechanism import Mechanism
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy

CLIENTS, RATE, MULTIPLIER = 40, 0.5, 1.0
CLAIMED = 3.0
Mutate = Callable[[pytest.MonkeyPatch], None]


class Numbers(FederatedModule):
    """600 numbers that nobody ever trains."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.zeros(600))

    def exchanged_parameters(self) -> dict[str, nn.Parameter]:
        return {"lora_B.numbers": self.numbers}

    def cache_key(self) -> str:
        return "numbers"

    def prepare_clip(self, clip: Clip) -> Prepared:
        raise AssertionError("an audit's clients have no clips")

    def draw_batch(self, clips: object, size: int, generator: torch.Generator) -> Prepared:
        raise AssertionError("an audit's clients have no clips")

    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        raise AssertionError("an audit's clients have no clips")


class Names(ClipData):
    @property
    def clients(self) -> list[str]:
        return [f"person-{number}" for number in range(CLIENTS)]

    def training_clips(self, client: str) -> list[ClipSource]:
        return []

    def held_out_clips(self, client: str) -> list[ClipSource]:
        return []


@pytest.fixture
def audited(tmp_path: Path) -> Callable[..., CanaryBound]:
    """The canary audit of a run with these settings of privacy."""

    def audit(**settings: object) -> CanaryBound:
        values: dict = {
            "clip_norm": 0.5, "noise_multiplier": MULTIPLIER, "delta": 1e-2, "accountant": "rdp", "where": "central",
            "secure_aggregation": False, "assumptions": Assumptions(0.1, 0.3),
        }  # fmt: skip
        privacy = Privacy(**{**values, **settings})
        trainer = FederatedTrainer(
            rounds=4, privacy=privacy, cohort=PoissonCohort(RATE), validate_every=0, accelerator="cpu", threads=1,
            default_root_dir=str(tmp_path / "run"), cache_dir=str(tmp_path / "cache"),
        )  # fmt: skip
        federation: Federation = trainer.federate(Numbers(), Names())
        asked = AuditSettings(canaries=40, rounds=4)
        promised = as_made(privacy, MULTIPLIER)
        plan = CanaryPlan.of(asked, federation, promised, 4)
        assert (plan.per_run, plan.clients, plan.rounds) == (20, CLIENTS, 4)
        return audit_canaries(federation, promised, plan, asked, 1e-5)

    return audit


DISTRIBUTED = {"where": "distributed", "secure_aggregation": True}


@pytest.mark.parametrize("settings", [{}, DISTRIBUTED], ids=["central", "distributed"])
def test_an_engine_that_keeps_its_promise_passes_every_check(
    audited: Callable[..., CanaryBound], settings: dict
) -> None:
    bound = audited(**settings)
    assert [check.name for check in bound.checks] == ["bound", "noise", "freshness", "secrecy", "charges"]
    assert all(check.holds for check in bound.checks), bound.checks
    assert judge({RUN: bound}, CLAIMED)[0] in (Verdict.CONSISTENT, Verdict.INCONCLUSIVE)


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


MUTANTS: list[tuple[Mutate, str, dict]] = [
    (noise_times(0.1), "noise", {}),
    (noise_times(0.9), "noise", {}),
    (noise_times(0.9), "noise", DISTRIBUTED),
    (shares_for_all_registered, "noise", DISTRIBUTED),
    (clipping_off, "bound", {}),
    (weight_above_one, "bound", {}),
    (public_cohort_seed, "secrecy", {}),
    (charge_at_half_rate, "charges", {}),
    (charge_every_other_round, "charges", {}),
    (noise_from_a_public_seed, "freshness", {}),
]


@pytest.mark.parametrize(
    ("mutate", "premise", "settings"), MUTANTS,
    ids=["noise / 10", "noise x 0.9", "noise x 0.9, distributed", "shares for all registered", "clipping off", "weight above 1",
         "public cohort seed", "charge at half rate", "charge every other round", "noise repeated"],
)  # fmt: skip
def test_a_mutant_is_broken_by_the_premise_that_it_breaks(
    audited: Callable[..., CanaryBound], monkeypatch: pytest.MonkeyPatch, mutate: Mutate, premise: str, settings: dict
) -> None:
    mutate(monkeypatch)
    bound = audited(**settings)
    failed = {check.name for check in bound.checks if check.holds is False}
    assert premise in failed, bound.checks
    assert judge({RUN: bound}, CLAIMED)[0] is Verdict.BROKEN


# The verdict


def _bound(epsilon: float, most: float, *holds: bool | None) -> CanaryBound:
    checks = [Check(f"check {number}", value, "measured") for number, value in enumerate(holds)]
    return CanaryBound(epsilon, most, 100, 2, 1, 1.0, {}, checks)


@pytest.mark.parametrize(
    ("canaries", "claimed", "verdict", "said"),
    [
        ({RUN: _bound(1, 5, True), OFF: _bound(4, 5)}, 3.0, Verdict.CONSISTENT, "Consistent"),
        ({RUN: _bound(1, 2, True), OFF: _bound(4, 5)}, 3.0, Verdict.INCONCLUSIVE, "would prove epsilon >= 2.000, below"),
        ({RUN: _bound(1, 5, True, None), OFF: _bound(4, 5)}, 3.0, Verdict.INCONCLUSIVE, "check 1: measured"),
        ({RUN: _bound(1, 5, True), OFF: _bound(0, 5)}, 3.0, Verdict.INCONCLUSIVE, "the control failed"),
        ({RUN: _bound(4, 5, True), OFF: _bound(4, 5)}, 3.0, Verdict.BROKEN, "epsilon >= 4.000, above"),
        ({RUN: _bound(0, 2, True, False), OFF: _bound(4, 5)}, 3.0, Verdict.BROKEN, "BROKEN, check 1: measured"),
        ({RUN: _bound(4, 5)}, float("inf"), Verdict.NO_PROMISE, "promises nothing"),
        ({}, 3.0, Verdict.INCONCLUSIVE, "no canaries"),
        ({}, float("inf"), Verdict.NO_PROMISE, "promises nothing"),
    ],
)  # fmt: skip
def test_verdicts(canaries: dict, claimed: float, verdict: Verdict, said: str) -> None:
    found, reasons = judge(canaries, claimed)
    assert found is verdict and said in " ".join(reasons)
