"""What a run promises: the ledger's epsilon, for the audit to be held against."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fedtalk.privacy.accounting import ADJACENCY, gaussian_epsilon, prv_epsilon, rdp_epsilon
from fedtalk.privacy.audit.opened_run import OpenedRun
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.spent import ROSTERS, SITES

AUDIT_DELTA = 1e-5
"""At which a run is audited that has no smaller delta of its own."""


@dataclass(frozen=True)
class Guarantee:
    """An upper bound on what the run's releases tell about one client."""

    epsilon: float
    """Under add/remove of one client; infinite where nothing is promised."""
    delta: float
    """At which ``epsilon`` holds."""
    clip_norm: float | None
    """C; None where updates are not clipped."""
    noise_multiplier: float | None
    """Smallest of the run's rounds; None without noise."""
    note: str
    """Where the number comes from, in a few words."""
    insiders: float = math.inf
    """As ``epsilon``, against those who know who took part; infinite where nothing is promised."""
    insiders_are: str = ROSTERS
    """Who these are."""

    @property
    def private(self) -> bool:
        """Whether anything is promised."""
        return math.isfinite(self.epsilon)


def guarantee_of(run: OpenedRun, delta: float | None = None) -> Guarantee:
    """What the run's ledger has spent: the smaller of its two upper bounds.

    A one-run audit has no power where canaries times delta is not far below 1, so it may look at a smaller delta than the
    run was planned for; the same rounds have an epsilon at every delta, and like is compared with like.

    Args:
        run: the run.
        delta: at which the guarantee is read; by default the run's own, or `AUDIT_DELTA` where that is smaller and the
            rounds have an epsilon there.

    Raises:
        ArtifactError: the config promises another privacy than the checkpoint was made with.
    """
    privacy = run.trainer.privacy
    if privacy is None:
        return Guarantee(math.inf, delta or AUDIT_DELTA, None, None, "updates are neither clipped nor noised")
    rounds = PrivateRounds(privacy, replace(run.federation.aggregation_task(), folder=run.folder / "checkpoints"))
    rounds.load_state_dict(run.checkpoint.get("aggregation") or None)
    if rounds.ledger is None:
        return Guarantee(math.inf, delta or AUDIT_DELTA, rounds.clip_norm, None, "secure aggregation without noise")
    spent, history = rounds.ledger.spent(), rounds.ledger.history
    terms = rounds.ledger.record.terms
    own = min(spent.prv, spent.rdp)
    epsilon, at = own, spent.delta
    for wanted in (delta, min(spent.delta, AUDIT_DELTA)):
        left = (wanted or 0.0) - terms.void_probability * max(terms.planned, spent.rounds)
        if wanted is not None and left > 0:
            epsilon, at = min(prv_epsilon(history, left), rdp_epsilon(history, left)), wanted
            break
    multiplier = min(z for z, _, _ in history)
    return Guarantee(
        epsilon, at, rounds.clip_norm, multiplier,
        f"{own:.3f} at the run's delta {spent.delta:g}; {spent.rounds} rounds, noise multiplier {multiplier:.3g}, "
        f"{ADJACENCY}{'; INSECURE, seeded noise' if rounds.insecure_seeds else ''}",
        gaussian_epsilon(rounds.ledger.charges.drawn_every_time(), at), SITES if spent.central else ROSTERS,
    )  # fmt: skip
