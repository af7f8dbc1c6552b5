"""A site's half of a run: its clients' training and their halves of the secure aggregation, behind messages.

A round at a site: (1) ``train``: join each of the round's clients, train it on its own clips, answer with public keys; (2)
``shares``: share each client's secrets among its neighbours; (3) ``input``: encode, add the noise share, mask; (4)
``reveal``: help to remove the masks. Training comes first, so that whoever fails or is slow in it is gone before masks are
agreed. Updates, losses, scores, keys and the reasons of failures stay in this object.

Each client is by itself: it has a slot of the time that the server gives, whatever the others do with theirs, and an answer
of its own in the site's message. What one client does (fail, hang, run out of memory, break the protocol, reach the end of
its budget) takes it alone out of the sum.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.federation.engines.flower.agreement import agreement_of, check_sealed, differences
from fedtalk.federation.engines.flower.messages import STATE, MessageError, SiteMessage
from fedtalk.federation.engines.flower.refusals import SiteRefusal, told
from fedtalk.federation.engines.flower.site_session import SiteAccount, SiteSession, session_of
from fedtalk.federation.engines.in_process import Engine, InProcess
from fedtalk.federation.federation import Federation
from fedtalk.federation.local_work import Failure
from fedtalk.planning.preconditions import check_placements
from fedtalk.privacy.secagg.client import Advertised, Shared, Submitted
from fedtalk.training.module import load_state

log = logging.getLogger("fedtalk")

ANSWERING = 0.1
"""Share of the server's time for training that a site keeps for its answer's way."""
RESTARTS = 2.0
"""Starts of a process that a client's slot allows for, if the client before it has taken its process down."""


@dataclass
class _Taking:
    """One client's part in the round under way."""

    state: Advertised | Shared | Submitted
    vector: np.ndarray | None
    """(d + 1,) or (d + 2,) float64, its contribution, until it is masked."""


