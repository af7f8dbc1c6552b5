"""A site's half of a run: its clients' training and their halves of the secure aggregation, behind messages.

A round at a site: (1) ``train``: join each of the round's clients, train it on its own clips, answer with public keys; (2)
``shares``: share each client's secrets among its neighbours; (3) ``input``: encode, add the noise share, mask; (4)
``reveal``: help to remove the masks. Training comes first, so that whoever fails or is slow in it is gone before masks are
agreed. Updates, losses, scores, keys and the reasons of failures stay in this object.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from fedtalk.errors import ArtifactError, ConfigurationError, FedTalkError
from fedtalk.federation.engines.flower.agreement import agreement_of, check_sealed, differences
from fedtalk.federation.engines.flower.messages import Message, MessageError
from fedtalk.federation.engines.in_process import Engine, Failure, InProcess
from fedtalk.federation.federation import Federation
from fedtalk.federation.module import load_state
from fedtalk.privacy.private_rounds import PrivateRounds
from fedtalk.privacy.rounds import rounds_of
from fedtalk.privacy.secagg.client import Advertised, Shared, Submitted
from fedtalk.storage import write_json

log = logging.getLogger("fedtalk")

JOINED = "joined.json"
"""In the site's run folder: the newest round that was joined, so that a restart doesn't join it again."""


class SiteRefusal(FedTalkError):
    """A request that a site doesn't act on; the server is told why."""


@dataclass
class _Taking:
    """One client's part in the round under way."""

    state: Advertised | Shared | Submitted
    vector: np.ndarray | None
    """(d + 1,) or (d + 2,) float64, its contribution, until it is masked."""


