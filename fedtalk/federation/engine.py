"""Engines: who takes a cohort through a round, from the broadcast to the opened sum."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from fedtalk.federation.client import ClientReport
from fedtalk.privacy.secagg.errors import AbortedRound

if TYPE_CHECKING:
    from fedtalk.federation.trainer import FederatedTrainer

log = logging.getLogger(__name__)


@dataclass
class RoundSum:
    """What an engine brings back from a round."""

    total: np.ndarray | None = None
    """The opened sum, (d + 1,) or (d + 2,) float64; None where the round is void."""
    updates: int = 0
    """Clients that gave one."""
    reports: list[ClientReport] = field(default_factory=list)
    """Without privacy: what clients tell of themselves."""
    failures: dict[str, str] = field(default_factory=dict)
    """Clients whose update was lost, and why."""


class Engine(ABC):
    """Runs the parties of a federation."""

    def start(self, trainer: FederatedTrainer) -> None:
        """Get ready, before the first round; ``trainer.module`` and ``trainer.data`` are set."""
        self.trainer = trainer

    @abstractmethod
    def run_round(self, round_number: int, cohort: Sequence[str], state: Mapping[str, Tensor]) -> RoundSum:
        """Take a cohort through a round.

        Under privacy it calls ``trainer.aggregation.private_rounds.charge()`` before anything can leave the clients.

        Args:
            round_number: of the run.
            cohort: who was drawn.
            state: the global state that is broadcast, on the CPU.
        """

    def stop(self) -> None:  # noqa: B027 - an engine without anything to close is a whole engine
        """Leave nothing behind, also after an error; may be called without `start`."""


class InProcess(Engine):
    """All parties in this process, one client after another."""

    def run_round(self, round_number: int, cohort: Sequence[str], state: Mapping[str, Tensor]) -> RoundSum:
        trainer, clients = self.trainer, self.trainer.clients
        aggregation, private = trainer.aggregation, trainer.aggregation.private_rounds
        result, contributions = RoundSum(), {}
        for client in cohort:
            try:
                update = clients.run(client, round_number, state, trainer.after_local_step)
            except Exception as error:  # whatever a client's data or device does, it costs its own update only
                result.failures[client] = f"{type(error).__name__}: {error}" if private is None else "dropped out"
                log.warning("round %d: client %s failed and is left out: %s", round_number, client, error)
                continue
            contributions[client] = update.contribution
            if private is None:  # else it stays with the client
                result.reports.append(update.report)
        if private is not None:
            private.charge()
        result.updates = len(contributions)
        needed = trainer.minimum_clients if private is None else private.updates_needed(len(cohort))
        if result.updates < needed:
            log.warning(
                "round %d is void: %d of %d updates, %d needed; the adapter stays as it is",
                round_number, result.updates, len(cohort), needed,
            )  # fmt: skip
            return result
        try:
            sealing = aggregation.open_round(round_number, cohort, list(contributions))
            updates = [sealing.seal(client, vector) for client, vector in contributions.items()]
            del contributions
            result.total = sealing.open_sum(updates)
        except AbortedRound as error:
            log.warning("round %d is void: %s; the adapter stays as it is", round_number, error)
        return result