class Site:
    """All clients of one data folder."""

    def __init__(
        self, federation: Federation, engine: Engine, account: SiteAccount, check_stop: Callable[[], None]
    ) -> None:
        """
        Args:
            federation: with the site's own placements; its module is held for the whole run.
            engine: for clients on this machine, not yet started.
            account: what the site's people may give, and have given.
            check_stop: called often; raises where the site was asked to stop.

        Raises:
            ConfigurationError: the config has no secure aggregation, or noise and clients that can take each other down.
        """
        privacy = check_sealed(federation.privacy)
        check_placements(federation)
        self.federation, self.module, self.data = federation, federation.module, federation.data
        self._agreement, self._account, self._check_stop = agreement_of(federation), account, check_stop
        if not isinstance(engine, InProcess):
            raise ConfigurationError(f"engine: expected one for clients on this machine, got {type(engine).__name__}")
        if privacy.noised and len(self.data.clients) > 1 and not engine.isolates:
            raise ConfigurationError(
                f"trainer.workers: with noise a client's trouble must cost its own update alone, but here "
                f"{len(self.data.clients)} clients train in one process, which the one that hangs or runs out of memory would "
                "take down: expected processes of their own, got workers: 1. Set trainer.workers: 2 at this site, or more"
            )
        self._engine, began = engine, time.monotonic()
        engine.start(federation, check_stop)
        self._start_seconds = time.monotonic() - began
        self._session: SiteSession | None = None
        self._round, self._taking = -1, dict[str, _Taking]()
        self.final_state: dict[str, Tensor] | None = None
        """The adapter that the run ended with, once the server has said so."""
        self._handlers: dict[str, Callable[[SiteMessage], SiteMessage]] = {
            "hello": self._hello, "train": self._train, "shares": self._shares, "input": self._input,
            "reveal": self._reveal, "finish": self._finish,
        }  # fmt: skip

    def close(self) -> None:
        """End the site's worker processes, if it has any."""
        self._engine.stop()

    def answer(self, request: bytes) -> bytes:
        """The answer to one request; one that is refused leaves the round under way as it was.

        Raises:
            Interrupted: the process was asked to stop.
        """
        try:
            message = SiteMessage.decode(request)
            handler = self._handlers.get(message.kind)
            if handler is None:
                raise SiteRefusal(f"expected a request, got a message of kind {message.kind}")
            return handler(message).encode()
        except Exception as error:
            if isinstance(error, FedTalkError):
                log.warning("refused a request of the server: %s", error)
            else:
                log.exception("a request of the server could not be answered: %s", error)
            return SiteMessage("refused", {"why": told(error)}).encode()

    def _hello(self, message: SiteMessage) -> SiteMessage:
        self._check_agreement(message)
        log.info("the server has the same configuration; %d clients take part", len(self.data.clients))
        return SiteMessage("answer", {"clients": self.data.clients})

    def _check_agreement(self, message: SiteMessage) -> None:
        differing = differences(message.get("agreement", dict), self._agreement)
        if differing:
            raise SiteRefusal(
                f"expected the same configuration on both sides, got others: {'; '.join(differing)}. Give server and sites "
                "the same config file and fedtalk version; placement and data folder may differ"
            )

    def _train(self, message: SiteMessage) -> SiteMessage:
        self._check_agreement(message)
        session, number, state = self._session_of(message), message.get("round", int), self._state(message)
        invitations = self._own(message.parts, but=STATE)
        clip_norm, slot = self._clip_norm(message), self._slot(message, len(invitations))
        joined: dict[str, tuple[Advertised, bytes]] = {}
        for client, invitation in invitations.items():
            try:
                refused = session.refusal(client, number)
                if refused is not None:
                    raise SiteRefusal(refused)
                joined[client] = session.private.member(client, session.last_round).join(invitation)
            except Exception as error:
                why = self._left_out(number, client, error)
        if not joined:
            raise SiteRefusal(why)
        session.join(number)
        self._round, self._taking = number, {}
        session.private.clip_norm = clip_norm
        keys: dict[str, bytes] = {}
        log.info("round %d: %s train", number, ", ".join(joined))
        local = self.federation.local
        local = replace(local, deadline_seconds=min(slot, local.deadline_seconds or math.inf))
        self._engine.federation = replace(self.federation, local=local)
        try:
            for client, update in self._engine.updates(number, list(joined), state, self._after_step):
                if isinstance(update, Failure):
                    self._left_out(number, client, update)
                    continue
                advertised, advertisement = joined[client]
                self._taking[client] = _Taking(advertised, update.contribution)
                keys[client] = advertisement
        finally:
            self._engine.federation = self.federation
        return SiteMessage("answer", {"round": number}, keys)

    def _after_step(self, client: str, step: int, losses: dict[str, float]) -> None:
        self._check_stop()

    def _slot(self, message: SiteMessage, clients: int) -> float:
        """Seconds that each client has, so that all of them have as long whatever the others do.

        Raises:
            SiteRefusal: none are left of the server's time.
        """
        seconds, engine = float(message.get("seconds", (int, float))), self._engine
        in_turn = math.ceil(max(1, clients) / engine.at_once)
        slot = seconds * (1 - ANSWERING) / in_turn - (RESTARTS * self._start_seconds if engine.isolates else 0.0)
        if not 0 < slot < math.inf:
            raise SiteRefusal(
                f"flower.training_seconds: expected time for {clients} clients, {engine.at_once} at once, of which each may "
                f"have to start its process anew ({self._start_seconds:.0f} s), got {seconds:g} s"
            )
        return slot

    def _left_out(self, number: int, client: str, why: object) -> str:
        """One client takes no further part; the others do. What is told of it, in this site's own log."""
        log.warning("round %d: client %s is left out: %s", number, client, why)
        self._taking.pop(client, None)
        return told(why)

    def _shares(self, message: SiteMessage) -> SiteMessage:
        def share(client: str, taking: _Taking, roster: bytes) -> bytes:
            assert isinstance(taking.state, Advertised)
            taking.state, reply = taking.state.receive_roster(roster)
            return reply

        return self._each(message, Advertised, share)

    def _input(self, message: SiteMessage) -> SiteMessage:
        session = self._session

        def submit(client: str, taking: _Taking, delivery: bytes) -> bytes:
            assert isinstance(taking.state, Shared) and session is not None and taking.vector is not None
            elements = session.private.encoding(self._round).elements(client, taking.vector, taking.state.roster_size)
            taking.state, reply = taking.state.receive_shares(delivery, elements)
            taking.vector = None
            session.give([client], self._round)
            return reply

        return self._each(message, Shared, submit)

    def _reveal(self, message: SiteMessage) -> SiteMessage:
        def reveal(client: str, taking: _Taking, request: bytes) -> bytes:
            assert isinstance(taking.state, Submitted)
            reply = taking.state.reveal(request)
            del self._taking[client]  # its secrets of this round are needed no more
            return reply

        return self._each(message, Submitted, reveal)

    def _finish(self, message: SiteMessage) -> SiteMessage:
        self._check_agreement(message)
        if self._session is not None and session_of(message) != self._session.id:
            raise SiteRefusal("finish: expected the session under way, got another one's")
        self.final_state = self._state(message)
        load_state(self.module.exchanged_parameters(), self.final_state)
        return SiteMessage("answer")

    def _each(self, message: SiteMessage, expected: type, step: Callable[[str, _Taking, bytes], bytes]) -> SiteMessage:
        """Take a step of the protocol with each client that is at that step; the others have dropped out.

        Raises:
            SiteRefusal: the round isn't the one under way, or nobody of this site takes this step in it.
        """
        number, parts = message.get("round", int), self._own(message.parts)
        if self._session is None or session_of(message) != self._session.id or number != self._round:
            raise SiteRefusal(f"{message.kind}: expected round {self._round}, the one under way, got {number}")
        replies, why = {}, ""
        for client, part in parts.items():
            try:
                taking = self._taking.get(client)
                if taking is None or not isinstance(taking.state, expected):
                    at = "not taking part" if taking is None else type(taking.state).__name__
                    raise SiteRefusal(
                        f"{message.kind}: expected client {client} to be {expected.__name__}, got it {at}"
                    )
                replies[client] = step(client, taking, part)
            except Exception as error:
                why = self._left_out(number, client, error)
        if not replies:
            raise SiteRefusal(why)
        return SiteMessage("answer", {"round": number}, replies)

    def _own(self, parts: Mapping[str, bytes], but: str = "") -> dict[str, bytes]:
        """The parts of this site's clients.

        Raises:
            SiteRefusal: there are none.
        """
        theirs = {client: part for client, part in parts.items() if client != but}
        mine = {client: part for client, part in theirs.items() if client in set(self.data.clients)}
        strangers = sorted(theirs.keys() - mine.keys())
        if strangers:
            log.warning("the server asks for clients that are not of this site (any more): %s", strangers[:8])
        if not mine:
            raise SiteRefusal(f"expected clients of this site, got {strangers[:8]}")
        return mine

    def _state(self, message: SiteMessage) -> dict[str, Tensor]:
        """The broadcast state, in the order of this module's own parameters."""
        expected = {name: tuple(value.shape) for name, value in self.module.exchanged_parameters().items()}
        try:
            state = load(message.parts.get(STATE, b""))
        except SafetensorError as error:
            raise MessageError(f"{message.kind}: its state can't be read ({error})") from error
        if {name: tuple(value.shape) for name, value in state.items()} != expected:
            raise MessageError(f"{message.kind}: expected a state of {len(expected)} tensors of this model, got others")
        return {name: state[name] for name in expected}

    def _clip_norm(self, message: SiteMessage) -> float:
        clip_norm = message.get("clip_norm", (int, float))
        if not 0 < clip_norm < float("inf"):
            raise MessageError(f"{message.kind}: expected a finite clip_norm above 0, got {clip_norm}")
        return float(clip_norm)

    def _session_of(self, message: SiteMessage) -> SiteSession:
        """The session that a message is of, made when it is first heard of."""
        if self._session is None or session_of(message) != self._session.id:
            self._session = SiteSession(message, self.federation, self._agreement, self._account)
            self._engine.sealed = self._session.private
            self._round, self._taking = -1, {}
        return self._session
