"""The server's half of a run across organisations: each exchange of the secure aggregation is one round of messages."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence

from safetensors.torch import save
from torch import Tensor

from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.federation.engines.flower.agreement import agreement_of, check_sealed
from fedtalk.federation.engines.flower.messages import MOST_NAME, STATE, MessageError, SiteMessage
from fedtalk.federation.engines.flower.roster import SiteClients
from fedtalk.federation.engines.flower.transport import Transport
from fedtalk.federation.engines.in_process import Engine, RoundSum
from fedtalk.federation.federation import Federation
from fedtalk.federation.local_work import OnStep
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.secagg.errors import AbortedRound, RefusedMessage
from fedtalk.privacy.secagg.messages import LARGEST_CLIENT_ID
from fedtalk.privacy.secagg.server import CollectingInputs, CollectingKeys, CollectingShares
from fedtalk.privacy.secagg.unmasking import CollectingReveals

log = logging.getLogger("fedtalk")

Collector = CollectingKeys | CollectingShares | CollectingInputs | CollectingReveals


def gather(
    transport: Transport,
    agreement: Mapping[str, str],
    sites: Sequence[str],
    seconds: float,
    check_stop: Callable[[], None],
) -> dict[str, list[str]]:
    """Ask each connected site who its clients are, having made sure that it is configured as the server is.

    Raises:
        ConfigurationError: a site differs from the server, or gives no list of names.
        FedTalkError: a site gives no answer.
    """
    hello = SiteMessage("hello", {"agreement": dict(agreement)}).encode()
    answers = transport.ask(dict.fromkeys(sites, hello), seconds, check_stop)
    clients_of: dict[str, list[str]] = {}
    for site in sites:
        if site not in answers:
            raise FedTalkError(
                f"site {site}: expected an answer within {seconds:g} s, got none; see its own log, then start again"
            )
        try:
            answer = SiteMessage.decode(answers[site])
            if answer.kind == "refused":
                raise ConfigurationError(answer.why)
            clients = answer.get("clients", list)
            if not clients or not all(isinstance(client, str) and 0 < len(client) <= MOST_NAME for client in clients):
                raise MessageError(f"expected the names of its clients, got {clients!r:.80}")
        except FedTalkError as error:
            raise ConfigurationError(f"site {site}: {error}") from error
        clients_of[site] = clients
        log.info("site %s: %d clients", site, len(clients))
    return clients_of


class FlowerEngine(Engine):
    """Sites do their clients' part, this process the server's; what passes between them is `SiteMessage` in bytes.

    A round: (1) charge the ledger; (2) broadcast state and invitations, sites train and advertise keys; (3) shares; (4)
    masked vectors; (5) reveal; (6) open and decode the sum. A site that is late has dropped out with its clients. In the
    protocol clients have ids that are drawn for each round, so that rosters tell sites nothing from one round to the next.
    """

    def __init__(self, transport: Transport, training_seconds: float, answer_seconds: float) -> None:
        """
        Args:
            transport: to the sites.
            training_seconds: for a site's training of a round, all of its clients together; the site gives each its slot.
            answer_seconds: for each of the other answers.
        """
        self._transport, self._training_seconds, self._answer_seconds = transport, training_seconds, answer_seconds

    def start(self, federation: Federation, check_stop: Callable[[], None]) -> None:
        """
        Raises:
            ConfigurationError: without secure aggregation, or without sites.
        """
        super().start(federation, check_stop)
        check_sealed(federation.privacy)
        if federation.enough < 1:
            raise ConfigurationError(
                f"trainer.enough: expected 1 across organisations, got {federation.enough}: there flower.training_seconds says "
                "how long a round waits for its sites"
            )
        if not isinstance(federation.data, SiteClients):
            raise ConfigurationError(f"data: expected SiteClients at the server, got {type(federation.data).__name__}")
        self._site_of = federation.data.site_of
        self._agreement = agreement_of(federation)

    def run_round(
        self, round_number: int, cohort: Sequence[str], state: Mapping[str, Tensor], on_step: OnStep
    ) -> RoundSum:
        private, result = self._private, RoundSum()
        private.charge()
        result.failures = dict.fromkeys(cohort, "dropped out")
        needed = private.updates_needed(len(cohort))
        try:
            if len(cohort) < needed:
                raise AbortedRound(f"{len(cohort)} clients were drawn, {needed} needed")
            self._sum(private, round_number, cohort, state, needed, result)
        except AbortedRound as error:
            result.total = None
            log.warning("round %d is void: %s; the adapter stays as it is", round_number, error)
        return result

    @property
    def _private(self) -> PrivateRounds:
        assert isinstance(self.sealed, PrivateRounds)  # its privacy was checked at the start
        return self.sealed

    def _sum(
        self,
        private: PrivateRounds,
        number: int,
        cohort: Sequence[str],
        state: Mapping[str, Tensor],
        needed: int,
        result: RoundSum,
    ) -> None:
        drawn = secrets.SystemRandom().sample(range(LARGEST_CLIENT_ID + 1), len(cohort))
        self._ids = dict(zip(cohort, drawn, strict=True))
        collecting_keys = CollectingKeys(drawn, private.settings, number)
        run = {
            "agreement": self._agreement, "registered": len(private.ids), "clip_norm": private.clip_norm,
            "seconds": self._training_seconds,
        }  # fmt: skip
        invitations = collecting_keys.invitations()
        members = self._exchange("train", collecting_keys, invitations, number, needed, run, save(dict(state)))
        collecting_shares, rosters = collecting_keys.close()
        self._exchange("shares", collecting_shares, rosters, number, needed)
        collecting_inputs, deliveries = collecting_shares.close()
        survivors = self._exchange("input", collecting_inputs, deliveries, number, needed)
        collecting_reveals, requests = collecting_inputs.close()
        self._exchange("reveal", collecting_reveals, requests, number, 0)
        total = collecting_reveals.close().total
        result.total = private.decoding(number).decoded(total, len(members), len(survivors))
        result.updates = len(survivors)
        for client in survivors:
            del result.failures[client]

    def _exchange(
        self,
        kind: str,
        collector: Collector,
        outgoing: Mapping[int, bytes],
        number: int,
        needed: int,
        run: Mapping[str, object] | None = None,
        state: bytes | None = None,
    ) -> list[str]:
        """One request to each site that has clients in ``outgoing``; the clients whose messages were taken.

        Raises:
            AbortedRound: they are fewer than ``needed``.
        """
        ids, names = self._ids, {drawn: client for client, drawn in self._ids.items()}
        session = self._private.settings.session.hex()
        parts: dict[str, dict[str, bytes]] = {}
        for client_id, part in outgoing.items():
            parts.setdefault(self._site_of[names[client_id]], {})[names[client_id]] = part
        requests = {}
        for site, own in parts.items():
            fields = {"session": session, "round": number, **(run or {})}
            requests[site] = SiteMessage(kind, fields, own if state is None else {STATE: state, **own}).encode()
        seconds = self._training_seconds if kind == "train" else self._answer_seconds
        answers = self._transport.ask(requests, seconds, self.check_stop)
        taken = []
        for site, data in sorted(answers.items()):
            try:
                answer = SiteMessage.decode(data)
                if answer.kind != "answer":
                    raise RefusedMessage(f"it refused: {answer.why}")
                if answer.get("round", int) != number:
                    raise RefusedMessage(f"it answered in round {answer.get('round', int)}")
            except FedTalkError as error:
                log.warning("round %d: site %s takes no further part: %s", number, site, error)
                continue
            for client, part in answer.parts.items():
                try:
                    if client not in parts[site]:
                        raise RefusedMessage("expected messages of clients that it was asked for")
                    collector.receive(ids[client], part)
                    taken.append(client)
                except RefusedMessage as error:
                    log.warning("round %d: a message of site %s was dropped: %s", number, site, error)
        log.info("round %d, %s: %d of %d clients answered", number, kind, len(taken), len(outgoing))
        if len(taken) < needed:
            raise AbortedRound(f"{kind}: {len(taken)} of {len(outgoing)} clients answered, {needed} needed")
        return taken

    def finish(self, state: Mapping[str, Tensor]) -> list[str]:
        """Give every site the adapter that the run ended with; returns the sites that took it."""
        fields = {"agreement": self._agreement, "session": self._private.settings.session.hex()}
        request = SiteMessage("finish", fields, {STATE: save(dict(state))}).encode()
        sites = sorted(set(self._site_of.values()))
        answers = self._transport.ask(dict.fromkeys(sites, request), self._answer_seconds, self.check_stop)
        took = []
        for site in sites:
            try:
                if site in answers and SiteMessage.decode(answers[site]).kind == "answer":
                    took.append(site)
                    continue
            except MessageError as error:
                log.warning("site %s: %s", site, error)
            log.warning("site %s did not take the final adapter; it is in RUN/adapters/released", site)
        return took
