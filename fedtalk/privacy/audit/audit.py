"""The whole audit of a run: three attacks, their controls, one verdict."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

from fedtalk.data.source import ClipData
from fedtalk.errors import FedTalkError
from fedtalk.privacy.audit.audited_rounds import Setup
from fedtalk.privacy.audit.canary_audit import CanaryBound, CanaryPlan, as_made, audit_canaries, without_privacy
from fedtalk.privacy.audit.guarantee import guarantee_of
from fedtalk.privacy.audit.membership import MembershipResult, audit_membership
from fedtalk.privacy.audit.opened_run import OpenedRun, non_members, open_run
from fedtalk.privacy.audit.plot import plot_audit
from fedtalk.privacy.audit.progress import stage
from fedtalk.privacy.audit.reconstruction import Reconstruction, audit_updates, steps_of
from fedtalk.privacy.audit.report import print_audit
from fedtalk.privacy.audit.result import Audit
from fedtalk.privacy.audit.settings import AuditSettings
from fedtalk.privacy.audit.verdict import OFF, RUN, Verdict
from fedtalk.randomness import numpy_generator
from fedtalk.storage import write_json

log = logging.getLogger("fedtalk")


class BrokenGuarantee(FedTalkError):
    """The engine doesn't do what its ledger accounts for, or an attack proved more than that allows."""


def audit_run(
    folder: Path, settings: AuditSettings, non_member_folder: str | None, threads: int | None, json_line: bool = False
) -> Audit:
    """Audit a finished run; prints tables and writes ``audit/audit.json`` and ``audit/audit.png`` into its folder.

    Args:
        folder: of the run.
        settings: size and confidence.
        non_member_folder: people who took no part, where the data are not SynthTalk.
        threads: CPU threads; the config's by default.
        json_line: print what audit.json holds as one line in place of tables.

    Raises:
        ArtifactError: the folder is not that of a finished run with adapters.
        ConfigurationError: non-members are needed and not given, or too few for the settings.
        BrokenGuarantee: a premise of the accounting doesn't hold in the engine's rounds, or the canary bound exceeds the
            ledger's epsilon; the files are written before.
    """
    started = time.monotonic()
    run = open_run(folder, threads)
    others = non_members(run, settings.clients, non_member_folder)
    guarantee = guarantee_of(run, settings.delta)
    delta = guarantee.delta
    trainer = run.trainer
    setup = Setup(
        trainer.privacy, run.initial, trainer.cohort_sampler, run.rounds, trainer.minimum_clients,
        guarantee.noise_multiplier,
    )  # fmt: skip
    canaries = _canaries(run, setup, settings, delta)
    membership = _membership(run, others, settings, delta)
    reconstruction = _reconstruction(run, setup, others, settings)
    audit = Audit(folder, settings, guarantee, delta, membership, canaries, reconstruction, time.monotonic() - started)
    write_json(folder / "audit" / "audit.json", as_json(audit))
    plot_audit(audit, folder / "audit" / "audit.png")
    if json_line:
        print(json.dumps(as_json(audit)))
    else:
        print_audit(audit)
    verdict, reasons = audit.judged
    if verdict is Verdict.BROKEN:
        raise BrokenGuarantee(
            f"{folder}: the run does not keep its guarantee (confidence {settings.confidence:g}, delta {delta:g}). "
            + " ".join(reasons)
        )
    return audit


def _canaries(run: OpenedRun, setup: Setup, settings: AuditSettings, delta: float) -> dict[str, CanaryBound]:
    if not settings.canaries:
        return {}
    privacy = as_made(setup.privacy, setup.noise_multiplier)
    played = {RUN: (run.federation, privacy)}
    if privacy is not None:
        played[OFF] = (without_privacy(run.federation), None)
    bounds = {}
    for name, (federation, promised) in played.items():
        plan = CanaryPlan.of(settings, federation, promised, run.rounds)
        with stage(f"canary rounds, {name}", plan.total_rounds(settings.canaries)) as advance:
            bounds[name] = audit_canaries(federation, promised, plan, settings, delta, advance)
    return bounds


def _membership(run: OpenedRun, others: ClipData, settings: AuditSettings, delta: float) -> MembershipResult:
    everybody = run.data.clients
    chosen = numpy_generator(settings.seed, "members").permutation(len(everybody))[: settings.clients]
    members = [everybody[index] for index in sorted(chosen)]
    with stage("membership, people", len(members) + len(others.clients)) as advance:
        return audit_membership(
            run, members, others, seed=settings.seed, delta=delta, confidence=settings.confidence, on_person=advance
        )


def _reconstruction(run: OpenedRun, setup: Setup, others: ClipData, settings: AuditSettings) -> Reconstruction | None:
    if not settings.targets:
        return None
    targets = min(settings.targets, len(run.data.clients))
    decoys = min(settings.decoys, len(others.clients))
    with stage("single updates, people and updates", steps_of(targets, decoys)) as advance:
        return audit_updates(run, setup, others, targets=targets, decoys=decoys, seed=settings.seed, on_step=advance)


def as_json(audit: Audit) -> dict[str, Any]:
    """What audit.json holds; an infinite epsilon is null."""
    reconstruction = audit.reconstruction
    return {
        "run": str(audit.run),
        "settings": dataclasses.asdict(audit.settings),
        "delta": audit.delta,
        "ledger": {
            **dataclasses.asdict(audit.guarantee),
            **{
                name: None if math.isinf(value) else value
                for name, value in (("epsilon", audit.guarantee.epsilon), ("insiders", audit.guarantee.insiders))
            },
        },
        "epsilon_lower_bound": audit.bound,
        "verdict": audit.judged[0].value,
        "reasons": audit.judged[1],
        "membership": dataclasses.asdict(audit.membership),
        "canaries": {name: dataclasses.asdict(bound) for name, bound in audit.canaries.items()},
        "reconstruction": None
        if reconstruction is None
        else {
            attack: {view: {**dataclasses.asdict(ranks), "chance": ranks.chance} for view, ranks in found.items()}
            for attack, found in (("identity", reconstruction.identity), ("appearance", reconstruction.appearance))
        },
        "seconds": round(audit.seconds, 1),
    }
