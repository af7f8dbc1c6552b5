"""The mechanism under audit: a run's own aggregation, from clients' clear updates to the sum that the server opens."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor

from fedtalk.callbacks.aggregation import Aggregation
from fedtalk.federation.server import Server, ServerOptimizer
from fedtalk.federation.vector import unflatten


class _Released(Server):
    """A server that keeps the opened sum, which is what the guarantee is about; dividing and stepping come after it."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__(state, ServerOptimizer())
        self.total: np.ndarray | None = None

    def step(self, total: np.ndarray) -> float:
        self.total = total
        return 0.0


class AggregationMechanism:
    """One run's rounds of aggregation, each step the run's own: contribution, sealing, opening.

    It is audited where the server sees it: the opened sum. Whatever is computed from the sums (means, adapters) tells
    no more.
    """

    def __init__(self, aggregation: Aggregation, state: Mapping[str, Tensor]) -> None:
        """
        Args:
            aggregation: as the run's config has it; copied, since some keep count of their rounds.
            state: names and shapes of what a round exchanges.
        """
        self._aggregation = copy.deepcopy(aggregation)
        self._state = dict(state)
        self.dimension = sum(value.numel() for value in state.values())

    def release(self, round_number: int, updates: Iterable[tuple[str, np.ndarray]]) -> np.ndarray | None:
        """What the server learns from one round.

        Args:
            round_number: above that of every earlier round.
            updates: by client, a clear update (dimension,), each with the full weight of 1.

        Returns:
            (dimension,) float64: the opened sum of weighted updates; None where nobody took part.
        """
        contributions = {
            client: self._aggregation.contribution(unflatten(update, self._state), 1.0) for client, update in updates
        }
        if not contributions:
            return None
        sealing = self._aggregation.open_round(round_number, list(contributions))
        sealed = [sealing.seal(client, vector) for client, vector in contributions.items()]
        server = _Released(self._state)
        self._aggregation.aggregate(server, sealing, sealed)
        return None if server.total is None else server.total[: self.dimension]
