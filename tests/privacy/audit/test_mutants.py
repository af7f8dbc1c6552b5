"""A broken engine is found out: what the accounting can't bear makes the audit say BROKEN, by the premise that it breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedtalk.data.clip import Clip
from fedtalk.data.source import ClipData, ClipSource
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.federation import Federation
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.privacy.audit.canary_audit import CanaryBound, CanaryPlan, as_made, audit_canaries
from fedtalk.privacy.audit.engine_checks import Check
from fedtalk.privacy.audit.settings import AuditSettings
from fedtalk.privacy.audit.verdict import OFF, RUN, Verdict, judge
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy
from fedtalk.training.module import FederatedModule, Prepared

CLIENTS, RATE, MULTIPLIER = 40, 0.5, 1.0
CLAIMED = 3.0


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


MUTANTS = [
    ("noise / 10", "noise", {}),
    ("noise x 0.9", "noise", {}),
    ("noise x 0.9", "noise", DISTRIBUTED),
    ("shares for all registered", "noise", DISTRIBUTED),
    ("clipping off", "bound", {}),
    ("weight above 1", "bound", {}),
    ("public cohort seed", "secrecy", {}),
    ("charge at half rate", "charges", {}),
    ("charge every other round", "charges", {}),
    ("noise repeated", "freshness", {}),
]


@pytest.mark.parametrize(("mutant", "premise", "settings"), MUTANTS)
def test_a_mutant_is_broken_by_the_premise_that_it_breaks(
    audited: Callable[..., CanaryBound],
    monkeypatch: pytest.MonkeyPatch,
    mutants: dict[str, Callable[[pytest.MonkeyPatch], None]],
    mutant: str,
    premise: str,
    settings: dict,
) -> None:
    mutants[mutant](monkeypatch)
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
