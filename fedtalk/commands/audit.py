"""`fedtalk audit RUN`: attacks on a finished run: what they prove about its privacy."""

from __future__ import annotations

from pathlib import Path

from fedtalk.privacy.audit.audit import audit_run
from fedtalk.privacy.audit.settings import AuditSettings, Method


def audit(
    run: str,
    clients: int = AuditSettings.clients,
    canaries: int = AuditSettings.canaries,
    rounds: int = AuditSettings.rounds,
    method: Method = AuditSettings.method,
    targets: int = AuditSettings.targets,
    decoys: int = AuditSettings.decoys,
    confidence: float = AuditSettings.confidence,
    delta: float | None = AuditSettings.delta,
    non_members: str | None = None,
    seed: int = AuditSettings.seed,
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Attack a finished run, measure what its engine does, and hold both against what its ledger claims.

    Three attacks: membership of clients in the released adapter; canary clients through the engine's own rounds, for a
    lower bound on epsilon with its confidence; and what a single update gives away in the clear, masked, summed and
    noised. While the canaries play, noise, clipping, cohorts and charges are measured. Prints tables; writes audit/audit.json
    and audit/audit.png into the run's folder. Ends with an error if the engine doesn't do what the ledger accounts for or the
    bound exceeds the ledger's epsilon; says "inconclusive" where the canaries could not have found that.

    Args:
        run: folder of a finished `fedtalk fit`.
        clients: people who took no part, drawn for the membership attack (SynthTalk), and most clients it is tried on.
        canaries: canary clients in all; more find more, at proportional cost; 0 leaves them out.
        rounds: most rounds of a canary run.
        method: one_run (many canaries a run, Steinke et al. 2023) or repeated (one canary a run, a threshold test).
        targets: clients whose single updates are attacked; 0 leaves that out.
        decoys: people among whom the right client must be found.
        confidence: of each lower bound.
        delta: at which epsilon is bounded and the ledger is read; by default 1e-5, or the run's own if that is smaller.
        non_members: clients folder of people who took no part; needed where the run's data are not SynthTalk.
        seed: of coins, cohorts, noise levels and windows.
        threads: CPU threads; the config's by default.
        json: print one JSON line in place of the tables.
    """
    settings = AuditSettings(
        clients=clients, canaries=canaries, rounds=rounds, method=method, targets=targets, decoys=decoys,
        confidence=confidence, delta=delta, seed=seed,
    )  # fmt: skip
    audit_run(Path(run), settings, non_members, threads, json)
