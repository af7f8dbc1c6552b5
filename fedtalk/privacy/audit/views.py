"""What a server gets to see of a client's update: in the clear, masked, summed, noised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fedtalk.privacy.audit.audited_rounds import AuditedRounds, Setup

CLEAR, MASKED, SUM, NOISED = "clear update", "masked update", "sum of updates", "noised sum"
COHORT = 12
"""Clients of the round that is looked at, at least; those beyond the targets send zeros."""


def views_of(
    setup: Setup, registered: int, updates: Mapping[str, np.ndarray], seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Each view of each client's update.

    Args:
        setup: of the run's mechanism.
        registered: clients of the run.
        updates: (d,) clear updates of one cohort, by client.
        seed: of the noise.

    Returns:
        by view, by client, (d,): the clear update, what a server without secure aggregation has; the masked one, read
        from the very bytes that the server gets; the opened sum without noise, the same for each client; and with the
        run's noise, where it has any. Views of a round that is void are left out.
    """
    dimension = len(next(iter(updates.values())))
    size = min(max(COHORT, len(updates)), max(registered, len(updates)))
    silent = {f"filler-{i}": np.zeros(dimension) for i in range(size - len(updates))}
    cohort = {**updates, **silent}
    names = [*cohort, *(f"absent-{i}" for i in range(registered - size))]
    masked = AuditedRounds(setup, names, seed).masked(0, cohort)
    views = {CLEAR: dict(updates), MASKED: {client: masked[client] for client in updates}}
    plain = AuditedRounds(replace(setup, privacy=None), names, seed)
    totals = {SUM: plain.release(0, cohort.items())}
    if setup.noise_multiplier is not None:
        totals[NOISED] = AuditedRounds(setup, names, seed).release(0, cohort.items())
    views |= {view: dict.fromkeys(updates, total) for view, total in totals.items() if total is not None}
    return views
