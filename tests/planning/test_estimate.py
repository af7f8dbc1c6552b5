"""Estimates: the formula by hand, counts by the run itself, and no trace of the measurement."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.federation.cohort import CohortSampler, FixedCohort, PoissonCohort
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.planning import trials
from fedtalk.planning.estimate import Beside, Costs, Estimate, Workload, workload_of
from fedtalk.privacy.sealing import PairwiseSealing
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy
from fedtalk.training.local import LocalTraining

COSTS = Costs(
    parameters=1000, exchanged=100, bytes_down=400, bytes_up=808, step_s=0.5, client_s=0.25, prepare_s=2.0, held_out_s=0.1,
    seal_s=0.01, pair_s=0.001, memory_bytes=10**9,
)  # fmt: skip
PLAN = Workload(
    rounds=7, steps=20, cohort=12.0, drawn=30.0, validations=3, validated=32, personal=40, personal_steps=10
)


def test_the_formula() -> None:
    """docs/deploy.md, written out: R K (s t + c) / M + R K (a + b (K - 2)) + D p / M + V v h + P s' t / M."""
    training, sealing = 7 * 12 * (20 * 0.5 + 0.25), 7 * 12 * (0.01 + 10 * 0.001)
    validating, personal = 3 * 32 * 0.1, 40 * 10 * 0.5
    found = Estimate(COSTS, PLAN)
    assert found.seconds() == pytest.approx(training + sealing + 30 * 2 + validating + personal)
    assert found.seconds(workers=4) == pytest.approx((training + 30 * 2 + personal) / 4 + sealing + validating)
    # There are twelve clients of a round to share out, and forty after the last one.
    assert found.seconds(workers=40) == found.seconds(workers=100) < found.seconds(workers=12)
    assert found.bytes_per_round == 12 * (400 + 808)
    assert found.memory_bytes == 10**9 + 12 * (8 * 101 + 808)


@pytest.fixture(autouse=True)
def _only_the_configs_placements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_alternatives", lambda *_: [])


def plan_of(trainer: FederatedTrainer, clients: int) -> Workload:
    """What the settings come to for other numbers of clients."""
    federation = trainer.federate(None, None)  # type: ignore[arg-type]  # neither is looked at
    return workload_of(federation, Beside(validate_every=trainer.validate_every, validate_clients=32), clients)


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., FederatedTrainer]:
    def make(cohort: CohortSampler, **settings: object) -> FederatedTrainer:
        return FederatedTrainer(
            cohort=cohort, local=LocalTraining(steps=3, batch_size=2), aggregation=ISFA(gamma=1.0), accelerator="cpu",
            default_root_dir=str(tmp_path / "run"), cache_dir=str(tmp_path / "cache"), **{"rounds": 4, **settings},
        )  # type: ignore[arg-type]  # fmt: skip

    return make


def test_what_is_planned_is_what_the_run_does(run, people, trainer) -> None:
    done = run(people, rounds=4, cohort=PoissonCohort(0.6))
    cohorts = [outcome.cohort for outcome in done.recorder.outcomes]
    plan = plan_of(trainer(PoissonCohort(0.6), validate_every=3), len(people))
    assert plan.cohort == sum(map(len, cohorts)) / 4
    assert plan.drawn == len({client for cohort in cohorts for client in cohort})
    assert (plan.validations, plan.validated) == (2, 4)  # after rounds 3 and 4
    assert plan_of(trainer(PoissonCohort(0.6), validate_every=0), 4).validations == 0


def test_more_clients_follow_the_samplers_law(trainer) -> None:
    assert plan_of(trainer(FixedCohort(5), rounds=3), 10_000).cohort == 5
    long = plan_of(trainer(PoissonCohort(0.01), rounds=1000), 1000)
    assert long.cohort == pytest.approx(10, rel=0.1)
    assert long.drawn == pytest.approx(1000 * (1 - 0.99**1000), rel=0.001)


def test_a_dry_run_leaves_no_trace_and_counts_real_bytes(
    trainer, people, colours, colour_data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, planned = colours(), trainer(PoissonCohort(1.0))
    planned.fit(module, colour_data(people), dry_run=True)
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert not (tmp_path / "run").exists()
    assert all(torch.equal(value, torch.zeros_like(value)) for value in module.exchanged_parameters().values())
    costs = summary["costs"]
    sealing = PairwiseSealing(0, ["anna", "bert"])
    assert costs["bytes_up"] == len(sealing.seal("anna", np.zeros(9 + 1)).payload)
    assert (costs["exchanged"], costs["parameters"], costs["bytes_down"]) == (9, 12, 36)
    assert all(costs[name] > 0 for name in ("step_s", "client_s", "prepare_s", "held_out_s", "seal_s", "memory_bytes"))
    assert summary["plan"]["cohort"] == 4 and summary["seconds"] > 4 * 4 * 3 * costs["step_s"]


@pytest.mark.slow
def test_a_dry_run_for_workers_measures_in_one(
    local_ray: None, parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = {name: parts.Person((0.2, 0.5, -0.3)) for name in ("anna", "bert")}
    parts.trainer(tmp_path, [ISFA(gamma=1.0)], workers=2).fit(parts.Pull(), parts.People(people), dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    summary = json.loads(lines[-1])
    found = Estimate(Costs(**summary["costs"]), Workload(**summary["plan"]))
    assert summary["workers"] == 2 and summary["seconds"] == pytest.approx(found.seconds(2)) != found.seconds(1)
    assert any(line.startswith("whole run") and line.endswith("2 workers, measured in one") for line in lines)


def test_a_private_plan_is_sealed_by_its_own_protocol(
    run, people, colours, colour_data, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the least cohort is the expected one: a round that was sealed once can't be sealed again."""
    privacy = Privacy(clip_norm=1.0, assumptions=Assumptions(0.0, 0.3), noise_multiplier=1.0, delta=1e-2)
    crowd = {f"{name}{copy}": person for name, person in people.items() for copy in range(3)}
    trainer = run(crowd, ISFA(), privacy=privacy, rounds=0, minimum_clients=3).trainer
    assert trainer.fit_rounds.sealed.ledger.planned().prv == 0  # no rounds, nothing spent
    trainer.rounds = 5
    found = trainer.estimate(colours(), colour_data(crowd))
    ring = trainer.fit_rounds.sealed.settings.bits
    assert found.costs.bytes_up > ring * (found.costs.exchanged + 1) / 8
    assert found.costs.seal_s >= 0
    trainer.fit(colours(), colour_data(crowd), dry_run=True)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("privacy  ")]
    adapters, server = (float(re.search(r"epsilon ([0-9.]+)", line).group(1)) for line in told)
    assert 1 < adapters <= server, "whoever sees the adapters; server and sites"
