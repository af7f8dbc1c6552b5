"""What a run promises: the ledger's epsilon, for the audit to be held against."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedtalk.privacy.audit.opened_run import OpenedRun


@dataclass(frozen=True)
class Guarantee:
    """An upper bound on what the run's releases tell about one client."""

    epsilon: float
    """Infinite where nothing is promised."""
    delta: float | None
    clip_norm: float | None
    """C; None where updates are not clipped."""
    note: str
    """Where the number comes from, in a few words."""

    @property
    def private(self) -> bool:
        """Whether anything is promised."""
        return math.isfinite(self.epsilon)


def guarantee_of(run: OpenedRun) -> Guarantee:
    """What the run's ledger has spent."""
    return Guarantee(math.inf, None, None, "neither clipped nor noised")