class Site:
    """All clients of one data folder."""

    def __init__(self, federation: Federation, engine: Engine, check_stop: Callable[[], None]) -> None:
        """
        Args:
            federation: with the site's own placements; its module is held for the whole run.
            engine: for clients on this machine, not yet started.
            check_stop: called often; raises where the site was asked to stop.

        Raises:
            ConfigurationError: the config has no secure aggregation.
        """
        check_sealed(federation.privacy)
        self.federation, self.module, self.data = federation, federation.module, federation.data
        self._agreement, self._check_stop = agreement_of(federation), check_stop
        if not isinstance(engine, InProcess):
            raise ConfigurationError(f"engine: expected one for clients on this machine, got {type(engine).__name__}")
        self._engine = engine
        engine.start(federation, check_stop)
        self._joined = federation.run_dir / JOINED
        self._session: bytes | None = None
        self._private: PrivateRounds | None = None
        self._round, self._taking = -1, dict[str, _Taking]()
        self.final_state: dict[str, Tensor] | None = None
        """The adapter that the run ended with, once the server has said so."""
        self._handlers: dict[str, Callable[[Message], Message]] = {
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
            message = Message.decode(request)
            handler = self._handlers.get(message.kind)
            if handler is None:
                raise SiteRefusal(f"expected a request, got a message of kind {message.kind}")
            return handler(message).encode()
        except FedTalkError as error:
            log.warning("refused a request of the server: %s", error)
            return Message("refused", {"why": str(error)}).encode()
        except Exception as error:  # what broke may tell about clips: it stays in this site's own log
            log.exception("a request of the server could not be answered: %s", error)
            return Message("refused", {"why": "an error at the site; its own log says which"}).encode()

    def _hello(self, message: Message) -> Message:
        self._check_agreement(message)
        log.info("the server has the same configuration; %d clients take part", len(self.data.clients))
        return Message("answer", {"clients": self.data.clients})

    def _check_agreement(self, message: Message) -> None:
        differing = differences(message.get("agreement", dict), self._agreement)
        if differing:
            raise SiteRefusal(
                f"expected the same configuration on both sides, got others: {'; '.join(differing)}. Give server and sites "
                "the same config file and fedtalk version; placement and data folder may differ"
            )

    def _train(self, message: Message) -> Message:
        self._check_agreement(message)
        private = self._private_rounds(message)
        number = message.get("round", int)
        state = self._state(message)
        invitations = self._own(message.parts, but="state")
        joined = {
            client: private.member(client, self._last_round()).join(invitation)
            for client, invitation in invitations.items()
        }
        write_json(self._joined, {"session": private.settings.session.hex(), "round": number})
        self._round, self._taking = number, {}
        private.clip_norm = self._clip_norm(message)
        keys: dict[str, bytes] = {}
        log.info("round %d: %s train", number, ", ".join(joined))
        for client, update in self._engine.updates(number, list(joined), state, self._after_step):
            if isinstance(update, Failure):  # whatever its data or device does, it costs its own update only
                log.warning("round %d: client %s failed and is left out: %s", number, client, update)
                continue
            advertised, advertisement = joined[client]
            self._taking[client] = _Taking(advertised, update.contribution)
            keys[client] = advertisement
        return Message("answer", {"round": number}, keys)

    def _after_step(self, client: str, step: int, losses: dict[str, float]) -> None:
        self._check_stop()

    def _shares(self, message: Message) -> Message:
        def share(client: str, taking: _Taking, roster: bytes) -> bytes:
            assert isinstance(taking.state, Advertised)
            taking.state, reply = taking.state.receive_roster(roster)
            return reply

        return self._each(message, Advertised, share)

    def _input(self, message: Message) -> Message:
        private = self._private

        def submit(client: str, taking: _Taking, delivery: bytes) -> bytes:
            assert isinstance(taking.state, Shared) and private is not None and taking.vector is not None
            elements = private.encoding(self._round).elements(client, taking.vector, taking.state.roster_size)
            taking.state, reply = taking.state.receive_shares(delivery, elements)
            taking.vector = None
            return reply

        return self._each(message, Shared, submit)

    def _reveal(self, message: Message) -> Message:
        def reveal(client: str, taking: _Taking, request: bytes) -> bytes:
            assert isinstance(taking.state, Submitted)
            reply = taking.state.reveal(request)
            del self._taking[client]  # its secrets of this round are needed no more
            return reply

        return self._each(message, Submitted, reveal)

    def _finish(self, message: Message) -> Message:
        self._check_agreement(message)
        self.final_state = self._state(message)
        load_state(self.module.exchanged_parameters(), self.final_state)
        return Message("answer")

    def _each(self, message: Message, expected: type, step: Callable[[str, _Taking, bytes], bytes]) -> Message:
        """Take a step of the protocol with each client that is at that step; one that refuses has dropped out.

        Raises:
            SiteRefusal: the round isn't the one under way, a client isn't this site's or doesn't take part, or a step is
                asked for out of turn.
        """
        number, parts = message.get("round", int), self._own(message.parts)
        if number != self._round:
            raise SiteRefusal(f"{message.kind}: expected round {self._round}, the one under way, got {number}")
        for client in parts:
            if client not in self._taking or not isinstance(self._taking[client].state, expected):
                at = type(self._taking[client].state).__name__ if client in self._taking else "not taking part"
                raise SiteRefusal(f"{message.kind}: expected client {client} to be {expected.__name__}, got it {at}")
        replies = {}
        for client, part in parts.items():
            try:
                replies[client] = step(client, self._taking[client], part)
            except FedTalkError as error:
                log.warning("round %d: client %s takes no further part: %s", number, client, error)
                self._taking.pop(client, None)
        return Message("answer", {"round": number}, replies)

    def _own(self, parts: Mapping[str, bytes], but: str = "") -> dict[str, bytes]:
        """The parts of clients, all of whom must be this site's."""
        mine = {client: part for client, part in parts.items() if client != but}
        strangers = sorted(mine.keys() - set(self.data.clients))
        if strangers:
            raise SiteRefusal(f"expected clients of this site only, got {strangers[:8]}")
        return mine

    def _state(self, message: Message) -> dict[str, Tensor]:
        """The broadcast state, in the order of this module's own parameters."""
        expected = {name: tuple(value.shape) for name, value in self.module.exchanged_parameters().items()}
        try:
            state = load(message.parts.get("state", b""))
        except SafetensorError as error:
            raise MessageError(f"{message.kind}: its state can't be read ({error})") from error
        if {name: tuple(value.shape) for name, value in state.items()} != expected:
            raise MessageError(f"{message.kind}: expected a state of {len(expected)} tensors of this model, got others")
        return {name: state[name] for name in expected}

    def _clip_norm(self, message: Message) -> float:
        clip_norm = message.get("clip_norm", (int, float))
        if not 0 < clip_norm < float("inf"):
            raise MessageError(f"{message.kind}: expected a finite clip_norm above 0, got {clip_norm}")
        return float(clip_norm)

    def _private_rounds(self, message: Message) -> PrivateRounds:
        """This run's clipping, encoding and noise, made from this site's own config when its session is first heard of."""
        session = bytes.fromhex(message.get("session", str))
        if session == self._session and self._private is not None:
            return self._private
        registered, ids = message.get("registered", int), message.get("ids", dict)
        if ids.keys() != set(self.data.clients) or len(set(ids.values())) != len(ids):
            raise SiteRefusal(
                f"expected a number for each of this site's clients {self.data.clients[:8]}, got {list(ids)[:8]}; if clips were "
                "added or removed since the run began, start it again"
            )
        names = [f"#{number}" for number in range(registered)]  # of clients elsewhere nothing but their number is known
        for client, number in ids.items():
            if type(number) is not int or not 0 <= number < registered:
                raise SiteRefusal(f"client {client}: expected a number below {registered}, got {number!r}")
            names[number] = client
        private = rounds_of(self.federation.privacy, self.federation.plan(names, session))
        assert isinstance(private, PrivateRounds)  # its privacy was checked at the start
        self._private = self._engine.sealed = private
        self._session, self._round, self._taking = session, -1, {}
        return private

    def _last_round(self) -> int:
        """The newest round of this session that was joined before this process was started."""
        if not self._joined.exists():
            return -1
        try:
            saved: dict[str, Any] = json.loads(self._joined.read_text(encoding="utf-8"))
            same = saved["session"] == (self._session or b"").hex()
            return int(saved["round"]) if same else -1
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{self._joined} can't be read ({type(error).__name__}); remove it") from error
