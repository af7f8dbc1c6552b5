"""What a server gets to see of a client's update: in the clear, masked, summed, noised."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from fedtalk.callbacks.aggregation import Aggregation
from fedtalk.federation.vector import unflatten
from fedtalk.privacy.audit.mechanism import AggregationMechanism
from fedtalk.privacy.sealing import SealedUpdate

CLEAR, MASKED, SUM, NOISED = "clear update", "masked update", "sum of the cohort", "noised sum"


def views_of(
    aggregation: Aggregation, state: Mapping[str, Tensor], updates: Mapping[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Each view of each client's update.

    Args:
        aggregation: the run's.
        state: names and shapes of what a round exchanges.
        updates: (d,) clear updates of one cohort, by client.

    Returns:
        by view, by client, (d,): the clear update, what a server without secure aggregation has; the masked one, read as
        numbers from the very bytes that the server gets; the opened sum, the same for each client.
    """
    sealing = copy.deepcopy(aggregation).open_round(0, list(updates))
    masked = {
        client: read_masked(sealing.seal(client, aggregation.contribution(unflatten(update, dict(state)), 1.0)))
        for client, update in updates.items()
    }
    dimension = len(next(iter(updates.values())))
    total = AggregationMechanism(aggregation, state).release(0, updates.items())
    views = {
        CLEAR: dict(updates),
        MASKED: {client: vector[:dimension] for client, vector in masked.items()},
    }
    if total is not None:
        views[SUM] = dict.fromkeys(updates, total)
    return views


def read_masked(sealed: SealedUpdate) -> np.ndarray:
    """A sealed update as the numbers it would stand for without its masks, in units of the ring's half: [-1, 1)."""
    return np.frombuffer(sealed.payload, "<u8").view(np.int64).astype(np.float64) / 2.0**63
