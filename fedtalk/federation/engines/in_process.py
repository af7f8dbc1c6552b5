"""Engines: who takes a cohort through a round, from the broadcast to the opened sum."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from fedtalk.callbacks.baselines import Robust
from fedtalk.federation.client import ClientHalf
from fedtalk.federation.federation import Federation
from fedtalk.federation.local_work import ClientReport, ClientUpdate, Failure, LocalResult, LocalWork, OnStep, weigh
from fedtalk.privacy.sealed_rounds import SealedRounds
from fedtalk.privacy.secagg.errors import AbortedRound

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

    sealed: SealedRounds
    """What seals the rounds, with all secrets; it stays in this process."""

    isolates = False
    """Whether each client's work is in a process that can be ended without another one's."""

    @property
    def at_once(self) -> int:
        """Clients that train at the same time, at most."""
        return 1

    def start(self, federation: Federation, check_stop: Callable[[], None]) -> None:
        """Get ready, before the first round.

        Args:
            federation: what is learned, from whom and how.
            check_stop: called often; raises where the run was asked to stop.
        """
        self.federation, self.check_stop = federation, check_stop

    @abstractmethod
    def run_round(
        self, round_number: int, cohort: Sequence[str], state: Mapping[str, Tensor], on_step: OnStep
    ) -> RoundSum:
        """Take a cohort through a round.

        It calls ``sealed.charge()`` before anything can leave the clients.

        Args:
            round_number: of the run.
            cohort: who was drawn.
            state: the global state that is broadcast, on the CPU.
            on_step: after each local step that is seen from here.
        """

    def stop(self) -> None:  # noqa: B027 - an engine without anything to close is a whole engine
        """Leave nothing behind, also after an error; may be called without `start`."""


class InProcess(Engine):
    """All parties in this process, one client after another."""

    def start(self, federation: Federation, check_stop: Callable[[], None]) -> None:
        super().start(federation, check_stop)
        self.clients = ClientHalf(federation)

    def run_round(
        self, round_number: int, cohort: Sequence[str], state: Mapping[str, Tensor], on_step: OnStep
    ) -> RoundSum:
        federation, sealed = self.federation, self.sealed
        result = RoundSum()
        updates: dict[str, ClientUpdate] = {}
        failures: dict[str, Failure] = {}
        enough = federation.updates_enough(len(cohort))
        started = federation.start_order(round_number, cohort)
        with closing(self.updates(round_number, started, state, on_step)) as arriving:
            for client, update in arriving:
                if isinstance(update, Failure):
                    failures[client] = update
                    log.warning("round %d: client %s failed and is left out: %s", round_number, client, update)
                else:
                    updates[client] = update
                if len(updates) == enough:
                    break
        for client in cohort:
            if client not in updates and client not in failures:
                failures[client] = Failure("Late", f"the round was closed with {enough} of {len(cohort)} updates")
        # In the cohort's order, whoever came first.
        contributions = {client: updates[client].contribution for client in cohort if client in updates}
        if not sealed.private:  # else they stay with the clients
            result.reports = [updates[client].report for client in contributions]
        del updates
        sealed.charge()
        contributions = {client: contributions[client] for client in sealed.consenting(contributions)}
        for client in cohort:
            if client not in contributions:
                result.failures[client] = "dropped out" if sealed.private else str(failures[client])
        result.updates = len(contributions)
        try:
            result.total = self._sum(round_number, cohort, contributions)
        except AbortedRound as error:
            log.warning("round %d is void: %s; the adapter stays as it is", round_number, error)
        return result

    def _sum(self, round_number: int, cohort: Sequence[str], contributions: dict[str, np.ndarray]) -> np.ndarray:
        """The opened sum; ``contributions`` are let go of as they are sealed.

        Raises:
            AbortedRound: too few.
        """
        needed = self.sealed.updates_needed(len(cohort))
        if len(contributions) < needed:
            raise AbortedRound(f"{len(contributions)} of {len(cohort)} updates, {needed} needed")
        if isinstance(self.federation.aggregation, Robust):  # refused with privacy
            updates_KD = np.stack([vector[:-1] for vector in contributions.values()])
            return np.append(self.federation.aggregation.combined(updates_KD), 1.0)
        survivors = list(contributions)
        sealing = self.sealed.open_round(round_number, cohort, survivors)
        return sealing.open_sum([sealing.seal(client, contributions.pop(client)) for client in survivors])

    def updates(
        self, round_number: int, cohort: Sequence[str], state: Mapping[str, Tensor], on_step: OnStep
    ) -> Generator[tuple[str, ClientUpdate | Failure], None, None]:
        """What each client of the cohort comes to, in any order; closed early, the others' work is given up."""
        federation = self.federation
        aggregation = federation.aggregation
        work = LocalWork(
            round_number, federation.rounds, federation.local, aggregation.measures, controls=aggregation.controls
        )
        with closing(self.local_results(work, cohort, state, on_step)) as arriving:
            for client, result in arriving:
                yield client, result if isinstance(result, Failure) else self._weighed(result, state, round_number)

    def _weighed(self, result: LocalResult, start: Mapping[str, Tensor], round_number: int) -> ClientUpdate | Failure:
        try:
            return weigh(result, start, round_number, self.federation, self.sealed)
        except Exception as error:  # as what a client's data or device does, it costs its own update only
            return Failure.of(error)

    def local_results(
        self, work: LocalWork, clients: Sequence[str], state: Mapping[str, Tensor], on_step: OnStep
    ) -> Generator[tuple[str, LocalResult | Failure], None, None]:
        """What clients' local work comes to, in any order; closed early, the others' work is given up.

        Args:
            work: what they are asked for.
            clients: who.
            state: what each of them starts from, on the CPU.
            on_step: after each local step, in this process.
        """
        for group in self.federation.placements.groups(clients):
            yield from self.clients.work_together(group, work, state, on_step)
