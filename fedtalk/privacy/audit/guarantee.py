"""What a run promises: the ledger's epsilon, for the audit to be held against."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedtalk.privacy.accounting import ADJACENCY
from fedtalk.privacy.audit.opened_run import OpenedRun
from fedtalk.privacy.private_rounds import Plan, PrivateRounds


@dataclass(frozen=True)
class Guarantee:
    """An upper bound on what the run's releases tell about one client."""

    epsilon: float
    """Under add/remove of one client; infinite where nothing is promised."""
    delta: float | None
    clip_norm: float | None
    """C; None where updates are not clipped."""
    noise_multiplier: float | None
    """Smallest of the run's rounds; None without noise."""
    note: str
    """Where the number comes from, in a few words."""

    @property
    def private(self) -> bool:
        """Whether anything is promised."""
        return math.isfinite(self.epsilon)


def guarantee_of(run: OpenedRun) -> Guarantee:
    """What the run's ledger has spent: the smaller of its two upper bounds.

    Raises:
        ArtifactError: the config promises another privacy than the checkpoint was made with.
    """
    trainer, privacy = run.trainer, run.trainer.aggregation.privacy
    if privacy is None:
        return Guarantee(math.inf, None, None, None, "updates are neither clipped nor noised")
    plan = Plan(
        sum(value.numel() for value in run.initial.values()), list(run.initial), run.data.clients,
        trainer.cohort_sampler, trainer.rounds, trainer.minimum_clients, trainer.seed, run.folder / "checkpoints",
    )  # fmt: skip
    rounds = PrivateRounds(privacy, plan)
    rounds.load_state_dict(run.checkpoint.get("aggregation") or None)
    if rounds.ledger is None:
        return Guarantee(math.inf, None, rounds.clip_norm, None, "secure aggregation without noise")
    spent, multipliers = rounds.ledger.spent(), [z for z, _, _ in rounds.ledger.history]
    seeded = "; INSECURE, seeded noise" if rounds.insecure_seeds else ""
    return Guarantee(
        min(spent.prv, spent.rdp), spent.delta, rounds.clip_norm, min(multipliers),
        f"{spent.rounds} rounds, noise multiplier {min(multipliers):.3g}; {ADJACENCY}{seeded}",
    )  # fmt: skip
